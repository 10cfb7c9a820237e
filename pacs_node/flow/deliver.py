"""Send stored reports to one destination, in order, each until its status says that it is settled.

One `Deliverer` a destination and thread, so that a destination that is down blocks no other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from pydicom.uid import ExplicitVRLittleEndian

from pacs_node.dicom.client import Conversation, NotAccepted, Outcome, Peer, Unreachable, outcome
from pacs_node.flow.pace import Pace
from pacs_node.flow.sop_classes import COMPREHENSIVE_3D_SR, SECONDARY_CAPTURE
from pacs_node.flow.worker import owner_name
from pacs_node.settings import Destination, Settings
from storage.objects import ObjectStore
from storage.records import Delivery
from storage.store import Store

log = structlog.get_logger()

CLASS_OF = {"sr": COMPREHENSIVE_3D_SR, "overlay": SECONDARY_CAPTURE}
"""SOP Class of each kind of report."""
CONTEXTS = tuple((sop_class, str(ExplicitVRLittleEndian)) for sop_class in CLASS_OF.values())
"""What a conversation with a destination offers: every kind of report, as stored."""


def peer_of(destination: Destination, settings: Settings) -> Peer:
    """The destination as the client calls it."""
    return Peer(
        ae_title=destination.ae_title,
        host=destination.host,
        port=destination.port,
        calling_ae_title=settings.node.ae_title,
        timeout_seconds=settings.delivery.timeout_seconds,
    )


class Deliverer:
    """Delivers to `destination` what is due there."""

    def __init__(
        self,
        store: Store,
        objects: ObjectStore,
        settings: Settings,
        destination: Destination,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._objects = objects
        self._settings = settings
        self._name = destination.name
        self._peer = peer_of(destination, settings)
        self._clock = clock
        self._owner = f"{owner_name()}:{destination.name}"
        self._silent = False

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set; a destination that does not answer is tried again after a pause."""
        pace = Pace(self._store, self._settings.worker.poll_seconds)
        while not stop.is_set():
            try:
                if self.deliver_due(stop) == 0:
                    pace.wait(stop)
            except Unreachable:
                stop.wait(self._settings.delivery.probe_seconds)
            except Exception as error:  # noqa: BLE001 - outermost loop of the destination's thread
                log.error("delivery_failed", destination=self._name, error=type(error).__name__)
                stop.wait(self._settings.delivery.first_retry_seconds)

    def deliver_due(self, stop: threading.Event) -> int:
        """Send what is due now over one association; how many deliveries were tried.

        Raises
        ------
        Unreachable
            The destination did not answer; what was claimed is due again later.
        """
        delivery = self._claim()
        if delivery is None:
            return 0
        tried = 0
        try:
            with Conversation(self._peer, CONTEXTS) as conversation:
                while delivery is not None:
                    self._send(conversation, delivery)
                    tried += 1
                    delivery = None if stop.is_set() else self._claim()
        except Unreachable as error:
            if delivery is not None:
                self._not_reached(delivery, str(error))
            raise
        if self._silent:
            self._silent = False
            due = self._store.hasten(self._name, self._clock())
            log.info("destination_answers_again", destination=self._name, made_due=due)
        return tried

    def _claim(self) -> Delivery | None:
        return self._store.claim_delivery(
            self._name,
            self._owner,
            lease_seconds=self._settings.worker.lease_seconds,
            now=self._clock(),
        )

    def _send(self, conversation: Conversation, delivery: Delivery) -> None:
        path = self._objects.path(delivery.sha256)
        try:
            status = conversation.store(
                path, sop_class=delivery.sop_class_uid, transfer_syntax=delivery.transfer_syntax_uid
            )
        except NotAccepted as error:
            self._answered_no(delivery, None, str(error), Outcome.RETRY)
            return
        verdict = outcome(status)
        if verdict in {Outcome.STORED, Outcome.STORED_WITH_WARNING}:
            self._store.delivered(delivery.delivery_id, self._owner, status, self._clock())
            log.info(
                "delivered",
                match_id=delivery.match_id,
                kind=delivery.kind.value,
                destination=self._name,
                status=f"0x{status:04X}",
            )
        else:
            self._answered_no(delivery, status, f"status 0x{status:04X}", verdict)

    def _answered_no(self, delivery: Delivery, status: int | None, error: str, verdict: Outcome) -> None:
        """The destination answered, and not with success."""
        bounds = self._settings.delivery
        tries = delivery.attempts
        final = verdict is Outcome.REFUSED or tries >= bounds.attempts
        now = self._clock()
        if final:
            self._store.fail_delivery(delivery.delivery_id, self._owner, status, error)
        else:
            wait = min(bounds.longest_retry_seconds, bounds.first_retry_seconds * 2 ** min(tries - 1, 30))
            self._store.retry_delivery(delivery.delivery_id, self._owner, status, error, now + timedelta(seconds=wait))
        log.warning(
            "delivery_refused" if final else "delivery_put_off",
            match_id=delivery.match_id,
            kind=delivery.kind.value,
            destination=self._name,
            error=error,
            tries=tries,
        )

    def _not_reached(self, delivery: Delivery, error: str) -> None:
        """Nobody answered: no try is counted, the time since the first one decides."""
        now = self._clock()
        since = delivery.first_tried_at or now
        if now - since > timedelta(days=self._settings.delivery.give_up_days):
            self._store.fail_delivery(delivery.delivery_id, self._owner, None, error)
        else:
            due_at = now + timedelta(seconds=self._settings.delivery.probe_seconds)
            self._store.postpone_delivery(delivery.delivery_id, self._owner, error, due_at)
        if not self._silent:
            self._silent = True
            log.warning("destination_silent", destination=self._name, error=error)
