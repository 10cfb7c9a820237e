"""Names and numbers as a reader sees them: what each figure is called, its unit, how it is printed."""

from __future__ import annotations

import math

from inference.evaluation.limits import Bounded
from inference.evaluation.resampling import Figure

FIGURE_WORDS = {
    "mean_absolute_error": "Mean absolute error",
    "absolute_error_sd": "SD of the absolute error",
    "bias": "Bias",
    "absolute_bias": "Absolute bias",
    "error_sd": "SD of the error",
    "root_mean_square_error": "Root mean square error",
    "slope": "Slope, predicted on measured",
    "intercept": "Intercept, predicted on measured",
    "correlation": "Pearson's r",
    "squared_correlation": "Squared correlation r²",
    "explained": "1 − SSE/SST",
    "concordance": "Concordance correlation (Lin)",
    "calibration_slope": "Slope, measured on predicted",
    "proportional_bias_on_mean": "Proportional bias, error on mean",
    "proportional_bias_on_measured": "Proportional bias, error on measured",
    "lower_limit": "Lower limit of agreement",
    "upper_limit": "Upper limit of agreement",
    "repeated_sd": "SD of one difference, repeated visits",
    "repeated_lower_limit": "Lower limit, repeated visits",
    "repeated_upper_limit": "Upper limit, repeated visits",
    "baseline_mae": "Mean absolute error of predicting the mean",
    "skill": "Error spared against predicting the mean",
    "same_direction": "Direction right, changes of 5 mmHg or more",
    "within_patient_correlation": "Correlation within patients",
    "coverage": "Coverage, examinations",
    "coverage_by_patient": "Coverage, each patient counting once",
    "share_above": "Measured above the interval",
    "share_below": "Measured below the interval",
    "mean_width_mmhg": "Mean width of the interval",
    "auroc": "Area under the ROC curve",
    "average_precision": "Average precision",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "positive_predictive_value": "Positive predictive value",
    "negative_predictive_value": "Negative predictive value",
    "brier": "Brier score",
    "mean_predicted": "Mean predicted probability",
    "mean_observed": "Share observed",
    "auroc > 20 mmHg": "AUROC at > 20 mmHg",
    "auroc >= 25 mmHg": "AUROC at ≥ 25 mmHg",
}
UNIT_MMHG = frozenset(
    {
        "mean_absolute_error",
        "absolute_error_sd",
        "bias",
        "absolute_bias",
        "error_sd",
        "root_mean_square_error",
        "intercept",
        "lower_limit",
        "upper_limit",
        "repeated_sd",
        "repeated_lower_limit",
        "repeated_upper_limit",
        "baseline_mae",
        "mean_width_mmhg",
    }
)
SHARES = frozenset(
    {
        "skill",
        "same_direction",
        "coverage",
        "coverage_by_patient",
        "share_above",
        "share_below",
        "sensitivity",
        "specificity",
        "positive_predictive_value",
        "negative_predictive_value",
        "mean_predicted",
        "mean_observed",
    }
)
VARIABLE_WORDS = {
    "age_band": "Age, years",
    "sex": "Sex",
    "smoker": "Smoking",
    "ph_group": "PH group",
    "site": "Site",
    "scanner": "Scanner",
}


def unit(name: str) -> str:
    """mmHg, % or nothing."""
    return "mmHg" if name in UNIT_MMHG else "%" if name in SHARES else ""


def number(value: float, name: str = "") -> str:
    """A figure's value: mmHg with one decimal, a share in per cent, anything else with two; "n/a" if undefined."""
    if not math.isfinite(value):
        return "n/a"
    scaled = 100.0 * value if name in SHARES else value
    text = f"{scaled:.1f}" if unit(name) else f"{scaled:.2f}"
    text = text.lstrip("-") if float(text) == 0.0 else text
    return text.replace("-", "\N{MINUS SIGN}")


def estimate(figure: Figure, name: str = "") -> str:
    """A value with its interval, as in "8.2 (7.5 to 9.0)"."""
    if not math.isfinite(figure.low):
        return number(figure.value, name)
    return f"{number(figure.value, name)} ({number(figure.low, name)} to {number(figure.high, name)})"


def bounded(item: Bounded) -> str:
    """As `estimate`, of a bias or a limit of agreement."""
    return f"{number(item.value, 'bias')} ({number(item.low, 'bias')} to {number(item.high, 'bias')})"
