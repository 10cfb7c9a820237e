"""A sender that costs little: PDUs encoded beforehand, sent from files by the kernel. It shows a receiver's limit.

python -m tests.benchmarks.replay HOST PORT AE_TITLE ASSOCIATIONS FILE... prints "ready", waits for a line, sends, and
prints begin and end (seconds of the monotonic clock) and how many objects were answered with success.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pacs_node.dicom.commands import C_ECHO_RQ, C_STORE_RQ, NO_DATA_SET
from pacs_node.dicom.pdata import IS_LAST, ITEM, command_pdus
from pacs_node.dicom.wire import ABORT, ASSOCIATE_AC, ASSOCIATE_RQ, HEADER, P_DATA, RELEASE_RQ
from pacs_node.flow.part10 import from_part10

VERIFICATION = "1.2.840.10008.1.1"
MOST_PDU_BYTES = 131072


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One object as PDUs."""

    offset: int
    size: int


def association_request(called: str, contexts: Sequence[tuple[str, str]], calling: str = "REPLAY") -> bytes:
    """An A-ASSOCIATE-RQ for (SOP Class, transfer syntax) pairs; context IDs 1, 3, 5 and so on."""

    def item(kind: int, value: bytes) -> bytes:
        return struct.pack(">BxH", kind, len(value)) + value

    body = struct.pack(">HH16s16s32x", 1, 0, called.encode().ljust(16), calling.encode().ljust(16))
    body += item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (sop_class, syntax) in enumerate(contexts):
        parts = item(0x30, sop_class.encode()) + item(0x40, syntax.encode())
        body += item(0x20, struct.pack(">Bxxx", 2 * number + 1) + parts)
    body += item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.826.0.1.3680043.9.3811.1"))
    return HEADER.pack(ASSOCIATE_RQ, len(body)) + body


def command(field: int, message_id: int, sop_class: str, sop_instance: str = "") -> bytes:
    """A C-ECHO-RQ or C-STORE-RQ command set."""

    def element(number: int, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HHI", 0, number, len(value)) + value

    has_data = field == C_STORE_RQ
    parts = [
        element(0x0002, sop_class.encode()),
        element(0x0100, struct.pack("<H", field)),
        element(0x0110, struct.pack("<H", message_id)),
        element(0x0700, struct.pack("<H", 0)) if has_data else b"",
        element(0x0800, struct.pack("<H", 1 if has_data else NO_DATA_SET)),
        element(0x1000, sop_instance.encode()) if has_data else b"",
    ]
    body = b"".join(parts)
    return element(0, struct.pack("<I", len(body))) + body


class Line:
    """An association of the replaying sender."""

    def __init__(self, host: str, port: int, called: str, contexts: Sequence[tuple[str, str]]) -> None:
        self.socket = socket.create_connection((host, port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb", buffering=65536)
        try:
            self.socket.sendall(association_request(called, contexts))
            kind, body = self.pdu()
            if kind != ASSOCIATE_AC:
                raise ConnectionError(f"answered with PDU type {kind}")
        except BaseException:
            self.close()
            raise
        self.pdu_bytes = _announced(body) or MOST_PDU_BYTES

    def pdu(self) -> tuple[int, bytes]:
        """The next PDU."""
        # Peers that answer in two segments wait for the acknowledgement of the first (Nagle): let it not be late.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        header = self._file.read(HEADER.size)
        if len(header) < HEADER.size:
            raise ConnectionError("closed")
        kind, length = HEADER.unpack(header)
        return kind, self._file.read(length)

    def status(self) -> int:
        """The status of the next response."""
        kind, body = self.pdu()
        if kind != P_DATA:
            raise ConnectionError("aborted" if kind == ABORT else f"PDU type {kind}")
        at = ITEM.size
        while at < len(body):
            group, element, length = struct.unpack_from("<HHI", body, at)
            if (group, element) == (0x0000, 0x0900):
                return int(struct.unpack_from("<H", body, at + 8)[0])
            at += 8 + length
        raise ConnectionError("a response without a status")

    def echo(self) -> int:
        """C-ECHO on the first context; the status."""
        self.socket.sendall(command_pdus(1, command(C_ECHO_RQ, 1, VERIFICATION), self.pdu_bytes))
        return self.status()

    def release(self) -> None:
        """Release and close."""
        self.socket.sendall(HEADER.pack(RELEASE_RQ, 4) + bytes(4))
        self.pdu()
        self.close()

    def close(self) -> None:
        """Close without a word."""
        self._file.close()
        self.socket.close()


def encode(content: bytes, context_id: int, message_id: int, pdu_bytes: int) -> bytes:
    """The C-STORE of a Part 10 file as PDUs."""
    parts = from_part10(content)
    store = command(C_STORE_RQ, message_id, parts.sop_class_uid, parts.sop_instance_uid)
    step = min(pdu_bytes, MOST_PDU_BYTES) - ITEM.size
    out = [command_pdus(context_id, store, pdu_bytes)]
    for start in range(0, len(parts.data), step):
        piece = parts.data[start : start + step]
        control = IS_LAST if start + step >= len(parts.data) else 0
        out += [HEADER.pack(P_DATA, ITEM.size + len(piece)), ITEM.pack(2 + len(piece), context_id, control), piece]
    return b"".join(out)


def _announced(body: bytes) -> int:
    """The maximum length that an A-ASSOCIATE-AC announces; 0: none."""
    at = body.find(b"\x51\0\0\x04")
    return int.from_bytes(body[at + 4 : at + 8], "big") if at >= 0 else 0


def _record(stream: IO[bytes], files: Sequence[Path], pdu_bytes: int) -> list[Stored]:
    stored = []
    for number, path in enumerate(files):
        pdus = encode(path.read_bytes(), 3, number % 65535 + 1, pdu_bytes)
        stored.append(Stored(offset=stream.tell(), size=len(pdus)))
        stream.write(pdus)
    stream.flush()
    return stored


def main(host: str, port: int, called: str, associations: int, files: list[Path]) -> None:
    """Record, wait, send."""
    known = from_part10(files[0].read_bytes())
    contexts = [(VERIFICATION, "1.2.840.10008.1.2"), (known.sop_class_uid, known.transfer_syntax_uid)]
    good = [0] * associations
    with tempfile.TemporaryFile() as stream:
        lines = [Line(host, port, called, contexts) for _ in range(associations)]
        stored = _record(stream, files, lines[0].pdu_bytes)

        def send(number: int) -> None:
            line = lines[number]
            line.socket.settimeout(None)  # sendfile() knows no timeout of Python's
            for item in stored[number::associations]:
                sent = 0
                while sent < item.size:
                    sent += os.sendfile(line.socket.fileno(), stream.fileno(), item.offset + sent, item.size - sent)
                good[number] += line.status() == 0
            line.release()

        threads = [threading.Thread(target=send, args=(number,)) for number in range(associations)]
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sys.stdout.write(f"{began} {time.monotonic()} {sum(good)}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), [Path(name) for name in sys.argv[5:]])
