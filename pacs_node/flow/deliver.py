"""Send stored reports to one destination, in order, each until its status says that it is settled; ask it to commit.

One `Deliverer` a destination and thread, so that a destination that is down blocks no other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import datetime, timedelta

import structlog
from pydicom.uid import ExplicitVRLittleEndian

from pacs_node.dicom.client import (
    COMMITMENT_CONTEXTS,
    Conversation,
    NotAccepted,
    Outcome,
    Peer,
    Unreachable,
    outcome,
)
from pacs_node.dicom.tls import client_tls
from pacs_node.flow.commitment_ask import Asker
from pacs_node.flow.lease import kept_delivery_lease
from pacs_node.flow.loop import owner_name
from pacs_node.flow.pace import Pace
from pacs_node.flow.sop_classes import COMPREHENSIVE_3D_SR, SECONDARY_CAPTURE
from pacs_node.settings import Destination, Settings
from storage.errors import ObjectDamaged, ObjectMissing
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
        tls=client_tls(destination, settings.tls),
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
        self._asker = Asker(store, settings, destination, clock)

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set; a destination that does not answer is tried again after a pause."""
        pace = Pace(self._store, self._settings.worker.poll_seconds)
        begun = False
        while not stop.is_set():
            try:
                if not begun:
                    self._asker.begin()
                    begun = True
                if self.deliver_due(stop) == 0:
                    pace.wait(stop)
            except Unreachable:
                stop.wait(self._settings.delivery.probe_seconds)
            except Exception as error:  # noqa: BLE001 - outermost loop of the destination's thread
                log.error("deliverer_failed", destination=self._name, error=type(error).__name__)
                stop.wait(self._settings.delivery.first_retry_seconds)

    def deliver_due(self, stop: threading.Event) -> int:
        """Send and ask what is due now over one association; how many deliveries and questions were tried.

        Raises
        ------
        Unreachable
            The destination did not answer; nothing is sent there until `delivery.probe_seconds` have passed.
        """
        delivery = self._claim()
        if delivery is None and not self._asker.is_due():
            return 0
        with ExitStack() as open_until_done:
            try:
                with self._kept(delivery) if delivery is not None else nullcontext():
                    conversation = open_until_done.enter_context(self._conversation())
            except Unreachable as error:
                self._asker.unreachable(str(error))
                if delivery is not None:
                    self._silence(delivery, str(error))
                raise
            self._answers()
            return self._converse(conversation, delivery, stop)

    def _converse(self, conversation: Conversation, delivery: Delivery | None, stop: threading.Event) -> int:
        """Send and ask until nothing is due or the association is of no more use; how much was tried."""
        tried = 0
        while True:
            while delivery is not None:
                tried += 1
                if not self._try(conversation, delivery):
                    return tried
                delivery = None if stop.is_set() else self._claim()
            if stop.is_set() or not self._asker.is_due():
                return tried
            tried += 1
            try:
                if self._asker.ask(conversation):
                    delivery = self._asker.wait(conversation, stop, self._claim)
            except Unreachable:
                return tried

    def _conversation(self) -> Conversation:
        if not self._asker.asks:
            return Conversation(self._peer, CONTEXTS)
        return Conversation(self._peer, (*CONTEXTS, *COMMITMENT_CONTEXTS), on_report=self._asker.take)

    def _claim(self) -> Delivery | None:
        return self._store.claim_delivery(
            self._name,
            self._owner,
            lease_seconds=self._settings.worker.lease_seconds,
            now=self._clock(),
        )

    def _kept(self, delivery: Delivery) -> AbstractContextManager[threading.Event]:
        lease_seconds = self._settings.worker.lease_seconds
        return kept_delivery_lease(self._store, delivery.delivery_id, self._owner, lease_seconds, self._clock)

    def _try(self, conversation: Conversation, delivery: Delivery) -> bool:
        """Send one delivery and note what came of it; False if the association is of no more use."""
        try:
            with self._kept(delivery):
                self._objects.check(delivery.sha256)
                status = conversation.store(
                    self._objects.path(delivery.sha256),
                    sop_class=delivery.sop_class_uid,
                    transfer_syntax=delivery.transfer_syntax_uid,
                )
        except ObjectDamaged as error:
            self._not_sent(delivery, None, f"{error}; {error.hint}", Outcome.REFUSED)
        except (ObjectMissing, NotAccepted) as error:
            self._not_sent(delivery, None, str(error), Outcome.RETRY)
        except Unreachable as error:
            # It answered before: this report may be what breaks the association, so the others do not wait for it.
            self._not_sent(delivery, None, str(error), Outcome.RETRY)
            return False
        except Exception as error:  # noqa: BLE001 - one report must not stop those behind it
            self._not_sent(delivery, None, f"cannot be sent: {type(error).__name__}", Outcome.RETRY)
            return False
        else:
            self._answered(delivery, status)
        return True

    def _answered(self, delivery: Delivery, status: int) -> None:
        verdict = outcome(status)
        if verdict not in {Outcome.STORED, Outcome.STORED_WITH_WARNING}:
            self._not_sent(delivery, status, f"status 0x{status:04X}", verdict)
            return
        self._store.delivered(
            delivery.delivery_id, self._owner, status, self._clock(), wants_commitment=self._asker.asks
        )
        log.info(
            "delivered",
            match_id=delivery.match_id,
            kind=delivery.kind.value,
            destination=self._name,
            status=f"0x{status:04X}",
        )

    def _not_sent(self, delivery: Delivery, status: int | None, error: str, verdict: Outcome) -> None:
        """Count a try without success: again later, or FAILED if that is of no use or was done long enough."""
        bounds = self._settings.delivery
        tries = delivery.attempts
        now = self._clock()
        trying = now - (delivery.trying_since or now)
        spent = tries >= bounds.attempts and trying >= timedelta(days=bounds.keep_trying_days)
        final = verdict is Outcome.REFUSED or spent
        if final:
            self._store.fail_delivery(delivery.delivery_id, self._owner, status, error)
        else:
            wait = min(bounds.longest_retry_seconds, bounds.first_retry_seconds * 2 ** min(tries - 1, 30))
            self._store.retry_delivery(delivery.delivery_id, self._owner, status, error, now + timedelta(seconds=wait))
        log.warning(
            "delivery_failed" if final else "delivery_put_off",
            delivery_id=delivery.delivery_id,
            match_id=delivery.match_id,
            kind=delivery.kind.value,
            destination=self._name,
            error=error,
            tries=tries,
        )

    def _silence(self, delivery: Delivery, error: str) -> None:
        """Nobody answers: no try is counted, nothing loses its place, the time it lasts decides."""
        now = self._clock()
        bounds = self._settings.delivery
        given_up = self._store.destination_silent(
            delivery,
            self._owner,
            error,
            until=now + timedelta(seconds=bounds.probe_seconds),
            give_up_before=now - timedelta(days=bounds.give_up_days),
            now=now,
        )
        if given_up:
            log.error("deliveries_given_up", destination=self._name, deliveries=given_up, error=error)
        if not self._silent:
            self._silent = True
            log.warning("destination_silent", destination=self._name, error=error)

    def _answers(self) -> None:
        since = self._store.destination_answered(self._name)
        self._silent = False
        if since is not None:
            log.info("destination_answers_again", destination=self._name, silent_since=since.isoformat())
