"""Each report's way to each destination, claimed and settled on its own: none blocks another."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, case, delete, exists, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from storage import rows
from storage.claims import Claim
from storage.connections import Connections
from storage.errors import RowMissing
from storage.records import Delivery, DeliveryState, MatchState, ReportKind
from storage.schema import deliveries, matches, reports, silent_destinations, wanted_commitments
from storage.transaction import move_match
from storage.transitions import check_delivery, delivery_step


class Deliveries(Connections):
    """Claims and results of deliveries."""

    def claim_delivery(self, destination: str, owner: str, lease_seconds: float, now: datetime) -> Delivery | None:
        """Lease the delivery to `destination` that has been due longest, and count the attempt.

        Reports about one radiograph go in the order in which they were made: none while an earlier one is
        pending there, so that a revision never comes before what it replaces, nor an overlay before its SR.
        None: nothing is due, or the destination is silent.
        """
        row = _CLAIM.run(
            self,
            rows.SELECT_DELIVERIES,
            owner=owner,
            lease_seconds=lease_seconds,
            now=now,
            to_destination=destination,
        )
        return None if row is None else rows.delivery(row)

    def extend_delivery_lease(self, delivery_id: int, owner: str, lease_seconds: float, now: datetime) -> bool:
        """Hold a delivery for `lease_seconds` from now on. False: the lease is lost, stop sending."""
        with self.writing() as connection:
            changed = connection.execute(
                update(deliveries)
                .where(deliveries.c.delivery_id == delivery_id, deliveries.c.lease_owner == owner)
                .values(lease_until=now + timedelta(seconds=lease_seconds))
            )
        return changed.rowcount == 1

    def delivered(
        self, delivery_id: int, owner: str, status: int, now: datetime, *, wants_commitment: bool = False
    ) -> bool:
        """Note that the destination took it (`status` success or a warning). False: the lease was lost.

        With a match's last delivery the match goes from REPORTED to DELIVERED in the same transaction.

        Parameters
        ----------
        wants_commitment
            The destination is to be asked to commit to it.
        """
        with self.writing() as connection:
            match_id = self._settle(
                connection,
                delivery_id,
                owner,
                DeliveryState.DELIVERED,
                last_status=status,
                last_error="",
                delivered_at=now,
            )
            if match_id is not None:
                if wants_commitment:
                    self._want_commitment(connection, delivery_id, now)
                finish_match(connection, match_id, now)
        return match_id is not None

    def retry_delivery(self, delivery_id: int, owner: str, status: int | None, error: str, due_at: datetime) -> bool:
        """Note a failed try, due again at `due_at`; `status` None: no answer. False: the lease was lost."""
        with self.writing() as connection:
            settled = self._settle(
                connection,
                delivery_id,
                owner,
                DeliveryState.PENDING,
                last_status=status,
                last_error=error,
                due_at=due_at,
            )
        return settled is not None

    def fail_delivery(self, delivery_id: int, owner: str, status: int | None, error: str) -> bool:
        """Note that the destination refused, or that the attempts are spent. False: the lease was lost."""
        with self.writing() as connection:
            settled = self._settle(
                connection, delivery_id, owner, DeliveryState.FAILED, last_status=status, last_error=error
            )
        return settled is not None

    def destination_silent(
        self, delivery: Delivery, owner: str, error: str, *, until: datetime, give_up_before: datetime, now: datetime
    ) -> int:
        """Nobody answers at a delivery's destination: nothing is sent there before `until`.

        The delivery goes back as if it had not been claimed, for nothing can have reached anyone. What is due
        there keeps its place, so that it is sent in the order in which it was made once the destination answers.

        Parameters
        ----------
        give_up_before
            If the destination has been silent since then, what has been due there since then becomes FAILED.

        Returns
        -------
        int
            How many deliveries were given up.
        """
        with self.writing() as connection:
            # Was this claim the first try ever? Then the delivery was never tried.
            untried = deliveries.c.attempts == 1
            connection.execute(
                update(deliveries)
                .where(deliveries.c.delivery_id == delivery.delivery_id, deliveries.c.lease_owner == owner)
                .values(
                    lease_owner=None,
                    lease_until=None,
                    attempts=deliveries.c.attempts - 1,
                    last_error=error,
                    first_tried_at=case(
                        (untried & (deliveries.c.first_tried_at == deliveries.c.trying_since), None),
                        else_=deliveries.c.first_tried_at,
                    ),
                    trying_since=case((untried, None), else_=deliveries.c.trying_since),
                )
            )
            dialect_insert = sqlite.insert if self.is_sqlite else postgresql.insert
            since = connection.scalar(
                dialect_insert(silent_destinations)
                .values(destination=delivery.destination, silent_since=now, silent_until=until)
                .on_conflict_do_update(index_elements=["destination"], set_={"silent_until": until})
                .returning(silent_destinations.c.silent_since)
            )
            if since is None or since > give_up_before:
                return 0
            return connection.execute(
                update(deliveries)
                .where(
                    deliveries.c.destination == delivery.destination,
                    deliveries.c.state == _PENDING,
                    deliveries.c.due_at <= give_up_before,
                    deliveries.c.lease_owner.is_(None),
                )
                .values(state=_GIVEN_UP, last_error=error)
            ).rowcount

    def destination_answered(self, destination: str) -> datetime | None:
        """Note that a destination answers. Since when it had been silent, None if it was not."""
        silent = silent_destinations.c.destination == destination
        with self.reading() as connection:
            since = connection.scalar(select(silent_destinations.c.silent_since).where(silent))
        if since is not None:
            with self.writing() as connection:
                connection.execute(delete(silent_destinations).where(silent))
        return since

    def hasten(self, destination: str, now: datetime) -> int:
        """Make every pending delivery to `destination` due now, silent or not. Says how many were not."""
        with self.writing() as connection:
            connection.execute(
                update(silent_destinations)
                .where(silent_destinations.c.destination == destination)
                .values(silent_until=now)
            )
            return connection.execute(
                update(deliveries)
                .where(
                    deliveries.c.destination == destination,
                    deliveries.c.state == DeliveryState.PENDING,
                    deliveries.c.due_at > now,
                )
                .values(due_at=now)
            ).rowcount

    def cancel_deliveries(self, destination: str, now: datetime) -> int:
        """Give up what is pending or failed for `destination`, which nobody sends to any more. Says how many.

        A match that only waited for these goes to DELIVERED, if anything of it was delivered anywhere.
        """
        with self.writing() as connection:
            cancelled = connection.scalars(
                update(deliveries)
                .where(
                    deliveries.c.destination == destination,
                    deliveries.c.state.in_([_PENDING, _FAILED]),
                    or_(deliveries.c.lease_until.is_(None), deliveries.c.lease_until <= now),
                )
                .values(state=_CANCELLED, lease_owner=None, lease_until=None)
                .returning(deliveries.c.match_id)
            ).all()
            for match_id in sorted(set(cancelled)):
                finish_match(connection, match_id, now)
        return len(cancelled)

    def redrive(self, now: datetime, *, match_id: int | None = None, destination: str | None = None) -> int:
        """Make failed deliveries pending again, with fresh attempts: of a match, to a destination, or all.

        Says how many there were.
        """
        condition = [deliveries.c.state == _FAILED]
        if match_id is not None:
            condition.append(deliveries.c.match_id == match_id)
        if destination is not None:
            condition.append(deliveries.c.destination == destination)
        with self.writing() as connection:
            return connection.execute(
                update(deliveries).where(*condition).values(state=_REDRIVEN, attempts=0, trying_since=None, due_at=now)
            ).rowcount

    def add_deliveries(self, match_id: int, destination: str, kinds: Collection[ReportKind], now: datetime) -> int:
        """Send a match's stored reports of `kinds` to `destination`, again or for the first time.

        What is on its way already stays as it is. A match that was DELIVERED or COMMITTED goes back to
        REPORTED.

        Returns
        -------
        int
            How many deliveries are pending now that were not before.
        """
        added = 0
        with self.writing() as connection:
            state = connection.scalar(select(matches.c.state).where(matches.c.match_id == match_id).with_for_update())
            if state is None:
                raise RowMissing("match", match_id)
            wanted = connection.execute(
                select(reports.c.report_id, deliveries.c.delivery_id, deliveries.c.state)
                .outerjoin(
                    deliveries,
                    (deliveries.c.report_id == reports.c.report_id) & (deliveries.c.destination == destination),
                )
                .where(reports.c.match_id == match_id, reports.c.kind.in_(kinds))
                .order_by(reports.c.report_id)
            ).all()
            for report_id, delivery_id, delivery_state in wanted:
                if delivery_id is None:
                    connection.execute(
                        insert(deliveries).values(**rows.new_delivery(report_id, match_id, destination, now))
                    )
                elif delivery_state != DeliveryState.PENDING:
                    check_delivery(delivery_id, delivery_state, DeliveryState.PENDING)
                    connection.execute(
                        update(deliveries)
                        .where(deliveries.c.delivery_id == delivery_id)
                        .values(state=DeliveryState.PENDING, attempts=0, trying_since=None, due_at=now)
                    )
                else:
                    continue
                added += 1
            if added and state in {MatchState.DELIVERED, MatchState.COMMITTED}:
                move_match(connection, match_id, MatchState.REPORTED, owner=None, updated_at=now)
        return added

    def _want_commitment(self, connection: Connection, delivery_id: int, now: datetime) -> None:
        """Due at once. Where it was asked about before, and was sent again for its refusal, the tries go on."""
        again = {"transaction_uid": None, "due_at": now}
        dialect_insert = sqlite.insert if self.is_sqlite else postgresql.insert
        connection.execute(
            dialect_insert(wanted_commitments)
            .values(
                delivery_id=delivery_id,
                destination=select(deliveries.c.destination)
                .where(deliveries.c.delivery_id == delivery_id)
                .scalar_subquery(),
                attempts=0,
                last_error="",
                **again,
            )
            .on_conflict_do_update(index_elements=["delivery_id"], set_=again)
        )

    def _settle(
        self, connection: Connection, delivery_id: int, owner: str, new: DeliveryState, **values: object
    ) -> int | None:
        """Take a delivery that `owner` holds to `new`, ending its lease. Its match, or None if not held."""
        row = connection.execute(_HELD, {"delivery_id": delivery_id}).one_or_none()
        if row is None:
            raise RowMissing("delivery", delivery_id)
        if row.lease_owner != owner:
            return None
        check_delivery(delivery_id, row.state, new)
        connection.execute(
            update(deliveries)
            .where(deliveries.c.delivery_id == delivery_id)
            .values(state=new, lease_owner=None, lease_until=None, **values)
        )
        return int(row.match_id)


def finish_match(connection: Connection, match_id: int, now: datetime) -> None:
    """Take a match on if its last delivery has arrived, and if the last commitment that it waits for has come."""
    # The match's row is locked first: two last deliveries at once must not each miss the other's.
    state = connection.scalar(select(matches.c.state).where(matches.c.match_id == match_id).with_for_update())
    outstanding = exists().where(
        deliveries.c.match_id == match_id,
        deliveries.c.state.in_([DeliveryState.PENDING, DeliveryState.FAILED]),
    )
    arrived = exists().where(
        deliveries.c.match_id == match_id,
        deliveries.c.state.in_([DeliveryState.DELIVERED, DeliveryState.COMMITTED]),
    )
    # A superseded match stays superseded, however late its reports arrive.
    if state == MatchState.REPORTED and connection.scalar(select(arrived & ~outstanding)):
        move_match(connection, match_id, MatchState.DELIVERED, owner=None, updated_at=now)
        state = MatchState.DELIVERED
    committed = exists().where(deliveries.c.match_id == match_id, deliveries.c.state == DeliveryState.COMMITTED)
    awaited = exists().where(
        deliveries.c.match_id == match_id,
        deliveries.c.state == DeliveryState.DELIVERED,
        wanted_commitments.c.delivery_id == deliveries.c.delivery_id,
    )
    if state == MatchState.DELIVERED and connection.scalar(select(committed & ~awaited)):
        move_match(connection, match_id, MatchState.COMMITTED, owner=None, updated_at=now)


_FAILED, _REDRIVEN = delivery_step(DeliveryState.FAILED, DeliveryState.PENDING)
_PENDING, _GIVEN_UP = delivery_step(DeliveryState.PENDING, DeliveryState.FAILED)
_, _CANCELLED = delivery_step(DeliveryState.PENDING, DeliveryState.CANCELLED)
_earlier = deliveries.alias("earlier")
_NOW = bindparam("now", type_=deliveries.c.due_at.type)
_CLAIM = Claim(
    deliveries,
    deliveries.c.delivery_id,
    [
        (deliveries.c.destination == bindparam("to_destination"))
        & (deliveries.c.state == DeliveryState.PENDING)
        & ~exists().where(
            silent_destinations.c.destination == bindparam("to_destination"), silent_destinations.c.silent_until > _NOW
        )
        & ~exists().where(
            _earlier.c.radiograph_id == deliveries.c.radiograph_id,
            _earlier.c.destination == deliveries.c.destination,
            _earlier.c.state == DeliveryState.PENDING,
            _earlier.c.delivery_id < deliveries.c.delivery_id,
        )
    ],
    also={
        "first_tried_at": func.coalesce(deliveries.c.first_tried_at, _NOW),
        "trying_since": func.coalesce(deliveries.c.trying_since, _NOW),
    },
)
_HELD = (
    select(deliveries.c.state, deliveries.c.lease_owner, deliveries.c.match_id)
    .where(deliveries.c.delivery_id == bindparam("delivery_id"))
    .with_for_update()
)
