"""Open the bytes of a DICOM Part 10 file within limits and say what kind of ECG is inside.

Gives a dataset with a waveform or a picture, or the bytes of an encapsulated document; refuses the rest.
"""

from __future__ import annotations

import io
import warnings
import zlib
from dataclasses import dataclass

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from ecg_ingest.channels import text
from ecg_ingest.lead_images import EcgRefused, RefusalReason

MAX_INFLATED_BYTES = 256 * 1024 * 1024
_META_START = 132  # preamble and "DICM"


@dataclass(frozen=True, kw_only=True)
class OpenedDicom:
    """A waveform object, with `document` set an encapsulated document, or a picture."""

    dataset: Dataset
    big_endian: bool
    document: bytes | None
    is_picture: bool = False


def open_dicom(data: bytes) -> OpenedDicom:
    """Parse a Part 10 file.

    Raises
    ------
    EcgRefused
        NOT_AN_ECG for another object, EMPTY, DAMAGED or TOO_LARGE.
        Faults of the parser itself are left to the caller (`channels.PARSER_FAULTS`).
    """
    with warnings.catch_warnings():
        # pydicom warns of every value that breaks its VR; what matters here is refused with a reason.
        warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
        return _open(data)


def _open(data: bytes) -> OpenedDicom:
    try:
        dataset = pydicom.dcmread(io.BytesIO(_inflate_within_limits(data)))
    except InvalidDicomError as error:
        raise EcgRefused(RefusalReason.DAMAGED, "the DICOM header cannot be read", "send it again") from error
    syntax = text(dataset.file_meta, "TransferSyntaxUID")
    opened = OpenedDicom(dataset=dataset, big_endian=syntax == ExplicitVRBigEndian, document=None)
    if "WaveformSequence" in dataset:
        _materialise(dataset)
        return opened
    if "EncapsulatedDocument" in dataset:
        document = dataset.get("EncapsulatedDocument")
        if not isinstance(document, bytes) or not document.strip(b"\0"):
            raise EcgRefused(RefusalReason.EMPTY, "the encapsulated document is empty", "send it again")
        return OpenedDicom(dataset=dataset, big_endian=opened.big_endian, document=document)
    if any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        return OpenedDicom(dataset=dataset, big_endian=opened.big_endian, document=None, is_picture=True)
    if "Waveform" in dataset.get("SOPClassUID", pydicom.uid.UID("")).name:
        raise EcgRefused(RefusalReason.EMPTY, "the waveform object holds no waveform", "send it again")
    raise EcgRefused(
        RefusalReason.NOT_AN_ECG,
        "the object holds neither a waveform nor a document",
        "check the routing rule",
    )


def _materialise(dataset: Dataset) -> None:
    """Convert every element of the waveform now, while pydicom's warnings are kept quiet."""
    for group in dataset.WaveformSequence:
        group.decode()
        for _ in group.iterall():
            pass


def _inflate_within_limits(data: bytes) -> bytes:
    """The file, with a deflated dataset refused if it would grow beyond `MAX_INFLATED_BYTES`."""
    meta = pydicom.filereader._read_file_meta_info(io.BytesIO(data[_META_START:]))
    if text(meta, "TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return data
    length = meta.get("FileMetaInformationGroupLength")
    start = _META_START + 12 + int(length) if length is not None else None
    if start is None or start > len(data):
        raise EcgRefused(RefusalReason.DAMAGED, "the file meta information has no usable length", "send it again")
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflater.decompress(data[start:], MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise EcgRefused(
            RefusalReason.TOO_LARGE, f"inflates to more than {MAX_INFLATED_BYTES} bytes", "send a resting ECG"
        )
    return data
