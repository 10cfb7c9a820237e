"""A received data set as a Part 10 file and back: bytes only, the data set is kept as it came."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass

from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_file_meta_info
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

IMPLEMENTATION_CLASS_UID = "2.25.152748396519262487214127482317459213377"
IMPLEMENTATION_VERSION_NAME = "PULMOLINK"
INFLATED_BYTES = 256 * 2**20
"""A deflated data set that grows beyond this is not read."""
INFLATE_STEP = 2**16

UNDEFINED_LENGTH = 0xFFFFFFFF

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
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(parts.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(parts.sop_instance_uid)
    meta.TransferSyntaxUID = UID(parts.transfer_syntax_uid)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    # Left out, pydicom writes its own version here: after an upgrade the same object would come as other bytes.
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    buffer = DicomBytesIO()
    buffer.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(buffer, meta, enforce_standard=True)
    buffer.write(parts.data)
    return buffer.getvalue()


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
    """The data set of a Part 10 file without its pixel data.

    Raises
    ------
    HeaderUnreadable
        Damaged, nested beyond what can be read, or inflating beyond `INFLATED_BYTES`.
    """
    parts = from_part10(content)
    if parts.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        _check_inflated_size(parts.data)
    try:
        header = dcmread(io.BytesIO(content), stop_before_pixels=True)
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


def _past_group_2(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group != 2


def _check_inflated_size(data: bytes) -> None:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    size = 0
    # In slices: what zlib leaves unconsumed is copied at each call, and a slice of it is cheap.
    for start in range(0, len(data), INFLATE_STEP):
        rest = data[start : start + INFLATE_STEP]
        while rest:
            try:
                size += len(inflater.decompress(rest, 2**20))
            except zlib.error:
                raise HeaderUnreadable("the deflated data set is damaged") from None
            if size > INFLATED_BYTES:
                raise HeaderUnreadable(f"the deflated data set inflates beyond {INFLATED_BYTES} bytes")
            rest = inflater.unconsumed_tail
