"""One write transaction to receive and pair: an instance's row and what follows for matches, or neither.

Which ECG goes with which radiograph is decided elsewhere; here the decision is written down.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, exists, func, insert, or_, select, text, update

from storage import rows
from storage.errors import RowMissing
from storage.prepared import Prepared
from storage.records import DeliveryState, Disposition, Instance, Kind, Match, MatchState, StoredInstance
from storage.schema import chest_features, deliveries, instances, matches, reports
from storage.transitions import check_match


@dataclass(frozen=True, kw_only=True)
class PatientLock:
    """Whose pairing a transaction changes: two of them never run at once for one patient.

    With a `sop_instance_uid` also not for one SOP Instance UID, nor for any patient it is known of: the same UID sent
    under two patients at once, to two nodes, must be seen by the later one, and it may change the matches of both.
    """

    issuer: str
    patient_id: str
    sop_instance_uid: str = ""  # "": of no one instance


class Transaction:
    """What may be read and written while a write transaction lasts. `Store.transaction` makes it."""

    def __init__(self, connection: Connection, lock: PatientLock | None) -> None:
        self._connection = connection
        if lock is not None:
            take_locks(connection, lock)

    def instances_with_uid(self, sop_instance_uid: str) -> tuple[StoredInstance, ...]:
        """Every row of this SOP Instance UID: more than one if its bytes differed. Oldest first."""
        return self._instances(_BY_UID, sop_instance_uid=sop_instance_uid)

    def is_unknown(self, sop_instance_uid: str) -> bool:
        """Whether neither an instance nor a report of ours has this SOP Instance UID: the common case, at one look."""
        return not _KNOWN.scalar(self._connection, {"sop_instance_uid": sop_instance_uid})

    def has_accepted(self, issuer: str, patient_id: str, kind: Kind) -> bool:
        """Whether the patient has an accepted instance of this kind."""
        asked = {"issuer": issuer, "patient_id": patient_id, "kind": kind, "disposition": Disposition.ACCEPTED}
        return bool(_HAS_ACCEPTED.scalar(self._connection, asked))

    def add_instance(self, instance: Instance) -> int:
        """Store a row and return its number. Its object must be put before.

        Raises
        ------
        StorageConflict
            If the same UID with the same bytes has a row.
        """
        return _ADD_INSTANCE.insert(self._connection, rows.instance_values(instance))

    def accepted(
        self,
        issuer: str,
        patient_id: str,
        kind: Kind,
        *,
        acquired_from: datetime | None = None,
        acquired_to: datetime | None = None,
    ) -> tuple[StoredInstance, ...]:
        """The accepted instances of one patient, by time of acquisition.

        Both bounds are inclusive. With a bound, instances without a time are left out. An instance whose
        bytes retention gave up has `purged_at`.
        """
        if acquired_from is None and acquired_to is None:
            return self._instances(_ACCEPTED, issuer=issuer, patient_id=patient_id, kind=kind)
        return self._instances(
            _ACCEPTED_BETWEEN,
            issuer=issuer,
            patient_id=patient_id,
            kind=kind,
            acquired_from=acquired_from or datetime.min.replace(tzinfo=UTC),
            acquired_to=acquired_to or datetime.max.replace(tzinfo=UTC),
        )

    def instance(self, instance_id: int) -> StoredInstance:
        """One row. Raises `RowMissing`."""
        found = self._instances(_BY_ID, instance_id=instance_id)
        if not found:
            raise RowMissing("instance", instance_id)
        return found[0]

    def is_own_report(self, sop_instance_uid: str) -> bool:
        """Whether a report of ours has this SOP Instance UID."""
        own = select(reports.c.report_id).where(reports.c.sop_instance_uid == sop_instance_uid)
        return self._connection.scalar(own) is not None

    def set_disposition(self, instance_id: int, disposition: Disposition, reason: str) -> None:
        """Change what became of an instance, such as an ECG that cannot be read. Raises `RowMissing`."""
        self._update_instance(instance_id, disposition=disposition, reason=reason)

    def describe_again(self, instance_id: int, instance: Instance) -> None:
        """Write down what an instance is taken for now: the same bytes, read by other settings. Raises `RowMissing`."""
        self._update_instance(instance_id, **rows.instance_values(instance))

    def restore_purged(self, instance_id: int) -> None:
        """Note that the bytes of a purged instance are back: they were sent, and put, again."""
        self._update_instance(instance_id, purged_at=None)

    def match(self, match_id: int) -> Match:
        """One match, which nobody else may change until this transaction ends. Raises `RowMissing`."""
        row = self._connection.execute(_MATCH_BY_ID, {"match_id": match_id}).one_or_none()
        if row is None:
            raise RowMissing("match", match_id)
        return rows.match(row)

    def current_match(self, radiograph_id: int) -> Match | None:
        """The radiograph's match that is not superseded, which nobody else may change meanwhile."""
        row = self._connection.execute(_CURRENT_MATCH, {"radiograph_id": radiograph_id}).one_or_none()
        return None if row is None else rows.match(row)

    def holds_lease(self, match_id: int, owner: str) -> bool:
        """Whether `owner` still holds the match, so that a result worked out outside may be written."""
        held = select(matches.c.lease_owner).where(matches.c.match_id == match_id).with_for_update()
        return self._connection.scalar(held) == owner

    def add_match(
        self,
        *,
        radiograph_id: int,
        ecg_id: int | None,
        gap_seconds: float | None,
        rule_version: str,
        state: MatchState,
        reason: str,
        due_at: datetime,
        supersedes: int | None,
        now: datetime,
    ) -> int:
        """Store a match and return its number. The one it `supersedes` goes SUPERSEDED and loses its lease.

        Reports and deliveries of the superseded match stay as they are until the new report is written and
        `Store.predecessor_report` decides whether it names them.

        Raises
        ------
        IllegalTransition
            If the one it supersedes is superseded already.
        StorageConflict
            If the radiograph has another match that is not superseded.
        """
        if supersedes is not None:
            self._move(supersedes, MatchState.SUPERSEDED, updated_at=now)
        last = select(func.max(matches.c.revision)).where(matches.c.radiograph_id == radiograph_id)
        kept = select(func.max(chest_features.c.model_digest)).where(chest_features.c.radiograph_id == radiograph_id)
        result = self._connection.execute(
            _ADD_MATCH,
            {
                "radiograph_id": radiograph_id,
                "ecg_id": ecg_id,
                "gap_seconds": gap_seconds,
                "rule_version": rule_version,
                "state": state,
                "reason": reason,
                "revision": (self._connection.scalar(last) or 0) + 1,
                "supersedes": supersedes,
                "superseded_by": None,
                "due_at": due_at,
                "attempts": 0,
                "lease_owner": None,
                "lease_until": None,
                "chest_digest": self._connection.scalar(kept) or "",
                "run_digest": "",
                "prediction_json": "",
                "created_at": now,
                "updated_at": now,
            },
        )
        match_id = rows.new_id(result)
        if supersedes is not None:
            self._connection.execute(
                update(matches).where(matches.c.match_id == supersedes).values(superseded_by=match_id)
            )
        return match_id

    def change_match(
        self,
        match_id: int,
        *,
        state: MatchState,
        reason: str,
        ecg_id: int | None,
        gap_seconds: float | None,
        rule_version: str,
        due_at: datetime,
        now: datetime,
    ) -> None:
        """Decide anew about a match that has no report yet. Its lease, attempts and estimate are void.

        Raises
        ------
        IllegalTransition
            If it has reports (then `add_match` supersedes it) or is superseded.
        RowMissing
            If there is no such match.
        """
        self._move(
            match_id,
            state,
            reason=reason,
            ecg_id=ecg_id,
            gap_seconds=gap_seconds,
            rule_version=rule_version,
            due_at=due_at,
            run_digest="",
            prediction_json="",
            updated_at=now,
        )

    def reinstate(self, match_id: int, *, instead_of: int, now: datetime) -> bool:
        """Let a superseded match stand again in the place of `instead_of`, which took its place and has no reports.

        It goes back to REPORTED, DELIVERED or COMMITTED, as its deliveries are by now. False, and nothing is changed,
        if it has no reports or another match took its place.
        """
        earlier = self.match(match_id)
        reported = exists().where(reports.c.match_id == match_id)
        if earlier.superseded_by != instead_of or not self._connection.scalar(select(reported)):
            return False
        self._move(instead_of, MatchState.SUPERSEDED, superseded_by=match_id, updated_at=now)
        self._move(match_id, MatchState.REPORTED, superseded_by=None, updated_at=now)
        found = set(
            self._connection.scalars(select(deliveries.c.state).where(deliveries.c.match_id == match_id).distinct())
        ) - {DeliveryState.CANCELLED}
        if found and found <= {DeliveryState.DELIVERED, DeliveryState.COMMITTED}:
            self._move(match_id, MatchState.DELIVERED, updated_at=now)
            if DeliveryState.DELIVERED not in found:
                self._move(match_id, MatchState.COMMITTED, updated_at=now)
        return True

    def _instances(self, statement: Any, **parameters: object) -> tuple[StoredInstance, ...]:
        return tuple(map(rows.stored_instance, self._connection.execute(statement, parameters)))

    def _update_instance(self, instance_id: int, **values: object) -> None:
        changed = self._connection.execute(
            update(instances).where(instances.c.instance_id == instance_id).values(**values)
        )
        if changed.rowcount == 0:
            raise RowMissing("instance", instance_id)

    def _move(self, match_id: int, new: MatchState, **values: object) -> None:
        move_match(self._connection, match_id, new, owner=None, **values)


def take_locks(connection: Connection, lock: PatientLock) -> None:
    """Wait for every other transaction with one of the locks, and hold them until this one ends.

    Everybody takes at most one UID, before any patient, and patients in ascending order of their numbers: two
    transactions never wait for each other. To be called before any row is locked.
    """
    # SQLite needs no lock: its write transactions never run at once.
    if connection.dialect.name != "postgresql":
        return
    patients = {(lock.issuer, lock.patient_id)}
    if lock.sop_instance_uid:
        connection.execute(_LOCK, {"key": _lock_number("instance", lock.sop_instance_uid, "")})
        # Whose the UID is known to be, which nobody changes from here on.
        known = connection.execute(_PATIENTS_OF_UID, {"sop_instance_uid": lock.sop_instance_uid})
        patients |= {(row.issuer, row.patient_id) for row in known}
    for key in sorted(_lock_number("patient", *patient) for patient in patients):
        connection.execute(_LOCK, {"key": key})


def move_match(connection: Connection, match_id: int, new: MatchState, *, owner: str | None, **values: object) -> bool:
    """Take a match to the state `new`, ending its lease and starting its attempts anew.

    With an `owner`, only if that owner holds its lease; the answer says whether it did.

    Raises
    ------
    IllegalTransition
        If `transitions` does not allow it.
    RowMissing
        If there is no such match.
    """
    row = connection.execute(_STATE, {"match_id": match_id}).one_or_none()
    if row is None:
        raise RowMissing("match", match_id)
    if owner is not None and row.lease_owner != owner:
        return False
    check_match(match_id, row.state, new)
    values = {"attempts": 0} | values
    connection.execute(
        update(matches)
        .where(matches.c.match_id == match_id)
        .values(state=new, lease_owner=None, lease_until=None, **values)
    )
    return True


def _lock_number(*name: str) -> int:
    """A number for PostgreSQL's advisory locks (signed, 64 bits)."""
    digest = hashlib.sha256("\0".join(name).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


_LOCK = text("SELECT pg_advisory_xact_lock(:key)")
_PATIENTS_OF_UID = (
    select(instances.c.issuer, instances.c.patient_id)
    .where(instances.c.sop_instance_uid == bindparam("sop_instance_uid"))
    .distinct()
)
_BY_UID = rows.SELECT_INSTANCES.where(instances.c.sop_instance_uid == bindparam("sop_instance_uid")).order_by(
    instances.c.instance_id
)
_KNOWN = Prepared(
    select(
        or_(
            exists().where(instances.c.sop_instance_uid == bindparam("sop_instance_uid")),
            exists().where(reports.c.sop_instance_uid == bindparam("sop_instance_uid")),
        )
    )
)
_BY_ID = rows.SELECT_INSTANCES.where(instances.c.instance_id == bindparam("instance_id"))
_ACCEPTED = rows.SELECT_INSTANCES.where(
    instances.c.patient_id == bindparam("patient_id"),
    instances.c.issuer == bindparam("issuer"),
    instances.c.kind == bindparam("kind"),
    instances.c.disposition == Disposition.ACCEPTED,
).order_by(instances.c.acquired_at, instances.c.sop_instance_uid)
_ACCEPTED_BETWEEN = _ACCEPTED.where(
    instances.c.acquired_at.between(bindparam("acquired_from"), bindparam("acquired_to"))
)
_HAS_ACCEPTED = Prepared(
    select(
        exists().where(
            instances.c.patient_id == bindparam("patient_id"),
            instances.c.issuer == bindparam("issuer"),
            instances.c.kind == bindparam("kind"),
            instances.c.disposition == bindparam("disposition"),
        )
    )
)
_ADD_INSTANCE = Prepared(insert(instances).values({name: bindparam(name) for name in rows.INSTANCE_COLUMNS}))
_ADD_MATCH = insert(matches)
_MATCH_BY_ID = rows.SELECT_MATCHES.where(matches.c.match_id == bindparam("match_id")).with_for_update(of=matches)
_CURRENT_MATCH = rows.SELECT_MATCHES.where(
    matches.c.radiograph_id == bindparam("radiograph_id"), matches.c.state != MatchState.SUPERSEDED
).with_for_update(of=matches)
_STATE = (
    select(matches.c.state, matches.c.lease_owner).where(matches.c.match_id == bindparam("match_id")).with_for_update()
)
