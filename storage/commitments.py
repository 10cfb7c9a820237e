"""What destinations are asked to commit to, and what they answer (PS3.4 J).

A question is written before it is asked. Its due time takes the place of a lease: if no answer has come by then, for
whatever reason, it is asked anew under another transaction UID.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, exists, func, insert, select, update

from storage.connections import Connections
from storage.deliveries import finish_match
from storage.records import (
    DeliveryState,
    MatchState,
    SopReference,
    WantedCommitment,
)
from storage.schema import (
    commitment_questions,
    deliveries,
    matches,
    reports,
    wanted_commitments,
)
from storage.transaction import move_match
from storage.transitions import check_delivery


@dataclass(frozen=True, kw_only=True)
class ReportTaken:
    """What a destination's report changed."""

    known: bool  # False: nobody asked under this transaction UID
    committed: int = 0  # deliveries
    refused: int = 0  # deliveries, to be sent again
    failed: int = 0  # deliveries refused once too often


class Commitments(Connections):
    """Questions to destinations, and their answers."""

    def question_due(self, destination: str, now: datetime) -> bool:
        """Whether `ask` would find something."""
        with self.reading() as connection:
            return connection.scalar(_due(destination, now).limit(1)) is not None

    def ask(
        self,
        destination: str,
        transaction_uid: str,
        *,
        attempts: int,
        ask_again: Callable[[int], timedelta],
        limit: int,
        now: datetime,
    ) -> tuple[SopReference, ...]:
        """Write down a question about what is due, before it is asked.

        What has been asked about `attempts` times goes FAILED instead.

        Parameters
        ----------
        ask_again
            How long to wait for an answer to the nth question.
        limit
            Objects in one question.

        Returns
        -------
        tuple of SopReference
            What to ask about under `transaction_uid`; empty if nothing is due.
        """
        asked = []
        with self.writing() as connection:
            for row in connection.execute(
                _due(destination, now).limit(limit).with_for_update(of=wanted_commitments, skip_locked=True)
            ).all():
                if row.attempts >= attempts:
                    why = row.last_error or "no answer"
                    _fail(connection, row, f"no commitment after {row.attempts} questions: {why}", now)
                    continue
                connection.execute(
                    update(wanted_commitments)
                    .where(wanted_commitments.c.delivery_id == row.delivery_id)
                    .values(
                        transaction_uid=transaction_uid,
                        attempts=row.attempts + 1,
                        due_at=now + ask_again(row.attempts + 1),
                        last_error="",
                    )
                )
                connection.execute(
                    insert(commitment_questions),
                    {"transaction_uid": transaction_uid, "delivery_id": row.delivery_id, "asked_at": now},
                )
                asked.append(SopReference(row.sop_class_uid, row.sop_instance_uid))
        return tuple(asked)

    def not_asked(self, transaction_uid: str, error: str) -> None:
        """The question did not get through. It is asked anew when an answer would be overdue."""
        with self.writing() as connection:
            connection.execute(
                update(wanted_commitments)
                .where(wanted_commitments.c.transaction_uid == transaction_uid)
                .values(last_error=error)
            )

    def put_off_questions(self, destination: str, now: datetime, due_at: datetime, error: str) -> None:
        """The destination cannot be reached: what is due there is due at `due_at`, and no question is counted."""
        with self.writing() as connection:
            connection.execute(
                update(wanted_commitments)
                .where(wanted_commitments.c.destination == destination, wanted_commitments.c.due_at <= now)
                .values(due_at=due_at, last_error=error)
            )

    def take_report(
        self,
        transaction_uid: str,
        committed: Collection[SopReference],
        failed: Mapping[SopReference, int],
        *,
        attempts: int,
        resend_at: datetime,
        now: datetime,
    ) -> ReportTaken:
        """Note a destination's answer to a question, however late.

        A delivery that it commits to is COMMITTED, and with the last awaited one of a match, the match. One that it
        does not commit to is sent again at `resend_at`, or FAILED if it was asked about `attempts` times; unless it
        has been asked about anew since, for then the later question counts. What was answered before stays.

        Parameters
        ----------
        failed
            With the Failure Reason (0008,1197) of each.
        """
        count = {DeliveryState.COMMITTED: 0, DeliveryState.PENDING: 0, DeliveryState.FAILED: 0}
        of_question: Select[Any] = (
            select(
                commitment_questions.c.delivery_id,
                commitment_questions.c.answered_at,
                deliveries.c.state,
                deliveries.c.match_id,
                wanted_commitments.c.transaction_uid.label("last_transaction"),
                wanted_commitments.c.attempts,
                reports.c.sop_class_uid,
                reports.c.sop_instance_uid,
            )
            .join_from(commitment_questions, deliveries, commitment_questions.c.delivery_id == deliveries.c.delivery_id)
            .join(reports, deliveries.c.report_id == reports.c.report_id)
            .outerjoin(wanted_commitments, wanted_commitments.c.delivery_id == deliveries.c.delivery_id)
            .where(commitment_questions.c.transaction_uid == transaction_uid)
            .order_by(commitment_questions.c.delivery_id)
            .with_for_update(of=deliveries)
        )
        with self.writing() as connection:
            asked = connection.execute(of_question).all()
            for row in asked:
                reference = SopReference(row.sop_class_uid, row.sop_instance_uid)
                reason = failed.get(reference)
                if row.answered_at is not None or (reference not in committed and reason is None):
                    continue
                connection.execute(
                    update(commitment_questions)
                    .where(
                        commitment_questions.c.transaction_uid == transaction_uid,
                        commitment_questions.c.delivery_id == row.delivery_id,
                    )
                    .values(answered_at=now)
                )
                if row.state != DeliveryState.DELIVERED:
                    continue  # on its way again, or settled by another question
                if reason is None:
                    _commit(connection, row, now)
                    count[DeliveryState.COMMITTED] += 1
                elif row.last_transaction == transaction_uid:
                    why = f"commitment refused, reason 0x{reason:04X}"
                    if row.attempts >= attempts:
                        _fail(connection, row, why, now)
                        count[DeliveryState.FAILED] += 1
                    else:
                        _send_again(connection, row, why, resend_at, now)
                        count[DeliveryState.PENDING] += 1
        return ReportTaken(
            known=bool(asked),
            committed=count[DeliveryState.COMMITTED],
            refused=count[DeliveryState.PENDING],
            failed=count[DeliveryState.FAILED],
        )

    def withdraw_commitments(self, destination: str, now: datetime) -> int:
        """The destination is not asked any more: what waits for its commitment does not. Says how many there were."""
        of_destination = wanted_commitments.c.destination == destination
        with self.reading() as connection:
            if connection.scalar(select(wanted_commitments.c.delivery_id).where(of_destination).limit(1)) is None:
                return 0
        with self.writing() as connection:
            numbers = connection.scalars(
                delete(wanted_commitments).where(of_destination).returning(wanted_commitments.c.delivery_id)
            ).all()
            of_these = select(deliveries.c.match_id).where(
                deliveries.c.delivery_id.in_(numbers), deliveries.c.state == DeliveryState.DELIVERED
            )
            for match_id in sorted(set(connection.scalars(of_these))):
                finish_match(connection, match_id, now)
        return len(numbers)

    def forget_questions(self, before: datetime) -> int:
        """Remove the questions asked earlier that no answer is awaited to, and say how many."""
        asked = delete(commitment_questions).where(
            commitment_questions.c.asked_at < before,
            ~exists().where(wanted_commitments.c.transaction_uid == commitment_questions.c.transaction_uid),
        )
        with self.writing() as connection:
            return connection.execute(asked).rowcount

    def wanted_commitments(self, match_id: int) -> tuple[WantedCommitment, ...]:
        """What a match's destinations have not committed to yet, although they are asked."""
        found = (
            select(wanted_commitments)
            .join(deliveries, deliveries.c.delivery_id == wanted_commitments.c.delivery_id)
            .where(deliveries.c.match_id == match_id)
            .order_by(wanted_commitments.c.delivery_id)
        )
        with self.reading() as connection:
            return tuple(WantedCommitment(**row._mapping) for row in connection.execute(found))

    def count_wanted(self) -> dict[str, int]:
        """How many delivered reports wait for the commitment of each destination."""
        counted = (
            select(wanted_commitments.c.destination, func.count())
            .join(deliveries, deliveries.c.delivery_id == wanted_commitments.c.delivery_id)
            .where(deliveries.c.state == DeliveryState.DELIVERED)
            .group_by(wanted_commitments.c.destination)
        )
        with self.reading() as connection:
            return {destination: count for destination, count in connection.execute(counted)}

    def next_questions(self) -> dict[str, datetime]:
        """When each destination is asked next about what it has not committed to, at the earliest."""
        earliest = (
            select(wanted_commitments.c.destination, func.min(wanted_commitments.c.due_at))
            .join(deliveries, deliveries.c.delivery_id == wanted_commitments.c.delivery_id)
            .where(deliveries.c.state == DeliveryState.DELIVERED)
            .group_by(wanted_commitments.c.destination)
        )
        with self.reading() as connection:
            return {destination: due_at for destination, due_at in connection.execute(earliest)}


def _due(destination: str, now: datetime) -> Select[Any]:
    return (
        select(
            wanted_commitments.c.delivery_id,
            wanted_commitments.c.attempts,
            wanted_commitments.c.last_error,
            deliveries.c.state,
            deliveries.c.match_id,
            reports.c.sop_class_uid,
            reports.c.sop_instance_uid,
        )
        .join_from(wanted_commitments, deliveries, deliveries.c.delivery_id == wanted_commitments.c.delivery_id)
        .join(reports, deliveries.c.report_id == reports.c.report_id)
        .where(
            wanted_commitments.c.destination == destination,
            wanted_commitments.c.due_at <= now,
            deliveries.c.state == DeliveryState.DELIVERED,
        )
        .order_by(wanted_commitments.c.due_at, wanted_commitments.c.delivery_id)
    )


def _commit(connection: Connection, row: Row[Any], now: datetime) -> None:
    _move_delivery(connection, row, DeliveryState.COMMITTED, committed_at=now, last_error="")
    connection.execute(delete(wanted_commitments).where(wanted_commitments.c.delivery_id == row.delivery_id))
    finish_match(connection, row.match_id, now)


def _send_again(connection: Connection, row: Row[Any], why: str, resend_at: datetime, now: datetime) -> None:
    _move_delivery(
        connection, row, DeliveryState.PENDING, attempts=0, trying_since=None, due_at=resend_at, last_error=why
    )
    connection.execute(
        update(wanted_commitments).where(wanted_commitments.c.delivery_id == row.delivery_id).values(last_error=why)
    )
    _is_not_delivered(connection, row.match_id, now)


def _fail(connection: Connection, row: Row[Any], why: str, now: datetime) -> None:
    _move_delivery(connection, row, DeliveryState.FAILED, last_error=why)
    connection.execute(delete(wanted_commitments).where(wanted_commitments.c.delivery_id == row.delivery_id))
    _is_not_delivered(connection, row.match_id, now)


def _move_delivery(connection: Connection, row: Row[Any], new: DeliveryState, **values: object) -> None:
    check_delivery(row.delivery_id, row.state, new)
    connection.execute(
        update(deliveries).where(deliveries.c.delivery_id == row.delivery_id).values(state=new, **values)
    )


def _is_not_delivered(connection: Connection, match_id: int, now: datetime) -> None:
    """A match whose report is sent again, or failed, is REPORTED until all of them have arrived."""
    state = connection.scalar(select(matches.c.state).where(matches.c.match_id == match_id).with_for_update())
    if state in {MatchState.DELIVERED, MatchState.COMMITTED}:
        move_match(connection, match_id, MatchState.REPORTED, owner=None, updated_at=now)
