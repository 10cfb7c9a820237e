"""`pulmolink model evaluate`: from a table of predictions to figures, one page and the model card's numbers."""

from __future__ import annotations

import hashlib
import json
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
@click.option(
    "--part", type=click.Choice(PARTS), help="Of the cohort's own split.  [default: test, all without a split]"
)
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

    With --package and --cohort the package predicts first, as the service would, and OUT keeps predictions.csv. Keep
    patients that the package was trained on out of the cohort, or mark them in its column split: the very table of its
    training is refused without one, unless --part all is asked for.

    OUT receives report.html, evaluation.json, figures.csv, subgroups.csv, figures/ (PNG, SVG), card.json and card.md.

    \b
    Example:
      pulmolink model evaluate test-predictions.csv --out ./evaluation --package ./my-package
      pulmolink model evaluate --package ./my-package --cohort new-patients.csv --out ./evaluation
    """
    from inference.evaluation.evaluate import evaluate as evaluation_of
    from inference.evaluation.plots import all_figures
    from inference.evaluation.published import YOON, read_published
    from inference.evaluation.resampling import Resampling
    from inference.evaluation.table import read_table
    from inference.evaluation.writing import evaluation_json, write_evaluation

    if (predictions is None) == (cohort is None):
        raise click.UsageError("give either PREDICTIONS or --cohort")
    if cohort is None and (data is not None or part is not None):
        raise click.UsageError("--data and --part belong to --cohort")
    beside = read_published(published) if published else YOON
    left_out: tuple[RefusedRow, ...] = ()
    if package is not None:
        package = settings_of(ctx).model.find(package)
    if predictions is None:
        predictions, left_out = _predicted(ctx, package, cohort, data, part, out, drop_refused)
    table = read_table(predictions, drop_refused=drop_refused)
    chosen = table.of(name)
    identity = identity_of(package, chosen.model) if package else None
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


def _predicted(
    ctx: click.Context,
    package: str | None,
    cohort: Path | None,
    data: Path | None,
    part: str | None,
    out: Path,
    drop_refused: bool,
) -> tuple[Path, tuple[RefusedRow, ...]]:
    """Let the package predict the cohort into OUT; the table, and the rows that were left out."""
    from pacs_node.commands.model_predict import predict_cohort
    from pacs_node.opening.opener import Opener

    if package is None or cohort is None:
        raise click.UsageError("--cohort needs --package, which predicts it")
    table = out / "predictions.csv"
    settings = settings_of(ctx)
    with Opener(settings.limits) as opener:
        left_out = predict_cohort(
            package,
            cohort,
            data or cohort.parent,
            table,
            opener,
            part=part,
            zone=settings.node.zone,
            drop_refused=drop_refused,
        )
    return table, left_out


def _show(evaluation: Evaluation, out: Path) -> None:
    """What a person reads in the terminal; the page holds the rest."""
    from inference.evaluation.words import FIGURE_WORDS, estimate, unit

    cohort = evaluation.cohort
    click.echo(f"{evaluation.model or 'model not named'}   research use only")
    click.echo(f"{cohort.patients} patients, {cohort.examinations} examinations, {cohort.rows_refused} rows refused")
    names = ("mean_absolute_error", "baseline_mae", "bias", "slope", "squared_correlation", "explained", "concordance")
    for name in names:
        words = f"{FIGURE_WORDS[name]}{', mmHg' if unit(name) else ''}"
        click.echo(f"  {words:<52}{estimate(evaluation.figures[name], name)}")
    limits = evaluation.repeated or evaluation.limits
    click.echo(f"  {'95 % limits of agreement, mmHg':<52}{limits.lower.value:.1f} to {limits.upper.value:.1f}")
    hidden = sum(group.suppressed for group in evaluation.subgroups)
    if hidden:
        click.echo(f"  {hidden} subgroups of fewer than 10 patients suppressed")
    for row in cohort.refused:
        click.echo(f"refused: {row}", err=True)
    click.echo(f"report: {out / 'report.html'}")


def identity_of(package: str, model: str) -> ModelIdentity:
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
