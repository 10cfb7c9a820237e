"""Predictions of a package for a labelled cohort, as the table that `model evaluate` reads."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

if TYPE_CHECKING:
    from inference.cohort import Checked, CohortRow
    from inference.evaluation.errors import RefusedRow
    from inference.manifest import Manifest
    from pacs_node.labelled import Source
    from pacs_node.opening.opener import Opener

COLUMNS = (
    "examination",
    "patient",
    "mpap_mmhg",
    "predicted_mmhg",
    "lower_mmhg",
    "upper_mmhg",
    "probability_above_20",
    "probability_at_least_25",
    "acquired_at",
    "sex",
    "age",
    "smoker",
    "ph_group",
    "site",
    "scanner",
    "model",
)


def predict_cohort(
    package: Path,
    cohort: Path,
    source: Source,
    table: Path,
    opener: Opener,
    *,
    part: str | None,
    zone: ZoneInfo,
    drop_refused: bool,
    split: Path | None = None,
    any_view: bool = False,
    device: str = "cpu",
) -> tuple[RefusedRow, ...]:
    """Predict every usable row of `cohort` as the service would, and write the table of predictions.

    Parameters
    ----------
    package, cohort
        The model's folder, and the table of labelled examinations.
    source
        Gives the files or objects that the table names.
    table
        CSV to write.
    opener
        Opens the files of the examinations.
    part
        Which rows: of this part of the split, or "all"; None is "test" where there is a split.
    zone
        Of times that name none.
    drop_refused
        Go on without the rows that are refused.
    split
        The split.csv of a training; None leaves the split to the table's own column.
    any_view
        The table vouches that every radiograph is a PA view of the chest.
    device
        Where the package computes, "cpu" or "cuda".

    Returns
    -------
    tuple of RefusedRow
        Rows that were left out, and why. They count from 1 below the head.

    Raises
    ------
    inference.evaluation.errors.EvaluationError
        If the part asked for is not told, or patients that the package was trained on would be taken for others.
    inference.evaluation.errors.TableRefused
        If a row is refused and `drop_refused` is not set, or none is left.
    inference.cohort.TableRefused
        If the cohort cannot be read at all.
    """
    from rich.console import Console
    from rich.progress import Progress

    from ecg_ingest import RenderStyle
    from inference.cohort import Refusal, read_cohort
    from inference.evaluation.errors import RefusedRow, TableRefused
    from inference.package import read_manifest
    from inference.predictor import Predictor
    from pacs_node.commands.train_cohort import tell_unread
    from pacs_node.labelled import Reading, read_examinations

    def refusal(found: Refusal) -> RefusedRow:
        return RefusedRow(line=found.row, column="", reason=found.detail, counted="row")

    checked, manifest = read_cohort(cohort), read_manifest(package)
    tell_unread(checked)
    rows, wanted = _asked(checked, cohort, manifest, part, split)
    refused = [refusal(item) for item in checked.refused]
    if refused and not drop_refused:
        raise TableRefused(tuple(refused), "correct them, or leave them out with --drop-refused")
    predictor = Predictor.load(package, device=device)
    reading = Reading(
        radiograph=predictor.preprocessing,
        style=RenderStyle(**predictor.ecg_style),  # type: ignore[arg-type]
        opener=opener,
        zone=zone,
        any_view=any_view,
    )
    lines: list[tuple[object, ...]] = []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Reading and predicting", total=len(rows))
        for row, examination in read_examinations(
            rows,
            source,
            reading,
            lambda found: refused.append(refusal(found)),
            lambda: bar.advance(task),
            beside=checked.rows,
        ):
            embedding = predictor.embed(examination.picture)
            found = predictor.predict(embedding, examination.lead_images)
            attributes = examination.attributes
            lines.append(
                (
                    examination.name,
                    row.patient,
                    f"{row.mpap_mmhg:g}",
                    *(f"{v:.3f}" for v in (found.mpap_mmhg, found.interval_low_mmhg, found.interval_high_mmhg)),
                    *(f"{v:.4f}" for v in (found.probability_above_20, found.probability_at_least_25)),
                    examination.acquired_at,
                    *(attributes.get(name, "") for name in COLUMNS[9:15]),
                    f"{predictor.identity.name} {predictor.identity.version}",
                )
            )
    if not lines or (refused and not drop_refused):
        nothing = RefusedRow(line=0, column="", reason=f"holds no usable row of the part {wanted!r}")
        raise TableRefused(tuple(refused) or (nothing,), "correct them, or leave them out with --drop-refused")
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(lines)
    return tuple(refused)


def _asked(
    checked: Checked, cohort: Path, manifest: Manifest, part: str | None, split: Path | None
) -> tuple[list[CohortRow], str]:
    """The rows of the part that is asked for, and its name."""
    from inference.evaluation.errors import EvaluationError
    from inference.split import read_parts

    own = any(row.split for row in checked.rows)
    if split is not None and own:
        raise EvaluationError("the cohort gives a split of its own", "leave --split out, or the column split")
    try:
        parts = {} if split is None else read_parts(split)
    except ValueError as error:
        raise EvaluationError(f"--split: {error}") from error
    if split is not None and (unnamed := {row.patient for row in checked.rows} - set(parts)):
        those = "1 patient" if len(unnamed) == 1 else f"{len(unnamed)} patients"
        click.echo(f"warning: {split.name} does not name {those} of the table: of no part", err=True)
    told = own or bool(parts)
    wanted = part or ("test" if told else "all")
    if wanted != "all" and not told:
        raise EvaluationError(
            f"the cohort gives no split, so no {wanted} part", "leave --part out, or give --split RUN/split.csv"
        )
    if not told and manifest.data.get("cohort_sha256") == hashlib.sha256(cohort.read_bytes()).hexdigest():
        taught = "the package was trained on this very table, which gives no split: most of its patients taught it"
        if part is None:
            raise EvaluationError(
                taught,
                "give --split RUN/split.csv for its test patients, or a table of other patients; --part all shows how "
                "well it fits its own",
            )
        click.echo(f"warning: {taught}", err=True)
    return [row for row in checked.rows if wanted in {"all", row.split or parts.get(row.patient, "")}], wanted
