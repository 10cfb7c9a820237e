"""Answer an association request: accept with presentation contexts, or reject with the standard's reason.

The PDU's classes, negotiation of contexts and roles are pynetdicom's. What reaches them was measured before: sizes and
counts are bounded, items of unknown type are left out as PS3.8 9.3.1 asks.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import ALL_TRANSFER_SYNTAXES
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID as IMPLEMENTATION_UID
from pynetdicom import PYNETDICOM_IMPLEMENTATION_VERSION as IMPLEMENTATION_VERSION
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, build_context, negotiate_as_acceptor

from pacs_node.dicom.audit import Reason
from pacs_node.dicom.primitives import VERIFICATION
from pacs_node.dicom.sources import WrongCertificate
from pacs_node.dicom.tls import PeerCertificate
from pacs_node.dicom.wire import ASSOCIATE_RJ, ASSOCIATE_RQ, HEADER, INVALID_PARAMETER, ProtocolError
from pacs_node.flow.sop_classes import RADIOGRAPHS, RECEIVED, SECONDARY_CAPTURE, STORAGE_COMMITMENT, WAVEFORMS
from pacs_node.settings import Limits, Node, Source

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

TRANSFER_SYNTAXES = (
    ExplicitVRLittleEndian,
    *(uid for uid in ALL_TRANSFER_SYNTAXES if uid not in {ExplicitVRLittleEndian, ImplicitVRLittleEndian}),
    ImplicitVRLittleEndian,
)
"""In the order in which we choose where a peer offers several in one context: implicit last, because it loses the
VRs of what is not in the receiver's dictionary."""

UNDECODABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,  # with UnicodeError
    struct.error,
)
"""What pynetdicom's PDU classes raise on bytes that are no association request."""

CLASSES_OF = {
    "radiograph": RADIOGRAPHS,
    "ecg": WAVEFORMS,
    "document": frozenset(RECEIVED) - RADIOGRAPHS - WAVEFORMS | {SECONDARY_CAPTURE},
}
"""SOP Classes of each kind that a source may send. A secondary capture may be a film or a scanned ECG."""

UserItem = MaximumLengthNotification | ImplementationClassUIDNotification | ImplementationVersionNameNotification

_FIXED = 68
"""Bytes of an A-ASSOCIATE-RQ before its variable items (PS3.8 table 9-11)."""
_TITLES = slice(4, 36)
"""Called and calling AE title in it."""
_ITEM = struct.Struct(">BxH")
_APPLICATION, _CONTEXT, _USER_INFORMATION = 0x10, 0x20, 0x50
_TRANSFER_SYNTAX, _VERSION_NAME = 0x40, 0x55
_CONTEXT_ITEMS = 8
"""Bytes of a presentation context item before its abstract and transfer syntaxes (PS3.8 table 9-13)."""
_NO_TRANSFER_SYNTAX = b"2.25.0"
"""Stands in a context that offers none: nobody supports it, so that this context is refused and the others are not."""
_VERSION_NAME_BYTES = 16
_KNOWN_USER_ITEMS = frozenset({0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58})


@dataclass(frozen=True, kw_only=True)
class Context:
    """An accepted presentation context."""

    sop_class_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The association is on."""

    calling_ae: str
    called_ae: str
    source: Source
    contexts: Mapping[int, Context]
    peer_pdu_bytes: int  # 0: no limit
    answer: bytes  # the A-ASSOCIATE-AC PDU


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """It is not. `why` is for the log, `reason` for the count."""

    calling_ae: str
    called_ae: str
    reason: Reason
    why: str
    answer: bytes  # the A-ASSOCIATE-RJ PDU


class Undecodable(ProtocolError):
    """An association request of which no more than the AE titles can be read."""

    def __init__(self, why: str, calling_ae: str, called_ae: str) -> None:
        super().__init__(INVALID_PARAMETER, why)
        self.calling_ae = calling_ae
        self.called_ae = called_ae


class Negotiator:
    """Answers association requests by one configuration.

    Parameters
    ----------
    identify
        Gives the source that a calling AE title, an address and a certificate are, or None.
    shortage
        Says why nothing can be stored at the moment, "" if it can: associations to store are rejected meanwhile.
    commitment
        Whether storage commitment is negotiated, in either role (PS3.4 J.2.1): peers ask as SCU, destinations report
        as SCP.
    """

    def __init__(
        self,
        node: Node,
        limits: Limits,
        identify: Callable[[str, str, PeerCertificate | None], Source | None],
        shortage: Callable[[], str] = lambda: "",
        *,
        commitment: bool = False,
    ) -> None:
        self._titles = frozenset((node.ae_title, *node.also_called))
        self._any_title = not node.require_called_ae_title
        self._limits = limits
        self._identify = identify
        self._shortage = shortage
        self._supported = {VERIFICATION: build_context(VERIFICATION)} | {
            sop_class: build_context(sop_class, list(TRANSFER_SYNTAXES)) for sop_class in RECEIVED
        }
        if commitment:
            context = build_context(STORAGE_COMMITMENT, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
            context.scu_role = context.scp_role = True
            self._supported[STORAGE_COMMITMENT] = context

    def answer(
        self, body: bytes, peer: str, *, claim: Callable[[], bool], certificate: PeerCertificate | None = None
    ) -> Accepted | Rejected:
        """The answer to the body of an A-ASSOCIATE-RQ.

        Parameters
        ----------
        peer
            Address the request came from.
        claim
            Asked last: whether a further association may be established now.
        certificate
            What it showed, over TLS.

        Raises
        ------
        ProtocolError
            It is none.
        """
        if len(body) < _FIXED:
            raise ProtocolError(INVALID_PARAMETER, "an association request shorter than its fixed part")
        version = int.from_bytes(body[:2], "big")
        called, calling = _ae_title(body[4:20]), _ae_title(body[20:36])

        def rejected(triple: tuple[int, int, int], reason: Reason, why: str) -> Rejected:
            # Written here: pynetdicom's class refuses some triples that the standard allows.
            answer = HEADER.pack(ASSOCIATE_RJ, 4) + bytes((0, *triple))
            return Rejected(calling_ae=calling, called_ae=called, reason=reason, why=why, answer=answer)

        if not version & 1:
            # result 1 permanent, source 2 ACSE, reason 2 protocol version not supported (PS3.8 table 9-21)
            return rejected((1, 2, 2), Reason.PROTOCOL_VERSION, "protocol version")
        items, application_context, contexts, user_bytes = _survey(body)
        if application_context.strip(b" \0") != APPLICATION_CONTEXT.encode():
            return rejected((1, 1, 2), Reason.APPLICATION_CONTEXT, "application context name")
        if contexts > self._limits.presentation_contexts:
            why = "more presentation contexts than limits.presentation_contexts"
            return rejected((1, 3, 2), Reason.CONTEXTS, why)
        if user_bytes > self._limits.user_information_bytes:
            why = "more user information than limits.user_information_bytes"
            return rejected((1, 3, 2), Reason.USER_INFORMATION, why)
        if not self._any_title and called not in self._titles:
            return rejected((1, 1, 7), Reason.CALLED_AE, "called AE title")
        try:
            source = self._identify(calling, peer, certificate)
        except WrongCertificate:
            return rejected((1, 1, 3), Reason.CERTIFICATE, "not with the certificate that sources name")
        if source is None:
            return rejected((1, 1, 3), Reason.SOURCES, "not in sources")
        if not claim():
            return rejected((2, 3, 2), Reason.ASSOCIATIONS, "limits.associations")
        try:
            accepted = self._accept(body[:_FIXED], items, calling, called, source)
        except UNDECODABLE as error:
            raise Undecodable(f"association request ({type(error).__name__})", calling, called) from None
        if any(context.sop_class_uid in RECEIVED for context in accepted.contexts.values()):
            short = self._shortage()
            if short:
                return rejected((2, 3, 2), Reason.DISK, short)
        return accepted

    def _may_send(self, source: Source) -> list[PresentationContext]:
        """The presentation contexts that are accepted from a source."""
        classes = {VERIFICATION, STORAGE_COMMITMENT}.union(*(CLASSES_OF[kind] for kind in source.accepts))
        return [context for sop_class, context in self._supported.items() if sop_class in classes]

    def _accept(self, fixed: bytes, items: bytes, calling: str, called: str, source: Source) -> Accepted:
        # Padded with spaces as the standard has it; many pad with NUL, which pynetdicom takes for a part of the title.
        titles = called.encode("ascii").ljust(16) + calling.encode("ascii").ljust(16)
        body = fixed[: _TITLES.start] + titles + fixed[_TITLES.stop :] + items
        request = A_ASSOCIATE_RQ()
        request.decode(HEADER.pack(ASSOCIATE_RQ, len(body)) + body)
        asked = request.to_primitive()
        roles = {
            item.sop_class_uid: (item.scu_role, item.scp_role)
            for item in asked.user_information
            if isinstance(item, SCP_SCU_RoleSelectionNegotiation) and item.sop_class_uid is not None
        }
        results, granted = negotiate_as_acceptor(
            asked.presentation_context_definition_list, self._may_send(source), roles
        )
        if not results:
            raise ValueError("no presentation context")
        reply = A_ASSOCIATE()
        reply.application_context_name = UID(APPLICATION_CONTEXT)
        reply.calling_ae_title = asked.calling_ae_title
        reply.called_ae_title = asked.called_ae_title
        reply.result, reply.result_source = 0, 1
        reply.presentation_context_definition_results_list = results
        reply.user_information = [*self._ours(), *granted]
        pdu = A_ASSOCIATE_AC()
        pdu.from_primitive(reply)
        answer = bytearray(pdu.encode())
        # PS3.8 table 9-17: the value received in the same field.
        answer[HEADER.size + _TITLES.start : HEADER.size + _TITLES.stop] = fixed[_TITLES]
        return Accepted(
            calling_ae=calling,
            called_ae=called,
            source=source,
            contexts={result.context_id or 0: _context(result) for result in results if result.result == 0},
            peer_pdu_bytes=asked.maximum_length_received or 0,
            answer=bytes(answer),
        )

    def _ours(self) -> list[UserItem]:
        length = MaximumLengthNotification()
        length.maximum_length_received = self._limits.pdu_bytes
        uid = ImplementationClassUIDNotification()
        uid.implementation_class_uid = UID(IMPLEMENTATION_UID)
        version = ImplementationVersionNameNotification()
        version.implementation_version_name = IMPLEMENTATION_VERSION
        return [length, uid, version]


def _context(result: PresentationContext) -> Context:
    return Context(sop_class_uid=str(result.abstract_syntax), transfer_syntax_uid=str(result.transfer_syntax[0]))


def _ae_title(field: bytes) -> str:
    """An AE title; what is no character of one becomes U+FFFD, which no configured title has."""
    text = field.decode("ascii", "replace").strip(" \0")
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)


def _survey(body: bytes) -> tuple[bytes, bytes, int, int]:
    """The known variable items, the application context name, the number of contexts, and bytes of user information."""
    kept = bytearray()
    application_context = b""
    contexts = user_bytes = 0
    for kind, item in _items(body, _FIXED, len(body)):
        if kind == _APPLICATION:
            application_context = item[_ITEM.size :]
        elif kind == _CONTEXT:
            contexts += 1
            offered = (part for sub, part in _items(item, _CONTEXT_ITEMS, len(item)) if sub == _TRANSFER_SYNTAX)
            if not any(len(part) > _ITEM.size for part in offered):
                none = _ITEM.pack(_TRANSFER_SYNTAX, len(_NO_TRANSFER_SYNTAX)) + _NO_TRANSFER_SYNTAX
                inner = item[_ITEM.size :] + none
                item = _ITEM.pack(_CONTEXT, len(inner)) + inner  # noqa: PLW2901
        elif kind == _USER_INFORMATION:
            user_bytes += len(item)
            parts = (
                _version_name(part) if sub == _VERSION_NAME else part
                for sub, part in _items(item, _ITEM.size, len(item))
                if sub in _KNOWN_USER_ITEMS
            )
            known = b"".join(parts)
            item = _ITEM.pack(_USER_INFORMATION, len(known)) + known  # noqa: PLW2901
        else:
            continue
        kept += item
    return bytes(kept), application_context, contexts, user_bytes


def _version_name(item: bytes) -> bytes:
    """An implementation version name item as the standard has it, or nothing: nobody's wrong one is worth an abort."""
    name = item[_ITEM.size :].strip(b" \0")[:_VERSION_NAME_BYTES].rstrip()
    if not name or not all(0x20 <= sign < 0x7F for sign in name):
        return b""
    return _ITEM.pack(_VERSION_NAME, len(name)) + name


def _items(body: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Type and bytes of each item."""
    while start < end:
        if end - start < _ITEM.size:
            raise ProtocolError(INVALID_PARAMETER, "an association request ends within an item")
        kind, length = _ITEM.unpack_from(body, start)
        after = start + _ITEM.size + length
        if after > end:
            raise ProtocolError(INVALID_PARAMETER, "an item longer than its association request")
        yield kind, body[start:after]
        start = after
