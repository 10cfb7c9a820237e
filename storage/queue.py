"""The matches as a queue: claim one, work outside any transaction, store result and transition together.

Every write here says who holds the lease; whoever lost it, because it ended or because a nearer ECG changed
the match, is told so and its result is dropped. An owner is one worker thread: two must never use one name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache

from sqlalchemy import Connection, bindparam, exists, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from storage import rows
from storage.claims import Claim
from storage.connections import Connections
from storage.records import (
    ChestFeatures,
    DeliveryState,
    Disposition,
    Match,
    MatchState,
    NewReport,
    Report,
    ReportKind,
)
from storage.schema import chest_features, deliveries, instances, matches, reports
from storage.shadows import renew_shadow
from storage.transaction import move_match
from storage.transitions import delivery_step

SENDING_ORDER = tuple(ReportKind)
"""Reports of one match become due for a destination in this order: the SR before the overlay."""
REPLACED = "superseded: a later report stands in its place, and this one was not sent to anyone"
NOT_ACCEPTED = "input_not_accepted: the radiograph or its ECG no longer counts; nothing is reported from it"


class Queue(Connections):
    """Claims and results of matches."""

    def claim_match(
        self, states: Iterable[MatchState], owner: str, lease_seconds: float, now: datetime
    ) -> Match | None:
        """Lease the match of one of `states` that has been due longest, and count the attempt.

        None: nothing is due. An attempt counts from here, so a match that kills its worker is seen to do so:
        compare `Match.attempts` with the bound before working.
        """
        claim = _claim_states(tuple(sorted(states)))
        row = claim.run(self, rows.SELECT_MATCHES, owner=owner, lease_seconds=lease_seconds, now=now)
        return None if row is None else rows.match(row)

    def claim_chest(self, model_digest: str, owner: str, lease_seconds: float, now: datetime) -> Match | None:
        """Lease a WAITING match whose radiograph lacks this model's features, and count the attempt."""
        row = _CLAIM_CHEST.run(
            self,
            rows.SELECT_MATCHES,
            owner=owner,
            lease_seconds=lease_seconds,
            now=now,
            model_digest=model_digest,
        )
        return None if row is None else rows.match(row)

    def extend_lease(self, match_id: int, owner: str, lease_seconds: float, now: datetime) -> bool:
        """Hold a match for `lease_seconds` from now on. False: the lease is lost, stop working."""
        return self._write_held(match_id, owner, lease_until=now + timedelta(seconds=lease_seconds))

    def release(self, match_id: int, owner: str) -> bool:
        """Give a match back unworked; the attempt does not count."""
        return self._write_held(match_id, owner, lease_owner=None, lease_until=None, attempts=matches.c.attempts - 1)

    def retry_match(self, match_id: int, owner: str, reason: str, due_at: datetime, now: datetime) -> bool:
        """Give a match back after a failed attempt, due again at `due_at`. False: the lease was lost."""
        return self._write_held(
            match_id, owner, lease_owner=None, lease_until=None, reason=reason, due_at=due_at, updated_at=now
        )

    def fail_match(self, match_id: int, owner: str, reason: str, now: datetime) -> bool:
        """Take a match to FAILED: its attempts are spent. False: the lease was lost."""
        return self._move_held(match_id, MatchState.FAILED, owner, reason=reason, updated_at=now)

    def hold_match(self, match_id: int, owner: str, reason: str, now: datetime) -> bool:
        """Take a match to HELD: a person must look at `reason`. False: the lease was lost."""
        return self._move_held(match_id, MatchState.HELD, owner, reason=reason, updated_at=now)

    def save_chest(self, features: ChestFeatures, match_id: int, owner: str, *, waiting_reason: str = "") -> bool:
        """Keep what the radiograph gives. The lease of a WAITING match ends with it, that of another goes on.

        Of a match that waits on, `waiting_reason` is the reason from now on.

        The features are kept even if the lease was lost meanwhile, which the answer False says: they depend
        on the radiograph and the model alone.
        """
        values = {column.name: getattr(features, column.name) for column in chest_features.c}
        dialect_insert = sqlite.insert if self.is_sqlite else postgresql.insert
        with self.writing() as connection:
            connection.execute(dialect_insert(chest_features).on_conflict_do_nothing(), values)
            connection.execute(
                update(matches)
                .where(
                    matches.c.radiograph_id == features.radiograph_id,
                    matches.c.state != MatchState.SUPERSEDED,
                )
                .values(chest_digest=features.model_digest)
            )
            row = connection.execute(
                select(matches.c.state, matches.c.lease_owner).where(matches.c.match_id == match_id).with_for_update()
            ).one()
            held = row.lease_owner == owner
            if held and row.state == MatchState.WAITING:
                connection.execute(
                    update(matches)
                    .where(matches.c.match_id == match_id)
                    .values(lease_owner=None, lease_until=None, attempts=0, reason=waiting_reason)
                )
        return held

    def chest_features(self, radiograph_id: int, model_digest: str) -> ChestFeatures | None:
        """What was kept of a radiograph for a model, or None."""
        with self.reading() as connection:
            row = connection.execute(
                _CHEST, {"radiograph_id": radiograph_id, "model_digest": model_digest}
            ).one_or_none()
        return None if row is None else rows.chest(row)

    def save_prediction(
        self,
        match_id: int,
        owner: str,
        prediction_json: str,
        run_digest: str,
        now: datetime,
        *,
        shadowed: bool = False,
    ) -> bool:
        """Store an estimate and take its match from PAIRED to PREDICTED, due at once.

        With `shadowed`, a second package's estimate becomes due too; one of an earlier run is forgotten.

        False: the lease was lost or the match was superseded meanwhile, and nothing was written; or an input no
        longer counts, and the match is HELD.
        """
        with self.writing() as connection:
            if _holds_refused_input(connection, match_id, owner, now):
                return False
            moved = move_match(
                connection,
                match_id,
                MatchState.PREDICTED,
                owner=owner,
                prediction_json=prediction_json,
                run_digest=run_digest,
                reason="",
                due_at=now,
                updated_at=now,
            )
            if moved:
                renew_shadow(connection, match_id, now, wanted=shadowed)
            return moved

    def predecessor_report(self, match_id: int, kind: ReportKind) -> Report | None:
        """Decide which report the new one of `match_id` replaces: the nearest earlier one that may be out.

        It is if any destination was tried with it, or if it is not sent anywhere. What is named goes on being
        sent, before the new one, so that each destination finds what the new report refers to. An earlier
        match that nobody can have got is not named, and its deliveries are cancelled here: from now on
        nobody can try them.
        """
        with self.reading() as connection:
            earlier = connection.scalar(_SUPERSEDED, {"match_id": match_id})
        if earlier is None:
            return None
        with self.writing() as connection:
            while earlier is not None:
                row = connection.execute(
                    rows.SELECT_REPORTS.where(reports.c.match_id == earlier, reports.c.kind == kind)
                ).one_or_none()
                if row is not None:
                    # Locked: whoever claims one of them now is seen, or comes too late.
                    tried = connection.scalars(
                        select(deliveries.c.first_tried_at)
                        .where(deliveries.c.report_id == row.report_id)
                        .with_for_update()
                    ).all()
                    if not tried or any(tried):
                        return rows.report(row)
                connection.execute(
                    update(deliveries)
                    .where(
                        deliveries.c.match_id == earlier,
                        deliveries.c.state == _UNSENT,
                        deliveries.c.first_tried_at.is_(None),
                    )
                    .values(state=_CANCELLED, last_error=REPLACED)
                )
                earlier = connection.scalar(_SUPERSEDED, {"match_id": earlier})
        return None

    def save_reports(
        self,
        match_id: int,
        owner: str,
        new_reports: Sequence[NewReport],
        destinations: Mapping[ReportKind, Sequence[str]],
        now: datetime,
    ) -> bool:
        """Store the rows of a match's reports and their deliveries, and take it from PREDICTED to REPORTED.

        `destinations` names who is sent each kind. The objects must be put before. All is one transaction.
        False: the lease was lost or the match was superseded meanwhile, and nothing was written; or an input no
        longer counts, and the match is HELD.

        Raises
        ------
        StorageConflict
            If a report of this kind or of this SOP Instance UID is stored already.
        """
        with self.writing() as connection:
            if _holds_refused_input(connection, match_id, owner, now):
                return False
            if not move_match(
                connection, match_id, MatchState.REPORTED, owner=owner, reason="", due_at=now, updated_at=now
            ):
                return False
            for report in sorted(new_reports, key=lambda report: SENDING_ORDER.index(report.kind)):
                added = connection.execute(
                    insert(reports),
                    {column: getattr(report, column) for column in _NEW_REPORT_COLUMNS}
                    | {"match_id": match_id, "created_at": now},
                )
                for destination in destinations.get(report.kind, ()):
                    connection.execute(
                        insert(deliveries).values(**rows.new_delivery(rows.new_id(added), match_id, destination, now))
                    )
        return True

    def _move_held(self, match_id: int, new: MatchState, owner: str, **values: object) -> bool:
        with self.writing() as connection:
            return move_match(connection, match_id, new, owner=owner, **values)

    def _write_held(self, match_id: int, owner: str, **values: object) -> bool:
        """Change a match that keeps its state, if `owner` holds it."""
        with self.writing() as connection:
            changed = connection.execute(
                update(matches).where(matches.c.match_id == match_id, matches.c.lease_owner == owner).values(**values)
            )
        return changed.rowcount == 1


def _holds_refused_input(connection: Connection, match_id: int, owner: str, now: datetime) -> bool:
    """Whether an input of a match that `owner` holds does not count, such as one that was disputed; then it is HELD.

    Pairing lets no such match stand: this is for the day it does. Whoever changes an input changes its matches in the
    same transaction, and waits for the match that is locked here.
    """
    row = connection.execute(_INPUTS, {"match_id": match_id}).one_or_none()
    if row is None or row.lease_owner != owner:
        return False
    unaccepted = select(instances.c.instance_id).where(
        instances.c.instance_id.in_([row.radiograph_id, row.ecg_id]),
        instances.c.disposition != Disposition.ACCEPTED,
    )
    if connection.execute(unaccepted).first() is None:
        return False
    return move_match(connection, match_id, MatchState.HELD, owner=owner, reason=NOT_ACCEPTED, updated_at=now)


@cache
def _claim_states(states: tuple[MatchState, ...]) -> Claim:
    return Claim(matches, matches.c.match_id, [matches.c.state == state for state in states])


_MODEL_DIGEST = bindparam("model_digest", type_=chest_features.c.model_digest.type)
_LACKS_FEATURES = ~exists().where(
    chest_features.c.radiograph_id == matches.c.radiograph_id,
    chest_features.c.model_digest == _MODEL_DIGEST,
)
_WAITS = matches.c.state == MatchState.WAITING
# Three ranges of ix_matches_chest_due that leave out the many waiting matches that have this model's
# features.
_CLAIM_CHEST = Claim(
    matches,
    matches.c.match_id,
    [
        _WAITS & (matches.c.chest_digest == "") & _LACKS_FEATURES,
        _WAITS & (matches.c.chest_digest > "") & (matches.c.chest_digest < _MODEL_DIGEST) & _LACKS_FEATURES,
        _WAITS & (matches.c.chest_digest > _MODEL_DIGEST) & _LACKS_FEATURES,
    ],
    within=[matches.c.chest_digest],
)
_CHEST = rows.SELECT_CHEST_FEATURES.where(
    chest_features.c.radiograph_id == bindparam("radiograph_id"),
    chest_features.c.model_digest == bindparam("model_digest"),
)
_INPUTS = (
    select(matches.c.radiograph_id, matches.c.ecg_id, matches.c.lease_owner)
    .where(matches.c.match_id == bindparam("match_id"))
    .with_for_update()
)
_SUPERSEDED = select(matches.c.supersedes).where(matches.c.match_id == bindparam("match_id"))
_UNSENT, _CANCELLED = delivery_step(DeliveryState.PENDING, DeliveryState.CANCELLED)
_NEW_REPORT_COLUMNS = tuple(NewReport.__dataclass_fields__)
