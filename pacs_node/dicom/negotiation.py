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

from pacs_node.dicom.primitives import VERIFICATION
from pacs_node.dicom.wire import ASSOCIATE_RJ, ASSOCIATE_RQ, HEADER, INVALID_PARAMETER, ProtocolError
from pacs_node.flow.sop_classes import RECEIVED, STORAGE_COMMITMENT
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

UserItem = MaximumLengthNotification | ImplementationClassUIDNotification | ImplementationVersionNameNotification

_FIXED = 68
"""Bytes of an A-ASSOCIATE-RQ before its variable items (PS3.8 table 9-11)."""
_ITEM = struct.Struct(">BxH")
_APPLICATION, _CONTEXT, _USER_INFORMATION = 0x10, 0x20, 0x50
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
    source: Source
    contexts: Mapping[int, Context]
    peer_pdu_bytes: int  # 0: no limit
    answer: bytes  # the A-ASSOCIATE-AC PDU


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """It is not. `why` is for the log."""

    calling_ae: str
    why: str
    answer: bytes  # the A-ASSOCIATE-RJ PDU


class Negotiator:
    """Answers association requests by one configuration.

    Parameters
    ----------
    identify
        Gives the source that a calling AE title and an address are, or None.
    commitment
        Whether storage commitment is negotiated, in either role (PS3.4 J.2.1): peers ask as SCU, destinations report
        as SCP.
    """

    def __init__(
        self,
        node: Node,
        limits: Limits,
        identify: Callable[[str, str], Source | None],
        *,
        commitment: bool = False,
    ) -> None:
        self._node = node
        self._limits = limits
        self._identify = identify
        self._supported = [build_context(VERIFICATION)] + [
            build_context(sop_class, list(TRANSFER_SYNTAXES)) for sop_class in RECEIVED
        ]
        if commitment:
            context = build_context(STORAGE_COMMITMENT, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
            context.scu_role = context.scp_role = True
            self._supported.append(context)

    def answer(self, body: bytes, peer: str, *, claim: Callable[[], bool]) -> Accepted | Rejected:
        """The answer to the body of an A-ASSOCIATE-RQ.

        Parameters
        ----------
        peer
            Address the request came from.
        claim
            Asked last: whether a further association may be established now.

        Raises
        ------
        ProtocolError
            It is none.
        """
        if len(body) < _FIXED:
            raise ProtocolError(INVALID_PARAMETER, "an association request shorter than its fixed part")
        version = int.from_bytes(body[:2], "big")
        called, calling = _ae_title(body[4:20]), _ae_title(body[20:36])
        if not version & 1:
            # result 1 permanent, source 2 ACSE, reason 2 protocol version not supported (PS3.8 table 9-21)
            return _rejected(calling, (1, 2, 2), "protocol version")
        items, application_context, contexts, user_bytes = _survey(body)
        if application_context.strip(b" \0") != APPLICATION_CONTEXT.encode():
            return _rejected(calling, (1, 1, 2), "application context name")
        if contexts > self._limits.presentation_contexts:
            return _rejected(calling, (1, 3, 2), "more presentation contexts than limits.presentation_contexts")
        if user_bytes > self._limits.user_information_bytes:
            return _rejected(calling, (1, 3, 2), "more user information than limits.user_information_bytes")
        if self._node.require_called_ae_title and called != self._node.ae_title:
            return _rejected(calling, (1, 1, 7), "called AE title")
        source = self._identify(calling, peer)
        if source is None:
            return _rejected(calling, (1, 1, 3), "not in sources")
        if not claim():
            return _rejected(calling, (2, 3, 2), "limits.associations")
        try:
            return self._accept(body[:_FIXED] + items, calling, source)
        except UNDECODABLE as error:
            raise ProtocolError(INVALID_PARAMETER, f"association request ({type(error).__name__})") from None

    def _accept(self, body: bytes, calling: str, source: Source) -> Accepted:
        request = A_ASSOCIATE_RQ()
        request.decode(HEADER.pack(ASSOCIATE_RQ, len(body)) + body)
        asked = request.to_primitive()
        roles = {
            item.sop_class_uid: (item.scu_role, item.scp_role)
            for item in asked.user_information
            if isinstance(item, SCP_SCU_RoleSelectionNegotiation) and item.sop_class_uid is not None
        }
        results, granted = negotiate_as_acceptor(asked.presentation_context_definition_list, self._supported, roles)
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
        return Accepted(
            calling_ae=calling,
            source=source,
            contexts={result.context_id or 0: _context(result) for result in results if result.result == 0},
            peer_pdu_bytes=asked.maximum_length_received or 0,
            answer=pdu.encode(),
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


def _rejected(calling: str, triple: tuple[int, int, int], why: str) -> Rejected:
    # Written here: pynetdicom's class refuses some triples that the standard allows.
    return Rejected(calling_ae=calling, why=why, answer=HEADER.pack(ASSOCIATE_RJ, 4) + bytes((0, *triple)))


def _ae_title(field: bytes) -> str:
    return field.decode("ascii", "replace").strip(" \0")


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
        elif kind == _USER_INFORMATION:
            user_bytes += len(item)
            known = b"".join(part for sub, part in _items(item, _ITEM.size, len(item)) if sub in _KNOWN_USER_ITEMS)
            item = _ITEM.pack(_USER_INFORMATION, len(known)) + known  # noqa: PLW2901
        else:
            continue
        kept += item
    return bytes(kept), application_context, contexts, user_bytes


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
