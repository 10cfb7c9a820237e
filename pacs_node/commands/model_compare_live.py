"""`pulmolink model compare --live`: what was served and what the shadow said of the same examinations."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pacs_node.commands.context import opened
from pacs_node.commands.present import NOTICE

if TYPE_CHECKING:
    from inference.evaluation.comparison import Comparison
    from inference.evaluation.disagreement import Disagreement
    from inference.evaluation.resampling import Resampling
    from inference.prediction import ModelIdentity
    from pacs_node.live import Followed, Measured


def compare_live(
    ctx: click.Context,
    package: str | None,
    shadow: str | None,
    since: datetime | None,
    out: Path | None,
    resampling: Resampling,
    *,
    as_json: bool,
) -> None:
    """Compare from the store; figures only of at least ten patients, whatever is asked."""
    from inference.package import read_manifest
    from pacs_node.live import beside_catheter, followed, served

    with opened(ctx) as node:
        model = node.settings.model
        if not (shadow or model.shadow):
            raise click.UsageError("name the package with --shadow, or configure model.shadow")
        first = read_manifest(model.find(package) if package else model.where).identity()
        second = read_manifest(model.find(shadow or model.shadow)).identity()
        estimates = served(node.store, first.digest, since.replace(tzinfo=UTC) if since else None)
        found = followed(node.store, estimates, second.digest)
        values = node.store.catheterisations()
        measured = beside_catheter(
            [one for one, _ in found.pairs], values, node.settings.pairing.window_days, node.settings.node.zone
        )
    apart, few = _apart(found)
    nearer = _against_catheter(found, measured, resampling, few)
    body: dict[str, object] = {
        "notice": NOTICE,
        "served": asdict(first),
        "shadow": asdict(second),
        "estimates_served": len(estimates),
        "estimates_of_both": len(found.pairs),
        "due": found.due,
        "without": dict(found.without),
        "disagreement": None if apart is None else asdict(apart),
        "beside_catheter": len(measured),
        "against_catheter": None if nearer is None else _figures(nearer),
        "too_few": few,
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "shadow.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
        if nearer is not None:
            _write_report(out, nearer)
    if as_json:
        click.echo(json.dumps(body, indent=1))
        return
    _show(first, second, found, apart, nearer, few)
    if out is not None:
        click.echo(f"written to {out}")


def _apart(found: Followed) -> tuple[Disagreement | None, list[str]]:
    import numpy as np

    from inference.evaluation.disagreement import disagreement
    from inference.evaluation.errors import CohortTooSmall

    first = np.array([one.prediction.mpap_mmhg for one, _ in found.pairs])
    second = np.array([prediction.mpap_mmhg for _, prediction in found.pairs])
    owners = [(one.match.patient.issuer, one.match.patient.patient_id) for one, _ in found.pairs]
    try:
        return disagreement(first, second, owners), []
    except CohortTooSmall as small:
        return None, [f"{small.sentence} ({small.hint})"]


def _against_catheter(
    found: Followed, measured: tuple[Measured, ...], resampling: Resampling, few: list[str]
) -> Comparison | None:
    from inference.evaluation.comparison import compare
    from inference.evaluation.errors import CohortTooSmall
    from pacs_node.live import as_predictions

    if not measured:
        return None
    of_match = {one.match.match_id: prediction for one, prediction in found.pairs}
    tables = (
        as_predictions(measured, [pair.served.prediction for pair in measured]),
        as_predictions(measured, [of_match[pair.served.match.match_id] for pair in measured]),
    )
    try:
        return compare(*tables, resampling)
    except CohortTooSmall as small:
        few.append(f"beside a catheter value: {small.sentence} ({small.hint})")
        return None


def _figures(comparison: Comparison) -> dict[str, Any]:
    def told(figures: dict[str, Any]) -> dict[str, list[float]]:
        return {name: [f.value, f.low, f.high] for name, f in figures.items()}

    return {
        "patients": comparison.patients,
        "examinations": comparison.examinations,
        "served": told(comparison.of_first),
        "shadow": told(comparison.of_second),
        "difference": told(comparison.difference),
        "share_nearer_shadow": comparison.share_nearer_second,
    }


def _write_report(out: Path, comparison: Comparison) -> None:
    import hashlib

    from inference.evaluation.page import Provenance
    from inference.evaluation.plots import comparison_forest
    from inference.evaluation.writing import write_comparison
    from pacs_node import CODE_VERSION
    from pacs_node.commands.model_evaluate import footer

    where = Provenance(
        identity=None,
        table_sha256=hashlib.sha256((out / "shadow.json").read_bytes()).hexdigest(),
        code_version=CODE_VERSION,
        made_at=datetime.now(UTC),
    )
    label = footer(f"{comparison.second} (shadow) against {comparison.first}", None)
    write_comparison(out, comparison, (comparison_forest(comparison, label),), where)


def _show(
    first: ModelIdentity,
    second: ModelIdentity,
    found: Followed,
    apart: Disagreement | None,
    nearer: Comparison | None,
    few: list[str],
) -> None:
    from inference.evaluation.words import FIGURE_WORDS, estimate

    click.echo(f"served {first.name} {first.version}, shadow {second.name} {second.version}   {NOTICE}")
    lost = sum(found.without.values())
    click.echo(f"{len(found.pairs)} estimates of both, {found.due} of the shadow still due, {lost} without one")
    for reason, times in sorted(found.without.items()):
        click.echo(f"  without: {reason} ({times})")
    if apart is not None:
        limits = apart.limits
        click.echo(f"  {'patients':<46}{apart.patients}")
        for words, item in (
            ("shadow minus served, mean, mmHg", limits.bias),
            ("lower limit of 95 % of differences, mmHg", limits.lower),
            ("upper limit of 95 % of differences, mmHg", limits.upper),
        ):
            click.echo(f"  {words:<46}{item.value:+.1f} ({item.low:+.1f} to {item.high:+.1f})")
        click.echo(f"  {'mean and largest distance, mmHg':<46}{apart.mean_absolute_mmhg:.2f}, {apart.largest_mmhg:.2f}")
        if apart.correlation is not None:
            click.echo(f"  {'correlation':<46}{apart.correlation:.3f}")
        for crossing in apart.crossings:
            click.echo(
                f"  {'mPAP ' + crossing.threshold + ' by one alone':<46}{crossing.only_first_above} served, "
                f"{crossing.only_second_above} shadow"
            )
    if nearer is not None:
        click.echo(f"beside catheter values of {nearer.patients} patients, shadow minus served:")
        for name, figure in nearer.difference.items():
            click.echo(f"  {FIGURE_WORDS.get(name, name):<46}{estimate(figure, name)}")
    for sentence in few:
        click.echo(f"no figures: {sentence}")
