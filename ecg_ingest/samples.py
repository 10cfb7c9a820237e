"""The bytes of one multiplex group to numbers: sample size, sign, byte order, companding, padding.

pydicom's own decoder leaves big-endian samples unswapped, padding unmasked and mu-law / A-law unexpanded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.lead_images import EcgRefused, RefusalReason

MAX_CHANNELS = 64
MAX_SAMPLES = 12_000_000
"""Over all channels: 1000 s of twelve leads at 1 kHz; a resting ECG has 120,000. Decoding takes 30 bytes a sample."""

_KINDS = {  # PS3.3 C.10.9.1.5, Waveform Sample Interpretation
    ("SB", 8): "i1",
    ("UB", 8): "u1",
    ("MB", 8): "u1",
    ("AB", 8): "u1",
    ("SS", 16): "i2",
    ("US", 16): "u2",
    ("SL", 32): "i4",
    ("UL", 32): "u4",
}


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How a group's samples are written."""

    channels: int
    samples: int  # per channel
    bits_allocated: int
    interpretation: str
    big_endian: bool
    words: bool  # 8-bit samples packed in 16-bit words (OW), whose bytes a big-endian file swaps
    padding: bytes | None  # WaveformPaddingValue as written


_EDGE_RUN = 20  # samples


def decode(data: bytes, encoding: Encoding) -> NDArray[np.float64]:
    """Samples [channels, samples] in the recorder's units, NaN where the group holds padding.

    Raises
    ------
    EcgRefused
        DAMAGED if bytes are missing or left over, or the encoding is none of the standard's; TOO_LARGE.
    """
    kind = _KINDS.get((encoding.interpretation, encoding.bits_allocated))
    if kind is None:
        raise EcgRefused(
            RefusalReason.DAMAGED,
            f"samples of {encoding.bits_allocated} bits with interpretation {encoding.interpretation[:4]!r}",
            "the sender must write SB, UB, MB, AB (8 bits), SS, US (16) or SL, UL (32)",
        )
    count = encoding.channels * encoding.samples
    if encoding.channels > MAX_CHANNELS or count > MAX_SAMPLES:
        raise EcgRefused(
            RefusalReason.TOO_LARGE,
            f"{encoding.channels} channels of {encoding.samples} samples",
            f"at most {MAX_CHANNELS} channels and {MAX_SAMPLES} samples are read; send a resting ECG",
        )
    dtype = np.dtype(kind).newbyteorder(">" if encoding.big_endian else "<")
    if encoding.big_endian and encoding.words and dtype.itemsize == 1:
        data = np.frombuffer(data[: len(data) // 2 * 2], dtype="<u2").byteswap().tobytes()
    needed = count * dtype.itemsize
    if len(data) < needed or len(data) > needed + 1:  # an odd number of bytes is padded to even
        raise EcgRefused(
            RefusalReason.DAMAGED,
            f"the waveform holds {len(data)} bytes where its header promises {needed}",
            "the object was cut or its header is wrong: send it again from the recorder",
        )
    raw = np.frombuffer(data, dtype=dtype, count=count).reshape(encoding.samples, encoding.channels).T
    padded = _padding(raw, encoding.padding, dtype)
    if encoding.interpretation == "MB":
        values = _MU_LAW[raw]
    elif encoding.interpretation == "AB":
        values = _A_LAW[raw]
    else:
        values = raw.astype(np.float64)
    return np.where(padded, np.nan, values)


def _padding(raw: NDArray[np.generic], declared: bytes | None, dtype: np.dtype[np.generic]) -> NDArray[np.bool_]:
    """Which samples stand for "nothing was recorded".

    A declared value at either end of the range marks every occurrence. One inside the range (recorders
    declare 0 where 0 is an ordinary sample) counts only as a run from the first sample or to the last.
    Undeclared, the lowest number of a signed type of 16 or 32 bits is never a measurement: recorders
    fill with it, and a rail that was hit is not a measurement either.
    """
    masked = np.zeros(raw.shape, dtype=bool)
    limits = np.iinfo(dtype)  # type: ignore[type-var]
    if dtype.kind == "i" and dtype.itemsize > 1:
        masked |= raw == limits.min
    if declared is None or len(declared) < dtype.itemsize:
        return masked
    value = np.frombuffer(declared, dtype=dtype, count=1)[0]
    equal = raw == value
    if value in (limits.min, limits.max) and dtype.kind in "iu":
        return masked | equal
    leading = np.logical_and.accumulate(equal, axis=1)
    trailing = np.logical_and.accumulate(equal[:, ::-1], axis=1)[:, ::-1]
    # A few equal samples at an edge are as likely measured; a lead of nothing else is for the flat check.
    whole = equal.all(axis=1, keepdims=True)
    edge_runs = (leading & (leading.sum(axis=1, keepdims=True) >= _EDGE_RUN)) | (
        trailing & (trailing.sum(axis=1, keepdims=True) >= _EDGE_RUN)
    )
    return masked | (edge_runs & ~whole)


def _mu_law_table() -> NDArray[np.float64]:
    """ITU-T G.711 mu-law to linear, on the 16-bit scale (+-32124)."""
    code = ~np.arange(256, dtype=np.int64) & 0xFF
    magnitude = ((((code & 0x0F) << 3) + 0x84) << ((code >> 4) & 0x07)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.float64)


def _a_law_table() -> NDArray[np.float64]:
    """ITU-T G.711 A-law to linear, on the 16-bit scale (+-32256)."""
    code = np.arange(256, dtype=np.int64) ^ 0x55
    segment = (code >> 4) & 0x07
    base = ((code & 0x0F) << 4) + 8
    magnitude = np.where(segment == 0, base, (base + 0x100) << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.float64)


_MU_LAW = _mu_law_table()
_A_LAW = _a_law_table()
