"""Choose the ECG that goes with a radiograph: the nearest of the same person within the window.

Pure: takes values, returns values. Reading candidates and storing the choice belong to `pair`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from storage.records import Patient

RULE_VERSION = "1"
"""Recorded with each match; counts up when a rule below changes."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A radiograph or an ECG as pairing sees it. `acquired_at` is timezone-aware."""

    sop_instance_uid: str
    acquired_at: datetime
    patient: Patient


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The ECG to use."""

    ecg: Candidate
    gap_seconds: float  # |ECG - radiograph|


@dataclass(frozen=True, kw_only=True)
class Contradicted:
    """Only ECGs under the same ID that are of somebody else: a person must look."""

    ecg: Candidate
    gap_seconds: float
    fields: tuple[str, ...]  # which of "birth date", "sex" differ


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """No ECG of this patient within the window."""


def choose(radiograph: Candidate, ecgs: Iterable[Candidate], window: timedelta) -> Chosen | Contradicted | Nothing:
    """The nearest ECG of the same issuer and ID within `window`, both ends inclusive.

    Ties go to the earlier ECG, then to the smaller UID, so that arrival order never matters. An ECG whose
    birth date or sex contradicts the radiograph's is never chosen; if only such ECGs are there, the nearest
    is named as contradiction.
    """
    consistent: list[tuple[float, datetime, str, Candidate]] = []
    contradicting: list[tuple[float, datetime, str, Candidate]] = []
    for ecg in ecgs:
        gap = abs(ecg.acquired_at - radiograph.acquired_at)
        if gap > window or not same_key(radiograph.patient, ecg.patient):
            continue
        rank = (gap.total_seconds(), ecg.acquired_at, ecg.sop_instance_uid, ecg)
        (contradicting if contradictions(radiograph.patient, ecg.patient) else consistent).append(rank)
    if consistent:
        gap_seconds, _, _, nearest = min(consistent, key=lambda rank: rank[:3])
        return Chosen(ecg=nearest, gap_seconds=gap_seconds)
    if contradicting:
        gap_seconds, _, _, nearest = min(contradicting, key=lambda rank: rank[:3])
        fields = contradictions(radiograph.patient, nearest.patient)
        return Contradicted(ecg=nearest, gap_seconds=gap_seconds, fields=fields)
    return Nothing()


def same_key(one: Patient, other: Patient) -> bool:
    """Whether both carry the same issuer and the same ID. A blank ID is nobody's."""
    return bool(one.patient_id) and (one.issuer, one.patient_id) == (other.issuer, other.patient_id)


def contradictions(one: Patient, other: Patient) -> tuple[str, ...]:
    """Which of birth date and sex are stated by both and differ."""
    pairs = (("birth date", one.birth_date, other.birth_date), ("sex", one.sex, other.sex))
    return tuple(name for name, first, second in pairs if first and second and first != second)
