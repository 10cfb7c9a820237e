"""Ask a destination to commit to what it was sent, and take its reports (PS3.4 J.3).

Comes in: delivered reports as rows; N-EVENT-REPORTs, on the association that asked or on one of the destination's own.
Goes out: N-ACTIONs, each under a transaction UID of its own; deliveries COMMITTED, sent again or FAILED.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

import structlog

from pacs_node.dicom.client import Conversation, EventReport, NotAccepted, Outcome, Unreachable, outcome
from pacs_node.flow.commitment import (
    ALL_COMMITTED,
    INVALID_ARGUMENT,
    SOME_FAILED,
    MessageRefused,
    Request,
    read_report,
    request_data_set,
)
from pacs_node.flow.sop_classes import STORAGE_COMMITMENT_INSTANCE
from pacs_node.settings import Destination, Settings
from storage.errors import StorageError
from storage.store import Store

log = structlog.get_logger()

T = TypeVar("T")

OBJECTS_A_QUESTION = 100
LONGEST_WAIT = timedelta(days=1)
TICK_SECONDS = 0.1
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
NO_SUCH_EVENT = 0x0113


def take_report(
    store: Store,
    settings: Settings,
    data: bytes,
    transfer_syntax_uid: str,
    *,
    instance: str,
    event_type: int | None,
    sender: str,
    now: datetime,
) -> int:
    """Note what a destination reports; the status to answer.

    A report on a transaction that nobody here began is answered "invalid argument value" (PS3.7 10.1.1.1.8): a success
    would say that somebody has taken note. One that repeats itself is confirmed again and changes nothing.
    """
    if instance != STORAGE_COMMITMENT_INSTANCE:
        return _refused(sender, NO_SUCH_INSTANCE, "not the well-known instance")
    if event_type not in {ALL_COMMITTED, SOME_FAILED}:
        return _refused(sender, NO_SUCH_EVENT, "no such event type")
    if len(data) > settings.limits.commitment_bytes:
        return _refused(sender, INVALID_ARGUMENT, "larger than limits.commitment_bytes")
    try:
        report = read_report(data, transfer_syntax_uid, settings.limits)
    except MessageRefused as refused:
        return _refused(sender, refused.status, refused.why)
    try:
        taken = store.take_report(
            report.transaction_uid,
            frozenset(report.committed),
            report.failed,
            attempts=settings.commitment.attempts,
            resend_at=now + timedelta(seconds=settings.delivery.first_retry_seconds),
            now=now,
        )
    except StorageError as error:
        return _refused(sender, PROCESSING_FAILURE, type(error).__name__)
    if not taken.known:
        return _refused(sender, INVALID_ARGUMENT, "unknown transaction", transaction=report.transaction_uid)
    log.info(
        "commitment_taken",
        sender=sender,
        transaction=report.transaction_uid,
        committed=taken.committed,
        refused=taken.refused,
        failed=taken.failed,
    )
    return 0x0000


def _refused(sender: str, status: int, why: str, **more: str) -> int:
    log.warning("commitment_report_refused", sender=sender, status=f"0x{status:04X}", reason=why, **more)
    return status


class Asker:
    """Asks one destination about what is due, over associations that its `Deliverer` holds."""

    def __init__(
        self, store: Store, settings: Settings, destination: Destination, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._settings = settings
        self._destination = destination
        self._clock = clock
        self._answered = threading.Event()

    @property
    def asks(self) -> bool:
        """Whether this destination is asked at all."""
        return self._destination.commitment

    def begin(self) -> None:
        """Once: a destination that is not asked any more keeps no match waiting."""
        if not self.asks and (withdrawn := self._store.withdraw_commitments(self._destination.name, self._clock())):
            log.warning("commitments_withdrawn", destination=self._destination.name, deliveries=withdrawn)

    def is_due(self) -> bool:
        """Whether there is something to ask."""
        return self.asks and self._store.question_due(self._destination.name, self._clock())

    def ask(self, conversation: Conversation) -> bool:
        """Ask about what is due; True if a question got through.

        Raises
        ------
        Unreachable
            The destination broke off; it is asked anew later.
        """
        if not self.asks:
            return False
        transaction_uid = f"2.25.{uuid.uuid4().int}"
        objects = self._store.ask(
            self._destination.name,
            transaction_uid,
            attempts=self._settings.commitment.attempts,
            ask_again=self._patience,
            limit=OBJECTS_A_QUESTION,
            now=self._clock(),
        )
        if not objects:
            return False
        self._answered.clear()
        request = Request(transaction_uid=transaction_uid, references=objects)
        try:
            status = conversation.ask_commitment(request_data_set(request))
        except Unreachable as error:
            self._not_asked(transaction_uid, str(error))
            raise
        except NotAccepted as error:
            self._not_asked(transaction_uid, str(error))
            return False
        if outcome(status) not in {Outcome.STORED, Outcome.STORED_WITH_WARNING}:
            self._not_asked(transaction_uid, f"status 0x{status:04X} to N-ACTION")
            return False
        log.info(
            "commitment_asked", destination=self._destination.name, transaction=transaction_uid, objects=len(objects)
        )
        return True

    def wait(self, conversation: Conversation, stop: threading.Event, other_work: Callable[[], T | None]) -> T | None:
        """Give the destination the time to report on this association, or until `other_work` gives something to do."""
        deadline = time.monotonic() + self._settings.commitment.wait_seconds
        while time.monotonic() < deadline and conversation.is_open() and not stop.is_set():
            if self._answered.wait(TICK_SECONDS):
                break
            if (work := other_work()) is not None:
                return work
        return None

    def unreachable(self, error: str) -> None:
        """No association came about: what was to be asked waits, and no question is counted."""
        wait = timedelta(seconds=self._settings.delivery.longest_retry_seconds)
        now = self._clock()
        self._store.put_off_questions(self._destination.name, now, now + wait, error)

    def take(self, report: EventReport) -> int:
        """A report on an association of ours; the status to answer."""
        status = take_report(
            self._store,
            self._settings,
            report.data,
            report.transfer_syntax_uid,
            instance=report.sop_instance_uid,
            event_type=report.event_type,
            sender=self._destination.name,
            now=self._clock(),
        )
        self._answered.set()
        return status

    def _not_asked(self, transaction_uid: str, error: str) -> None:
        self._store.not_asked(transaction_uid, error)
        log.warning("commitment_not_asked", destination=self._destination.name, error=error)

    def _patience(self, question: int) -> timedelta:
        """How long to wait for a report after the nth question."""
        first = timedelta(seconds=self._settings.commitment.answer_seconds)
        return max(first, min(LONGEST_WAIT, first * 2 ** min(question - 1, 10)))
