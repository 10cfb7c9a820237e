"""Keep each radiograph's match at the best ECG known, inside the transaction that changed what is known.

Comes in: an instance just stored, or an input just found unusable. Goes out: rows of the match table.
Which ECG is best is `pairing.choose`'s to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pacs_node.flow.pairing import RULE_VERSION, Candidate, Chosen, Contradicted, Nothing, choose
from pacs_node.settings import Settings
from storage.records import Disposition, Kind, Match, MatchState, Patient, StoredInstance
from storage.transaction import PatientLock, Transaction

WITH_REPORT = frozenset({MatchState.REPORTED, MatchState.DELIVERED, MatchState.COMMITTED})
"""States whose match has told PACS something: a change makes a new match that names it."""

REMOVED = "radiograph_removed: an ECG came after retention removed the radiograph; send the radiograph again"


@dataclass(frozen=True, kw_only=True)
class PairingRules:
    """The site's part of the rules."""

    window: timedelta
    settle: timedelta

    @classmethod
    def of(cls, settings: Settings) -> PairingRules:
        """The rules that `settings` ask for."""
        return cls(
            window=timedelta(days=settings.pairing.window_days),
            settle=timedelta(seconds=settings.pairing.settle_seconds),
        )


def lock_of(patient: Patient) -> PatientLock:
    """The lock under which this patient's pairing changes."""
    return PatientLock(issuer=patient.issuer, patient_id=patient.patient_id)


def pair_arrival(tx: Transaction, arrived: StoredInstance, rules: PairingRules, now: datetime) -> None:
    """Bring the matches of the arrived instance's patient up to date. No-op unless it was accepted."""
    instance = arrived.instance
    if instance.disposition is not Disposition.ACCEPTED:
        return
    key = (instance.patient.issuer, instance.patient.patient_id)
    if instance.kind is Kind.RADIOGRAPH:
        _repair(tx, arrived, tx.accepted(*key, Kind.ECG), rules, now)
    elif instance.kind is Kind.ECG and tx.has_accepted(*key, Kind.RADIOGRAPH):
        ecgs = tx.accepted(*key, Kind.ECG)
        for radiograph in tx.accepted(*key, Kind.RADIOGRAPH):
            _repair(tx, radiograph, ecgs, rules, now)


def refuse_radiograph(tx: Transaction, match: Match, owner: str, reason: str, now: datetime) -> None:
    """The radiograph cannot be used: its match waits for a person, with the reason. No-op if the lease was lost."""
    if not tx.holds_lease(match.match_id, owner):
        return
    tx.set_disposition(match.radiograph_id, Disposition.REFUSED, reason)
    tx.change_match(
        match.match_id,
        state=MatchState.HELD,
        reason=f"radiograph_refused: {reason}",
        ecg_id=match.ecg_id,
        gap_seconds=match.gap_seconds,
        rule_version=match.rule_version,
        due_at=now,
        now=now,
    )


def refuse_ecg(tx: Transaction, match: Match, owner: str, reason: str, rules: PairingRules, now: datetime) -> None:
    """The ECG cannot be used: every radiograph that counted on it takes the next nearest, or is held.

    No-op if the lease was lost.
    """
    if match.ecg_id is None or not tx.holds_lease(match.match_id, owner):
        return
    tx.set_disposition(match.ecg_id, Disposition.REFUSED, reason)
    key = (match.patient.issuer, match.patient.patient_id)
    ecgs = tx.accepted(*key, Kind.ECG)
    for radiograph in tx.accepted(*key, Kind.RADIOGRAPH):
        current = tx.current_match(radiograph.instance_id)
        if current is None or current.ecg_id != match.ecg_id or current.state in WITH_REPORT:
            continue
        if not _repair(tx, radiograph, ecgs, rules, now):
            tx.change_match(
                current.match_id,
                state=MatchState.HELD,
                reason=f"ecg_refused: {reason}",
                ecg_id=current.ecg_id,
                gap_seconds=current.gap_seconds,
                rule_version=current.rule_version,
                due_at=now,
                now=now,
            )


def drive_again(tx: Transaction, match: Match, rules: PairingRules, now: datetime) -> None:
    """A person asks for another try of a HELD or FAILED match: refused inputs count again, the best ECG is chosen.

    An identity contradiction stays held, because nothing but corrected objects can settle it. A refused input whose
    corrected copy was accepted meanwhile stays refused.
    """
    if not _accept_again(tx, match.radiograph_id):
        return
    was_refused = match.ecg_id is not None and _is_refused(tx, match.ecg_id)
    ecg_counts = match.ecg_id is not None and _accept_again(tx, match.ecg_id)
    key = (match.patient.issuer, match.patient.patient_id)
    ecgs = tx.accepted(*key, Kind.ECG)
    _repair(tx, tx.instance(match.radiograph_id), ecgs, rules, now, again=True)
    if not (was_refused and ecg_counts):
        return
    for radiograph in tx.accepted(*key, Kind.RADIOGRAPH):
        current = tx.current_match(radiograph.instance_id)
        if current is not None and current.radiograph_id != match.radiograph_id:
            held_with_it = current.state is MatchState.HELD and current.ecg_id == match.ecg_id
            _repair(tx, radiograph, ecgs, rules, now, again=held_with_it)


def _is_refused(tx: Transaction, instance_id: int) -> bool:
    return tx.instance(instance_id).instance.disposition is Disposition.REFUSED


def _accept_again(tx: Transaction, instance_id: int) -> bool:
    """Let a refused instance count again, unless another object of its UID does; whether it counts now."""
    if not _is_refused(tx, instance_id):
        return True
    copies = tx.instances_with_uid(tx.instance(instance_id).instance.sop_instance_uid)
    if any(copy.instance.disposition is Disposition.ACCEPTED for copy in copies):
        return False
    tx.set_disposition(instance_id, Disposition.ACCEPTED, "")
    return True


def run_again(tx: Transaction, match: Match, now: datetime) -> int:
    """A new match for the same pair in the place of one that was reported; its number."""
    return tx.add_match(
        radiograph_id=match.radiograph_id,
        ecg_id=match.ecg_id,
        gap_seconds=match.gap_seconds,
        rule_version=RULE_VERSION,
        state=MatchState.PAIRED,
        reason="",
        due_at=now,
        supersedes=match.match_id,
        now=now,
    )


def _repair(
    tx: Transaction,
    radiograph: StoredInstance,
    ecgs: Iterable[StoredInstance],
    rules: PairingRules,
    now: datetime,
    *,
    again: bool = False,
) -> bool:
    """Make the radiograph's current match say what `choose` says; True if it names an ECG of `ecgs`.

    With `again` a match that says it already is written anew, so that its stage runs once more.
    """
    ecgs = [ecg for ecg in ecgs if ecg.purged_at is None]
    by_uid = {ecg.instance.sop_instance_uid: ecg.instance_id for ecg in ecgs}
    choice = choose(_candidate(radiograph), map(_candidate, ecgs), rules.window)
    current = tx.current_match(radiograph.instance_id)
    if radiograph.purged_at is not None and current is not None and not isinstance(choice, Nothing):
        # Retention only gives up the bytes of an UNPAIRED radiograph; sent again, it is paired then.
        if current.reason != REMOVED:
            _leave_unpaired(tx, current, now)
        return False
    if isinstance(choice, Nothing):
        waiting: Any = {
            "ecg_id": None,
            "gap_seconds": None,
            "rule_version": RULE_VERSION,
            "state": MatchState.WAITING,
            "reason": "",
            "due_at": now,
            "now": now,
        }
        if current is None:
            tx.add_match(
                radiograph_id=radiograph.instance_id, supersedes=_match_of_refused_copy(tx, radiograph), **waiting
            )
        elif again:
            tx.change_match(current.match_id, **waiting)
        return False
    ecg_id = by_uid[choice.ecg.sop_instance_uid]
    if current is not None and current.ecg_id == ecg_id and not again:
        return True
    state, reason = _standing(choice)
    due_at = now + rules.settle if state is MatchState.PAIRED else now
    if current is None or current.state in WITH_REPORT:
        tx.add_match(
            radiograph_id=radiograph.instance_id,
            ecg_id=ecg_id,
            gap_seconds=choice.gap_seconds,
            rule_version=RULE_VERSION,
            state=state,
            reason=reason,
            due_at=due_at,
            supersedes=current.match_id if current else _match_of_refused_copy(tx, radiograph),
            now=now,
        )
    else:
        tx.change_match(
            current.match_id,
            state=state,
            reason=reason,
            ecg_id=ecg_id,
            gap_seconds=choice.gap_seconds,
            rule_version=RULE_VERSION,
            due_at=due_at,
            now=now,
        )
    return True


def _match_of_refused_copy(tx: Transaction, radiograph: StoredInstance) -> int | None:
    """The match that waits for a person because this very radiograph came before and could not be used."""
    for copy in tx.instances_with_uid(radiograph.instance.sop_instance_uid):
        if copy.instance.disposition is Disposition.REFUSED:
            match = tx.current_match(copy.instance_id)
            if match is not None:
                return match.match_id
    return None


def _leave_unpaired(tx: Transaction, current: Match, now: datetime) -> None:
    tx.change_match(
        current.match_id,
        state=MatchState.UNPAIRED,
        reason=REMOVED,
        ecg_id=None,
        gap_seconds=None,
        rule_version=RULE_VERSION,
        due_at=now,
        now=now,
    )


def _standing(choice: Chosen | Contradicted) -> tuple[MatchState, str]:
    if isinstance(choice, Chosen):
        return MatchState.PAIRED, ""
    differing = " and ".join(choice.fields)
    return (
        MatchState.HELD,
        f"identity_contradiction: radiograph and ECG carry the same patient ID but differ in {differing}",
    )


def _candidate(stored: StoredInstance) -> Candidate:
    acquired = stored.instance.acquired
    if acquired is None:
        raise ValueError("an accepted instance has a date")
    return Candidate(
        sop_instance_uid=stored.instance.sop_instance_uid,
        acquired_at=acquired.at,
        patient=stored.instance.patient,
    )
