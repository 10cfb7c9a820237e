"""Files made to do harm, each a few kilobytes."""

from __future__ import annotations

import functools
import io
import zlib

from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian


def pdf(content: bytes, filters: bytes = b"/FlateDecode", box: bytes = b"0 0 842 595", resources: bytes = b"") -> bytes:
    """One page that shows `content`, a stream encoded by `filters`."""
    parts = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[%s]/Contents 4 0 R/Resources<<%s>>>>" % (box, resources),
        b"<</Length %d/Filter[%s]>>\nstream\n%s\nendstream" % (len(content), filters, content),
    ]
    file, starts = b"%PDF-1.7\n", []
    for number, part in enumerate(parts, 1):
        starts.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % start for start in starts)
    trailer = b"trailer<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(file)
    return file + b"xref\n0 5\n0000000000 65535 f \n" + table + trailer


def deflated(unit: bytes, megabytes: int) -> bytes:
    """`megabytes` of `unit` after `unit`, deflated to a thousandth."""
    packer = zlib.compressobj(9)
    block = unit * (2**20 // len(unit))
    return b"".join(packer.compress(block) for _ in range(megabytes)) + packer.flush()


@functools.cache
def stream_bomb() -> bytes:
    """A kilobyte that PDFium unpacks to 400 MB."""
    return pdf(zlib.compress(deflated(b"\0", 400), 9), b"/FlateDecode /FlateDecode")


def endless_drawing() -> bytes:
    """A page of four million lines: seconds of work, and more objects than memory."""
    return pdf(deflated(b"0 0 m 9 9 l S \n", 60))


def giant_page() -> bytes:
    """A page of 35 km."""
    return pdf(zlib.compress(b"q Q"), box=b"0 0 99999999 99999999")


def nested_dictionaries() -> bytes:
    """A page whose resources hold dictionaries within dictionaries."""
    return pdf(zlib.compress(b"q Q"), resources=b"/A<<" * 200_000)


def claims_pixels(radiograph: bytes, rows: int, columns: int) -> bytes:
    """A radiograph that says it is larger than its pixel data."""
    dataset = dcmread(io.BytesIO(radiograph))
    dataset.Rows, dataset.Columns = rows, columns
    return _written(dataset)


def deflate_bomb(radiograph: bytes) -> bytes:
    """A deflated data set of 600 MB of nothing."""
    dataset = dcmread(io.BytesIO(radiograph))
    del dataset.PixelData
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    head = _written(dataset)
    start = 144 + int.from_bytes(head[140:144], "little")
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    body = packer.compress(zlib.decompress(head[start:], -zlib.MAX_WBITS))
    body += packer.compress(b"\xff\x7f\x10\x00OB\0\0" + (600 * 2**20).to_bytes(4, "little"))
    for _ in range(600):
        body += packer.compress(bytes(2**20))
    return head[:start] + body + packer.flush()


def damaged_picture(jpeg2000: bytes) -> bytes:
    """A JPEG 2000 picture with 20 kB overwritten after its header; it has its end."""
    dataset = dcmread(io.BytesIO(jpeg2000))
    value = bytearray(dataset.PixelData)
    value[800:20_800] = b"\xff" * 20_000
    dataset.PixelData = bytes(value)
    return _written(dataset)


def _written(dataset: object) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=False)  # type: ignore[attr-defined]
    return buffer.getvalue()
