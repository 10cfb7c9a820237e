"""Peers of the server under test: a good one, and raw connections for the others."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from pacs_node.dicom.server import StorageServer
from pacs_node.dicom.wire import HEADER
from pacs_node.flow.part10 import to_part10
from pacs_node.flow.sop_classes import COMPUTED_RADIOGRAPHY
from pacs_node.settings import Settings
from storage.objects import ObjectStore
from storage.store import Store
from tests.benchmarks.replay import VERIFICATION, Line, association_request, encode
from tests.unit.flow.headers import NOON, at, encoded, identified, radiograph

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
CONTEXTS = ((VERIFICATION, IMPLICIT), (COMPUTED_RADIOGRAPHY, EXPLICIT))


@dataclass(frozen=True, kw_only=True)
class Listening:
    """A server and where what it receives goes."""

    server: StorageServer
    port: int
    store: Store
    objects: ObjectStore
    settings: Settings

    def connect(self) -> socket.socket:
        """A connection that says nothing yet."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def associate(self, contexts: Sequence[tuple[str, str]] = CONTEXTS) -> Line:
        """An association."""
        return Line("127.0.0.1", self.port, "PULMOLINK", contexts)

    def serves(self, within_seconds: float = 1.0) -> None:
        """Pass if a good client's association, C-ECHO and release succeed in that time."""
        began = time.monotonic()
        line = self.associate()
        assert line.echo() == 0
        line.release()
        assert time.monotonic() - began < within_seconds

    def files(self) -> int:
        """Files under the object folder, temporary ones among them."""
        return sum(path.is_file() and path.name != "lock" for path in self.objects.root.rglob("*"))


def film(uid: str = "1.2.3", **elements: object) -> bytes:
    """A small PA radiograph as a Part 10 file."""
    return to_part10(encoded(identified(radiograph(), uid, **{**at(NOON), **elements})))


def stored(content: bytes, *, message_id: int = 1, pdu_bytes: int = 16384) -> bytes:
    """Its C-STORE as PDUs on context 3."""
    return encode(content, 3, message_id, pdu_bytes)


def request(contexts: Sequence[tuple[str, str]] = CONTEXTS) -> bytes:
    """An association request."""
    return association_request("PULMOLINK", contexts)


def pdu(kind: int, body: bytes, *, length: int | None = None) -> bytes:
    """A PDU, with a length that may lie."""
    return HEADER.pack(kind, len(body) if length is None else length) + body


def pdv(context_id: int, control: int, value: bytes, *, length: int | None = None) -> bytes:
    """A presentation data value, with a length that may lie."""
    return struct.pack(">IBB", len(value) + 2 if length is None else length, context_id, control) + value


def answer(connection: socket.socket) -> bytes:
    """Everything until the server closes; b"" if it resets."""
    told = b""
    with suppress(ConnectionError):
        while piece := connection.recv(65536):
            told += piece
    return told


def aborted(told: bytes) -> int | None:
    """The reason of an A-ABORT by the service provider at the end of an answer; None if there is none."""
    if len(told) < 10 or told[-10] != 7:
        return None
    return told[-1]
