"""The figures of an evaluation: agreement, regression, visits over time, subgroups, thresholds, two models."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from inference.evaluation.canvas import (
    BLUE,
    GREEN,
    GREY,
    INK,
    MANY_POINTS,
    ORANGE,
    PALE,
    SKY,
    VERMILION,
    Drawn,
    draw,
)
from inference.evaluation.comparison import SMALLER_IS_BETTER, Comparison
from inference.evaluation.evaluate import Evaluation
from inference.evaluation.resampling import FEWEST_PATIENTS, Array, Figure
from inference.evaluation.shares import wilson_interval
from inference.evaluation.subgroups import Subgroup
from inference.evaluation.table import Predictions
from inference.evaluation.thresholds import Discrimination, Ranking
from inference.evaluation.words import FIGURE_WORDS, VARIABLE_WORDS, estimate, number

SHOWN_PATIENTS = 6
HALVES = 2
UNJUDGED = ("slope",)  # nearer to 1 is better, from either side


def all_figures(predictions: Predictions, evaluation: Evaluation, footer: str) -> tuple[Drawn, ...]:
    """Every figure that this cohort supports, in the order of the report."""
    figures = [bland_altman(predictions, evaluation, footer), regression(predictions, evaluation, footer)]
    if evaluation.change is not None:
        figures.append(longitudinal(predictions, evaluation, footer))
    if any(not group.suppressed for group in evaluation.subgroups):
        figures.append(forest(evaluation, footer))
    for item in evaluation.thresholds:
        if isinstance(item, Discrimination):
            figures.append(threshold(predictions, item, footer))
    return tuple(figures)


def bland_altman(predictions: Predictions, evaluation: Evaluation, footer: str) -> Drawn:
    """Error against the mean of both, with bias, limits and their confidence bands."""
    measured, predicted = predictions.measured_mmhg, predictions.predicted_mmhg
    limits = evaluation.repeated or evaluation.limits
    how = "repeated visits (Zou 2013)" if evaluation.repeated else "single visits, exact"

    def paint(figure: Picture) -> None:
        axes = figure.subplots()
        mean, error = (measured + predicted) / 2.0, predicted - measured
        _points(axes, mean, error)
        left, right = float(mean.min()), float(mean.max())
        margin = 0.04 * (right - left)
        axes.set_xlim(left - margin, right + margin)
        for bound, colour, name in (
            (limits.upper, VERMILION, "upper limit"),
            (limits.bias, BLUE, "bias"),
            (limits.lower, VERMILION, "lower limit"),
        ):
            axes.axhspan(bound.low, bound.high, color=colour, alpha=0.13, lw=0)
            axes.axhline(bound.value, color=colour, lw=1.2, ls="-" if name == "bias" else (0, (5, 3)))
            axes.annotate(
                f"{name}\n{bound.value:+.1f}".replace("-", "\N{MINUS SIGN}"),
                (1.0, bound.value),
                xycoords=("axes fraction", "data"),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=colour,
                annotation_clip=False,
            )
        axes.axhline(0.0, color=INK, lw=0.6)
        slope = evaluation.figures["proportional_bias_on_mean"].value
        at = np.array([left, right])
        axes.plot(at, error.mean() + slope * (at - mean.mean()), color=GREY, lw=1.0, ls=":")
        axes.set_xlabel("Mean of predicted and measured mPAP (mmHg)")
        axes.set_ylabel("Predicted - measured mPAP (mmHg)".replace("-", "\N{MINUS SIGN}"))

    return draw(
        "bland-altman",
        "Bland-Altman plot of predicted and measured mean pulmonary artery pressure",
        f"Bland-Altman plot. One point an examination. Bias (solid) and limits of agreement (dashed), {how}, with "
        f"their 95 % confidence bands; the dotted line is the regression of error on mean "
        f"(slope {estimate(evaluation.figures['proportional_bias_on_mean'])}). A falling line means that high "
        "pressures are underestimated and low ones overestimated.",
        footer,
        (6.2, 4.2),
        paint,
    )


def regression(predictions: Predictions, evaluation: Evaluation, footer: str) -> Drawn:
    """Predicted against measured with the fitted line, as in the paper."""
    measured, predicted = predictions.measured_mmhg, predictions.predicted_mmhg
    slope, intercept = (evaluation.figures[name].value for name in ("slope", "intercept"))

    def paint(figure: Picture) -> None:
        axes = figure.subplots()
        _points(axes, measured, predicted)
        low = math.floor(min(measured.min(), predicted.min()) / 5.0) * 5.0
        high = math.floor(max(measured.max(), predicted.max()) / 5.0) * 5.0 + 5.0  # no point on the very edge
        axes.plot([low, high], [low, high], color=INK, lw=0.8, label="identity")
        at = np.array([measured.min(), measured.max()])
        axes.plot(at, intercept + slope * at, color=VERMILION, lw=1.4, label="least squares")
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        squared, explained = evaluation.figures["squared_correlation"], evaluation.figures["explained"]
        axes.annotate(
            f"predicted = {intercept:.1f} + {slope:.2f} × measured\n"
            f"r² = {number(squared.value)}    1 − SSE/SST = {number(explained.value)}",
            (0.02, 0.98),
            xycoords="axes fraction",
            va="top",
            fontsize=8,
        )
        axes.legend(loc="lower right")
        axes.set_xlabel("Measured mPAP, right heart catheterisation (mmHg)")
        axes.set_ylabel("Predicted mPAP (mmHg)")

    return draw(
        "regression",
        "Predicted against measured mean pulmonary artery pressure",
        "Predicted against measured mPAP, one point an examination, with the line of identity and the least-squares "
        "line of predicted on measured. Its slope and the squared correlation are the quantities that Yoon et al. "
        "print as slope and R2; 1 − SSE/SST is the share of variance that the predictions explain as they stand.",
        footer,
        (4.6, 4.7),
        paint,
    )


def longitudinal(predictions: Predictions, evaluation: Evaluation, footer: str) -> Drawn:
    """Courses of the patients with most visits, and every change between visits."""
    change = evaluation.change
    assert change is not None  # noqa: S101 - the caller asked
    chosen = _most_visited(predictions)

    def paint(figure: Picture) -> None:
        left, right = np.ravel(np.asarray(figure.subfigures(1, 2, width_ratios=(1.35, 1.0)), dtype=object))
        rows = math.ceil(len(chosen) / HALVES)
        grid = left.subplots(rows, HALVES, sharey=True, squeeze=False)
        for k, axes in enumerate(grid.ravel()):
            if k >= len(chosen):
                axes.set_visible(False)
                continue
            rows_of = np.flatnonzero((predictions.patient == chosen[k]) & ~np.isnat(predictions.acquired_at))
            rows_of = rows_of[np.argsort(predictions.acquired_at[rows_of])]
            at = predictions.acquired_at[rows_of]
            months = (at - at[0]) / np.timedelta64(1, "D") / 30.4375
            axes.plot(months, predictions.measured_mmhg[rows_of], "o-", color=BLUE, ms=3.5, lw=1.1, label="measured")
            axes.plot(
                months, predictions.predicted_mmhg[rows_of], "s--", color=VERMILION, ms=3.2, lw=1.1, label="predicted"
            )
            axes.set_title(f"Patient {chr(ord('A') + k)}", fontsize=8, fontweight="normal")
            if k + HALVES >= len(chosen):
                axes.set_xlabel("Months since first visit")
            if k == 0:
                axes.legend(loc="best", fontsize=7)
        left.supylabel("mPAP (mmHg)", fontsize=8.5)
        axes = right.subplots()
        _points(axes, change.measured_mmhg, change.predicted_mmhg)
        reach = 1.06 * max(np.abs(change.measured_mmhg).max(), np.abs(change.predicted_mmhg).max())
        axes.plot([-reach, reach], [-reach, reach], color=INK, lw=0.8)
        axes.axhline(0.0, color=PALE, lw=0.8, zorder=0)
        axes.axvline(0.0, color=PALE, lw=0.8, zorder=0)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes.set_xlabel("Measured change (mmHg)")
        axes.set_ylabel("Predicted change (mmHg)")

    return draw(
        "longitudinal",
        "Measured and predicted pressure over time, and changes between visits",
        f"Left: the {len(chosen)} patients with most dated visits (then widest measured range). Right: changes from "
        f"each visit to the next, {change.changes} in {change.patients} patients, with the line of identity; "
        f"correlation within patients {estimate(change.figures['within_patient_correlation'])}.",
        footer,
        (7.4, 4.4),
        paint,
    )


def forest(evaluation: Evaluation, footer: str) -> Drawn:
    """Mean absolute error and bias of each subgroup beside the whole."""
    shown = [group for group in evaluation.subgroups if not group.suppressed]
    lines: list[tuple[str, str, Subgroup | None]] = [("All", "", None)]
    previous = ""
    for group in shown:
        if group.variable != previous:
            lines.append((VARIABLE_WORDS[group.variable], "heading", None))
        previous = group.variable
        lines.append((group.level, "group", group))

    def paint(figure: Picture) -> None:
        panels = figure.subplots(1, HALVES, sharey=True)
        for axes, name in zip(panels, ("mean_absolute_error", "bias"), strict=True):
            whole = evaluation.figures[name]
            axes.axvspan(whole.low, whole.high, color=PALE, alpha=0.55, lw=0)
            if name == "bias":
                axes.axvline(0.0, color=INK, lw=0.7)
            for y, (_, kind, group) in enumerate(lines):
                if kind != "heading":
                    _bar(axes, group.figures[name] if group else whole, y, INK if group is None else BLUE)
            axes.set_xlabel(f"{FIGURE_WORDS[name]} (mmHg)")
        axes = panels[0]
        axes.set_yticks(
            range(len(lines)),
            [
                name if kind == "heading" else f"{name}  ({(group or evaluation.cohort).patients})"
                for name, kind, group in lines
            ],
        )
        for label, (_, kind, _group) in zip(axes.get_yticklabels(), lines, strict=True):
            label.set_fontweight("normal" if kind == "group" else "bold")
        axes.set_ylim(len(lines) - 0.4, -0.6)
        for panel in panels:
            panel.tick_params(axis="y", length=0)
            panel.spines["left"].set_visible(False)

    hidden = len(evaluation.subgroups) - len(shown)
    number = "1 group" if hidden == 1 else f"{hidden} groups"
    verb = "is" if hidden == 1 else "are"
    note = f" {number} of fewer than {FEWEST_PATIENTS} patients {verb} not shown." if hidden else ""
    return draw(
        "subgroups",
        "Mean absolute error and bias by subgroup",
        "Mean absolute error and bias by subgroup with 95 % intervals (bootstrap over patients); patients in brackets; "
        f"the grey band is the interval of the whole cohort.{note} The intervals are not corrected for their number.",
        footer,
        (6.8, 1.2 + 0.2 * len(lines)),
        paint,
    )


def threshold(predictions: Predictions, item: Discrimination, footer: str) -> Drawn:
    """ROC, precision-recall and, where the table gives probabilities, calibration at one threshold."""
    positive = item.threshold.above(predictions.measured_mmhg)
    ranking = Ranking(predictions.predicted_mmhg, positive)
    true, false = (counts[0] for counts in ranking.curve(np.ones((1, len(positive)))))
    name = item.threshold.name.replace(">=", "≥")

    def paint(figure: Picture) -> None:
        panels = figure.subplots(1, 3 if item.calibration else HALVES, squeeze=False)[0]
        axes = panels[0]
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
        axes.plot(np.append(0.0, false / false[-1]), np.append(0.0, true / true[-1]), color=BLUE, lw=1.5)
        at = (1.0 - item.figures["specificity"].value, item.figures["sensitivity"].value)
        axes.plot(*at, "o", color=VERMILION, ms=5)
        axes.annotate(
            f"AUROC {estimate(item.figures['auroc'])}", (0.98, 0.04), xycoords="axes fraction", ha="right", fontsize=7.5
        )
        axes.set(xlabel="1 − specificity", ylabel="Sensitivity", title="ROC")
        axes = panels[1]
        axes.axhline(item.prevalence, color=GREY, lw=0.8, ls=":")
        axes.step(true / true[-1], true / (true + false), where="pre", color=GREEN, lw=1.5)
        axes.plot(
            item.figures["sensitivity"].value,
            item.figures["positive_predictive_value"].value,
            "o",
            color=VERMILION,
            ms=5,
        )
        axes.annotate(
            f"average precision\n{estimate(item.figures['average_precision'])}",
            (0.04, 0.04),
            xycoords="axes fraction",
            fontsize=7.5,
        )
        axes.set(xlabel="Recall (sensitivity)", ylabel="Precision", title="Precision-recall")
        if item.calibration:
            axes = panels[2]
            axes.plot([0, 1], [0, 1], color=INK, lw=0.8)
            for group in item.calibration.bins:
                span = wilson_interval(group.observed * group.patients, group.patients)
                axes.plot([group.predicted] * 2, span, color=SKY, lw=1.0)
            axes.plot(
                [group.predicted for group in item.calibration.bins],
                [group.observed for group in item.calibration.bins],
                "o-",
                color=ORANGE,
                mec=INK,
                mew=0.4,
                ms=4.5,
                lw=1.0,
            )
            axes.set(xlabel="Predicted probability", ylabel="Observed share", title="Calibration")
        for axes in panels:
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
            axes.set_box_aspect(1)

    bins = (
        " Calibration: bins of equal size, each with Wilson's interval for its number of patients; bins of fewer than "
        f"{FEWEST_PATIENTS} patients are left out."
        if item.calibration
        else ""
    )
    return draw(
        f"threshold-{item.threshold.mmhg:.0f}",
        f"Discrimination at mPAP {name}",
        f"Discrimination at mPAP {name}: {item.patients_above} patients with such a measurement, "
        f"{item.patients_below} with another one (a patient may have both). Predicted mPAP "
        f"is the score; the dot is the cut at the threshold itself; dotted: no skill.{bins}",
        footer,
        (7.4 if item.calibration else 5.2, 2.9),
        paint,
    )


def comparison_forest(comparison: Comparison, footer: str) -> Drawn:
    """Differences of two models' figures, each on its own scale."""
    # A model that always says the same has no correlation: there is no interval to draw.
    names = [name for name, item in comparison.difference.items() if name != "bias" and math.isfinite(item.low)]

    def paint(figure: Picture) -> None:
        panels = figure.subplots(len(names), 1, squeeze=False)[:, 0]
        for axes, name in zip(panels, names, strict=True):
            item = comparison.difference[name]
            lower_wins = name in {*SMALLER_IS_BETTER, "absolute_bias"}
            settled = (item.low > 0 or item.high < 0) and name not in UNJUDGED
            better = (item.value < 0) == lower_wins
            colour = GREY if not settled else (BLUE if better else VERMILION)
            _bar(axes, item, 0, colour)
            axes.axvline(0.0, color=INK, lw=0.7)
            reach = 1.25 * max(abs(item.low), abs(item.high), 1e-6)
            axes.set(xlim=(-reach, reach), ylim=(-1, 1))
            axes.set_yticks([0], [FIGURE_WORDS.get(name, name)])
            axes.tick_params(axis="y", length=0)
            axes.tick_params(axis="x", labelsize=7)
            axes.spines["left"].set_visible(False)
        panels[-1].set_xlabel("Difference, second minus first")

    return draw(
        "comparison",
        "Differences between two models",
        "Differences of figures, second model minus first, with 95 % intervals from resampling the same patients for "
        "both; each on its own scale. Blue: the second is better; vermilion: worse; grey: the interval holds zero, or "
        "the figure (a slope) is not better for being larger.",
        footer,
        (6.4, 0.6 + 0.5 * len(names)),
        paint,
    )


def _points(axes: Axes, x: Array, y: Array) -> None:
    many = len(x) > MANY_POINTS
    axes.scatter(x, y, s=5 if many else 13, color=BLUE, alpha=0.25 if many else 0.5, lw=0, rasterized=many, zorder=2)


def _bar(axes: Axes, figure: Figure, y: float, colour: str) -> None:
    if math.isfinite(figure.low):
        axes.plot([figure.low, figure.high], [y, y], color=colour, lw=1.6, solid_capstyle="butt")
    axes.plot([figure.value], [y], "s", color=colour, ms=5)


def _most_visited(predictions: Predictions) -> list[int]:
    """Patients with most dated visits, then with the widest range of measured pressure."""
    dated = ~np.isnat(predictions.acquired_at)
    ranked = []
    for patient in np.unique(predictions.patient[dated]):
        values = predictions.measured_mmhg[dated & (predictions.patient == patient)]
        if len(values) > 1:
            ranked.append((-len(values), -float(np.ptp(values)), int(patient)))
    return [patient for _, _, patient in sorted(ranked)[:SHOWN_PATIENTS]]
