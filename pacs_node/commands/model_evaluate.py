"""`pulmolink model evaluate`: from a table of predictions to figures, one page and the model card's numbers."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pacs_node import CODE_VERSION
from pacs_node.cli import EXIT_IN_PART
from pacs_node.commands.context import settings_of

if TYPE_CHECKING:
    from inference.evaluation.errors import RefusedRow
    from inference.evaluation.evaluate import Evaluation
    from inference.evaluation.page import Provenance
    from inference.prediction import ModelIdentity
    from pacs_node.labelled import Source

SEED = click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the resampled patients.")
REPEATS = click.option(
    "--resamples",
    type=click.IntRange(200, 100_000),
    default=2000,
    show_default=True,
    help="Of patients, for intervals.",
)
DROP = click.option(
    "--drop-refused", is_flag=True, help="Leave refused rows out, list them in the report, and end with status 3."
)
PREDICTIONS = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
PARTS = ("train", "validation", "calibration", "test", "all")


@click.command()
@click.argument("predictions", type=PREDICTIONS, required=False)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write.")
@click.option("--model", "name", help="Which model of the table, if it holds several.")
@click.option("--package", help="The package that predicted, or with --cohort predicts; the report names its digest.")
@click.option("--cohort", type=PREDICTIONS, help="Instead of PREDICTIONS: labelled examinations, as for training.")
@click.option("--data", type=FOLDER, help="Folder that the cohort's paths start from.  [default: the cohort's own]")
@click.option("--storage", is_flag=True, help="The cohort names SOP Instance UIDs of the node's own storage.")
@click.option("--any-view", is_flag=True, help="The cohort vouches that every radiograph is a PA view of the chest.")
@click.option("--split", type=PREDICTIONS, help="With --cohort: RUN/split.csv of the training that made the package.")
@click.option("--part", type=click.Choice(PARTS), help="Of the split.  [default: test; all where there is none]")
@click.option("--published", type=PREDICTIONS, help="CSV (figure,value) of published figures to print beside.")
@DROP
@SEED
@REPEATS
@click.option("--json", "as_json", is_flag=True, help="The evaluation as JSON on standard output.")
@click.pass_context
def evaluate(
    ctx: click.Context,
    predictions: Path | None,
    out: Path,
    name: str | None,
    package: str | None,
    cohort: Path | None,
    data: Path | None,
    storage: bool,
    any_view: bool,
    split: Path | None,
    part: str | None,
    published: Path | None,
    drop_refused: bool,
    seed: int,
    resamples: int,
    as_json: bool,
) -> None:
    """Evaluate the model whose PREDICTIONS (CSV, a row an examination) lie beside catheter measurements.

    Columns: examination, patient, mpap_mmhg, predicted_mmhg; as far as known also lower_mmhg, upper_mmhg,
    probability_above_20, probability_at_least_25, acquired_at (ISO 8601), sex, age, smoker, ph_group, site,
    scanner, model. A row that cannot be used is named and refused; nothing is guessed.

    With --package and --cohort the package predicts first, as the service would, and OUT keeps predictions.csv.
    Patients that the package was trained on must not be among them: of the table that it was trained on, --split
    RUN/split.csv takes its test patients; other tables mark theirs in the column split (train, validation,
    calibration, test).

    OUT receives report.html, evaluation.json, figures.csv, subgroups.csv, figures/ (PNG, SVG), card.json and card.md.

    \b
    Example:
      pulmolink model evaluate test-predictions.csv --out ./evaluation --package ./my-package
      pulmolink model evaluate --package ./my-package --cohort cohort.csv --split ./run/split.csv --out ./evaluation
      pulmolink model evaluate --package ./my-package --cohort another-hospital.csv --out ./evaluation
    """
    from inference.evaluation.evaluate import evaluate as evaluation_of
    from inference.evaluation.plots import all_figures
    from inference.evaluation.published import YOON, read_published
    from inference.evaluation.resampling import Resampling
    from inference.evaluation.table import read_table
    from inference.evaluation.writing import evaluation_json, write_evaluation
    from inference.package import locate
    from pacs_node.commands.model_predict import predict_cohort
    from pacs_node.opening.opener import Opener

    if (predictions is None) == (cohort is None):
        raise click.UsageError("give either PREDICTIONS or --cohort")
    if cohort is None and (data or storage or any_view or split or part):
        raise click.UsageError("--data, --storage, --any-view, --split and --part belong to --cohort")
    if storage and data is not None:
        raise click.UsageError("give either --data FOLDER or --storage")
    beside = read_published(published) if published else YOON
    left_out: tuple[RefusedRow, ...] = ()
    settings = settings_of(ctx)
    folder = locate(settings.model.find(package)) if package else None
    if predictions is None:
        if folder is None or cohort is None:
            raise click.UsageError("--cohort needs --package, which predicts it")
        predictions = out / "predictions.csv"
        with _source(ctx, cohort, data, storage=storage) as source, Opener(settings.limits) as opener:
            left_out = predict_cohort(
                folder,
                cohort,
                source,
                predictions,
                opener,
                part=part,
                zone=settings.node.zone,
                drop_refused=drop_refused,
                split=split,
                any_view=any_view,
                device=settings.model.device,
            )
    table = read_table(predictions, drop_refused=drop_refused)
    chosen = table.of(name)
    identity = identity_of(folder, chosen.model) if folder else None
    evaluation = evaluation_of(chosen, Resampling(seed=seed, repeats=resamples), refused=(*left_out, *table.refused))
    where = provenance(identity, predictions)
    label = f"{identity.name} {identity.version}" if identity else chosen.model or "model not named"
    figures = all_figures(chosen, evaluation, footer(label, identity))
    write_evaluation(out, evaluation, figures, where, beside)
    if as_json:
        click.echo(json.dumps(evaluation_json(evaluation, where), indent=1, ensure_ascii=False))
    else:
        _show(evaluation, out)
    if evaluation.cohort.refused:
        ctx.exit(EXIT_IN_PART)


@contextlib.contextmanager
def _source(ctx: click.Context, cohort: Path, data: Path | None, *, storage: bool) -> Iterator[Source]:
    """Where the cohort's examinations are."""
    from pacs_node.commands.context import opened
    from pacs_node.labelled import Folder, Node

    if not storage:
        yield Folder(data or cohort.parent)
        return
    with opened(ctx) as node:
        yield Node(node.store, node.objects)


def _show(evaluation: Evaluation, out: Path) -> None:
    """What a person reads in the terminal; the page holds the rest."""
    from inference.evaluation.words import FIGURE_WORDS, bounded, estimate, unit

    cohort = evaluation.cohort
    click.echo(f"{evaluation.model or 'model not named'}   research use only")
    click.echo(f"{cohort.patients} patients, {cohort.examinations} examinations, {cohort.rows_refused} rows refused")
    names = ("mean_absolute_error", "baseline_mae", "bias", "slope", "squared_correlation", "explained", "concordance")
    for name in names:
        words = f"{FIGURE_WORDS[name]}{', mmHg' if unit(name) else ''}"
        click.echo(f"  {words:<52}{estimate(evaluation.figures[name], name)}")
    limits = evaluation.repeated or evaluation.limits
    click.echo(f"  {'95 % limits of agreement, mmHg':<52}{bounded(limits.lower)} and {bounded(limits.upper)}")
    hidden = sum(group.suppressed for group in evaluation.subgroups)
    if hidden:
        click.echo(f"  {hidden} subgroups of fewer than 10 patients suppressed")
    for row in cohort.refused:
        click.echo(f"refused: {row}", err=True)
    click.echo(f"report: {out / 'report.html'}")


def identity_of(package: Path, model: str) -> ModelIdentity:
    """Who the package is; refused if the table says that another model predicted."""
    from inference.package import read_manifest

    identity = read_manifest(package).identity()
    if model not in {"", identity.name, f"{identity.name} {identity.version}", identity.digest}:
        raise click.ClickException(
            f"the table's model is {model!r}, the package is {identity.name} {identity.version}: not the same"
        )
    return identity


def provenance(identity: ModelIdentity | None, *tables: Path) -> Provenance:
    """Where a report of `tables` comes from."""
    from inference.evaluation.page import Provenance

    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in dict.fromkeys(tables)]
    return Provenance(
        identity=identity, table_sha256=", ".join(digests), code_version=CODE_VERSION, made_at=datetime.now(UTC)
    )


def footer(label: str, identity: ModelIdentity | None) -> str:
    """What every picture carries."""
    demo = "SYNTHETIC DEMO, " if identity is not None and identity.kind == "synthetic-demo" else ""
    return f"{label}, {demo}research use only"
