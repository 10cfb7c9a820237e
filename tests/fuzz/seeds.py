"""What the search begins with: good requests, command sets, PDUs and headers, made by code."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import build_context

from pacs_node.dicom.pdata import ITEM, command_pdus
from pacs_node.dicom.wire import ABORT, HEADER, P_DATA, RELEASE_RQ
from pacs_node.flow.commitment import Report, Request, request_data_set
from pacs_node.flow.part10 import to_part10
from pacs_node.flow.sop_classes import COMPUTED_RADIOGRAPHY, RECEIVED, STORAGE_COMMITMENT
from storage.records import SopReference
from tests.benchmarks.replay import VERIFICATION, association_request, command, encode
from tests.unit.flow.headers import NOON, at, encoded, identified, radiograph, waveform

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
CONTEXTS: Final = ((VERIFICATION, IMPLICIT), (COMPUTED_RADIOGRAPHY, EXPLICIT))


def seeds(target: str) -> list[bytes]:
    """The corpus of a target."""
    return _SEEDS[target]()


def mutated(chance: random.Random, corpus: Sequence[bytes]) -> bytes:
    """One of `corpus` with bytes changed, cut, doubled, swapped with another's or made a length that lies."""
    told = bytearray(chance.choice(corpus))
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        if not told:
            break
        place = chance.randrange(len(told))
        match chance.randrange(7):
            case 0 | 1:
                told[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
            case 2:
                del told[place : place + chance.randrange(1, 40)]
            case 3:
                told[place:place] = told[place : place + chance.randrange(1, 40)]
            case 4:
                told[place:place] = chance.randbytes(chance.randrange(1, 40))
            case 5:
                other = chance.choice(corpus)
                start = chance.randrange(len(other) or 1)
                told[place : place + 40] = other[start : start + chance.randrange(1, 200)]
            case _:
                form, most = chance.choice(((">I", 2**32), ("<I", 2**32), (">H", 2**16), ("<H", 2**16)))
                lie = struct.pack(form, chance.choice((0, 1, 2**15 - 1, 2**31 - 1, 2**32 - 1)) % most)
                told[place : place + len(lie)] = lie
    return bytes(told)


def _negotiation() -> list[bytes]:
    plain = association_request("PULMOLINK", CONTEXTS)[HEADER.size :]
    many = association_request("PULMOLINK", [(uid, EXPLICIT) for uid in sorted(RECEIVED)])[HEADER.size :]
    return [plain, many, *(_request(item) for item in _user_items())]


def _request(*extra: Any) -> bytes:
    """A request by pynetdicom with further user items."""
    length, uid = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16382
    uid.implementation_class_uid = "1.2.826.0.1.3680043.9.3811.1"
    asked = A_ASSOCIATE()
    asked.application_context_name = "1.2.840.10008.3.1.1.1"
    asked.calling_ae_title, asked.called_ae_title = "FUZZ", "PULMOLINK"
    contexts = [build_context(VERIFICATION), build_context(COMPUTED_RADIOGRAPHY, [EXPLICIT, IMPLICIT])]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    asked.presentation_context_definition_list = contexts
    asked.user_information = [length, uid, *extra]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(asked)
    return bytes(pdu.encode()[HEADER.size :])


def _user_items() -> list[Any]:
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = "FUZZ_1"
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = COMPUTED_RADIOGRAPHY, True, True
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked, window.maximum_number_operations_performed = 5, 5
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = COMPUTED_RADIOGRAPHY, b"\x02\x00\x03\x00"
    common = SOPClassCommonExtendedNegotiation()
    common.sop_class_uid, common.service_class_uid = COMPUTED_RADIOGRAPHY, "1.2.840.10008.4.2"
    common.related_general_sop_class_identification = ["1.2.840.10008.5.1.4.1.1.1"]
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field, identity.secondary_field = 2, b"someone", b"something"
    identity.positive_response_requested = True
    return [version, role, window, extended, common, identity]


def _commands() -> list[bytes]:
    action = b"".join(
        struct.pack("<HHI", 0, number, len(value)) + value
        for number, value in (
            (0x0003, b"1.2.840.10008.1.20.1"),
            (0x0100, b"\x30\x01"),
            (0x0110, b"\x07\x00"),
            (0x0800, b"\x01\x00"),
            (0x1001, b"1.2.840.10008.1.20.1.1\0"[:22]),
            (0x1008, b"\x01\x00"),
        )
    )
    return [
        command(0x30, 1, VERIFICATION),
        command(1, 2, COMPUTED_RADIOGRAPHY, "1.2.3"),
        command(0x20, 3, "1.2.840.10008.5.1.4.1.2.2.1"),
        command(0x0FFF, 4, ""),
        command(0x8030, 5, VERIFICATION),
        action,
    ]


def _p_data() -> list[bytes]:
    both = ITEM.pack(2 + 4, 3, 0) + b"data" + ITEM.pack(2, 3, 2)
    return [command_pdus(1, one, 0)[HEADER.size :] for one in _commands()[:3]] + [both]


def _header() -> list[bytes]:
    sets = [identified(radiograph(), "1.2.3", **at(NOON)), identified(waveform(), "1.2.4", **at(NOON))]
    japanese = identified(radiograph(), "1.2.5", SpecificCharacterSet=["", "ISO 2022 IR 87"], **at(NOON))
    found: list[bytes] = []
    for dataset in (*sets, japanese):
        for number, (implicit, little) in enumerate(((True, True), (False, True), (False, False))):
            buffer = io.BytesIO()
            dataset.save_as(buffer, implicit_vr=implicit, little_endian=little, enforce_file_format=False)
            found += [bytes((number, more)) + buffer.getvalue() for more in (0, 1)]
    explicit = encoded(sets[1]).data
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    undefined = struct.pack("<HH2sHIHHI", 0x54, 0x220, b"SQ", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    closed = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return [*found, b"\3\0" + deflater.compress(explicit) + deflater.flush(), b"\1\0" + undefined * 3 + closed * 3]


def _commitment() -> list[bytes]:
    """A byte for syntax (bit 1) and kind (bit 0), then a request or a report."""
    references = tuple(SopReference(COMPUTED_RADIOGRAPHY, f"1.2.{number}") for number in range(3))
    asked = request_data_set(Request(transaction_uid="2.25.1", references=references))
    told = Report(transaction_uid="2.25.1", committed=references[:2], failed={references[2]: 0x0112}).data_set()
    found = []
    for kind, dataset in enumerate((asked, told)):
        for explicit in (0, 1):
            buffer = io.BytesIO()
            dataset.save_as(buffer, implicit_vr=not explicit, little_endian=True, enforce_file_format=False)
            found.append(bytes((kind | explicit << 1,)) + buffer.getvalue())
    return found


def _conversation() -> list[bytes]:
    ask = association_request("PULMOLINK", (*CONTEXTS, (STORAGE_COMMITMENT, IMPLICIT)))
    action = _commands()[-1]
    asked = ITEM.pack(2 + len(action), 5, 3) + action
    message = _commitment()[0][1:]
    asked += ITEM.pack(2 + len(message), 5, 2) + message
    content = to_part10(encoded(identified(radiograph(), "1.2.3", **at(NOON))))
    echo = command_pdus(1, command(0x30, 1, VERIFICATION), 0)
    store = command_pdus(3, command(1, 1, COMPUTED_RADIOGRAPHY, "1.2.3"), 0)
    release, abort = HEADER.pack(RELEASE_RQ, 4) + bytes(4), HEADER.pack(ABORT, 4) + bytes(4)
    both = command(1, 1, COMPUTED_RADIOGRAPHY, "1.2.3")
    together = ITEM.pack(2 + len(both), 3, 3) + both + ITEM.pack(2 + 4, 3, 2) + b"data"
    return [
        ask,
        ask + echo + release,
        ask + encode(content, 3, 1, 16384) + release,
        ask + encode(content, 3, 1, 64) + echo + abort,
        ask + store,
        ask + HEADER.pack(P_DATA, len(asked)) + asked + release,
        ask + HEADER.pack(P_DATA, len(together)) + together + release,
    ]


_SEEDS: Final[dict[str, Callable[[], list[bytes]]]] = {
    "negotiation": _negotiation,
    "commands": _commands,
    "p_data": _p_data,
    "header": _header,
    "commitment": _commitment,
    "conversation": _conversation,
}
