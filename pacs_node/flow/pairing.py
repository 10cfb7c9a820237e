"""Choose the ECG that goes with a radiograph: the nearest of the same person within the window.

Pure: takes values, returns values. Reading candidates and storing the choice belong to `pair`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from storage.records import Patient

RULE_VERSION = "2"
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
    """ECGs under the same ID that are of different people, or may be: a person must look."""

    ecg: Candidate
    gap_seconds: float
    fields: tuple[str, ...]  # which of "birth date", "sex" differ between them


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """No ECG of this patient within the window."""


def choose(radiograph: Candidate, ecgs: Iterable[Candidate], window: timedelta) -> Chosen | Contradicted | Nothing:
    """The nearest ECG of the same issuer and ID within `window`, both ends inclusive, that is surely of this person.

    Ties go to the earlier ECG, then to the smaller UID, so that arrival order never matters.

    An ECG whose birth date or sex contradicts the radiograph's is never chosen, and it shows that the ID is used for
    two people. From then on an ECG that could be that other person's, because it states too little, is not chosen
    either; and if ECGs that all agree with the radiograph contradict each other, the radiograph states too little.
    What is left undecided so is `Contradicted`.
    """
    near = [
        _Ranked(abs(ecg.acquired_at - radiograph.acquired_at).total_seconds(), ecg)
        for ecg in ecgs
        if abs(ecg.acquired_at - radiograph.acquired_at) <= window and same_key(radiograph.patient, ecg.patient)
    ]
    near.sort(key=_Ranked.order)
    others = [each for each in near if contradictions(radiograph.patient, each.ecg.patient)]
    agreeing = [each for each in near if each not in others]
    for first in agreeing:
        for second in agreeing:
            fields = contradictions(first.ecg.patient, second.ecg.patient)
            if fields:
                return Contradicted(ecg=first.ecg, gap_seconds=first.gap_seconds, fields=fields)
    for each in agreeing:
        if all(contradictions(each.ecg.patient, other.ecg.patient) for other in others):
            return Chosen(ecg=each.ecg, gap_seconds=each.gap_seconds)
    if others:
        fields = contradictions(radiograph.patient, others[0].ecg.patient)
        return Contradicted(ecg=others[0].ecg, gap_seconds=others[0].gap_seconds, fields=fields)
    return Nothing()


class _Ranked(NamedTuple):
    """An ECG in reach with its distance."""

    gap_seconds: float
    ecg: Candidate

    def order(self) -> tuple[float, datetime, str]:
        return self.gap_seconds, self.ecg.acquired_at, self.ecg.sop_instance_uid


def same_key(one: Patient, other: Patient) -> bool:
    """Whether both carry the same issuer and the same ID. A blank ID is nobody's."""
    return bool(one.patient_id) and (one.issuer, one.patient_id) == (other.issuer, other.patient_id)


def contradictions(one: Patient, other: Patient) -> tuple[str, ...]:
    """Which of birth date and sex are stated by both and differ."""
    pairs = (("birth date", one.birth_date, other.birth_date), ("sex", one.sex, other.sex))
    return tuple(name for name, first, second in pairs if first and second and first != second)
