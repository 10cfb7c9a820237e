"""How far predictions lie from measurements: every figure as a function of sums over patients.

Errors are predicted minus measured, mmHg. The figures are computed over examinations; their intervals come from
resampling patients (`resampling`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.evaluation.resampling import Array, patient_sums

SPREAD = 1.959963984540054  # standard deviations on either side that hold 95% of a normal distribution
_N, _X, _Y, _XX, _YY, _XY, _ABS, _M2, _D2M, _ONE, _ABSMEAN = range(11)


def accuracy_sums(patient: NDArray[np.intp], measured: Array, predicted: Array) -> tuple[Array, float]:
    """What `accuracy` needs, [patients, 11], and the offset that both arrays were shifted by for precision."""
    offset = float(measured.mean())
    x, y = measured - offset, predicted - offset
    columns = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y, np.abs(y - x)], axis=1)
    sums = patient_sums(patient, columns)
    m, d = sums[:, _N], sums[:, _Y] - sums[:, _X]
    from_mean = patient_sums(patient, np.abs(x)[:, None])
    extra = np.stack([m * m, d * d / m, np.ones_like(m)], axis=1)
    return np.concatenate([sums, extra, from_mean], axis=1), offset


def accuracy(sums: Array, offset: float) -> dict[str, Array]:
    """Figures by name from sums [..., 11], an array [...] each. NaN where a figure is not defined.

    ============================  =====================================================================
    mean_absolute_error           mean |error|, mmHg
    absolute_error_sd             SD of |error|; with the mean, "MAE +/- SD", mmHg
    bias                          mean error, mmHg
    error_sd                      SD of the error (n - 1), mmHg
    root_mean_square_error        mmHg
    slope, intercept              least squares, predicted on measured, as Yoon et al. Table 1 print the slope
    correlation                   Pearson's r
    squared_correlation           r^2: what Yoon et al. Table 1 call R2
    explained                     1 - SSE/SST, the coefficient of determination of the predictions as they are
    concordance                   Lin's concordance correlation (Biometrics 1989;45:255), variances over n
    calibration_slope             least squares, measured on predicted: 1 if predictions are spread as they should
    proportional_bias_on_mean     slope of error on (predicted + measured)/2 (Bland and Altman 1999, 3.2)
    proportional_bias_on_measured slope of error on measured (Krouwer, Stat Med 2008;27:778): slope - 1
    lower_limit, upper_limit      bias -/+ 1.96 SD (Bland and Altman, Lancet 1986;1:307), as if visits were patients
    repeated_sd                   SD of a difference, visits within patients (Bland and Altman 2007, 2.3)
    repeated_lower_limit, ...     bias -/+ 1.96 of it
    baseline_mae                  mean |error| of giving everybody the cohort's mean, mmHg
    skill                         1 - mean_absolute_error / baseline_mae
    ============================  =====================================================================
    """
    s = np.moveaxis(sums, -1, 0)
    n = s[_N]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_x, mean_y = s[_X] / n, s[_Y] / n
        xx, yy = s[_XX] - n * mean_x**2, s[_YY] - n * mean_y**2
        xy = s[_XY] - n * mean_x * mean_y
        # A difference of large sums is not exactly zero where nothing varies.
        xx, yy = (np.where(v > 1e-9 * (1.0 + raw), v, 0.0) for v, raw in ((xx, s[_XX]), (yy, s[_YY])))
        of_x, of_y = np.where(xx > 0.0, xx, np.nan), np.where(yy > 0.0, yy, np.nan)  # to divide by
        squares = s[_XX] + s[_YY] - 2.0 * s[_XY]
        bias = mean_y - mean_x
        centred = np.maximum(squares - n * bias**2, 0.0)
        error_sd = np.sqrt(centred / (n - 1.0))
        slope, correlation = xy / of_x, xy / np.sqrt(of_x * of_y)
        mean_error = s[_ABS] / n
        repeated_sd = _repeated_sd(s, squares, n, bias)
        baseline = s[_ABSMEAN] / n
        return {
            "mean_absolute_error": mean_error,
            "absolute_error_sd": np.sqrt(np.maximum(squares - n * mean_error**2, 0.0) / (n - 1.0)),
            "bias": bias,
            "error_sd": error_sd,
            "root_mean_square_error": np.sqrt(squares / n),
            "slope": slope,
            "intercept": mean_y + offset - slope * (mean_x + offset),
            "correlation": correlation,
            "squared_correlation": correlation**2,
            "explained": 1.0 - squares / of_x,
            "concordance": 2.0 * xy / (xx + yy + n * bias**2),
            "calibration_slope": xy / of_y,
            "proportional_bias_on_mean": 2.0 * (yy - xx) / (xx + yy + 2.0 * xy),
            "proportional_bias_on_measured": slope - 1.0,
            "lower_limit": bias - SPREAD * error_sd,
            "upper_limit": bias + SPREAD * error_sd,
            "repeated_sd": repeated_sd,
            "repeated_lower_limit": bias - SPREAD * repeated_sd,
            "repeated_upper_limit": bias + SPREAD * repeated_sd,
            "baseline_mae": baseline,
            "skill": 1.0 - mean_error / baseline,
        }


def _repeated_sd(s: Array, squares: Array, n: Array, bias: Array) -> Array:
    """SD of one difference where the true value varies: between patients and within, by one-way analysis of variance.

    Bland and Altman, J Biopharm Stat 2007;17:571. NaN where no patient was seen twice. A negative component between
    patients counts as none.
    """
    patients = s[_ONE]
    within_squares = np.maximum(squares - s[_D2M], 0.0)
    between_squares = np.maximum(s[_D2M] - n * bias**2, 0.0)
    within = np.where(n > patients, within_squares / (n - patients), np.nan)
    visits = (n - s[_M2] / n) / (patients - 1.0)
    between = np.maximum((between_squares / (patients - 1.0) - within) / visits, 0.0)
    return np.asarray(np.sqrt(within + between))
