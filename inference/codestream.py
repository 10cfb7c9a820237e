"""What a compressed picture says of itself before anybody decodes it: its size, and whether it has an end.

In: the value of an encapsulated Pixel Data element, or a whole file; out: plain facts. Decodes nothing.
"""

from __future__ import annotations

import struct
import zlib

_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_JPEG, _JPEG2000, _END = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\xff\xd9"
_JPEG_FRAMES = frozenset({*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7})
_DEFLATED = b"1.2.840.10008.1.2.1.99"


def inflates_within(part10: bytes, limit: int) -> bool:
    """False if a deflated data set (PS3.5 A.5) becomes more than `limit` bytes; True for every other file."""
    head = part10[128:512]
    if not head.startswith(b"DICM\x02\x00\x00\x00UL\x04\x00") or _DEFLATED not in head:
        return True
    (length,) = struct.unpack_from("<I", head, 12)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    rest, total = part10[144 + length :], 0
    try:
        while rest and not inflater.eof:
            total += len(inflater.decompress(rest, 1 << 20))
            rest = inflater.unconsumed_tail
            if total > limit:
                return False
    except zlib.error:
        return True  # the parser will say what is wrong with it
    return True


def fragments(encapsulated: bytes) -> list[bytes] | None:
    """The fragments of an encapsulated Pixel Data value, without the offset table; None if cut off."""
    found, position = [], 0
    while position + 8 <= len(encapsulated):
        tag = encapsulated[position : position + 4]
        (length,) = struct.unpack_from("<I", encapsulated, position + 4)
        if tag == _DELIMITER:
            break
        if tag != _ITEM or position + 8 + length > len(encapsulated):
            return None
        found.append(encapsulated[position + 8 : position + 8 + length])
        position += 8 + length
    return found[1:] or None


def is_complete(encapsulated: bytes) -> bool:
    """Whether every fragment is there and a JPEG-family codestream ends with its end marker."""
    parts = fragments(encapsulated)
    if parts is None:
        return False
    if parts[0].startswith((_JPEG, _JPEG2000)):
        return b"".join(parts[-2:]).rstrip(b"\x00").endswith(_END)
    return True


def picture_size(encapsulated: bytes) -> tuple[int, int] | None:
    """Rows and columns as the codestream (JPEG, JPEG-LS, JPEG 2000) gives them; None if it gives none."""
    parts = fragments(encapsulated)
    if parts is None:
        return None
    stream = b"".join(parts) if len(parts) < 64 else b"".join(parts[:64])
    if stream.startswith(_JPEG2000) and len(stream) >= 24:
        right, lower, left, upper = struct.unpack_from(">4I", stream, 8)  # SIZ: Xsiz, Ysiz, XOsiz, YOsiz
        return max(0, lower - upper), max(0, right - left)
    if stream.startswith(_JPEG):
        return _jpeg_size(stream)
    return None


def _jpeg_size(stream: bytes) -> tuple[int, int] | None:
    """From the first start-of-frame marker (ITU-T T.81 B.2.2)."""
    position = 2
    while position + 9 <= len(stream):
        if stream[position] != 0xFF:
            return None
        marker = stream[position + 1]
        if marker in _JPEG_FRAMES:
            rows, columns = struct.unpack_from(">2H", stream, position + 5)
            return rows, columns
        if marker == 0xFF:
            position += 1
            continue
        (length,) = struct.unpack_from(">H", stream, position + 2)
        position += 2 + length
    return None
