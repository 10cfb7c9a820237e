"""The Storage SCP: associations in, raw data sets out to a receiver function, DIMSE statuses back."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import structlog
from pydicom.dataset import Dataset
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt
from pynetdicom.association import Association
from pynetdicom.transport import ThreadedAssociationServer

from pacs_node.dicom.primitives import VERIFICATION, calling_ae_title, store_request
from pacs_node.dicom.stack import quiet, send_at_once
from pacs_node.flow.receive import PROCESSING_FAILURE, Incoming, Receipt
from pacs_node.flow.sop_classes import RECEIVED
from pacs_node.settings import Settings, Source
from storage.errors import StorageError

log = structlog.get_logger()

PDU_BYTES = 131072
"""Largest P-DATA PDU we ask for; larger ones cost fewer turns per object."""

QUIET_SECONDS = 1.0
"""An association that sent nothing for so long is between two objects."""


class PortTaken(Exception):
    """The configured address cannot be listened on."""


class StorageServer:
    """Listens for C-ECHO and C-STORE and hands each data set, as it came, to `receive`."""

    def __init__(self, settings: Settings, receive: Callable[[Incoming], Receipt]) -> None:
        quiet()
        self._settings = settings
        self._receive = receive
        self._server: ThreadedAssociationServer | None = None
        self._busy: set[Association] = set()  # with an object in hand
        self._last_heard: WeakKeyDictionary[Association, float] = WeakKeyDictionary()  # monotonic seconds
        node = settings.node
        self._ae = AE(ae_title=node.ae_title)
        self._ae.maximum_pdu_size = PDU_BYTES
        self._ae.maximum_associations = settings.limits.associations
        self._ae.require_called_aet = node.require_called_ae_title
        self._ae.network_timeout = settings.limits.network_timeout_seconds
        self._ae.dimse_timeout = settings.limits.network_timeout_seconds
        self._ae.acse_timeout = min(30.0, settings.limits.network_timeout_seconds)
        self._ae.add_supported_context(VERIFICATION)
        for sop_class in RECEIVED:
            self._ae.add_supported_context(sop_class, ALL_TRANSFER_SYNTAXES)

    def start(self) -> None:
        """Listen in the background.

        Raises
        ------
        PortTaken
            The address is in use or not ours.
        """
        node = self._settings.node
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, send_at_once),
            (evt.EVT_DATA_RECV, self._on_data),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_REQUESTED, self._on_requested),
        ]
        try:
            self._server = self._ae.start_server((node.host, node.port), block=False, evt_handlers=handlers)
        except OSError as error:
            raise PortTaken(
                f"cannot listen on {node.host}:{node.port}: {error.strerror or error} (node.host, node.port)"
            ) from None

    def stop(self, drain_seconds: float) -> None:
        """Stop accepting, let objects on their way arrive for at most `drain_seconds`, then end what is left.

        An association between two objects is aborted: its sender got an answer to each and will call again.
        """
        if self._server is None:
            return
        self._server.shutdown()
        deadline = time.monotonic() + drain_seconds
        while (left := self._server.active_associations) and time.monotonic() < deadline:
            for association in left:
                if not association.is_established:
                    self._cut(association)
                elif association not in self._busy and time.monotonic() - self._heard(association) > QUIET_SECONDS:
                    association.abort(block=False)
            time.sleep(0.05)
        for association in left:
            self._cut(association)

    def _heard(self, association: Association) -> float:
        return self._last_heard.get(association, 0.0)

    def _cut(self, association: Association) -> None:
        """End an association that is not made (a port probe waits in pynetdicom for half a minute) or does not end."""
        connection = association.dul.socket
        if self._server is not None and connection is not None and connection.socket is not None:
            self._server.shutdown_request(connection.socket)
        # What its thread waits for; None counts as a timeout.
        association.dul.to_user_queue.put(None)  # type: ignore[arg-type]

    def _on_data(self, event: evt.Event) -> None:
        self._last_heard[event.assoc] = time.monotonic()

    def _on_requested(self, event: evt.Event) -> None:
        """Refuse peers that are not configured before anything is negotiated."""
        peer = event.assoc.requestor.address
        calling = calling_ae_title(event)
        if permitted(self._settings.sources, calling, peer) is None:
            log.warning("association_rejected", calling_ae=calling, peer=peer, reason="not in sources")
            # 1 rejected permanent, 1 service user, 3 calling AE title not recognised (PS3.8 9.3.4)
            event.assoc.acse.send_reject(0x01, 0x01, 0x03)
            event.assoc.kill()

    def _on_store(self, event: evt.Event) -> Dataset | int:
        self._busy.add(event.assoc)
        try:
            return self._store(event)
        finally:
            self._last_heard[event.assoc] = time.monotonic()  # leaves time for the answer
            self._busy.discard(event.assoc)

    def _store(self, event: evt.Event) -> Dataset | int:
        calling = calling_ae_title(event)
        source = permitted(self._settings.sources, calling, event.assoc.requestor.address)
        try:
            receipt = self._receive(
                Incoming(
                    parts=store_request(event),
                    calling_ae=calling,
                    ecg_documents=isinstance(source, Source) and source.ecg_documents,
                )
            )
        except StorageError as error:  # its words name no patient
            log.error("receive_failed", error=type(error).__name__, detail=str(error), calling_ae=calling)
            return PROCESSING_FAILURE
        except Exception as error:  # noqa: BLE001 - outermost loop of an association: answer, never hang
            log.error("receive_failed", error=type(error).__name__, calling_ae=calling)
            return PROCESSING_FAILURE
        answer = Dataset()
        answer.Status = receipt.status
        if receipt.comment:
            answer.ErrorComment = receipt.comment
        return answer


def permitted(sources: Sequence[Source], calling_ae: str, peer: str) -> Source | bool | None:
    """The configured source this peer is; True for loopback when none is configured; None: refuse it."""
    if not sources:
        return True if ipaddress.ip_address(peer).is_loopback else None
    for source in sources:
        if source.ae_title == calling_ae and peer in _addresses(source.host):
            return source
    return None


def _addresses(host: str) -> set[str]:
    try:
        return {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return set()
