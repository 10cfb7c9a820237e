"""The evaluation as one page that a reviewer can put beside the paper: self-contained, for screen and print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

from inference.evaluation.canvas import Drawn
from inference.evaluation.change import NOTABLE_CHANGE_MMHG
from inference.evaluation.comparison import Comparison
from inference.evaluation.evaluate import Evaluation
from inference.evaluation.limits import Limits
from inference.evaluation.markup import inline, page, pairs, paragraph, table
from inference.evaluation.methods import METHODS, methods_list
from inference.evaluation.published import TABLE_FIGURES, YOON, Published
from inference.evaluation.resampling import FEWEST_PATIENTS, Figure, Resampling
from inference.evaluation.thresholds import Discrimination
from inference.evaluation.words import FIGURE_WORDS, VARIABLE_WORDS, bounded, estimate, number, unit
from inference.prediction import ModelIdentity

NOTICE = "Research use only. Not a medical device."
DEMO = "synthetic-demo"
ACCURACY_ROWS = (
    "mean_absolute_error",
    "absolute_error_sd",
    "root_mean_square_error",
    "baseline_mae",
    "skill",
    "bias",
    "error_sd",
    "slope",
    "intercept",
    "calibration_slope",
    "correlation",
    "squared_correlation",
    "explained",
    "concordance",
    "proportional_bias_on_mean",
    "proportional_bias_on_measured",
)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a report comes from."""

    identity: ModelIdentity | None  # of the package that predicted, if it was named
    table_sha256: str  # of the predictions
    code_version: str
    made_at: datetime


def evaluation_page(
    evaluation: Evaluation, figures: Sequence[Drawn], provenance: Provenance, published: Published = YOON
) -> str:
    """The report of one model as HTML."""
    numbers = {figure.name: k for k, figure in enumerate(figures, start=1)}
    drawn = {figure.name: inline(figure, numbers[figure.name]) for figure in figures}
    body = [
        *_head("Evaluation", _name(evaluation, provenance), provenance),
        _cohort(evaluation, provenance),
        _headline(evaluation),
    ]
    body += ["<h2>1. The quantities of the paper's Table 1</h2>", _paper_table(evaluation, published)]
    body += [paragraph(published.note, "note")] if published.note else []
    body += ["<h2>2. Agreement</h2>", drawn["bland-altman"], _limits_table(evaluation), drawn["regression"]]
    body += [_accuracy_table(evaluation), "<h2>3. Change within patients</h2>", *_change(evaluation, drawn)]
    body += ["<h2>4. Subgroups</h2>", *_subgroups(evaluation, drawn)]
    body += ["<h2>5. Telling patients above a threshold from those below</h2>", *_thresholds(evaluation, drawn)]
    body += ["<h2>6. Coverage of the prediction interval</h2>", *_coverage(evaluation)]
    body += ["<h2>7. Data</h2>", *_data(evaluation)]
    body += ["<h2>8. Methods and sources</h2>", methods_list(_methods()), _seed(evaluation.resampling)]
    return page(f"Evaluation of {_name(evaluation, provenance)}", [*body, _foot(provenance)])


def comparison_page(comparison: Comparison, figures: Sequence[Drawn], provenance: Provenance) -> str:
    """The report of two models as HTML."""
    rows = [
        (
            _with_unit(name),
            *(
                estimate(figures_of[name], name) if name in figures_of else ""
                for figures_of in (comparison.of_first, comparison.of_second, comparison.difference)
            ),
        )
        for name in comparison.difference
    ]
    body = [
        *_head("Comparison", f"{comparison.second} against {comparison.first}", provenance),
        pairs(
            [
                ("First model", comparison.first),
                ("Second model", comparison.second),
                ("Shared patients, examinations", f"{comparison.patients}, {comparison.examinations}"),
                ("Left out: predicted by one only", f"{comparison.only_first} first, {comparison.only_second} second"),
                (
                    "Mean distance between the two",
                    f"{number(comparison.mean_absolute_disagreement_mmhg, 'bias')} mmHg",
                ),
                (
                    "Second model nearer to the measurement",
                    f"{100 * comparison.share_nearer_second:.0f} % of examinations (ties count half)",
                ),
            ]
        ),
        "<h2>1. Figures and their differences</h2>",
        table(("Figure (95 % interval)", "First", "Second", "Second − first"), rows),
        *(inline(figure, k) for k, figure in enumerate(figures, start=1)),
        "<h2>2. Methods and sources</h2>",
        methods_list(
            {name: METHODS[name] for name in ("errors", "intervals", "comparison", "r2", "concordance", "roc")}
        ),
        _seed(comparison.resampling),
        _foot(provenance),
    ]
    return page(f"Comparison of {comparison.first} and {comparison.second}", body)


def _head(kind: str, subject: str, provenance: Provenance) -> list[str]:
    identity = provenance.identity
    demo = identity is not None and identity.kind == DEMO
    notice = f"{NOTICE} SYNTHETIC DEMO: trained on drawings; says nothing of any person." if demo else NOTICE
    lines = [
        f'<div class="band{" demo" if demo else ""}">{notice}</div>',
        f"<h1>{_escaped(kind)}: {_escaped(subject)}</h1>",
    ]
    return [
        *lines,
        paragraph(
            "Mean pulmonary artery pressure from a chest radiograph and an ECG, against catheterisation", "subtitle"
        ),
    ]


def _name(evaluation: Evaluation, provenance: Provenance) -> str:
    if provenance.identity is not None:
        return f"{provenance.identity.name} {provenance.identity.version}"
    return evaluation.model or "a model without a name"


def _cohort(evaluation: Evaluation, provenance: Provenance) -> str:
    cohort, identity = evaluation.cohort, provenance.identity
    items = [
        ("Patients", f"{cohort.patients} ({cohort.patients_seen_more_than_once} with several examinations)"),
        ("Examinations", str(cohort.examinations)),
        (
            "Measured mPAP, mean ± SD (range)",
            f"{cohort.measured_mean_mmhg:.1f} ± {cohort.measured_sd_mmhg:.1f} "
            f"({cohort.measured_lowest_mmhg:.0f} to {cohort.measured_highest_mmhg:.0f}) mmHg",
        ),
        ("Rows refused", str(cohort.rows_refused)),
    ]
    if identity is None:
        items.append(("Package", "not named with --package"))
    else:
        items += [
            ("Package", f"{identity.name} {identity.version} ({identity.kind})"),
            ("Network", identity.architecture),
            ("Package digest (sha256)", identity.digest),
        ]
    return pairs([*items, ("Predictions (sha256)", provenance.table_sha256)])


def _headline(evaluation: Evaluation) -> str:
    figures = evaluation.figures
    limits = evaluation.repeated or evaluation.limits
    again = ", repeated visits" if evaluation.repeated else ""
    tiles = [
        (
            f"{number(figures['mean_absolute_error'].value, 'bias')} mmHg",
            f"mean absolute error (95 % interval {_range(figures['mean_absolute_error'], 'bias')}); predicting the "
            f"cohort's mean for everybody errs by {number(figures['baseline_mae'].value, 'bias')} mmHg",
        ),
        (
            f"{number(limits.lower.value, 'bias')} to {number(limits.upper.value, 'bias')}",
            f"95 % limits of agreement, mmHg{again}; {limits.upper.value - limits.lower.value:.1f} mmHg wide "
            f"(intervals in section 2)",
        ),
        (
            f"{number(figures['slope'].value)}",
            f"slope of predicted on measured ({_range(figures['slope'], 'slope')}): 1 would follow the pressure fully, "
            "0 not at all",
        ),
        (
            f"{number(figures['explained'].value)}",
            f"1 − SSE/SST ({_range(figures['explained'], 'explained')}); the squared correlation, blind to bias and "
            f"shrinkage, is {estimate(figures['squared_correlation'], 'squared_correlation')}",
        ),
    ]
    inner = "".join(f"<div><b>{_escaped(value)}</b><span>{_escaped(text)}</span></div>" for value, text in tiles)
    return f'<div class="headline">{inner}</div>'


def _paper_table(evaluation: Evaluation, published: Published) -> str:
    figures, limits = evaluation.figures, evaluation.limits
    spread = f"± {number(figures['absolute_error_sd'].value, 'bias')}"
    measured = {
        "mae_sd": f"{number(figures['mean_absolute_error'].value, 'bias')} {spread} "
        f"({_range(figures['mean_absolute_error'], 'bias')})",
        **{
            name: estimate(figures[name], name)
            for name in ("slope", "squared_correlation", "explained", "root_mean_square_error", "bias")
        },
        "limits": f"{bounded(limits.lower)} and {bounded(limits.upper)}",
        "limits_width": number(limits.upper.value - limits.lower.value, "bias"),
        "measured_sd": number(evaluation.cohort.measured_sd_mmhg, "bias"),
    }
    rows = [(words, measured[name], published.values.get(name, "–")) for name, words in TABLE_FIGURES.items()]
    return table(("Quantity", "This cohort (95 % interval)", published.label), rows)


def _limits_table(evaluation: Evaluation) -> str:
    def row(name: str, limits: Limits) -> tuple[str, ...]:
        return name, bounded(limits.bias), f"{limits.sd:.1f}", bounded(limits.lower), bounded(limits.upper)

    figures = evaluation.figures
    rows = []
    if evaluation.repeated:
        rows.append(row("Repeated visits (Zou 2013, MOVER)", evaluation.repeated))
        name = "Repeated visits (Bland-Altman 2007, bootstrap)"
        rows.append(
            (
                name,
                estimate(figures["bias"], "bias"),
                number(figures["repeated_sd"].value, "bias"),
                estimate(figures["repeated_lower_limit"], "bias"),
                estimate(figures["repeated_upper_limit"], "bias"),
            )
        )
    rows.append(row("Each examination by itself (Carkeet 2015, exact)", evaluation.limits))
    header = ("Limits of agreement, mmHg (95 % interval)", "Bias", "SD", "Lower limit", "Upper limit")
    return table(header, rows, kind="wide")


def _accuracy_table(evaluation: Evaluation) -> str:
    rows = [
        (
            _with_unit(name),
            number(evaluation.figures[name].value, name),
            _range(evaluation.figures[name], name),
            evaluation.figures[name].method,
        )
        for name in ACCURACY_ROWS
    ]
    return table(("Figure", "Value", "95 % interval", "Interval by"), rows)


def _change(evaluation: Evaluation, drawn: dict[str, str]) -> list[str]:
    change = evaluation.change
    if change is None:
        return [paragraph(f"Fewer than {FEWEST_PATIENTS} patients with two dated visits: not assessed.")]
    rows = [
        (_with_unit(name), number(figure.value, name), _range(figure, name)) for name, figure in change.figures.items()
    ]
    text = (
        f"{change.changes} changes between consecutive visits of {change.patients} patients; {change.notable_changes} "
        f"of at least {NOTABLE_CHANGE_MMHG:.0f} mmHg. A model that tells patients apart need not follow one patient."
    )
    return [paragraph(text), drawn["longitudinal"], table(("Changes", "Value", "95 % interval"), rows)]


def _subgroups(evaluation: Evaluation, drawn: dict[str, str]) -> list[str]:
    if not evaluation.subgroups:
        return [paragraph("The table records no sex, age, smoking, group, site or scanner.")]
    rows: list[Sequence[str]] = []
    variable = ""
    for group in evaluation.subgroups:
        if group.variable != variable:
            rows.append((VARIABLE_WORDS[group.variable],))
            variable = group.variable
        if group.suppressed:
            rows.append((group.level, f"< {FEWEST_PATIENTS}", *["suppressed"] * 5))
            continue
        names = ("mean_absolute_error", "bias", "error_sd", "squared_correlation", "coverage_by_patient")
        cells = [estimate(group.figures[name], name) if name in group.figures else "–" for name in names]
        rows.append((group.level, f"{group.patients} / {group.examinations}", *cells))
    header = ("Subgroup", "Patients / exam.", "MAE, mmHg", "Bias, mmHg", "SD of error, mmHg", "r²", "Coverage, %")
    note = (
        f"Groups of fewer than {FEWEST_PATIENTS} patients are suppressed, so that nobody reads much into few patients; "
        "this is no disclosure control. Examinations without a recorded value belong to no group."
    )
    figure = [drawn["subgroups"]] if "subgroups" in drawn else []
    return [*figure, table(header, rows, kind="wide"), paragraph(note, "note")]


def _thresholds(evaluation: Evaluation, drawn: dict[str, str]) -> list[str]:
    parts = []
    for item in evaluation.thresholds:
        name = item.threshold.name.replace(">=", "≥")
        if not isinstance(item, Discrimination):
            parts.append(paragraph(f"mPAP {name}: not assessed, {item.reason}."))
            continue
        figures = dict(item.figures)
        rows = [(_with_unit(key), number(figures[key].value, key), _range(figures[key], key)) for key in figures]
        if item.calibration:
            rows += [
                (
                    f"Calibration: {words}",
                    number(item.calibration.figures[key].value, printed),
                    _range(item.calibration.figures[key], printed),
                )
                for key, printed, words in (
                    ("brier", "brier", "Brier score"),
                    ("mean_predicted", "mean_predicted", "mean predicted probability, %"),
                    ("mean_observed", "mean_observed", "share observed, %"),
                    ("slope", "", "slope (1 is right)"),
                    # In logits, not in mmHg as the regression's intercept is.
                    ("intercept", "", "intercept at slope 1 (0 is right)"),
                )
            ]
        parts += [drawn[f"threshold-{item.threshold.mmhg:.0f}"]]
        parts += [table((f"mPAP {name}", "Value", "95 % interval"), rows)]
        if not item.calibration:
            parts.append(
                paragraph("The table gives no probabilities for this threshold: calibration is not assessed.", "note")
            )
        parts.append(paragraph(f"Definition: {item.threshold.source}.", "note"))
    return parts


def _coverage(evaluation: Evaluation) -> list[str]:
    covered = evaluation.coverage
    if covered is None:
        return [paragraph(f"The table gives bounds for fewer than {FEWEST_PATIENTS} patients: not assessed.")]
    rows = [(_with_unit(name), number(f.value, name), _range(f, name)) for name, f in covered.figures.items()]
    text = f"{covered.examinations} examinations of {covered.patients} patients came with an interval."
    return [paragraph(text), table(("Interval", "Value", "95 % interval"), rows)]


def _data(evaluation: Evaluation) -> list[str]:
    refused = evaluation.cohort.refused
    if not refused:
        return [paragraph("Every row of the table was used.")]
    rows = [(f"{row.counted} {row.line}", row.column or "whole", row.reason) for row in refused]
    text = f"{evaluation.cohort.rows_refused} rows were refused and left out; nothing was guessed or filled in."
    return [paragraph(text), table(("Row", "Column", "Reason"), rows)]


def _methods() -> dict[str, str]:
    return {name: text for name, text in METHODS.items() if name != "comparison"}


def _seed(resampling: Resampling) -> str:
    return paragraph(f"{resampling.repeats:,} resamples of patients, seed {resampling.seed}.", "note")


def _foot(provenance: Provenance) -> str:
    text = f"pulmolink {provenance.code_version}, {provenance.made_at:%Y-%m-%d %H:%M} UTC. {NOTICE}"
    return f"<footer>{_escaped(text)}</footer>"


def _with_unit(name: str, words: str = "") -> str:
    text = words or FIGURE_WORDS.get(name, name)
    return f"{text}, {unit(name)}" if unit(name) else text


def _range(figure: Figure, name: str) -> str:
    if not math.isfinite(figure.low):
        return "not defined"
    return f"{number(figure.low, name)} to {number(figure.high, name)}"


def _escaped(text: str) -> str:
    return escape(text)
