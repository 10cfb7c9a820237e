"""Talk to a destination: C-ECHO, what it accepts, and C-STORE of stored bytes as they are."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from pacs_node.dicom.primitives import VERIFICATION
from pacs_node.dicom.stack import quiet, send_at_once
from pacs_node.dicom.tls import ClientTls, TlsFault


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


class Conversation:
    """An association with `peer` for the given (SOP Class, transfer syntax) pairs; a context manager.

    Raises
    ------
    Unreachable
        On entering, or on any later call once the peer broke off.
    """

    def __init__(self, peer: Peer, contexts: Sequence[tuple[str, str]]) -> None:
        quiet()
        self._peer = peer
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
        association = ae.associate(
            self._peer.host,
            self._peer.port,
            contexts=self._contexts,
            ae_title=self._peer.ae_title,
            evt_handlers=[(evt.EVT_CONN_OPEN, send_at_once)],
            tls_args=self._tls(),
        )
        if not association.is_established:
            if association.is_rejected:
                answer = association.acceptor.primitive
                raise Unreachable(f"association rejected: {answer.reason_str if answer else 'no reason given'}")
            secured = " (or TLS failed: pulmolink doctor says how)" if self._peer.tls else ""
            raise Unreachable(f"no association: nobody listens there, or it broke off{secured}")
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

    def _open(self) -> Association:
        if self._association is None or not self._association.is_established:
            raise Unreachable("the association has ended")
        return self._association
