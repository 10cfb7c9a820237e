"""A received data set as a Part 10 file and back: bytes only, the data set is kept as it came."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian

IMPLEMENTATION_CLASS_UID = "2.25.152748396519262487214127482317459213377"
IMPLEMENTATION_VERSION_NAME = "PULMOLINK"
_META_ELEMENT = struct.Struct("<HH2sH")
INFLATED_BYTES = 256 * 2**20
"""A deflated data set that grows beyond this is not read."""
INFLATE_STEP = 2**16

UNDEFINED_LENGTH = 0xFFFFFFFF
WAVEFORM_SEQUENCE = 0x54000100

UNREADABLE = (
    InvalidDicomError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    NotImplementedError,
    RecursionError,
    OverflowError,
    zlib.error,
)
"""What pydicom raises on damaged or hostile data sets."""


class HeaderUnreadable(Exception):
    """The bytes are no DICOM data set that can be read. The message names no content."""


@dataclass(frozen=True, kw_only=True)
class DataSetBytes:
    """An encoded data set and what the file meta information says of it."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: bytes


def to_part10(parts: DataSetBytes) -> bytes:
    """The data set behind a blank preamble and our file meta information; the same input, the same bytes."""
    return part10_prefix(parts.sop_class_uid, parts.sop_instance_uid, parts.transfer_syntax_uid) + parts.data


def part10_prefix(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Blank preamble, DICM and file meta information (PS3.10 7.1).

    Written here, because the bytes must stay the same for ever: pydicom's carry its version, and a resend after an
    upgrade would look like another object.
    """
    group = b"".join(
        (
            b"\x02\0\x01\0OB\0\0\x02\0\0\0\0\x01",
            _meta_element(0x0002, b"UI", sop_class_uid, b"\0"),
            _meta_element(0x0003, b"UI", sop_instance_uid, b"\0"),
            _meta_element(0x0010, b"UI", transfer_syntax_uid, b"\0"),
            _meta_element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID, b"\0"),
            _meta_element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME, b" "),
        )
    )
    return b"\0" * 128 + b"DICM" + _META_ELEMENT.pack(2, 0, b"UL", 4) + len(group).to_bytes(4, "little") + group


def _meta_element(element: int, vr: bytes, text: str, pad: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    value += pad * (len(value) % 2)
    return _META_ELEMENT.pack(2, element, vr, len(value)) + value


def from_part10(content: bytes) -> DataSetBytes:
    """Split a Part 10 file.

    Raises
    ------
    HeaderUnreadable
        No DICM prefix, or no readable file meta information.
    """
    if content[128:132] != b"DICM":
        raise HeaderUnreadable("not a DICOM file: no DICM prefix after 128 bytes")
    buffer = io.BytesIO(content)
    buffer.seek(132)
    try:
        meta = read_dataset(buffer, is_implicit_VR=False, is_little_endian=True, stop_when=_past_group_2)
        parts = DataSetBytes(
            sop_class_uid=str(meta.get("MediaStorageSOPClassUID") or ""),
            sop_instance_uid=str(meta.get("MediaStorageSOPInstanceUID") or ""),
            transfer_syntax_uid=str(meta.get("TransferSyntaxUID") or ""),
            data=content[buffer.tell() :],
        )
    except UNREADABLE as error:
        raise HeaderUnreadable(f"file meta information unreadable ({type(error).__name__})") from None
    if not (parts.sop_class_uid and parts.sop_instance_uid and parts.transfer_syntax_uid):
        raise HeaderUnreadable("file meta information lacks SOP class, instance or transfer syntax")
    return parts


def read_header(content: bytes) -> Dataset:
    """The data set of a Part 10 file up to its waveforms and pixel data, which are not for this process to open.

    Raises
    ------
    HeaderUnreadable
        Damaged, nested beyond what can be read, or inflating beyond `INFLATED_BYTES`.
    """
    parts = from_part10(content)
    if parts.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        _check_inflated_size(parts.data)
    try:
        header = read_partial(io.BytesIO(content), stop_when=_at_contents)
        if not header.keys():
            raise HeaderUnreadable("the data set is empty")
        _check_end(header)
        return header
    except UNREADABLE as error:
        raise HeaderUnreadable(f"the data set cannot be read ({type(error).__name__})") from None


def _check_end(header: Dataset) -> None:
    """Find a data set that was cut off: pydicom takes a value shorter than it says without a word."""
    last = header.get_item(max(header.keys()))
    if isinstance(last, RawDataElement) and last.length != UNDEFINED_LENGTH and len(last.value or b"") < last.length:
        raise HeaderUnreadable(f"truncated: the data set ends inside element {last.tag}")


def _at_contents(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag >= WAVEFORM_SEQUENCE


def _past_group_2(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group != 2


def _check_inflated_size(data: bytes) -> None:
    inflate_beginning(data, 0)


def inflate_beginning(data: bytes | bytearray | memoryview, kept_bytes: int) -> tuple[bytearray, int]:
    """The first `kept_bytes` of a deflated data set, and its whole length.

    Raises
    ------
    HeaderUnreadable
        Damaged, followed by more than the one byte that pads it, or longer than `INFLATED_BYTES`.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    size = 0
    kept = bytearray()
    # In slices: what zlib leaves unconsumed is copied at each call, and a slice of it is cheap.
    for start in range(0, len(data), INFLATE_STEP):
        rest = bytes(data[start : start + INFLATE_STEP])
        while rest:
            try:
                piece = inflater.decompress(rest, 2**20)
            except zlib.error:
                raise HeaderUnreadable("the deflated data set is damaged") from None
            size += len(piece)
            if len(kept) < kept_bytes:
                kept += piece[: kept_bytes - len(kept)]
            if size > INFLATED_BYTES:
                raise HeaderUnreadable(f"the deflated data set inflates beyond {INFLATED_BYTES} bytes")
            rest = inflater.unconsumed_tail
        if inflater.eof:
            # Fed further, zlib would gather what follows, and copy all of it at each call.
            if len(inflater.unused_data) + len(data) - min(start + INFLATE_STEP, len(data)) > 1:
                raise HeaderUnreadable("the deflated data set is damaged: more follows its end")
            break
    return kept, size
