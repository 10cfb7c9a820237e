"""What strangers' bytes reach first, each as a function of bytes that raises only if something is wrong with us.

Used by `tests.fuzz.run`, which searches with atheris for as long as it is told, and by the slice in `make test`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from pynetdicom.pdu import A_ASSOCIATE_AC

from ecg_ingest.channels import PARSER_FAULTS
from pacs_node.dicom import wire
from pacs_node.dicom.association import Announcement, Association, Said
from pacs_node.dicom.commands import Command, read_command, response
from pacs_node.dicom.negotiation import Accepted, Context, Negotiator, Rejected
from pacs_node.dicom.pdata import ITEM, command_pdus, fragments
from pacs_node.dicom.wire import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, HEADER, P_DATA, RELEASE_RP, ProtocolError, Wire
from pacs_node.flow.acquired import acquired
from pacs_node.flow.classify import classify
from pacs_node.flow.commitment import MessageRefused, read_report, read_request
from pacs_node.flow.index import KEYWORDS, BeyondBuffer, Bounds, read_index
from pacs_node.flow.part10 import HeaderUnreadable, inflate_beginning
from pacs_node.flow.receive import Receipt, person
from pacs_node.settings import Limits, Settings, Source

SETTINGS: Final = Settings()
LIMITS: Final = Limits(association_bytes=65536, pdu_bytes=16384)
BOUNDS: Final = Bounds(depth=64, elements=20_000, value_bytes=4096)
SYNTAXES: Final = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
SOURCE: Final = Source(ae_title="FUZZ", host="127.0.0.1")
NEGOTIATOR: Final = Negotiator(SETTINGS.node, LIMITS, lambda *_: SOURCE, commitment=True)
LENGTHS: Final = {
    wire.ASSOCIATE_RQ: LIMITS.association_bytes,
    wire.ASSOCIATE_AC: LIMITS.association_bytes,
    wire.ASSOCIATE_RJ: 4,
    wire.P_DATA: LIMITS.pdu_bytes,
    wire.RELEASE_RQ: 4,
    wire.RELEASE_RP: 4,
    wire.ABORT: 4,
}


class Wrong(Exception):
    """A target found a fault of ours that is no exception."""


def negotiation(data: bytes) -> None:
    """The body of an association request: accepted with an answer that can be read, rejected, or a protocol error."""
    try:
        answer = NEGOTIATOR.answer(data, "127.0.0.1", claim=lambda: True)
    except ProtocolError:
        return
    kind, length = HEADER.unpack_from(answer.answer)
    if length != len(answer.answer) - HEADER.size:
        raise Wrong("an answer of another length than it says")
    if isinstance(answer, Rejected):
        if kind != ASSOCIATE_RJ or length != 4:
            raise Wrong("a rejection that is none")
        return
    if kind != ASSOCIATE_AC or not all(0 <= number < 256 for number in answer.contexts):
        raise Wrong("an acceptance that is none")
    read = A_ASSOCIATE_AC()
    read.decode(answer.answer)
    accepted = {item.context_id for item in read.presentation_context if item.result == 0}
    if accepted != set(answer.contexts):
        raise Wrong("contexts told and contexts served differ")


def commands(data: bytes) -> None:
    """A command set: read, and answered by one that can be read, or a protocol error."""
    try:
        command = read_command(data)
    except ProtocolError:
        return
    told = response(command, 0xC000, "a comment")
    answered = read_command(told)
    if answered.message_id != command.message_id or answered.has_data_set:
        raise Wrong("a response to another request")
    for most in (0, 1024):
        pdus = command_pdus(1, told, most)
        if b"".join(_values(pdus)) != told:
            raise Wrong("a response that does not come through")


def p_data(data: bytes) -> None:
    """The body of a P-DATA PDU: fragments that cover it, or a protocol error."""
    covered = 0
    try:
        for context_id, control, fragment in fragments(memoryview(data)):
            if not (0 <= context_id < 256 and 0 <= control < 256):
                raise Wrong("no bytes")
            covered += ITEM.size + len(fragment)
    except ProtocolError:
        return
    if covered != len(data):
        raise Wrong("bytes between the fragments")


def header(data: bytes) -> None:
    """A data set behind a byte that chooses its transfer syntax and one that says whether more of it follows."""
    if len(data) < 2:
        return
    syntax, more = SYNTAXES[data[0] % 4], data[1] & 1
    body: bytes = data[2:]
    try:
        if syntax == SYNTAXES[3]:
            body, _ = inflate_beginning(body, 2**20)
            syntax = SYNTAXES[1]
        index = read_index(body, syntax, BOUNDS, total_bytes=len(body) + 4096 if more else None)
        for keyword in KEYWORDS:
            _read(index, keyword)
        classify(index)
        person(index, "")
        acquired(index, SETTINGS.node.zone)
    except HeaderUnreadable:
        return
    except BeyondBuffer:
        if not more:
            raise


def _read(index: Any, keyword: str) -> None:
    try:
        value = index.get(keyword)
        index.fingerprint(keyword)
    except PARSER_FAULTS:
        return
    if keyword.endswith("Sequence") and isinstance(value, list):
        for item in value:
            for inner in ("CodeValue", "CodeMeaning", "ChannelLabel", "SamplingFrequency", "ChannelSourceSequence"):
                _read(item, inner)


def commitment(data: bytes) -> None:
    """A storage commitment message behind a byte that chooses transfer syntax and kind: read, or refused."""
    if not data:
        return
    try:
        (read_request, read_report)[data[0] & 1](data[1:], SYNTAXES[data[0] >> 1 & 1], LIMITS)
    except MessageRefused:
        return


def conversation(data: bytes) -> None:
    """A whole connection: whatever comes, our side speaks in PDUs and every object is finished or discarded."""
    peer = Peer(data)
    opened: list[Taken] = []

    def take(_command: Command, _context: Context, _agreed: Accepted) -> Taken:
        opened.append(Taken())
        return opened[-1]

    desk = Desk(opened)
    line = Wire(peer, LENGTHS, lambda: False)  # type: ignore[arg-type]
    line.prepare()
    negotiate = partial(NEGOTIATOR.answer, peer="127.0.0.1", claim=lambda: True)
    Association(line, "127.0.0.1", LIMITS, negotiate, take, desk).serve(float("inf"))
    kinds = [kind for kind, _ in _pdus(bytes(peer.told))]
    if kinds and (kinds[0] not in {ASSOCIATE_AC, ASSOCIATE_RJ, ABORT} or ASSOCIATE_AC in kinds[1:]):
        raise Wrong("an answer out of order")
    if any(kind not in {P_DATA, RELEASE_RP, ABORT} for kind in kinds[1:]):
        raise Wrong("a PDU that no acceptor sends")
    if not all(one.ended for one in opened):
        raise Wrong("an object neither finished nor discarded")


class Taken:
    """A reception that keeps nothing."""

    def __init__(self) -> None:
        self.ended = False

    def write(self, fragment: memoryview) -> None:
        """Count it."""
        if self.ended:
            raise Wrong("a fragment behind the end")
        len(fragment)

    def finish(self) -> Receipt:
        """Success."""
        self.ended = True
        return Receipt(status=0, comment="")

    def discard(self) -> None:
        """Nothing to do."""
        self.ended = True


class Desk:
    """Takes storage commitment's messages and says nothing more of them."""

    def __init__(self, opened: list[Taken]) -> None:
        self._opened = opened

    def open(self, _said: Said, _announce: Callable[[Announcement], None]) -> Taken:
        """A place for a message."""
        self._opened.append(Taken())
        return self._opened[-1]


class Peer:
    """A socket whose peer says `data` and closes."""

    def __init__(self, data: bytes) -> None:
        self.told = bytearray()
        self._data = data
        self._at = 0

    def recv_into(self, view: memoryview) -> int:
        """The next bytes; 0 at the end."""
        piece = self._data[self._at : self._at + min(len(view), 4096)]
        view[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def sendall(self, data: bytes) -> None:
        """Remember it."""
        self.told += data

    def shutdown(self, how: int) -> None:
        """Nothing to do."""

    def settimeout(self, seconds: float | None) -> None:
        """Nothing to do."""

    def setsockopt(self, *_: object) -> None:
        """Nothing to do."""


def _pdus(told: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(told):
        kind, length = HEADER.unpack_from(told, at)
        at += HEADER.size + length
        if at > len(told):
            raise Wrong("half a PDU")
        found.append((kind, told[at - length : at]))
    return found


def _values(pdus: bytes) -> list[bytes]:
    return [bytes(fragment) for _, body in _pdus(pdus) for _, _, fragment in fragments(memoryview(body))]


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "negotiation": negotiation,
    "commands": commands,
    "p_data": p_data,
    "header": header,
    "commitment": commitment,
    "conversation": conversation,
}
"""Every target by its name."""
