"""`pulmolink model compare`: two models on the same examinations, with the differences of their figures."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import click

from pacs_node.cli import EXIT_IN_PART
from pacs_node.commands.model_evaluate import DROP, PREDICTIONS, REPEATS, SEED, footer, provenance


@click.command()
@click.argument("first", type=PREDICTIONS, required=False)
@click.argument("second", type=PREDICTIONS, required=False)
@click.option(
    "--live", is_flag=True, help="Instead of tables: the served package and the shadow, from the node's store."
)
@click.option("--package", help="With --live: the package that was served.  [default: model.package]")
@click.option("--shadow", help="With --live: the package that ran as shadow.  [default: model.shadow]")
@click.option(
    "--since", type=click.DateTime(["%Y-%m-%d"]), help="With --live: only radiographs from this day on (UTC)."
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder to write; may be left out with --live."
)
@click.option("--first-model", help="Which model of FIRST, if it holds several.")
@click.option("--second-model", help="Which model of SECOND, if it holds several.")
@DROP
@SEED
@REPEATS
@click.option("--json", "as_json", is_flag=True, help="The comparison as JSON on standard output.")
@click.pass_context
def compare(
    ctx: click.Context,
    first: Path | None,
    second: Path | None,
    live: bool,
    package: str | None,
    shadow: str | None,
    since: datetime | None,
    out: Path | None,
    first_model: str | None,
    second_model: str | None,
    drop_refused: bool,
    seed: int,
    resamples: int,
    as_json: bool,
) -> None:
    """Compare the predictions FIRST and SECOND (CSV as for `evaluate`; may be one file) on shared examinations.

    Differences are second minus first, their intervals from resampling the same patients for both. OUT receives
    report.html, comparison.json, comparison.csv and figures/ (PNG, SVG).

    With --live the node's store is asked how far the shadow's estimates lie from the served ones, and, where catheter
    values were imported (`model rhc import`), which of the two lies nearer to them.

    \b
    Example:
      pulmolink model compare --live --out ./shadow
      pulmolink model compare ablate.csv ablate.csv --first-model dinov2 --second-model dinov2+ecg --out ./comparison
    """
    from inference.evaluation.comparison import compare as comparison_of
    from inference.evaluation.plots import comparison_forest
    from inference.evaluation.resampling import Resampling
    from inference.evaluation.table import read_table
    from inference.evaluation.words import FIGURE_WORDS, estimate, unit
    from inference.evaluation.writing import comparison_json, write_comparison

    if live:
        if first or second or first_model or second_model:
            raise click.UsageError("--live takes no tables")
        from pacs_node.commands.model_compare_live import compare_live

        asked = Resampling(seed=seed, repeats=resamples)
        compare_live(ctx, package, shadow, since, out, asked, as_json=as_json)
        return
    if first is None or second is None or out is None or package or shadow or since:
        raise click.UsageError("give FIRST, SECOND and --out, or --live")
    tables = [read_table(path, drop_refused=drop_refused) for path in (first, second)]
    one, two = tables[0].of(first_model), tables[1].of(second_model)
    if first.samefile(second) and one.model == two.model:
        raise click.UsageError("the two are one and the same model; name them with --first-model and --second-model")
    comparison = comparison_of(one, two, Resampling(seed=seed, repeats=resamples))
    label = footer(f"{comparison.second or 'second'} against {comparison.first or 'first'}", None)
    where = provenance(None, first, second)
    write_comparison(out, comparison, (comparison_forest(comparison, label),), where)
    if as_json:
        click.echo(json.dumps(comparison_json(comparison, where), indent=1, ensure_ascii=False))
    else:
        click.echo(f"{label}: {comparison.patients} patients, {comparison.examinations} examinations")
        for name, figure in comparison.difference.items():
            words = f"{FIGURE_WORDS.get(name, name)}{', ' + unit(name) if unit(name) else ''}"
            click.echo(f"  {'difference of ' + words:<56}{estimate(figure, name)}")
        click.echo(f"report: {out / 'report.html'}")
    refused = [(path, row) for path, table in zip((first, second), tables, strict=True) for row in table.refused]
    for path, row in refused:
        click.echo(f"refused in {path.name}: {row}", err=True)
    if refused:
        ctx.exit(EXIT_IN_PART)
