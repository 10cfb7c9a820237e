"""Storage commitment's messages as they come in to the receiver: write down first, answer then.

Comes in: N-ACTIONs of peers, N-EVENT-REPORTs of destinations. Goes out: a `Receipt` for each, and for a request the
report that is sent on the same association if that lasts; otherwise `commitment_answer` sends it on another.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from pydicom.dataset import Dataset

from pacs_node.dicom.association import Announcement, Reception, Said
from pacs_node.dicom.commands import N_ACTION_RQ
from pacs_node.flow.commitment import REQUEST, RESOURCE_LIMITATION, MessageRefused, Report, read_request
from pacs_node.flow.commitment_answer import Answers
from pacs_node.flow.commitment_ask import take_report
from pacs_node.flow.receive import Receipt
from pacs_node.flow.room import shortage
from pacs_node.flow.sop_classes import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from pacs_node.settings import Settings
from storage.errors import StorageFull
from storage.objects import ObjectStore
from storage.records import CommitmentRequest
from storage.store import Store

log = structlog.get_logger()

NO_SUCH_INSTANCE = 0x0112
NO_SUCH_ACTION = 0x0123


class CommitmentDesk:
    """Takes storage commitment's messages for one receiver process. May be called from several threads."""

    def __init__(self, store: Store, objects: ObjectStore, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._answers = Answers(store, objects, settings, clock)

    def open(self, said: Said, announce: Callable[[Announcement], None]) -> Reception:
        """Take the data set of a request."""
        if said.command.field == N_ACTION_RQ:
            return _Message(self._settings.limits.commitment_bytes, lambda data: self._request(said, data, announce))
        return _Message(self._settings.limits.commitment_bytes, lambda data: self._report(said, data))

    def _request(self, said: Said, data: bytearray, announce: Callable[[Announcement], None]) -> Receipt:
        if said.command.sop_instance_uid != STORAGE_COMMITMENT_INSTANCE:
            return self._refused(said, NO_SUCH_INSTANCE, "not the well-known instance")
        if said.command.type_id != REQUEST:
            return self._refused(said, NO_SUCH_ACTION, "no such action type")
        try:
            request = read_request(data, said.transfer_syntax_uid, self._settings.limits)
        except MessageRefused as refused:
            return self._refused(said, refused.status, refused.why)
        limits = self._settings.limits
        if short := shortage(self._settings.storage.objects, limits):
            return self._refused(said, RESOURCE_LIMITATION, short)
        if self._store.pending_requests(said.calling_ae) >= limits.commitment_pending:
            return self._refused(said, RESOURCE_LIMITATION, "limits.commitment_pending")
        here = self._settings.commitment.same_association_seconds
        now = self._clock()
        # Until then the report is this association's to send; if this process dies, another one's after it.
        mine = timedelta(seconds=here + self._settings.delivery.timeout_seconds)
        try:
            stored = self._store.add_request(
                request.transaction_uid,
                said.calling_ae,
                said.peer,
                request.references,
                due_at=now + mine,
                now=now,
            )
        except StorageFull:
            return self._refused(said, RESOURCE_LIMITATION, "disk full")
        log.info(
            "commitment_requested",
            calling_ae=said.calling_ae,
            transaction=stored.transaction_uid,
            objects=len(stored.references),
            duplicate=stored.duplicate,
        )
        announce(_Owed(self._answers, self._store, stored, here, self._settings, self._clock))
        return Receipt(status=0x0000, comment="")

    def _report(self, said: Said, data: bytearray) -> Receipt:
        status = take_report(
            self._store,
            self._settings,
            bytes(data),
            said.transfer_syntax_uid,
            instance=said.command.sop_instance_uid,
            event_type=said.command.type_id,
            sender=said.calling_ae,
            now=self._clock(),
        )
        return Receipt(status=status, comment="")

    @staticmethod
    def _refused(said: Said, status: int, why: str) -> Receipt:
        log.warning("commitment_request_refused", calling_ae=said.calling_ae, status=f"0x{status:04X}", reason=why)
        return Receipt(status=status, comment="")


class _Message:
    """Keeps a data set in memory up to a bound, for one who takes it whole."""

    def __init__(self, most_bytes: int, take: Callable[[bytearray], Receipt]) -> None:
        self._most_bytes = most_bytes
        self._take = take
        self._data = bytearray()
        self._beyond = False

    def write(self, fragment: memoryview) -> None:
        """The next bytes; beyond the bound they are dropped."""
        if self._beyond or len(self._data) + len(fragment) > self._most_bytes:
            self._beyond = True
            self._data = bytearray()
        else:
            self._data += fragment

    def finish(self) -> Receipt:
        """All bytes came."""
        if self._beyond:
            log.warning("commitment_message_refused", reason="larger than limits.commitment_bytes")
            return Receipt(status=RESOURCE_LIMITATION, comment="")
        return self._take(self._data)

    def discard(self) -> None:
        """Nothing more comes."""
        self._data = bytearray()


class _Owed:
    """The report on one request, as long as the association that asked may take it."""

    sop_class_uid = STORAGE_COMMITMENT
    sop_instance_uid = STORAGE_COMMITMENT_INSTANCE

    def __init__(
        self,
        answers: Answers,
        store: Store,
        request: CommitmentRequest,
        here_seconds: float,
        settings: Settings,
        clock: Callable[[], datetime],
    ) -> None:
        self.due = time.monotonic() + here_seconds
        self._answers = answers
        self._store = store
        self._request = request
        self._settings = settings
        self._clock = clock
        self._report: Report | None = None

    def event(self) -> tuple[int, Dataset]:
        """What to report, now that it is sent."""
        wait = timedelta(seconds=self._settings.limits.network_timeout_seconds)
        self._store.put_off_request(self._request.request_id, self._clock() + wait)
        self._report = self._answers.report(self._request)
        return self._report.event_type, self._report.data_set()

    def answered(self, status: int) -> None:
        """The peer's answer."""
        if self._report is not None:
            self._answers.told(self._request, self._report, status)

    def missed(self) -> None:
        """On an association of our own, at once."""
        self._store.put_off_request(self._request.request_id, self._clock())
