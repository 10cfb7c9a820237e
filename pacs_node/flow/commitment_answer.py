"""Tell peers whether we keep what they asked about, on associations of our own (PS3.4 J.3.3).

Comes in: requests as rows. Goes out: N-EVENT-REPORTs, repeated until the peer confirms, refuses or stays away too long.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from pacs_node.dicom.client import (
    COMMITMENT_CONTEXTS,
    Conversation,
    NotAccepted,
    Outcome,
    Peer,
    Unreachable,
    outcome,
)
from pacs_node.dicom.sources import Sources
from pacs_node.dicom.tls import reporting_tls
from pacs_node.flow.commitment import Failure, Report, verdict
from pacs_node.flow.pace import Pace
from pacs_node.flow.sop_classes import STORAGE_COMMITMENT
from pacs_node.settings import Settings
from storage.objects import ObjectStore
from storage.records import CommitmentRequest, StoredInstance
from storage.store import Store

log = structlog.get_logger()

NO_PORT = "no commitment_port is configured for this source"


class Answers:
    """What is to be reported on a request, and what became of the report."""

    def __init__(self, store: Store, objects: ObjectStore, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._objects = objects
        self._settings = settings
        self._clock = clock

    def report(self, request: CommitmentRequest) -> Report:
        """The report, by what is kept at this moment."""
        if request.duplicate:
            return Report(
                transaction_uid=request.transaction_uid,
                committed=(),
                failed=dict.fromkeys(request.references, int(Failure.DUPLICATE_TRANSACTION)),
            )
        known = self._store.instances_named([reference.sop_instance_uid for reference in request.references])
        judged = verdict(request.references, known, self._is_kept)
        return Report(
            transaction_uid=request.transaction_uid,
            committed=tuple(reference for reference, why in judged.items() if why is None),
            failed={reference: int(why) for reference, why in judged.items() if why is not None},
        )

    def told(self, request: CommitmentRequest, report: Report, status: int) -> None:
        """Note the peer's answer to a report."""
        now = self._clock()
        kind = outcome(status)
        if kind in {Outcome.STORED, Outcome.STORED_WITH_WARNING}:
            self._store.request_answered(request.request_id, len(report.failed), now)
            log.info(
                "commitment_reported",
                calling_ae=request.calling_ae,
                transaction=request.transaction_uid,
                committed=len(report.committed),
                failed=len(report.failed),
            )
        elif kind is Outcome.RETRY:
            self.not_told(request, f"status 0x{status:04X}")
        else:
            self._give_up(request, f"the report was refused, status 0x{status:04X}")

    def not_told(self, request: CommitmentRequest, error: str, *, reached: bool = True) -> None:
        """Note a try without success: again later, or given up after `commitment.give_up_days`."""
        now = self._clock()
        if now - request.received_at >= timedelta(days=self._settings.commitment.give_up_days):
            self._give_up(request, error)
            return
        bounds = self._settings.delivery
        tries = max(1, request.attempts)
        wait = min(bounds.longest_retry_seconds, bounds.first_retry_seconds * 2 ** min(tries - 1, 30))
        due_at = now + timedelta(seconds=wait)
        self._store.put_off_request(request.request_id, due_at, error)
        if not reached:
            self._store.put_off_peer(request, due_at, error)
        if tries == 1:
            log.warning("commitment_not_reported", calling_ae=request.calling_ae, error=error)

    def _give_up(self, request: CommitmentRequest, error: str) -> None:
        self._store.give_up_request(request.request_id, error)
        log.error(
            "commitment_report_given_up",
            calling_ae=request.calling_ae,
            transaction=request.transaction_uid,
            error=error,
        )

    def _is_kept(self, stored: StoredInstance) -> bool:
        return self._objects.size_bytes(stored.instance.sha256) == stored.instance.size_bytes


class Answerer:
    """Reports what is due to whoever asked."""

    def __init__(self, store: Store, objects: ObjectStore, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._answers = Answers(store, objects, settings, clock)
        self._sources = Sources(settings.sources)

    def run(self, stop: threading.Event) -> None:
        """Report until `stop` is set. A peer that does not answer is left alone for a while; others do not wait."""
        pace = Pace(self._store, self._settings.worker.poll_seconds)
        while not stop.is_set():
            try:
                if self.answer_due(stop) == 0:
                    pace.wait(stop)
            except Exception as error:  # noqa: BLE001 - outermost loop of the thread
                log.error("answerer_failed", error=type(error).__name__)
                stop.wait(self._settings.delivery.first_retry_seconds)

    def answer_due(self, stop: threading.Event) -> int:
        """Report on the request that has been due longest, and on others of the same peer; how many were tried."""
        request = self._claim(None)
        if request is None:
            return 0
        peer = self._peer(request)
        if peer is None:
            self._answers.not_told(request, NO_PORT, reached=False)
            return 1
        tried = 1
        try:
            with Conversation(peer, COMMITMENT_CONTEXTS, provides=[STORAGE_COMMITMENT]) as conversation:
                while True:
                    report = self._answers.report(request)
                    self._answers.told(
                        request, report, conversation.report_commitment(report.event_type, report.data_set())
                    )
                    further = None if stop.is_set() else self._claim(request)
                    if further is None:
                        return tried
                    request, tried = further, tried + 1
        except (Unreachable, NotAccepted) as error:
            self._answers.not_told(request, str(error), reached=False)
        return tried

    def _claim(self, of: CommitmentRequest | None) -> CommitmentRequest | None:
        now = self._clock()
        # Longer than all that a report may take: connecting, negotiating, the answer.
        until = now + timedelta(
            seconds=self._settings.worker.lease_seconds + 3 * self._settings.delivery.timeout_seconds
        )
        return self._store.claim_request(now, until, of=of)

    def _peer(self, request: CommitmentRequest) -> Peer | None:
        """Where the source that asked takes reports; None if that is not configured (any more)."""
        source = self._sources.find(request.calling_ae, request.peer)
        if source is None or not source.commitment_port:
            return None
        return Peer(
            ae_title=source.ae_title,
            host=source.commitment_host or request.peer,
            port=source.commitment_port,
            calling_ae_title=self._settings.node.ae_title,
            timeout_seconds=self._settings.delivery.timeout_seconds,
            tls=reporting_tls(source, self._settings.tls),
        )
