"""Write an evaluation or a comparison into a folder: JSON, CSV, figures, one page, the model card's numbers."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from inference.evaluation.canvas import Drawn
from inference.evaluation.comparison import Comparison
from inference.evaluation.evaluate import Evaluation
from inference.evaluation.page import NOTICE, Provenance, comparison_page, evaluation_page
from inference.evaluation.published import YOON, Published
from inference.evaluation.resampling import Figure
from inference.evaluation.thresholds import Discrimination
from inference.evaluation.words import FIGURE_WORDS, estimate, number, unit

CARD_FIGURES = (
    "mean_absolute_error",
    "bias",
    "error_sd",
    "correlation",
    "slope",
    "explained",
    "root_mean_square_error",
    "squared_correlation",
    "concordance",
)
SCHEMA = 1
FIGURE_NAMES = (
    "bland-altman",
    "regression",
    "longitudinal",
    "subgroups",
    "threshold-20",
    "threshold-25",
    "comparison",
)


def evaluation_json(evaluation: Evaluation, provenance: Provenance) -> dict[str, object]:
    """Everything, as JSON holds it: undefined figures are null, every error and limit in mmHg."""
    body = asdict(evaluation)
    if evaluation.change is not None:
        # One row a change is a row a patient: the page draws them, the figures stand for them.
        body["change"] = {
            k: v for k, v in body["change"].items() if not k.startswith(("patient_", "measured", "predicted"))
        }
        del body["change"]["patient"]
    head = {"schema": SCHEMA, "kind": "evaluation", "notice": NOTICE, "provenance": _provenance(provenance)}
    return _plain({**head, **body})  # type: ignore[return-value]


def comparison_json(comparison: Comparison, provenance: Provenance) -> dict[str, object]:
    """As `evaluation_json`, of a comparison."""
    head = {"schema": SCHEMA, "kind": "comparison", "notice": NOTICE, "provenance": _provenance(provenance)}
    return _plain({**head, **asdict(comparison)})  # type: ignore[return-value]


def card_metrics(evaluation: Evaluation) -> dict[str, object]:
    """The numbers for a package's manifest and card, under the manifest's own names."""
    metrics: dict[str, object] = {
        "patients": evaluation.cohort.patients,
        "examinations": evaluation.cohort.examinations,
        **{name: _rounded(evaluation.figures[name]) for name in CARD_FIGURES},
        "mean_absolute_error_of_predicting_the_mean": round(evaluation.figures["baseline_mae"].value, 3),
    }
    if evaluation.coverage is not None:
        metrics["interval_coverage_by_patient"] = _rounded(evaluation.coverage.figures["coverage_by_patient"])
    return _plain(metrics)  # type: ignore[return-value]


def card_section(evaluation: Evaluation) -> str:
    """The same numbers as a section of a model card, Markdown."""
    cohort = evaluation.cohort
    lines = [
        f"## Evaluated on {cohort.patients} patients, {cohort.examinations} examinations",
        "",
        f"Measured mPAP {cohort.measured_mean_mmhg:.1f} ± {cohort.measured_sd_mmhg:.1f} mmHg. {NOTICE}",
        "",
        "| figure | value (95% interval, bootstrap by patient) |",
        "|---|---|",
    ]
    for name in (*CARD_FIGURES, "baseline_mae"):
        label = FIGURE_WORDS[name] + (f", {unit(name)}" if unit(name) else "")
        lines.append(f"| {label} | {estimate(evaluation.figures[name], name)} |")
    limits, how = evaluation.repeated or evaluation.limits, "MOVER" if evaluation.repeated else "exact"
    for side, limit in (("Lower", limits.lower), ("Upper", limits.upper)):
        told = f"{number(limit.value, 'bias')} ({number(limit.low, 'bias')} to {number(limit.high, 'bias')}, {how})"
        lines.append(f"| {side} 95% limit of agreement, mmHg | {told} |")
    if evaluation.coverage is not None:
        covered = evaluation.coverage.figures["coverage_by_patient"]
        lines.append(f"| Interval coverage by patient, % | {estimate(covered, 'coverage')} |")
    return "\n".join([*lines, ""])


def write_evaluation(
    folder: Path,
    evaluation: Evaluation,
    figures: Sequence[Drawn],
    provenance: Provenance,
    published: Published = YOON,
) -> None:
    """Write evaluation.json, figures.csv, subgroups.csv, card.json, card.md, report.html and figures/ into `folder`.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "evaluation.json", _json(evaluation_json(evaluation, provenance)))
    _write_rows(
        folder / "figures.csv", ("section", "figure", "value", "low", "high", "method", "unit"), _rows(evaluation)
    )
    _write_rows(
        folder / "subgroups.csv",
        ("variable", "level", "suppressed", "patients", "examinations", "figure", "value", "low", "high"),
        _subgroup_rows(evaluation),
    )
    _write(folder / "card.json", _json(card_metrics(evaluation)))
    _write(folder / "card.md", card_section(evaluation))
    _write_figures(folder / "figures", figures)
    _write(folder / "report.html", evaluation_page(evaluation, figures, provenance, published))


def write_comparison(folder: Path, comparison: Comparison, figures: Sequence[Drawn], provenance: Provenance) -> None:
    """Write comparison.json, comparison.csv, report.html and figures/ into `folder`. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "comparison.json", _json(comparison_json(comparison, provenance)))
    sides = (("first", comparison.of_first), ("second", comparison.of_second), ("difference", comparison.difference))
    _write_rows(
        folder / "comparison.csv",
        ("section", "figure", "value", "low", "high", "method", "unit"),
        [row for side, of in sides for row in _figure_rows(side, of)],
    )
    _write_figures(folder / "figures", figures)
    _write(folder / "report.html", comparison_page(comparison, figures, provenance))


def _rows(evaluation: Evaluation) -> list[tuple[object, ...]]:
    rows = _figure_rows("accuracy", evaluation.figures)
    for name, limits in (("limits, exact", evaluation.limits), ("limits, repeated visits", evaluation.repeated)):
        if limits is not None:
            method = "non-central t" if name == "limits, exact" else "MOVER"
            for part in ("bias", "lower", "upper"):
                item = getattr(limits, part)
                used = method if part != "bias" else "t"
                rows.append((name, part, _cell(item.value), _cell(item.low), _cell(item.high), used, "mmHg"))
            rows.append((name, "sd", _cell(limits.sd), "", "", "", "mmHg"))
    if evaluation.change is not None:
        rows += _figure_rows("change", evaluation.change.figures)
    if evaluation.coverage is not None:
        rows += _figure_rows("interval", evaluation.coverage.figures)
    for item in evaluation.thresholds:
        if isinstance(item, Discrimination):
            rows += _figure_rows(item.threshold.name, item.figures)
            if item.calibration is not None:
                rows += _figure_rows(f"{item.threshold.name}, calibration", item.calibration.figures)
    return rows


def _figure_rows(section: str, figures: Mapping[str, Figure]) -> list[tuple[object, ...]]:
    return [
        # Shares are written as shares here; only the page prints per cent.
        (section, name, _cell(f.value), _cell(f.low), _cell(f.high), f.method, "mmHg" if unit(name) == "mmHg" else "")
        for name, f in figures.items()
    ]


def _subgroup_rows(evaluation: Evaluation) -> Iterable[tuple[object, ...]]:
    for group in evaluation.subgroups:
        head = (group.variable, group.level, "yes" if group.suppressed else "no")
        if group.suppressed:
            yield (*head, "", "", "", "", "", "")
        for name, figure in group.figures.items():
            yield (
                *head,
                group.patients,
                group.examinations,
                name,
                *map(_cell, (figure.value, figure.low, figure.high)),
            )


def _provenance(provenance: Provenance) -> dict[str, object]:
    return {
        "package": asdict(provenance.identity) if provenance.identity else None,
        "predictions_sha256": provenance.table_sha256,
        "code_version": provenance.code_version,
        "made_at": provenance.made_at.isoformat(timespec="seconds"),
    }


def _rounded(figure: Figure) -> dict[str, float]:
    return {"value": round(figure.value, 3), "low": round(figure.low, 3), "high": round(figure.high, 3)}


def _cell(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _json(body: object) -> str:
    return json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _write_figures(folder: Path, figures: Sequence[Drawn]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # What an earlier run drew and this one does not must not lie beside the new report.
    for name in FIGURE_NAMES:
        for kind in ("png", "svg"):
            (folder / f"{name}.{kind}").unlink(missing_ok=True)
    for figure in figures:
        _write(folder / f"{figure.name}.png", figure.png)
        _write(folder / f"{figure.name}.svg", figure.svg)


def _write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    _write(path, text.getvalue())


def _write(path: Path, content: str | bytes) -> None:
    """Whole or not at all: a report that was cut short must not look like one."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(content if isinstance(content, bytes) else content.encode())
    beside.replace(path)
