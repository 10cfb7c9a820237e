"""The hot path: the fragments of a P-DATA-TF PDU as views of the receive buffer, and our answers as such a PDU."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pacs_node.dicom.wire import HEADER, INVALID_PARAMETER, P_DATA, ProtocolError

ITEM = struct.Struct(">IBB")
"""Length of context ID, control byte and fragment; context ID; message control header (PS3.8 9.3.5, E.2)."""

IS_COMMAND = 1
IS_LAST = 2

Fragment = tuple[int, int, memoryview]
"""Presentation context ID, control byte, bytes."""


def fragments(body: memoryview) -> Iterator[Fragment]:
    """The presentation data values of a P-DATA-TF PDU's body, in order, not copied.

    Raises
    ------
    ProtocolError
        Lengths that do not add up.
    """
    position, end = 0, len(body)
    if end < ITEM.size:
        raise ProtocolError(INVALID_PARAMETER, "P-DATA without a presentation data value")
    while position < end:
        if end - position < ITEM.size:
            raise ProtocolError(INVALID_PARAMETER, "P-DATA ends within an item")
        length, context_id, control = ITEM.unpack_from(body, position)
        after = position + 4 + length
        if length < 2 or after > end:
            raise ProtocolError(INVALID_PARAMETER, "a presentation data value longer or shorter than its PDU")
        yield context_id, control, body[position + ITEM.size : after]
        position = after


def command_pdus(context_id: int, command: bytes, peer_pdu_bytes: int) -> bytes:
    """A command set as P-DATA-TF PDUs that the peer takes (`peer_pdu_bytes` 0: any length)."""
    return _pdus(context_id, command, peer_pdu_bytes, IS_COMMAND)


def data_pdus(context_id: int, data: bytes, peer_pdu_bytes: int) -> bytes:
    """An encoded data set as P-DATA-TF PDUs that the peer takes (`peer_pdu_bytes` 0: any length)."""
    return _pdus(context_id, data, peer_pdu_bytes, 0)


def _pdus(context_id: int, message: bytes, peer_pdu_bytes: int, kind: int) -> bytes:
    step = len(message) if peer_pdu_bytes == 0 else max(1, min(len(message), peer_pdu_bytes - ITEM.size))
    pdus = bytearray()
    for start in range(0, len(message), step):
        part = message[start : start + step]
        control = kind | (IS_LAST if start + step >= len(message) else 0)
        pdus += HEADER.pack(P_DATA, ITEM.size + len(part))
        pdus += ITEM.pack(2 + len(part), context_id, control)
        pdus += part
    return bytes(pdus)
