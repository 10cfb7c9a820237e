"""Published data of method comparisons, and seeded tables of predictions for the evaluation's tests."""

from __future__ import annotations

import numpy as np

from inference.evaluation.table import PROBABILITIES, Predictions

# Bland and Altman, Lancet 1986;1:307, table: first readings by Wright's large meter and the mini meter, l/min.
PEFR_LARGE = np.array(
    [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427], dtype=np.float64
)
PEFR_MINI = np.array(
    [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451], dtype=np.float64
)

# Bland and Altman, J Biopharm Stat 2007;17:571, table 1: cardiac output of 12 patients by two methods, RV and IC.
_CARDIAC = {
    1: "7.83 6.57 7.42 5.62 7.89 6.90 7.12 6.57 7.88 6.35",
    2: "6.16 4.06 7.26 4.29 6.71 4.26 6.54 4.09",
    3: "4.75 4.71 5.24 5.50 4.86 5.08 4.78 5.02 6.05 6.01 5.42 5.67",
    4: "4.21 4.14 3.61 4.20 3.72 4.61 3.87 4.68 3.92 5.04",
    5: "3.13 3.03 2.98 2.86 2.85 2.77 3.17 2.46 3.09 2.32 3.12 2.43",
    6: "5.92 5.90 6.42 5.81 5.92 5.70 6.27 5.76",
    7: "7.13 5.09 6.62 4.63 6.58 4.61 6.93 5.09",
    8: "4.54 4.72 4.81 4.61 5.11 4.36 5.29 4.20 5.39 4.36 5.57 4.20",
    9: "4.48 3.17 4.92 3.12 3.97 2.96",
    10: "4.22 4.35 4.65 4.62 4.74 3.16 4.44 3.53 4.50 3.53",
    11: "6.78 7.20 6.07 6.09 6.52 7.00 6.42 7.10 6.41 7.40 5.76 6.80",
    12: "5.06 4.50 4.72 4.20 4.90 3.80 4.80 3.80 4.90 4.20 5.10 4.50",
}
CARDIAC_PATIENT = np.concatenate([[number - 1] * (len(text.split()) // 2) for number, text in _CARDIAC.items()])
CARDIAC_RV = np.array([float(v) for text in _CARDIAC.values() for v in text.split()[0::2]])
CARDIAC_IC = np.array([float(v) for text in _CARDIAC.values() for v in text.split()[1::2]])


def cohort(
    patients: int = 120,
    *,
    seed: int = 3,
    visits: int = 3,
    noise: float = 6.0,
    slope: float = 0.6,
    lowest: float = 9.0,
    half_width: float | None = 12.0,
    model: str = "example",
) -> Predictions:
    """A seeded cohort with up to `visits` visits a patient; predictions shrink towards the mean.

    The measured values depend on seed, patients and visits alone: two models over one cohort differ in their errors.
    """
    rng = np.random.default_rng(seed)
    count = rng.integers(1, visits + 1, patients)
    patient = np.repeat(np.arange(patients), count)
    n = len(patient)
    measured = np.maximum(lowest, rng.gamma(8.0, 4.5, patients)[patient] + rng.normal(0.0, 5.0, n)).round()
    days = np.concatenate([np.cumsum(rng.integers(60, 400, k)) for k in count])
    sex = rng.choice(["F", "M"], patients)[patient]
    errors = np.random.default_rng([seed, len(model), int(noise * 10)])
    own = errors.normal(0.0, 0.5 * noise, patients)[patient]
    predicted = 36.0 + slope * (measured - 36.0) + own + errors.normal(0.0, 0.85 * noise, n)
    nothing = np.full(n, np.nan)
    return Predictions(
        model=model,
        examination=np.array([f"E{k:05d}" for k in range(n)]),
        patient=patient,
        measured_mmhg=measured,
        predicted_mmhg=predicted,
        lower_mmhg=nothing if half_width is None else predicted - half_width,
        upper_mmhg=nothing if half_width is None else predicted + half_width,
        probabilities={
            name: 1.0 / (1.0 + np.exp(-(predicted - cut) / 4.0))
            for name, cut in zip(PROBABILITIES, (20.0, 25.0), strict=True)
        },
        acquired_at=np.datetime64("2020-01-01", "us") + days.astype("timedelta64[D]"),
        age_years=np.clip(rng.normal(62.0, 12.0, patients), 20.0, 95.0)[patient].round(),
        groups={
            "sex": sex,
            "smoker": rng.choice(["never", "former", "current"], patients, p=[0.6, 0.37, 0.03])[patient],
            "ph_group": np.full(n, "", dtype=np.str_),
            "site": np.full(n, "A", dtype=np.str_),
            "scanner": np.full(n, "", dtype=np.str_),
        },
    )
