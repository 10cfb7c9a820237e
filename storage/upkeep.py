"""What the scheduler does to rows: close windows, end leases, give up the inputs that nobody pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, and_, delete, exists, or_, select, union, update

from storage import rows
from storage.connections import Connections
from storage.errors import RowMissing, SweepRefused
from storage.identity import check_bound
from storage.objects import ObjectStore
from storage.records import Disposition, MatchState, StoredInstance
from storage.schema import chest_features, deliveries, instances, matches, reports
from storage.transaction import PatientLock, take_locks
from storage.transitions import match_step

WINDOW_CLOSED = "window_closed: no usable ECG of this patient came inside the window"
BATCH = 500
"""Digests asked about in one statement."""
MOST_ORPHANS = 100
MOST_ORPHANED_SHARE = 0.1
"""Beyond both, orphans are a sign that rows were lost."""


class Upkeep(Connections):
    """Regular chores. Each may be repeated, and run on several machines, without harm."""

    def close_windows(self, now: datetime, window: timedelta) -> int:
        """Take each WAITING match whose radiograph is older than `window` to UNPAIRED, and say how many."""
        outside = select(instances.c.instance_id).where(
            instances.c.instance_id == matches.c.radiograph_id, instances.c.acquired_at < now - window
        )
        with self.writing() as connection:
            return connection.execute(
                update(matches)
                .where(matches.c.state == _OPEN, exists(outside))
                .values(
                    state=_CLOSED,
                    reason=WINDOW_CLOSED,
                    lease_owner=None,
                    lease_until=None,
                    attempts=0,
                    updated_at=now,
                )
            ).rowcount

    def clear_ended_leases(self, now: datetime) -> int:
        """Forget the leases that ended, of matches and deliveries, and say how many.

        Work under an ended lease may be claimed without this; forgetting it makes a late result of the former
        owner be dropped for certain.
        """
        with self.writing() as connection:
            return sum(
                connection.execute(
                    update(queue).where(queue.c.lease_until <= now).values(lease_owner=None, lease_until=None)
                ).rowcount
                for queue in (matches, deliveries)
            )

    def unpaired_inputs(self, received_before: datetime, limit: int) -> tuple[StoredInstance, ...]:
        """The oldest inputs received before an instant whose bytes nobody needs.

        An input is needed if it is HELD, if any match, superseded or not, used it together with an ECG, or if
        its match waits, is held or failed. Its bytes are needed also if a needed input or a report has the
        same ones.
        """
        found = (
            rows.SELECT_INSTANCES.where(
                instances.c.purged_at.is_(None),
                instances.c.received_at < received_before,
                _unneeded(instances),
                ~_shared_with_needed(),
            )
            .order_by(instances.c.received_at, instances.c.instance_id)
            .limit(limit)
        )
        with self.reading() as connection:
            return tuple(map(rows.stored_instance, connection.execute(found)))

    def mark_purged(self, instance_id: int, now: datetime) -> tuple[str, ...]:
        """Note that the bytes of an input are given up, unless it has become needed since it was listed.

        The row stays, with its reason. Chest features of it go.

        Returns
        -------
        tuple of str
            The digests it named, of its bytes and of its pictures; empty if it was not marked. Those that
            `referenced_digests` no longer names may be set aside.
        """
        with self.writing() as connection:
            # Whoever pairs this patient waits, or is seen.
            patient = connection.execute(
                select(instances.c.issuer, instances.c.patient_id, instances.c.sop_instance_uid).where(
                    instances.c.instance_id == instance_id
                )
            ).one_or_none()
            if patient is None:
                raise RowMissing("instance", instance_id)
            lock = PatientLock(
                issuer=patient.issuer, patient_id=patient.patient_id, sop_instance_uid=patient.sop_instance_uid
            )
            take_locks(connection, lock)
            marked = connection.scalar(
                update(instances)
                .where(
                    instances.c.instance_id == instance_id,
                    instances.c.purged_at.is_(None),
                    _unneeded(instances),
                )
                .values(purged_at=now)
                .returning(instances.c.sha256)
            )
            if marked is None:
                return ()
            displays = connection.scalars(
                delete(chest_features)
                .where(chest_features.c.radiograph_id == instance_id)
                .returning(chest_features.c.display_sha256)
            ).all()
            connection.execute(update(matches).where(matches.c.radiograph_id == instance_id).values(chest_digest=""))
        return (marked, *displays)

    def remove_former_features(self, limit: int) -> tuple[str, ...]:
        """Forget chest features of former models where the radiograph has those of a later one.

        Features that an estimate under way or a report to be written may need stay.

        Returns
        -------
        tuple of str
            The digests of the pictures they named, at most `limit`; empty if there is nothing left to forget.
        """
        current = chest_features.alias("current")
        former = (
            select(chest_features.c.radiograph_id, chest_features.c.model_digest, chest_features.c.display_sha256)
            .join(matches, matches.c.radiograph_id == chest_features.c.radiograph_id)
            .where(
                matches.c.state.not_in([MatchState.SUPERSEDED, MatchState.PAIRED, MatchState.PREDICTED]),
                matches.c.lease_until.is_(None),
                matches.c.chest_digest != chest_features.c.model_digest,
                exists().where(
                    current.c.radiograph_id == chest_features.c.radiograph_id,
                    current.c.model_digest == matches.c.chest_digest,
                ),
            )
            .limit(limit)
        )
        with self.writing() as connection:
            found = connection.execute(former).all()
            for row in found:
                connection.execute(
                    delete(chest_features).where(
                        chest_features.c.radiograph_id == row.radiograph_id,
                        chest_features.c.model_digest == row.model_digest,
                    )
                )
        return tuple(row.display_sha256 for row in found)

    def referenced_digests(self, among: Sequence[str] | None = None) -> set[str]:
        """The digests of the objects that rows need (or those `among` some): inputs, reports, displays."""
        with self.reading() as connection:
            if among is None:
                return set(connection.scalars(_referenced()))
            found: set[str] = set()
            for start in range(0, len(among), BATCH):
                found.update(connection.scalars(_referenced(among[start : start + BATCH])))
            return found

    def set_aside(self, objects: ObjectStore, digests: Sequence[str], unused_for_seconds: float) -> int:
        """Set aside those of `digests` that no row needs, and say how many. See `ObjectStore.set_aside`."""
        needed = self.referenced_digests(digests)
        return sum(
            objects.set_aside(sha256, unused_for_seconds=unused_for_seconds)
            for sha256 in dict.fromkeys(digests)
            if sha256 not in needed and objects.exists(sha256)
        )

    def orphans(self, objects: ObjectStore) -> Iterator[tuple[str, bool]]:
        """Every object's digest, in order, and whether no row needs it.

        The rows are read after the folder: a row committed before its object was listed is seen.
        """
        digests = objects.digests()
        while batch := list(islice(digests, BATCH)):
            needed = self.referenced_digests(batch)
            yield from ((sha256, sha256 not in needed) for sha256 in batch)

    def sweep_orphans(self, objects: ObjectStore, unused_for_seconds: float, *, however_many: bool = False) -> int:
        """Set aside the objects that no row needs and nobody put lately, and say how many.

        Killed senders and dropped results leave a few. `unused_for_seconds` must be longer than the time from
        an object's `put` to the commit of its row: an hour is plenty.

        Raises
        ------
        StoreMismatch
            If the folder does not belong to this database.
        SweepRefused
            If there are more than `MOST_ORPHANS` and more than `MOST_ORPHANED_SHARE` of all, as when rows were
            lost, and not `however_many`.
        """
        check_bound(self, objects)
        total, found = 0, []
        for sha256, orphaned in self.orphans(objects):
            total += 1
            if orphaned:
                found.append(sha256)
        if len(found) > max(MOST_ORPHANS, MOST_ORPHANED_SHARE * total) and not however_many:
            raise SweepRefused(len(found), total)
        return sum(
            self.set_aside(objects, found[start : start + BATCH], unused_for_seconds)
            for start in range(0, len(found), BATCH)
        )


def _unneeded(row: Any) -> ColumnElement[bool]:
    """Whether nobody needs the bytes of an instance's `row` for itself."""
    used = exists().where(
        or_(matches.c.radiograph_id == row.c.instance_id, matches.c.ecg_id == row.c.instance_id),
        or_(
            matches.c.ecg_id.is_not(None),
            matches.c.state.not_in([MatchState.UNPAIRED, MatchState.SUPERSEDED]),
        ),
    )
    return and_(row.c.disposition != Disposition.HELD, ~used)


def _shared_with_needed() -> ColumnElement[bool]:
    """Whether something that is needed has the same bytes as an `instances` row."""
    other = instances.alias("other")
    return or_(
        exists().where(
            other.c.sha256 == instances.c.sha256,
            other.c.instance_id != instances.c.instance_id,
            other.c.purged_at.is_(None),
            ~_unneeded(other),
        ),
        exists().where(reports.c.sha256 == instances.c.sha256),
        exists().where(chest_features.c.display_sha256 == instances.c.sha256),
    )


def _referenced(among: Sequence[str] | None = None) -> CompoundSelect[Any]:
    parts = [
        select(instances.c.sha256).where(instances.c.purged_at.is_(None)),
        select(reports.c.sha256),
        select(chest_features.c.display_sha256),
    ]
    if among is not None:
        parts = [part.where(part.selected_columns[0].in_(among)) for part in parts]
    return union(*parts)


_OPEN, _CLOSED = match_step(MatchState.WAITING, MatchState.UNPAIRED)
