"""What goes between a worker and the child that opens a file for it: a request one way, an answer the other.

The child may have been taken over by the file. So an answer is bytes with declared sizes, compared with bounds before
anything is read or allocated: JSON of bounded length and plain arrays, never a pickle.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

TEXT_BYTES = 256 * 1024
"""Longest JSON of an answer, and of a request's options."""
ARRAY_BYTES = 192 * 2**20
"""Largest array of an answer: the colours of the largest picture of a sheet are 180 million bytes."""
AXES = 4

_MAGIC = b"PLO1"
_REQUEST = struct.Struct(">4sBIQ")  # magic, kind, bytes of options, bytes of data
_ANSWER = struct.Struct(">4sBIB")  # magic, outcome, bytes of text, arrays
_ARRAY = struct.Struct(f">BB{AXES}I")  # dtype, axes, length of each (0 where there is none)
_DTYPES = tuple(map(np.dtype, ("u1", "<f4")))


class Kind(IntEnum):
    """What a file is to be opened as."""

    ECG = 1
    RADIOGRAPH = 2
    SHEET = 3  # the paper that an ECG stands on, to be looked at


class Outcome(IntEnum):
    """How an opening ended, if the child lived to say so."""

    OPENED = 1
    REFUSED = 2  # by the reader, with its reason
    OUT_OF_MEMORY = 3
    FAULT = 4  # the reader failed in a way that it should not


class AnswerMalformed(Exception):
    """A child sent what no reader of ours sends. The message names no content."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A file and how to open it."""

    kind: Kind
    options: Mapping[str, object]  # of the reader, as JSON
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of it. `fields` and `arrays` are plain and within bounds, their meaning is not checked yet."""

    outcome: Outcome
    fields: Mapping[str, Any]
    arrays: Sequence[NDArray[Any]] = field(default=())


def send_request(connection: socket.socket, request: Request, deadline: float) -> None:
    """Send a file to a child. Raises TimeoutError at `deadline` (of `time.monotonic`), OSError if the child is gone."""
    options = json.dumps(request.options).encode()
    head = _REQUEST.pack(_MAGIC, request.kind, len(options), len(request.data))
    for part in (head + options, request.data):
        rest = memoryview(part)
        while rest:
            _wait_at_most(connection, deadline)
            rest = rest[connection.send(rest) :]


def receive_request(connection: socket.socket) -> Request:
    """In the child: what the worker asks for."""
    with connection.makefile("rb") as stream:
        magic, kind, options_bytes, data_bytes = _REQUEST.unpack(stream.read(_REQUEST.size))
        if magic != _MAGIC or options_bytes > TEXT_BYTES:
            raise ValueError("not a request")
        return Request(kind=Kind(kind), options=json.loads(stream.read(options_bytes)), data=stream.read(data_bytes))


def send_answer(connection: socket.socket, answer: Answer) -> None:
    """In the child: tell the worker."""
    text = json.dumps(answer.fields).encode()
    connection.sendall(_ANSWER.pack(_MAGIC, answer.outcome, len(text), len(answer.arrays)) + text)
    for array in answer.arrays:
        plain = np.ascontiguousarray(array)
        shape = (*plain.shape, *(0,) * (AXES - plain.ndim))
        connection.sendall(_ARRAY.pack(_DTYPES.index(plain.dtype), plain.ndim, *shape))
        if plain.size:
            connection.sendall(plain.data.cast("B"))


def receive_answer(connection: socket.socket, arrays: int, deadline: float) -> Answer:
    """A child's answer, with `arrays` arrays if it opened the file and none otherwise.

    Raises
    ------
    AnswerMalformed
        It is none, or beyond the bounds above.
    EOFError, OSError
        The child ended before its answer did.
    TimeoutError
        The answer was not complete at `deadline` (of `time.monotonic`).
    """
    magic, outcome, text_bytes, count = _ANSWER.unpack(_received(connection, _ANSWER.size, deadline))
    if magic != _MAGIC or outcome not in set(Outcome) or text_bytes > TEXT_BYTES:
        raise AnswerMalformed("no answer")
    if count != (arrays if outcome == Outcome.OPENED else 0):
        raise AnswerMalformed(f"{count} arrays")
    fields = _json(bytes(_received(connection, text_bytes, deadline)))
    return Answer(outcome=Outcome(outcome), fields=fields, arrays=[_array(connection, deadline) for _ in range(count)])


def _json(text: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise AnswerMalformed(f"the text is no JSON ({type(error).__name__})") from None
    if not isinstance(fields, dict):
        raise AnswerMalformed("the text is no JSON object")
    return fields


def _no_constant(_name: str) -> float:
    raise ValueError("NaN and infinities are no JSON")


def _array(connection: socket.socket, deadline: float) -> NDArray[Any]:
    code, axes, *lengths = _ARRAY.unpack(_received(connection, _ARRAY.size, deadline))
    if code >= len(_DTYPES) or axes > AXES or any(lengths[axes:]):
        raise AnswerMalformed("an array of no known kind")
    shape = tuple(lengths[:axes])
    size = math.prod(shape) * _DTYPES[code].itemsize
    if size > ARRAY_BYTES:
        raise AnswerMalformed(f"an array of {size} bytes")
    return np.ndarray(shape, _DTYPES[code], buffer=_received(connection, size, deadline))


def _received(connection: socket.socket, size: int, deadline: float) -> bytearray:
    content = bytearray(size)
    rest = memoryview(content)
    while rest:
        _wait_at_most(connection, deadline)
        count = connection.recv_into(rest)
        if count == 0:
            raise EOFError
        rest = rest[count:]
    return content


def _wait_at_most(connection: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)
