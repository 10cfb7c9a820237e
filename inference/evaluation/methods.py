"""How each figure of a report is computed and who proposed it, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

METHODS = {
    "errors": "Errors are predicted minus measured. Figures are computed over examinations.",
    "intervals": "Intervals: whole patients are resampled, so that examinations of one patient stay together; "
    "bias-corrected and accelerated (BCa; Efron, J Am Stat Assoc 1987;82:171), or percentiles where the table says so. "
    "A share that is the same in every resample (all, or none) has Wilson's interval, patients being the trials "
    "(Newcombe, Stat Med 1998;17:857).",
    "mae": "MAE ± SD: mean and standard deviation of the absolute error.",
    "r2": "The squared correlation is what Yoon et al. print as R2. It forgives any bias and any shrinkage; "
    "1 − SSE/SST (the coefficient of determination of the predictions as they stand) forgives neither.",
    "limits": "Limits of agreement: bias ± 1.96 SD (Bland and Altman, Lancet 1986;1:307); confidence intervals exact, "
    "from the non-central t distribution (Carkeet, Optom Vis Sci 2015;92:e71), for examinations taken as independent.",
    "repeated": "Repeated visits, the true value varying: variance between and within patients by one-way analysis of "
    "variance (Bland and Altman, J Biopharm Stat 2007;17:571), intervals by bootstrap; and with patients weighted "
    "equally and MOVER intervals (Zou, Stat Methods Med Res 2013;22:630). Where patients come more than once these "
    "are the limits to cite.",
    "proportional": "Proportional bias: slope of the error on the mean of both (Bland and Altman, Stat Methods Med Res "
    "1999;8:135) and on the measured value, the better of the two methods (Krouwer, Stat Med 2008;27:778). Regression "
    "to the mean alone makes both negative.",
    "concordance": "Concordance correlation: Lin, Biometrics 1989;45:255.",
    "baseline": "Predicting the mean: the mean absolute error of giving every examination this cohort's own mean, the "
    "least that a model must beat.",
    "change": "Change: differences between consecutive dated visits. Correlation within patients: about each patient's "
    "own means (Bland and Altman, BMJ 1995;310:446).",
    "roc": "ROC area with ties counted half (Hanley and McNeil, Radiology 1982;143:29); average precision is the "
    "step-wise area under precision and recall. Only where at least ten patients were measured on either side of the "
    "threshold; predictive values hold at this cohort's prevalence.",
    "calibration": "Calibration slope and intercept: logistic regression of the outcome on the logit of the "
    "probability (Cox, Biometrika 1958;45:562), logits cut at ± 12.",
    "coverage": "Coverage by patient: the mean over patients of the share of a patient's examinations whose measured "
    "value lies in the interval.",
    "comparison": "Comparison: the same resampled patients for both models; the interval is that of the difference.",
}


def methods_list(methods: Mapping[str, str]) -> str:
    """The sentences as an HTML list."""
    return '<ul class="methods">' + "".join(f"<li>{escape(text)}</li>" for text in methods.values()) + "</ul>"
