"""`pulmolink model drift`: does what the node estimated lately look like what the model was tested on?"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.drift import ShareShift, Shift
    from inference.prediction import Prediction


@click.command()
@click.argument("reference", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", "name", help="Which model of REFERENCE, if it holds several.")
@click.option("--package", help="Only results of this package.  [default: model.package of the configuration]")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="Only radiographs from this day on (UTC).")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def drift(
    ctx: click.Context, reference: Path, name: str | None, package: str | None, since: datetime | None, as_json: bool
) -> None:
    """Compare this node's results with REFERENCE, the table of predictions that the package was evaluated on.

    Outputs by population stability index and Kolmogorov-Smirnov test, inputs by the share whose embedding lies
    beyond the package's own 99 % limit. Drift says where to look; it says nothing of accuracy.

    \b
    Example:
      pulmolink model drift evaluation/predictions.csv --since 2026-10-01
    """
    from inference.evaluation.table import read_table
    from inference.package import read_manifest
    from pacs_node.commands.context import opened
    from pacs_node.commands.present import NOTICE, current_estimate
    from pacs_node.commands.take import STANDING

    table = read_table(reference).of(name)
    with opened(ctx) as node:
        digest = read_manifest(node.settings.model.find(package or node.settings.model.package)).identity().digest
        start = since.replace(tzinfo=UTC) if since else None
        window = [
            estimate
            for match in node.store.matches(states=STANDING)
            if (estimate := current_estimate(match)) is not None
            and estimate.model.digest == digest
            and (start is None or (match.radiograph_at is not None and match.radiograph_at >= start))
        ]
    try:
        found = _compared(table.predicted_mmhg.tolist(), window)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    drifted = any(item.drifted for item in found)
    if as_json:
        rows = [{**asdict(item), "drifted": item.drifted} for item in found]
        click.echo(
            json.dumps({"notice": NOTICE, "model_digest": digest, "drifted": drifted, "compared": rows}, indent=1)
        )
        return
    click.echo(f"{len(window)} results against {len(table.predicted_mmhg)} of the reference   {NOTICE}")
    for item in found:
        click.echo(f"  {_sentence(item)}{'   DRIFT' if item.drifted else ''}")


def _compared(reference_mmhg: Sequence[float], window: Sequence[Prediction]) -> list[Shift | ShareShift]:
    import numpy as np

    from inference.calibration import USUAL_SHARE
    from inference.drift import share_shift, shift

    predicted = np.array([estimate.mpap_mmhg for estimate in window])
    found: list[Shift | ShareShift] = [shift("predicted mPAP, mmHg", np.array(reference_mmhg), predicted)]
    for subject in ("radiograph", "ecg"):
        unusual = sum(
            any(f.subject == subject and f.code == "out_of_distribution" for f in estimate.findings)
            for estimate in window
        )
        found.append(share_shift(f"{subject} unlike the model's own data", unusual, len(window), 1.0 - USUAL_SHARE))
    return found


def _sentence(item: Shift | ShareShift) -> str:
    from inference.drift import Shift

    if isinstance(item, Shift):
        return (
            f"{item.name}: mean {item.reference_mean:.1f} then, {item.window_mean:.1f} now; stability index "
            f"{item.population_stability_index:.3f} (chance: up to {item.limit:.3f}); "
            f"KS {item.kolmogorov_smirnov:.3f}, p {item.p_value:.2g}"
        )
    share = 100.0 * item.happened / item.window
    return (
        f"{item.name}: {item.happened} of {item.window}, {share:.1f} % (99 % interval {100 * item.low:.1f} to "
        f"{100 * item.high:.1f}; expected {100 * item.expected:.0f})"
    )
