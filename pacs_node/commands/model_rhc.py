"""`pulmolink model rhc`: catheter values that come later, and how well the node's own estimates agree with them."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pacs_node.cli import EXIT_IN_PART

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.evaluation.evaluate import Evaluation
    from pacs_node.live import Served
    from storage.records import Catheterisation

SHOWN = 20
"""Refused rows that are told one by one; the rest is counted."""


@click.group()
def rhc() -> None:
    """Bring in catheter measurements and follow the agreement of the node's estimates with them.

    \b
    Example:
      pulmolink model rhc import catheter-lab.csv
      pulmolink model rhc agreement
    """


@rhc.command("import")
@click.argument("table", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--issuer", help="Of patient IDs in rows that name none.  [default: pairing.default_issuer]")
@click.option("--drop-refused", is_flag=True, help="Keep the other rows where some are refused; ends with status 3.")
@click.pass_context
def import_values(ctx: click.Context, table: Path, issuer: str | None, drop_refused: bool) -> None:
    """Keep the catheter values of TABLE (CSV: patient_id, rhc_date, mpap_mmhg, and perhaps issuer).

    Dates are written 2026-03-01, pressures in mmHg. A row that cannot be used, or that says another pressure for a
    patient's day than is known, is named by its number; what was known stays. Nothing is kept unless every row can
    be, or --drop-refused is given. The same table may be imported again.

    \b
    Example:
      pulmolink model rhc import catheter-lab.csv --issuer HOSPITAL
    """
    from pacs_node.catheter_table import read_catheter_table
    from pacs_node.commands.context import opened

    with opened(ctx) as node:
        default = node.settings.pairing.default_issuer if issuer is None else issuer
        read = read_catheter_table(table, default)
        for column in read.unread:
            click.echo(f"warning: the column {column!r} is not known; nothing reads it", err=True)
        refused = list(read.refused)
        if refused and not drop_refused:
            _tell(refused)
            raise click.ClickException(
                f"nothing was kept: {len(refused)} rows are refused (--drop-refused leaves them)"
            )
        values = [value for _, value in read.values]
        new, contradicting = node.store.add_catheterisations(values, datetime.now(UTC))
    refused += [(read.values[place][0], "another pressure is known for that day") for place in contradicting]
    _tell(sorted(refused))
    known = len(values) - len(new) - len(contradicting)
    click.echo(f"{len(new)} values kept, {known} known before, {len(refused)} rows refused")
    if refused:
        ctx.exit(EXIT_IN_PART)


@rhc.command()
@click.option("--package", help="Only estimates of this package.  [default: model.package of the configuration]")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="Only radiographs from this day on (UTC).")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the whole report, as evaluate."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def agreement(ctx: click.Context, package: str | None, since: datetime | None, out: Path | None, as_json: bool) -> None:
    """Compare the estimates that were served with catheter values of the same patients (Bland-Altman).

    A value and the nearest estimate whose radiograph and ECG both lie within pairing.window_days of it make a pair.
    Below 10 patients no figure is given.

    \b
    Example:
      pulmolink model rhc agreement --since 2026-01-01 --out ./agreement
    """
    from inference.evaluation.evaluate import evaluate
    from inference.package import read_manifest
    from pacs_node.commands.context import opened
    from pacs_node.live import as_predictions, beside_catheter, served

    with opened(ctx) as node:
        settings = node.settings
        identity = read_manifest(settings.model.find(package) if package else settings.model.where).identity()
        estimates = served(node.store, identity.digest, since.replace(tzinfo=UTC) if since else None)
        values = node.store.catheterisations()
        pairs = beside_catheter(estimates, values, settings.pairing.window_days, settings.node.zone)
    counts = {"catheter_values": len(values), "estimates": len(estimates), "pairs": len(pairs)}
    found = None
    fewer = "no estimate lies beside a catheter value" + _why_none(
        values, estimates, settings.pairing.window_days, settings.pairing.default_issuer
    )
    if pairs:
        from inference.evaluation.errors import CohortTooSmall

        predictions = as_predictions(pairs, [pair.served.prediction for pair in pairs])
        try:
            found = evaluate(predictions)
        except CohortTooSmall as small:
            fewer = f"{small.sentence} ({small.hint})"
        else:
            if out is not None:
                _write_report(out, predictions, found, identity)
    if as_json:
        click.echo(json.dumps(_json(identity.digest, counts, found, fewer), indent=1))
    else:
        _show(identity, counts, found, fewer, out)


def _tell(refused: Sequence[tuple[int, str]]) -> None:
    for number, reason in refused[:SHOWN]:
        click.echo(f"row {number} refused: {reason}", err=True)
    if len(refused) > SHOWN:
        click.echo(f"... and {len(refused) - SHOWN} more", err=True)


def _write_report(out: Path, predictions: Any, found: Evaluation, identity: Any) -> None:
    import hashlib

    from inference.evaluation.page import Provenance
    from inference.evaluation.plots import all_figures
    from inference.evaluation.writing import write_evaluation
    from pacs_node import CODE_VERSION
    from pacs_node.commands.model_evaluate import footer

    content = predictions.predicted_mmhg.tobytes() + predictions.measured_mmhg.tobytes()
    where = Provenance(
        identity=identity,
        table_sha256=hashlib.sha256(content).hexdigest(),
        code_version=CODE_VERSION,
        made_at=datetime.now(UTC),
    )
    label = f"{identity.name} {identity.version}, in service"
    write_evaluation(out, found, all_figures(predictions, found, footer(label, identity)), where)


def _json(digest: str, counts: dict[str, int], found: Evaluation | None, fewer: str) -> dict[str, object]:
    from pacs_node.commands.present import NOTICE

    body: dict[str, object] = {"notice": NOTICE, "model_digest": digest, **counts}
    if found is None:
        return body | {"agreement": None, "why": fewer}
    limits = found.repeated or found.limits
    figures = {
        name: {key: round(value, 4) for key, value in (("value", f.value), ("low", f.low), ("high", f.high))}
        for name, f in found.figures.items()
        if name in {"mean_absolute_error", "root_mean_square_error", "slope", "squared_correlation", "explained"}
        and math.isfinite(f.low)
    }
    covered = found.coverage.figures["coverage_by_patient"].value if found.coverage else None
    return body | {
        "agreement": {
            "patients": found.cohort.patients,
            "repeated_visits": found.repeated is not None,
            "limits_mmhg": asdict(limits),
            "figures": figures,
            "coverage_by_patient": covered,
        }
    }


def _why_none(
    values: Sequence[Catheterisation], estimates: Sequence[Served], window_days: float, default_issuer: str
) -> str:
    """What keeps values and estimates apart, where there are some of both; no patient is named.

    The same ID of another issuer is another person. Only an issuer that no table named, blank or the node's default,
    may have been assumed wrongly, so only then another is advised.
    """
    if not values or not estimates:
        return ""
    keys = {(one.match.patient.issuer, one.match.patient.patient_id) for one in estimates}
    if any((value.issuer, value.patient_id) in keys for value in values):
        return f": of the same patients, none within {window_days:g} days"
    of_id: dict[str, set[str]] = {}
    for issuer, patient_id in keys:
        of_id.setdefault(patient_id, set()).add(issuer)
    patients = {(value.issuer, value.patient_id) for value in values}
    overlaps = Counter((given, known) for given, patient_id in patients for known in of_id.get(patient_id, ()))
    if not overlaps:
        return ": they are of other patients"
    assumed = {pair: count for pair, count in overlaps.items() if pair[0] in {"", default_issuer}}
    (given, known), count = max(sorted((assumed or overlaps).items()), key=lambda item: item[1])
    same = (
        f": {count} patient IDs are the same, but of the issuer {given!r} in the values and {known!r} in the estimates"
    )
    if not assumed:
        return f"{same}; they are another issuer's patients, other persons unless the site knows better"
    return f"{same}; if the table is of {known!r}'s patients, import it again with --issuer {known!r}"


def _show(identity: Any, counts: dict[str, int], found: Evaluation | None, fewer: str, out: Path | None) -> None:
    from inference.evaluation.words import FIGURE_WORDS, estimate, unit
    from pacs_node.commands.present import NOTICE

    click.echo(
        f"{identity.name} {identity.version}: {counts['estimates']} estimates, {counts['catheter_values']} catheter "
        f"values, {counts['pairs']} pairs   {NOTICE}"
    )
    if found is None:
        click.echo(f"no figures: {fewer}")
        return
    limits = found.repeated or found.limits

    def told(item: Any) -> str:
        return f"{item.value:+.1f} ({item.low:+.1f} to {item.high:+.1f})"

    click.echo(f"  {'patients':<44}{found.cohort.patients}")
    click.echo(f"  {'bias, mmHg (estimated minus measured)':<44}{told(limits.bias)}")
    click.echo(f"  {'lower limit of agreement, mmHg':<44}{told(limits.lower)}")
    click.echo(f"  {'upper limit of agreement, mmHg':<44}{told(limits.upper)}")
    for name in ("mean_absolute_error", "squared_correlation", "explained"):
        words = f"{FIGURE_WORDS[name]}{', mmHg' if unit(name) else ''}"
        click.echo(f"  {words:<44}{estimate(found.figures[name], name)}")
    if found.coverage is not None:
        covered = found.coverage.figures["coverage_by_patient"]
        click.echo(f"  {'interval covers, % of patients':<44}{estimate(covered, 'coverage_by_patient')}")
    if out is not None:
        click.echo(f"report: {out / 'report.html'}")
