"""DIMSE command sets: read one from bytes, write a response or an event report.

Implicit little endian, as PS3.7 6.3.1 has it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pacs_node.dicom.wire import INVALID_PARAMETER, ProtocolError

C_STORE_RQ = 0x0001
C_ECHO_RQ = 0x0030
N_EVENT_REPORT_RQ = 0x0100
N_ACTION_RQ = 0x0130
C_CANCEL_RQ = 0x0FFF
RESPONSE = 0x8000
"""The bit that makes a command field a response's (PS3.7 E.1)."""

REQUESTS = frozenset({0x0001, 0x0010, 0x0020, 0x0021, 0x0030, 0x0100, 0x0110, 0x0120, 0x0130, 0x0140, 0x0150})
"""Every request of PS3.7 E.1 that has a response."""

NO_DATA_SET = 0x0101
WITH_DATA_SET = 0x0001

SOP_CLASS_NOT_SUPPORTED = 0x0122
INVALID_ARGUMENT = 0x0115
UNRECOGNIZED_OPERATION = 0x0211
MISTYPED_ARGUMENT = 0x0212

_ELEMENT = struct.Struct("<HHI")
_US = struct.Struct("<H")
_GROUP_LENGTH = struct.Struct("<HHII")

_AFFECTED_SOP_CLASS = 0x0002
_REQUESTED_SOP_CLASS = 0x0003
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_RESPONDED_TO = 0x0120
_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE = 0x1000
_REQUESTED_SOP_INSTANCE = 0x1001
_EVENT_TYPE = 0x1002
_ACTION_TYPE = 0x1008


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a request, or a response, says. Blank UIDs where it carries none."""

    field: int
    message_id: int
    has_data_set: bool
    sop_class_uid: str
    sop_instance_uid: str
    type_id: int | None = None  # Event Type ID or Action Type ID
    status: int | None = None  # of a response


def read_command(data: bytes | bytearray) -> Command:
    """The command set in `data`.

    Raises
    ------
    ProtocolError
        Elements outside group 0000, lengths that do not add up, or no command field, message ID or data set type.
    """
    elements: dict[int, bytes] = {}
    position, end = 0, len(data)
    while position < end:
        if end - position < _ELEMENT.size:
            raise ProtocolError(INVALID_PARAMETER, "a command set ends within an element")
        group, element, length = _ELEMENT.unpack_from(data, position)
        position += _ELEMENT.size
        if group != 0 or length > end - position:
            raise ProtocolError(INVALID_PARAMETER, "a command set with an element of another group or too long a value")
        elements[element] = bytes(data[position : position + length])
        position += length
    field = _number(elements, _COMMAND_FIELD)
    if field is None:
        raise ProtocolError(INVALID_PARAMETER, "a command set without a command field")
    message_id = _number(elements, _RESPONDED_TO if field & RESPONSE or field == C_CANCEL_RQ else _MESSAGE_ID)
    data_set_type = _number(elements, _DATA_SET_TYPE)
    if message_id is None or data_set_type is None:
        raise ProtocolError(INVALID_PARAMETER, "a command set without a message ID or a data set type")
    return Command(
        field=field,
        message_id=message_id,
        has_data_set=data_set_type != NO_DATA_SET,
        sop_class_uid=_uid(elements, _AFFECTED_SOP_CLASS, _REQUESTED_SOP_CLASS),
        sop_instance_uid=_uid(elements, _AFFECTED_SOP_INSTANCE, _REQUESTED_SOP_INSTANCE),
        type_id=_number(elements, _EVENT_TYPE if field & ~RESPONSE == N_EVENT_REPORT_RQ else _ACTION_TYPE),
        status=_number(elements, _STATUS),
    )


def event_report(message_id: int, sop_class_uid: str, sop_instance_uid: str, event_type: int) -> bytes:
    """An N-EVENT-REPORT request whose data set follows (PS3.7 10.3.1.1)."""
    return _command_set(
        _element(_AFFECTED_SOP_CLASS, _padded(sop_class_uid, b"\0")),
        _element(_COMMAND_FIELD, _US.pack(N_EVENT_REPORT_RQ)),
        _element(_MESSAGE_ID, _US.pack(message_id)),
        _element(_DATA_SET_TYPE, _US.pack(WITH_DATA_SET)),
        _element(_AFFECTED_SOP_INSTANCE, _padded(sop_instance_uid, b"\0")),
        _element(_EVENT_TYPE, _US.pack(event_type)),
    )


def response(command: Command, status: int, comment: str = "") -> bytes:
    """The response to `command`, without a data set.

    Parameters
    ----------
    comment
        Error Comment, ASCII, at most 64 characters; left out if blank.
    """
    type_element = {N_EVENT_REPORT_RQ: _EVENT_TYPE, N_ACTION_RQ: _ACTION_TYPE}.get(command.field)
    return _command_set(
        _element(_AFFECTED_SOP_CLASS, _padded(command.sop_class_uid, b"\0")) if command.sop_class_uid else b"",
        _element(_COMMAND_FIELD, _US.pack((command.field | RESPONSE) & 0xFFFF)),
        _element(_RESPONDED_TO, _US.pack(command.message_id)),
        _element(_DATA_SET_TYPE, _US.pack(NO_DATA_SET)),
        _element(_STATUS, _US.pack(status)),
        _element(_ERROR_COMMENT, _padded(comment[:64], b" ")) if comment else b"",
        _element(_AFFECTED_SOP_INSTANCE, _padded(command.sop_instance_uid, b"\0")) if command.sop_instance_uid else b"",
        _element(type_element, _US.pack(command.type_id)) if type_element and command.type_id is not None else b"",
    )


def _command_set(*elements: bytes) -> bytes:
    body = b"".join(elements)
    return _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body


def _number(elements: dict[int, bytes], element: int) -> int | None:
    value = elements.get(element)
    return None if value is None or len(value) != _US.size else int(_US.unpack(value)[0])


def _uid(elements: dict[int, bytes], *numbers: int) -> str:
    for number in numbers:
        if value := elements.get(number):
            return value.decode("ascii", "replace").strip(" \0")
    return ""


def _element(element: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, element, len(value)) + value


def _padded(value: str, pad: bytes) -> bytes:
    data = value.encode("ascii", "replace")
    return data + pad if len(data) % 2 else data
