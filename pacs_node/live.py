"""The node's own results as the evaluation takes them: beside catheter values that came later, and beside a shadow's.

What leaves here numbers patients and names examinations by their match: no table made of it names anybody.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from inference.evaluation.table import BOUNDS, PROBABILITIES, REQUIRED, Predictions, parse_table
from inference.prediction import Prediction
from pacs_node.flow.pair import ESTIMATED
from storage.records import Catheterisation, Match
from storage.store import Store

COLUMNS = (*REQUIRED, *BOUNDS, *PROBABILITIES, "acquired_at", "model")


@dataclass(frozen=True, kw_only=True)
class Served:
    """A match and the estimate that was reported of it."""

    match: Match
    prediction: Prediction


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An estimate and the catheter value that it is held against."""

    served: Served
    catheter: Catheterisation
    days: int  # of the examination that lies farther from the catheterisation


@dataclass(frozen=True, kw_only=True)
class Followed:
    """The second estimates beside the served ones."""

    pairs: tuple[tuple[Served, Prediction], ...]
    due: int
    without: Mapping[str, int]  # why, and how often


def served(store: Store, digest: str, since: datetime | None = None) -> tuple[Served, ...]:
    """The standing estimates of the package `digest`, of radiographs from `since` on."""
    found = []
    for match in store.matches(states=ESTIMATED):
        prediction = Prediction.from_json(match.prediction_json)
        recent = since is None or (match.radiograph_at is not None and match.radiograph_at >= since)
        if prediction.model.digest == digest and recent:
            found.append(Served(match=match, prediction=prediction))
    return tuple(found)


def beside_catheter(
    estimates: Sequence[Served], values: Sequence[Catheterisation], window_days: float, zone: ZoneInfo
) -> tuple[Measured, ...]:
    """Each catheter value with the nearest estimate of the same patient, both examinations within the window.

    An estimate stands beside one value at most, and a value beside one estimate: the nearest first, ties to the
    earlier value, then the earlier match. Days are those of the site's calendar.
    """
    of_patient: dict[tuple[str, str], list[Served]] = {}
    for one in estimates:
        of_patient.setdefault((one.match.patient.issuer, one.match.patient.patient_id), []).append(one)
    near = []
    for value in values:
        for one in of_patient.get((value.issuer, value.patient_id), ()):
            moments = (one.match.radiograph_at, one.match.ecg_at)
            days = [abs((at.astimezone(zone).date() - value.measured_on).days) for at in moments if at is not None]
            if len(days) == len(moments) and max(days) <= window_days:
                near.append(Measured(served=one, catheter=value, days=max(days)))
    near.sort(key=lambda pair: (pair.days, pair.catheter.measured_on, pair.served.match.match_id))
    taken: set[object] = set()
    chosen = []
    for pair in near:
        keys = {pair.served.match.match_id, (pair.catheter.issuer, pair.catheter.patient_id, pair.catheter.measured_on)}
        if not keys & taken:
            taken |= keys
            chosen.append(pair)
    return tuple(sorted(chosen, key=lambda pair: pair.served.match.match_id))


def followed(store: Store, estimates: Sequence[Served], shadow_digest: str) -> Followed:
    """What the shadow package said of the same matches. Answers of another package do not count."""
    by_match = {one.match.match_id: one for one in estimates}
    pairs, due = [], 0
    without: dict[str, int] = {}
    for row in store.shadows():
        one = by_match.get(row.match_id)
        if one is None:
            continue
        if row.done_at is None:
            due += 1
        elif not row.prediction_json:
            reason = row.reason.strip()
            without[reason] = without.get(reason, 0) + 1
        else:
            prediction = Prediction.from_json(row.prediction_json)
            if prediction.model.digest == shadow_digest:
                pairs.append((one, prediction))
    return Followed(pairs=tuple(pairs), due=due, without=without)


def as_predictions(measured: Sequence[Measured], of: Sequence[Prediction]) -> Predictions:
    """The table that `model evaluate` reads, of estimates `of` beside what was `measured`; at least one."""
    patients: dict[tuple[str, str], int] = {}
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for pair, prediction in zip(measured, of, strict=True):
        match = pair.served.match
        number = patients.setdefault((match.patient.issuer, match.patient.patient_id), len(patients) + 1)
        writer.writerow(
            {
                "examination": f"match {match.match_id}",
                "patient": f"patient {number}",
                "mpap_mmhg": pair.catheter.mpap_mmhg,
                "predicted_mmhg": prediction.mpap_mmhg,
                "lower_mmhg": prediction.interval_low_mmhg,
                "upper_mmhg": prediction.interval_high_mmhg,
                "probability_above_20": prediction.probability_above_20,
                "probability_at_least_25": prediction.probability_at_least_25,
                "acquired_at": match.radiograph_at.isoformat() if match.radiograph_at else "",
                "model": f"{prediction.model.name} {prediction.model.version}",
            }
        )
    return parse_table(text.getvalue().splitlines()).of()
