"""Write scalars as TensorBoard reads them: TFRecords of Event messages, without TensorBoard or protobuf installed.

The record: length, its masked CRC-32C, the message, its masked CRC-32C (tensorflow/core/lib/io/record_writer.h). The
message: Event{wall_time = 1, step = 2, file_version = 3, summary = 5}, Summary{value = 1}, Value{tag = 1,
simple_value = 2} (tensorboard/compat/proto).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path


class EventLog:
    """One events file. `started_at` are seconds since 1970; they make the file's name."""

    def __init__(self, folder: Path, started_at: float) -> None:
        self.path = folder / f"events.out.tfevents.{started_at:.0f}.pulmolink"
        self._file = self.path.open("ab")
        self._write(_double(1, started_at) + _bytes(3, b"brain.Event:2"))

    def close(self) -> None:
        """Close the file; what was written is there before."""
        self._file.close()

    def scalars(self, step: int, values: Mapping[str, float], at: float) -> None:
        """Write one value a tag for `step`."""
        summary = b"".join(
            _bytes(1, _bytes(1, tag.encode()) + _key(2, 5) + struct.pack("<f", value)) for tag, value in values.items()
        )
        self._write(_double(1, at) + _key(2, 0) + _varint(step) + _bytes(5, summary))
        self._file.flush()

    def _write(self, message: bytes) -> None:
        length = struct.pack("<Q", len(message))
        self._file.write(length + _masked(length) + message + _masked(message))


def crc32c(data: bytes) -> int:
    """CRC-32 with Castagnoli's polynomial (RFC 3720 B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _table() -> tuple[int, ...]:
    entries = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)  # noqa: PLW2901 - the remainder itself
        entries.append(value)
    return tuple(entries)


_TABLE = _table()


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(0x80 | (value & 0x7F))
        value >>= 7
    return bytes([*made, value])


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _double(field: int, value: float) -> bytes:
    return _key(field, 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _key(field, 2) + _varint(len(value)) + value
