"""Keep each radiograph's match at the best ECG known, inside the transaction that changed what is known.

Comes in: an instance just stored, or an input just found unusable. Goes out: rows of the match table.
Which ECG is best is `pairing.choose`'s to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pacs_node.flow.pairing import (
    RULE_VERSION,
    Candidate,
    Chosen,
    Contradicted,
    Nothing,
    choose,
    contradictions,
    same_key,
)
from pacs_node.settings import Settings
from storage.records import Disposition, Kind, Match, MatchState, Patient, StoredInstance
from storage.transaction import PatientLock, Transaction

CORRECTABLE = frozenset({Disposition.REFUSED, Disposition.HELD})
WITH_REPORT = frozenset({MatchState.REPORTED, MatchState.DELIVERED, MatchState.COMMITTED})
"""States whose match has told PACS something: a change makes a new match that names it."""
ESTIMATED = WITH_REPORT | {MatchState.PREDICTED}
"""States whose estimate stands. What is held, failed or superseded is no result."""

CONTRADICTION = "identity_contradiction"
DISPUTED_CODE = "identity_disputed"
DISPUTED = f"{DISPUTED_CODE}: an object of this SOP Instance UID came for somebody else; `accept` settles which counts"
OTHER_COPY = "same_uid_other_bytes: a person accepted another object of this SOP Instance UID"
ECG_REMOVED = "ecg_removed: an ECG in the window came, but retention removed it; send the ECG again"
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


def lock_of(patient: Patient, sop_instance_uid: str = "") -> PatientLock:
    """The lock under which this patient's pairing changes, and what is known of one UID."""
    return PatientLock(issuer=patient.issuer, patient_id=patient.patient_id, sop_instance_uid=sop_instance_uid)


def pair_arrival(tx: Transaction, arrived: StoredInstance, rules: PairingRules, now: datetime) -> None:
    """Bring the matches of the arrived instance's patient up to date. No-op unless it was accepted."""
    instance = arrived.instance
    if instance.disposition is not Disposition.ACCEPTED:
        return
    if instance.kind is Kind.RADIOGRAPH:
        _repair(tx, arrived, rules, now)
    # Asked first: most ECGs come before a radiograph, or for none.
    elif instance.kind is Kind.ECG and tx.has_accepted(
        instance.patient.issuer, instance.patient.patient_id, Kind.RADIOGRAPH
    ):
        for radiograph in _in_reach(tx, arrived, Kind.RADIOGRAPH, rules):
            _repair(tx, radiograph, rules, now)


def reconsider(tx: Transaction, match: Match, rules: PairingRules, now: datetime) -> Match:
    """Choose again by the rules in force now, which may be others than when the match was made; what stands then."""
    radiograph = tx.instance(match.radiograph_id)
    if radiograph.instance.disposition is Disposition.ACCEPTED:
        _repair(tx, radiograph, rules, now)
    return tx.current_match(match.radiograph_id) or match


def dispute(tx: Transaction, first: StoredInstance, second: Patient, rules: PairingRules, now: datetime) -> bool:
    """Hold `first` if another object of its UID came for somebody else; whether it did.

    Archives keep the UID when they move an examination to the right patient, so neither copy can be trusted. What was
    reported for `first` is superseded by a match that waits for a person.
    """
    patient = first.instance.patient
    if same_key(patient, second) and not contradictions(patient, second):
        return False
    tx.set_disposition(first.instance_id, Disposition.HELD, DISPUTED)
    if first.instance.kind is Kind.RADIOGRAPH:
        current = tx.current_match(first.instance_id)
        if current is not None:
            _decide(tx, first, current, MatchState.HELD, DISPUTED, current.ecg_id, current.gap_seconds, now)
    elif first.instance.kind is Kind.ECG:
        for radiograph in _in_reach(tx, first, Kind.RADIOGRAPH, rules):
            current = tx.current_match(radiograph.instance_id)
            if current is not None and current.ecg_id == first.instance_id and not _repair(tx, radiograph, rules, now):
                _decide(tx, radiograph, current, MatchState.HELD, DISPUTED, current.ecg_id, current.gap_seconds, now)
    return True


def refuse_radiograph(tx: Transaction, match: Match, owner: str, reason: str, now: datetime) -> bool:
    """The radiograph cannot be used: its match waits for a person, with the reason.

    False, and nothing is written, if the lease was lost.
    """
    if not tx.holds_lease(match.match_id, owner):
        return False
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
    return True


def refuse_ecg(
    tx: Transaction,
    match: Match,
    owner: str,
    reason: str,
    rules: PairingRules,
    now: datetime,
    *,
    repeats: Callable[[Match, StoredInstance, StoredInstance], bool],
) -> bool:
    """The ECG cannot be used: every radiograph that counted on it takes the next nearest, or is held.

    If the next nearest is the ECG that was reported before this one came, that report stands again: nothing is told
    twice. False, and nothing is written, if the lease was lost.

    Parameters
    ----------
    repeats
        Whether an estimate of a radiograph and an ECG now would be that of an earlier match of theirs.
    """
    if match.ecg_id is None or not tx.holds_lease(match.match_id, owner):
        return False
    tx.set_disposition(match.ecg_id, Disposition.REFUSED, reason)
    for radiograph in _in_reach(tx, tx.instance(match.ecg_id), Kind.RADIOGRAPH, rules):
        current = tx.current_match(radiograph.instance_id)
        if current is None or current.ecg_id != match.ecg_id or current.state in WITH_REPORT:
            continue
        if _stands_again(tx, radiograph, current, rules, now, repeats):
            continue
        if not _repair(tx, radiograph, rules, now):
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
    return True


def _stands_again(
    tx: Transaction,
    radiograph: StoredInstance,
    current: Match,
    rules: PairingRules,
    now: datetime,
    repeats: Callable[[Match, StoredInstance, StoredInstance], bool],
) -> bool:
    """Reinstate the match that `current` superseded if its ECG is the best again and its report would be the same."""
    if current.supersedes is None:
        return False
    earlier = tx.match(current.supersedes)
    ecgs = {
        ecg.instance.sop_instance_uid: ecg for ecg in _in_reach(tx, radiograph, Kind.ECG, rules) if not ecg.purged_at
    }
    choice = choose(_candidate(radiograph), map(_candidate, ecgs.values()), rules.window)
    if not isinstance(choice, Chosen) or earlier.radiograph_id != radiograph.instance_id:
        return False
    ecg = ecgs[choice.ecg.sop_instance_uid]
    if ecg.instance_id != earlier.ecg_id or not repeats(earlier, radiograph, ecg):
        return False
    return tx.reinstate(earlier.match_id, instead_of=current.match_id, now=now)


def estimate_again(tx: Transaction, match: Match, owner: str, now: datetime) -> bool:
    """The estimate of a match is void, its pair stands. False, and nothing is written, if the lease was lost."""
    if not tx.holds_lease(match.match_id, owner):
        return False
    tx.change_match(
        match.match_id,
        state=MatchState.PAIRED,
        reason="",
        ecg_id=match.ecg_id,
        gap_seconds=match.gap_seconds,
        rule_version=match.rule_version,
        due_at=now,
        now=now,
    )
    return True


def drive_again(tx: Transaction, match: Match, rules: PairingRules, now: datetime) -> None:
    """A person asks for another try of a HELD or FAILED match: refused inputs count again, the best ECG is chosen.

    An identity contradiction stays held, because nothing but corrected objects can settle it; so does what is
    disputed, which `accept` settles. A refused input whose
    corrected copy was accepted meanwhile stays refused.
    """
    if not _accept_again(tx, match.radiograph_id):
        return
    was_refused = match.ecg_id is not None and _is_refused(tx, match.ecg_id)
    ecg_counts = match.ecg_id is not None and _accept_again(tx, match.ecg_id)
    _repair(tx, tx.instance(match.radiograph_id), rules, now, again=True)
    if match.ecg_id is None or not (was_refused and ecg_counts):
        return
    for radiograph in _in_reach(tx, tx.instance(match.ecg_id), Kind.RADIOGRAPH, rules):
        current = tx.current_match(radiograph.instance_id)
        if current is not None and current.radiograph_id != match.radiograph_id:
            held_with_it = current.state is MatchState.HELD and current.ecg_id == match.ecg_id
            _repair(tx, radiograph, rules, now, again=held_with_it)


def _is_refused(tx: Transaction, instance_id: int) -> bool:
    return tx.instance(instance_id).instance.disposition is Disposition.REFUSED


def _accept_again(tx: Transaction, instance_id: int) -> bool:
    """Let a refused instance count again, unless another object of its UID does; whether it counts now."""
    if not _is_refused(tx, instance_id):
        return tx.instance(instance_id).instance.disposition is Disposition.ACCEPTED
    copies = tx.instances_with_uid(tx.instance(instance_id).instance.sop_instance_uid)
    if any(copy.instance.disposition is Disposition.ACCEPTED for copy in copies):
        return False
    tx.set_disposition(instance_id, Disposition.ACCEPTED, "")
    return True


def accept_copy(tx: Transaction, chosen: StoredInstance, rules: PairingRules, now: datetime) -> None:
    """A person settles which of several objects with one UID holds: this one counts, the others are held."""
    for copy in tx.instances_with_uid(chosen.instance.sop_instance_uid):
        if copy.instance_id != chosen.instance_id:
            tx.set_disposition(copy.instance_id, Disposition.HELD, OTHER_COPY)
    tx.set_disposition(chosen.instance_id, Disposition.ACCEPTED, "")
    accepted = tx.instance(chosen.instance_id)
    if accepted.instance.kind is Kind.RADIOGRAPH:
        _repair(tx, accepted, rules, now, again=True)
    else:
        pair_arrival(tx, accepted, rules, now)


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
    tx: Transaction, radiograph: StoredInstance, rules: PairingRules, now: datetime, *, again: bool = False
) -> bool:
    """Make the radiograph's current match say what `choose` says; True if it names an ECG that counts.

    With `again` a match that says it already is written anew, so that its stage runs once more.
    """
    in_reach = _in_reach(tx, radiograph, Kind.ECG, rules)
    ecgs = [ecg for ecg in in_reach if ecg.purged_at is None]
    by_uid = {ecg.instance.sop_instance_uid: ecg.instance_id for ecg in ecgs}
    choice = choose(_candidate(radiograph), map(_candidate, ecgs), rules.window)
    current = tx.current_match(radiograph.instance_id)
    if radiograph.purged_at is not None and current is not None and not isinstance(choice, Nothing):
        # Retention only gives up the bytes of an UNPAIRED radiograph; sent again, it is paired then.
        if current.reason != REMOVED:
            _decide(tx, radiograph, current, MatchState.UNPAIRED, REMOVED, None, None, now)
        return False
    if isinstance(choice, Nothing):
        if current is None or again:
            reason = ECG_REMOVED if len(ecgs) < len(in_reach) else ""
            _decide(tx, radiograph, current, MatchState.WAITING, reason, None, None, now)
        return False
    ecg_id = by_uid[choice.ecg.sop_instance_uid]
    state, reason = _standing(choice)
    if current is not None and current.ecg_id == ecg_id and not again:
        held_for_identity = current.state is MatchState.HELD and current.reason.startswith(CONTRADICTION)
        if held_for_identity == isinstance(choice, Contradicted):
            return True
    due_at = now + rules.settle if state is MatchState.PAIRED else now
    _decide(tx, radiograph, current, state, reason, ecg_id, choice.gap_seconds, now, due_at)
    return True


def _in_reach(tx: Transaction, of: StoredInstance, kind: Kind, rules: PairingRules) -> tuple[StoredInstance, ...]:
    """The accepted instances of the same patient within the window around `of`."""
    at = _candidate(of).acquired_at
    patient = of.instance.patient
    return tx.accepted(
        patient.issuer, patient.patient_id, kind, acquired_from=at - rules.window, acquired_to=at + rules.window
    )


def _decide(
    tx: Transaction,
    radiograph: StoredInstance,
    current: Match | None,
    state: MatchState,
    reason: str,
    ecg_id: int | None,
    gap_seconds: float | None,
    now: datetime,
    due_at: datetime | None = None,
) -> None:
    """Write a decision down: into the current match, or as a new one where that has told PACS something."""
    decision: Any = {
        "ecg_id": ecg_id,
        "gap_seconds": gap_seconds,
        "rule_version": RULE_VERSION,
        "state": state,
        "reason": reason,
        "due_at": due_at or now,
        "now": now,
    }
    if current is not None and current.state not in WITH_REPORT:
        tx.change_match(current.match_id, **decision)
    else:
        supersedes = current.match_id if current else _match_of_former_copy(tx, radiograph)
        tx.add_match(radiograph_id=radiograph.instance_id, supersedes=supersedes, **decision)


def _match_of_former_copy(tx: Transaction, radiograph: StoredInstance) -> int | None:
    """The match that waits for a person because this very radiograph came before and could not be used."""
    for copy in tx.instances_with_uid(radiograph.instance.sop_instance_uid):
        if (
            copy.instance_id != radiograph.instance_id
            and copy.instance.disposition in CORRECTABLE
            and same_key(copy.instance.patient, radiograph.instance.patient)
            and not contradictions(copy.instance.patient, radiograph.instance.patient)
        ):
            match = tx.current_match(copy.instance_id)
            if match is not None:
                return match.match_id
    return None


def _standing(choice: Chosen | Contradicted) -> tuple[MatchState, str]:
    if isinstance(choice, Chosen):
        return MatchState.PAIRED, ""
    differing = " and ".join(choice.fields)
    return (
        MatchState.HELD,
        f"{CONTRADICTION}: radiograph and ECGs carry one patient ID, but two people's {differing}",
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
