"""A program that opens files as ours does, but whose children behave as if the file had taken them over.

How a child behaves stands in its file: a name, and after a line break what it needs to know.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pacs_node.opening import server
from pacs_node.opening.confinement import Bounds, end_with_parent
from pacs_node.opening.framing import Answer, Outcome, receive_request, send_answer

Behaviour = Callable[[socket.socket], None]

HEAD = struct.Struct(">4sBIB")
ARRAY = struct.Struct(">BB4I")
SHARED = mmap.mmap(-1, 1)
"""One byte that all children share."""


def answers(
    *, magic: bytes = b"PLO1", outcome: int = 1, text: bytes = b"{}", arrays: int = 2, rest: bytes = b""
) -> Behaviour:
    """Sends something that looks like an answer."""
    return lambda connection: connection.sendall(HEAD.pack(magic, outcome, len(text), arrays) + text + rest)


def sleeps(_connection: socket.socket) -> None:
    time.sleep(3600)


def trickles(connection: socket.socket) -> None:
    for byte in HEAD.pack(b"PLO1", 1, 100_000, 2) + b" " * 100_000:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def computes(_connection: socket.socket) -> None:
    while True:
        pass


def takes_memory(connection: socket.socket) -> None:
    try:
        kept = bytes(2**30)
    except MemoryError:
        send_answer(connection, Answer(outcome=Outcome.OUT_OF_MEMORY, fields={}))
    else:
        raise AssertionError(len(kept))


def lives_on(connection: socket.socket) -> None:
    connection.close()
    time.sleep(3600)


def exits(_connection: socket.socket) -> None:
    os._exit(7)


def dies_by(number: signal.Signals) -> Behaviour:
    return lambda _connection: os.kill(os.getpid(), number)


def dies_once(connection: socket.socket) -> None:
    """Killed from outside while it opens a file; its successor is not."""
    if not SHARED[0]:
        SHARED[0] = 1
        os.kill(os.getpid(), signal.SIGKILL)
    answers(outcome=2, arrays=0, text=b'{"reason": "empty", "detail": "opened at last", "hint": ""}')(connection)


def looks_around(connection: socket.socket, secret: str, target: str, port: int) -> None:
    """Tries what nobody who opens a file needs; told as a fault of a reader."""

    def can(act: Callable[[], object]) -> bool:
        try:
            act()
        except (OSError, ImportError):
            return False
        return True

    attempts: dict[str, Callable[[], object]] = {
        "read": Path(secret).read_bytes,
        "list": lambda: list(Path("/proc").iterdir()),
        "write": lambda: Path(target).write_bytes(b"x"),
        "connect": lambda: socket.create_connection(("127.0.0.1", port), timeout=5),
        "signal": lambda: os.kill(os.getppid(), 0),
        "import": lambda: __import__("email.mime.text"),
    }
    told = {
        "can": [name for name, act in attempts.items() if can(act)],
        "knows": sorted(os.environ),
        "descriptors": sum(can(lambda number=number: os.fstat(number)) for number in range(1024)),  # type: ignore[misc]
    }
    send_answer(connection, Answer(outcome=Outcome.FAULT, fields={"where": json.dumps(told)}))


BEHAVIOURS: dict[str, Behaviour] = {
    "garbage": lambda connection: connection.sendall(b"\xff" * 4096),
    "another mark": answers(magic=b"PK\3\4"),
    "an outcome that is none": answers(outcome=9),
    "a text of 4 GiB": lambda connection: connection.sendall(HEAD.pack(b"PLO1", 1, 2**32 - 1, 2)),
    "255 arrays": answers(arrays=255),
    "arrays with a refusal": answers(outcome=2),
    "a pickle": answers(text=b"cos\nsystem\n(S'true'\ntR."),
    "lists in lists": answers(text=b"[" * 100_000),
    "no object": answers(text=b"[1, 2]"),
    "not a number": answers(text=b'{"seconds_recorded": NaN}'),
    "an unknown array": answers(rest=ARRAY.pack(7, 1, 4, 0, 0, 0)),
    "an array of 16 GiB": answers(rest=ARRAY.pack(1, 2, 65535, 65535, 0, 0)),
    "an array in nine axes": answers(rest=ARRAY.pack(1, 9, 1, 1, 1, 1)),
    "other shapes": answers(rest=2 * (ARRAY.pack(0, 1, 4, 0, 0, 0) + b"1234")),
    "a refusal without a reason": answers(outcome=2, arrays=0, text=b'{"reason": "so", "detail": "", "hint": ""}'),
    "a refusal with other fields": answers(outcome=2, arrays=0, text=b'{"reason": "damaged"}'),
    "terminal codes": answers(outcome=2, arrays=0, text=b'{"reason": "damaged", "detail": "\\u001b[2J", "hint": ""}'),
    "an array cut off": answers(rest=ARRAY.pack(0, 4, 12, 48, 224, 3) + b"\0" * 1000),
    "exits": exits,
    "SIGKILL": dies_by(signal.SIGKILL),
    "SIGSEGV": dies_by(signal.SIGSEGV),
    "sleeps": sleeps,
    "trickles": trickles,
    "lives on": lives_on,
    "computes": computes,
    "takes memory": takes_memory,
    "dies once": dies_once,
}


def behave(connection: socket.socket) -> None:
    name, _, told = receive_request(connection).data.decode().partition("\n")
    if told:
        looks_around(connection, *json.loads(told))
    else:
        BEHAVIOURS[name](connection)


def main() -> None:
    parent, memory_bytes, cpu_seconds = map(int, sys.argv[1:])
    end_with_parent(parent)
    server.serve(socket.socket(fileno=os.dup(0)), Bounds(memory_bytes=memory_bytes, cpu_seconds=cpu_seconds), behave)


if __name__ == "__main__":
    main()
