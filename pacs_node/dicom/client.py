"""Talk to a peer: C-ECHO, what it accepts, C-STORE of stored bytes as they are, storage commitment both ways."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.presentation import build_context

from pacs_node.dicom.checkpoint import hold_firmly
from pacs_node.dicom.primitives import VERIFICATION
from pacs_node.dicom.stack import quiet, send_at_once
from pacs_node.dicom.tls import ClientTls, TlsFault
from pacs_node.flow.sop_classes import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE

COMMITMENT_CONTEXTS = (
    (STORAGE_COMMITMENT, str(ExplicitVRLittleEndian)),
    (STORAGE_COMMITMENT, str(ImplicitVRLittleEndian)),
)
"""What to offer for storage commitment."""


class Unreachable(Exception):
    """No association with the destination: nobody listens, it rejected us, or it broke off."""


class NotAccepted(Exception):
    """The destination negotiated, but does not take this SOP Class in this transfer syntax."""


class Outcome(StrEnum):
    """What a C-STORE status means for the sender (PS3.4 B.2.3, PS3.7 C)."""

    STORED = "stored"
    STORED_WITH_WARNING = "stored with warning"
    RETRY = "retry"  # may pass: out of resources, processing failure
    REFUSED = "refused"  # will not pass by itself: SOP class, data set, authorisation


def outcome(status: int) -> Outcome:
    """Sort a C-STORE response status."""
    if status in {0x0000, 0x0111}:  # 0x0111: duplicate SOP Instance, it is there already
        return Outcome.STORED
    if status in {0x0001, 0x0107, 0x0116} or 0xB000 <= status <= 0xBFFF:
        return Outcome.STORED_WITH_WARNING
    if 0xA700 <= status <= 0xA7FF or status in {0x0110, 0x0213}:
        return Outcome.RETRY
    return Outcome.REFUSED


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A DICOM node to call."""

    ae_title: str
    host: str
    port: int
    calling_ae_title: str
    timeout_seconds: float
    tls: ClientTls | None = None


@dataclass(frozen=True, kw_only=True)
class EventReport:
    """An N-EVENT-REPORT request that came on an association of ours."""

    event_type: int | None
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: bytes  # Event Information as it came


class Conversation:
    """An association with `peer` for the given (SOP Class, transfer syntax) pairs; a context manager.

    Parameters
    ----------
    provides
        SOP Classes for which we are the SCP although we call (PS3.7 D.3.3.4).
    on_report
        Takes the N-EVENT-REPORTs that come, in a thread of its own, and gives the status; None: they are refused.

    Raises
    ------
    Unreachable
        On entering, or on any later call once the peer broke off.
    """

    def __init__(
        self,
        peer: Peer,
        contexts: Sequence[tuple[str, str]],
        *,
        provides: Sequence[str] = (),
        on_report: Callable[[EventReport], int] | None = None,
    ) -> None:
        quiet()
        self._peer = peer
        self._roles = [build_role(sop_class, scu_role=False, scp_role=True) for sop_class in provides]
        self._on_report = on_report
        wanted: dict[str, list[str]] = {}
        for sop_class, transfer_syntax in contexts:
            syntaxes = wanted.setdefault(sop_class, [])
            if transfer_syntax not in syntaxes:
                syntaxes.append(transfer_syntax)
        self._contexts = [build_context(VERIFICATION)] + [
            build_context(sop_class, syntax)
            for sop_class, syntaxes in wanted.items()
            if sop_class != VERIFICATION
            for syntax in syntaxes
        ]
        self._association: Association | None = None

    def __enter__(self) -> Self:
        ae = AE(ae_title=self._peer.calling_ae_title)
        for timeout in ("acse_timeout", "dimse_timeout", "network_timeout", "connection_timeout"):
            setattr(ae, timeout, self._peer.timeout_seconds)
        handlers: list[evt.EventHandlerType] = [(evt.EVT_CONN_OPEN, send_at_once)]
        if self._on_report is not None:
            handlers.append((evt.EVT_N_EVENT_REPORT, self._take_report))
        association = ae.associate(
            self._peer.host,
            self._peer.port,
            contexts=self._contexts,
            ae_title=self._peer.ae_title,
            tls_args=self._tls(),
            ext_neg=list(self._roles),
            evt_handlers=handlers,
        )
        if not association.is_established:
            if association.is_rejected:
                answer = association.acceptor.primitive
                raise Unreachable(f"association rejected: {answer.reason_str if answer else 'no reason given'}")
            secured = " (or TLS failed: pulmolink doctor says how)" if self._peer.tls else ""
            raise Unreachable(f"no association: nobody listens there, or it broke off{secured}")
        hold_firmly(association)
        self._association = association
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        association = self._association
        if association is not None and association.is_established:
            association.release() if kind is None else association.abort()
        self._association = None

    def _tls(self) -> tuple[ssl.SSLContext, str] | None:
        if self._peer.tls is None:
            return None
        try:
            return self._peer.tls.context(), self._peer.host
        except TlsFault as fault:
            raise Unreachable(str(fault)) from None

    def echo(self) -> int:
        """C-ECHO; the status, 0x0000 is success."""
        answer = self._open().send_c_echo()
        if "Status" not in answer:
            raise Unreachable("no answer to C-ECHO")
        return int(answer.Status)

    def is_open(self) -> bool:
        """Whether the peer still holds the association."""
        return self._association is not None and self._association.is_established

    def commits(self) -> bool:
        """Whether the peer took storage commitment when the association was made."""
        return any(self.accepts(*pair) for pair in COMMITMENT_CONTEXTS)

    def ask_commitment(self, information: Dataset) -> int:
        """N-ACTION "request storage commitment" (PS3.4 J.3.2); the response status.

        Raises
        ------
        NotAccepted
            Storage commitment was refused in negotiation.
        Unreachable
            No answer, or the peer broke off: whether it knows of the question is unknown.
        """
        if not self.commits():
            raise NotAccepted("storage commitment is not accepted")
        association = self._open()
        try:
            answer, _ = association.send_n_action(information, 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
        except RuntimeError:
            raise Unreachable("the association ended before it was asked to commit") from None
        except ValueError:
            raise NotAccepted("storage commitment is accepted in another role only") from None
        if "Status" not in answer:
            raise Unreachable("no answer to N-ACTION")
        return int(answer.Status)

    def report_commitment(self, event_type: int, information: Dataset) -> int:
        """N-EVENT-REPORT of storage commitment (PS3.4 J.3.3); the response status. Raises as `ask_commitment`.

        A peer that took the SOP Class but not the roles is told nevertheless: many leave their selection out.
        """
        if not self.commits():
            raise NotAccepted("storage commitment is not accepted")
        association = self._open()
        try:
            answer, _ = association.send_n_event_report(
                information, event_type, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
            )
        except RuntimeError:
            raise Unreachable("the association ended before the report") from None
        if "Status" not in answer:
            raise Unreachable("no answer to N-EVENT-REPORT")
        return int(answer.Status)

    def accepts(self, sop_class: str, transfer_syntax: str) -> bool:
        """Whether the peer took this pair when the association was made."""
        return any(
            context.abstract_syntax == sop_class and transfer_syntax in context.transfer_syntax
            for context in self._open().accepted_contexts
        )

    def store(self, path: Path, *, sop_class: str, transfer_syntax: str) -> int:
        """C-STORE the Part 10 file at `path`, byte for byte; the response status.

        Raises
        ------
        NotAccepted
            The pair was refused in negotiation.
        Unreachable
            No answer, or the peer broke off: whether it stored the object is unknown.
        """
        if not self.accepts(sop_class, transfer_syntax):
            raise NotAccepted(f"SOP Class {sop_class} in transfer syntax {transfer_syntax} is not accepted")
        try:
            answer = self._open().send_c_store(path)
        except RuntimeError:
            raise Unreachable("the association ended before the object was sent") from None
        if "Status" not in answer:
            raise Unreachable("no answer to C-STORE")
        return int(answer.Status)

    def _take_report(self, event: evt.Event) -> tuple[int, None]:
        request = event.request
        if self._on_report is None or not isinstance(request, N_EVENT_REPORT):
            return 0x0110, None
        information = request.EventInformation
        report = EventReport(
            event_type=request.EventTypeID,
            sop_instance_uid=str(request.AffectedSOPInstanceUID or ""),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            data=information.getvalue() if information is not None else b"",
        )
        return self._on_report(report), None

    def _open(self) -> Association:
        if self._association is None or not self._association.is_established:
            raise Unreachable("the association has ended")
        return self._association
