"""`pulmolink model drift`: does what the node estimated lately look like what the model was calibrated on?"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from inference.drift import CategoryShift, ShareShift, Shift
    from inference.drift_reference import DriftReference
    from inference.prediction import Prediction
    from pacs_node.commands.context import Opened
    from pacs_node.live import Served

    Found = Shift | ShareShift | CategoryShift

MOST_HEADERS = 2000
"""Examinations, the latest, whose headers are read for tags."""


@click.command()
@click.argument("reference", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--model", "name", help="Which model of REFERENCE, if it holds several.")
@click.option("--package", help="Only results of this package.  [default: model.package of the configuration]")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="Only radiographs from this day on (UTC).")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def drift(
    ctx: click.Context,
    reference: Path | None,
    name: str | None,
    package: str | None,
    since: datetime | None,
    as_json: bool,
) -> None:
    """Compare this node's results with the patients that the package was calibrated on.

    Estimates and the components of both embeddings by population stability index and Kolmogorov-Smirnov test; tags of
    the machine and the technique by the index and a chi-squared test, numbers among them by both; the share of inputs
    whose embedding lies beyond the package's own 99 % limit. REFERENCE, a table of predictions as `evaluate` reads it,
    stands for the package's own estimates. Drift says where to look; it says nothing of accuracy.

    \b
    Example:
      pulmolink model drift --since 2026-10-01
      pulmolink model drift evaluation/predictions.csv --since 2026-10-01
    """
    from inference.package import locate, read_calibration
    from pacs_node.commands.context import opened
    from pacs_node.commands.present import NOTICE
    from pacs_node.live import served

    with opened(ctx) as node:
        model = node.settings.model
        manifest, calibration = read_calibration(locate(model.find(package) if package else model.where))
        digest = manifest.identity().digest
        window = served(node.store, digest, since.replace(tzinfo=UTC) if since else None)
        known_tags = manifest.data.get("tags")
        tags = _tags_of(node, window) if isinstance(known_tags, Mapping) else {}
    from inference.drift_reference import DriftReference

    kept = DriftReference.from_tensors(calibration)
    outputs, absent = _outputs(reference, name, kept)
    estimates = [one.prediction for one in window]
    try:
        found = [*_of_outputs(outputs, estimates, calibration), *_of_components(kept, estimates, absent)]
        found += _of_tags(known_tags, tags, absent)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        body = {
            "notice": NOTICE,
            "model_digest": digest,
            "results": len(window),
            "drifted": any(item.drifted for item in found),
            "compared": [{**asdict(item), "drifted": item.drifted} for item in found],
            "not_compared": absent,
        }
        click.echo(json.dumps(body, indent=1))
        return
    click.echo(f"{len(window)} results against {len(outputs)} of the reference   {NOTICE}")
    for item in found:
        click.echo(f"  {_sentence(item)}{'   DRIFT' if item.drifted else ''}")
    for sentence in absent:
        click.echo(f"  not compared: {sentence}")


def _outputs(reference: Path | None, name: str | None, kept: DriftReference | None) -> tuple[list[float], list[str]]:
    """The estimates to compare with, and what the package cannot be asked."""
    from inference.evaluation.table import read_table

    absent = []
    if kept is None:
        absent.append("embeddings: the package keeps no components of its own patients; package the model again")
    if reference is not None:
        return read_table(reference).of(name).predicted_mmhg.tolist(), absent
    if kept is None:
        raise click.UsageError("the package keeps no estimates of its own patients: give REFERENCE")
    return kept.predicted_mmhg.tolist(), absent


def _of_outputs(
    reference_mmhg: Sequence[float], window: Sequence[Prediction], calibration: Mapping[str, NDArray[np.generic]]
) -> list[Found]:
    import numpy as np

    from inference.calibration import USUAL_SHARE
    from inference.drift import share_shift, shift

    predicted = np.array([estimate.mpap_mmhg for estimate in window])
    found: list[Found] = [shift("predicted mPAP, mmHg", np.array(reference_mmhg), predicted)]
    # Those who set the limits: each row is a patient's own in packages that do not say whose it is.
    patients = len(np.unique(calibration["patient"]) if "patient" in calibration else calibration["residuals_mmhg"])
    for subject in ("radiograph", "ecg"):
        unusual = sum(
            any(f.subject == subject and f.code == "out_of_distribution" for f in estimate.findings)
            for estimate in window
        )
        name = f"{subject} unlike the model's own data"
        found.append(share_shift(name, unusual, len(window), reference=patients, share=USUAL_SHARE))
    return found


def _of_components(kept: DriftReference | None, window: Sequence[Prediction], absent: list[str]) -> list[Found]:
    """Each component of either embedding; the level is shared among them."""
    import numpy as np

    from inference.drift import FEWEST_RESULTS, level_of, shift

    if kept is None:
        return []
    found: list[Found] = []
    for subject, directions, told in (
        ("radiograph", kept.chest, [one.chest_components for one in window if one.chest_components]),
        ("ecg", kept.ecg, [one.ecg_components for one in window if one.ecg_components]),
    ):
        fewest = min(len(directions.held_out), len(told))
        if fewest < FEWEST_RESULTS:
            absent.append(f"{subject} embedding: {fewest} results with components, {FEWEST_RESULTS} are needed")
            continue
        values = np.array(told, dtype=np.float64)
        level = level_of(values.shape[1])
        found += [
            shift(
                f"{subject} embedding, component {k + 1}", directions.held_out[:, k].astype(float), column, level=level
            )
            for k, column in enumerate(values.T)
        ]
    return found


def _tags_of(node: Opened, window: Sequence[Served]) -> dict[str, Counter[str]]:
    """How often each tag has each value in the latest examinations; those whose bytes are gone are left out."""
    from pacs_node.flow.part10 import UNREADABLE, HeaderUnreadable, read_header
    from pacs_node.flow.tags import ecg_tags, radiograph_tags
    from storage.errors import StorageError

    counts: dict[str, Counter[str]] = {}
    for one in list(window)[-MOST_HEADERS:]:
        for instance_id, read in ((one.match.radiograph_id, radiograph_tags), (one.match.ecg_id, ecg_tags)):
            if instance_id is None:
                continue
            try:
                header = read_header(node.objects.get(node.store.instance(instance_id).instance.sha256))
            except (*UNREADABLE, HeaderUnreadable, StorageError):
                continue
            for name, value in read(header).items():
                counts.setdefault(name, Counter())[value] += 1
    return counts


def _of_tags(known: object, window: Mapping[str, Counter[str]], absent: list[str]) -> list[Found]:
    """Each tag that the package's patients had, numbers in their order too; the level is shared among them."""
    import numpy as np

    from inference.drift import FEWEST_RESULTS, category_shift, level_of, shift

    if not isinstance(known, Mapping):
        absent.append("tags: the package keeps none of its own patients; package the model again")
        return []
    found: list[Found] = []
    level = level_of(len(known))
    for name, reference in known.items():
        now = window.get(name, Counter())
        fewest = min(sum(reference.values()), now.total())
        if fewest < FEWEST_RESULTS:
            absent.append(f"{name}: {fewest} headers, {FEWEST_RESULTS} are needed")
            continue
        numbers = [_numbers(reference), _numbers(now)]
        if all(len(side) >= FEWEST_RESULTS for side in numbers):
            found.append(shift(name, np.array(numbers[0]), np.array(numbers[1]), level=level))
        else:
            found.append(category_shift(name, reference, now, level=level))
    return found


def _numbers(counts: Mapping[str, int]) -> list[float]:
    """The values of a tag that only has numbers, as often as they occur; else none."""
    values: list[float] = []
    for text, times in counts.items():
        try:
            number = float(text)
        except ValueError:
            return []
        if not math.isfinite(number):
            return []
        values += [number] * times
    return values


def _sentence(item: Found) -> str:
    from inference.drift import CategoryShift, Shift

    if isinstance(item, Shift):
        return (
            f"{item.name}: mean {item.reference_mean:.1f} then, {item.window_mean:.1f} now; stability index "
            f"{item.population_stability_index:.3f} (chance: up to {item.limit:.3f}); "
            f"KS {item.kolmogorov_smirnov:.3f}, p {item.p_value:.2g}"
        )
    if isinstance(item, CategoryShift):
        new = f"; new: {', '.join(item.new[:5])}" if item.new else ""
        return (
            f"{item.name}: stability index {item.population_stability_index:.3f} (chance: up to {item.limit:.3f}), "
            f"chi-squared p {item.p_value:.2g}{new}"
        )
    share = 100.0 * item.happened / item.window
    return (
        f"{item.name}: {item.happened} of {item.window}, {share:.1f} % (99 % interval {100 * item.low:.1f} to "
        f"{100 * item.high:.1f}); expected {100 * item.expected:.1f} % by a limit from {item.reference} patients, "
        f"p {item.p_value:.2g}"
    )
