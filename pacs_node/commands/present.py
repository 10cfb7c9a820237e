"""A match as the commands show it: one flat dictionary, never an estimate without interval and notice."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from inference.prediction import Prediction
from storage.records import Instance, Match, MatchState

NOTICE = "research use only"


def match_row(match: Match) -> dict[str, Any]:
    """The fields of `matches --json`, `show --json` and `export`; times are ISO 8601 in UTC."""
    estimate = current_estimate(match)
    return {
        "match_id": match.match_id,
        "state": match.state.value,
        "reason": match.reason or None,
        "patient_id": match.patient.patient_id,
        "issuer": match.patient.issuer,
        "accession_number": match.accession_number,
        "study_uid": match.study_instance_uid,
        "radiograph_uid": match.radiograph_uid,
        "ecg_uid": match.ecg_uid,
        "radiograph_at": iso(match.radiograph_at),
        "ecg_at": iso(match.ecg_at),
        "gap_seconds": match.gap_seconds,
        "mpap_mmhg": round(estimate.mpap_mmhg, 2) if estimate else None,
        "interval_low_mmhg": round(estimate.interval_low_mmhg, 2) if estimate else None,
        "interval_high_mmhg": round(estimate.interval_high_mmhg, 2) if estimate else None,
        "interval_level": estimate.interval_level if estimate else None,
        "probability_above_20": round(estimate.probability_above_20, 3) if estimate else None,
        "probability_at_least_25": round(estimate.probability_at_least_25, 3) if estimate else None,
        "model": f"{estimate.model.name} {estimate.model.version}" if estimate else None,
        "model_digest": estimate.model.digest if estimate else None,
        "revision": match.revision,
        "supersedes": match.supersedes,
        "superseded_by": match.superseded_by,
        "notice": NOTICE,
    }


def current_estimate(match: Match) -> Prediction | None:
    """The estimate of a match; None where it has none, or where a person must look first (HELD, FAILED)."""
    if not match.prediction_json or match.state in {MatchState.HELD, MatchState.FAILED}:
        return None
    return Prediction.from_json(match.prediction_json)


def instance_row(instance_id: int, instance: Instance) -> dict[str, Any]:
    """The fields of `held --json`."""
    return {
        "instance_id": instance_id,
        "disposition": instance.disposition.value,
        "kind": instance.kind.value,
        "reason": instance.reason,
        "patient_id": instance.patient.patient_id,
        "issuer": instance.patient.issuer,
        "sop_instance_uid": instance.sop_instance_uid,
        "sop_class_uid": instance.sop_class_uid,
        "study_uid": instance.study_instance_uid,
        "calling_ae": instance.calling_ae,
        "received_at": iso(instance.received_at),
        "sha256": instance.sha256,
        "size_bytes": instance.size_bytes,
    }


def iso(moment: datetime | None) -> str | None:
    """ISO 8601, or None."""
    return moment.isoformat() if moment else None


def estimate_text(row: dict[str, Any]) -> str:
    """The estimate with its interval, as in "31 (24-38) mmHg"; "" without one."""
    if row["mpap_mmhg"] is None:
        return ""
    low, high = max(0.0, row["interval_low_mmhg"]), row["interval_high_mmhg"]
    return f"{row['mpap_mmhg']:.0f} ({low:.0f}-{high:.0f})"


def gap_text(seconds: float | None) -> str:
    """A distance in time for a person, as in "3.0 d" or "4.2 h"; "" without one."""
    if seconds is None:
        return ""
    return f"{seconds / 86400:.1f} d" if seconds >= 86400 else f"{seconds / 3600:.1f} h"
