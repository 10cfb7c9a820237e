"""Samples come back as they were recorded, however they are written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_ingest.lead_images import EcgRefused, RefusalReason
from ecg_ingest.samples import Encoding, decode

TYPES = {"SB": "i1", "UB": "u1", "SS": "i2", "US": "u2", "SL": "i4", "UL": "u4"}


def encoding(interpretation: str, shape: tuple[int, int], /, **changes: object) -> Encoding:
    fields: dict[str, object] = {
        "channels": shape[0],
        "samples": shape[1],
        "bits_allocated": np.dtype(TYPES.get(interpretation, "u1")).itemsize * 8,
        "interpretation": interpretation,
        "big_endian": False,
        "words": False,
        "padding": None,
    }
    return Encoding(**(fields | changes))  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), interpretation=st.sampled_from(sorted(TYPES)), big=st.booleans())
def test_any_samples_survive_encoding_in_any_interpretation_and_byte_order(
    data: st.DataObject, interpretation: str, big: bool
) -> None:
    limits = np.iinfo(TYPES[interpretation])
    channels, samples = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    values = data.draw(
        st.lists(st.integers(limits.min + 1, limits.max), min_size=channels * samples, max_size=channels * samples)
    )
    raw = np.array(values, dtype=np.int64).reshape(channels, samples)
    dtype = np.dtype(TYPES[interpretation]).newbyteorder(">" if big else "<")
    back = decode(raw.T.astype(dtype).tobytes(), encoding(interpretation, raw.shape, big_endian=big))
    np.testing.assert_array_equal(back, raw)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), interpretation=st.sampled_from(["SS", "US", "SL"]), big=st.booleans(), low=st.booleans())
def test_declared_padding_at_either_end_of_the_range_is_masked_everywhere(
    data: st.DataObject, interpretation: str, big: bool, low: bool
) -> None:
    limits = np.iinfo(TYPES[interpretation])
    padding = limits.min if low else limits.max
    dtype = np.dtype(TYPES[interpretation]).newbyteorder(">" if big else "<")
    holes = np.array(data.draw(st.lists(st.booleans(), min_size=1, max_size=20)))
    raw = np.where(holes, padding, 7)[None, :]
    back = decode(
        raw.T.astype(dtype).tobytes(),
        encoding(interpretation, raw.shape, big_endian=big, padding=np.array(padding).astype(dtype).tobytes()),
    )
    np.testing.assert_array_equal(np.isnan(back[0]), holes)


def test_zero_declared_as_padding_stays_a_sample_and_the_undeclared_filler_does_not() -> None:
    # ECGToolkit's files declare 0, fill with -32768 and cross zero all the time.
    raw = np.array([[5, 0, -3, 0, 0, 8, -32768, -32768]])
    back = decode(raw.T.astype("<i2").tobytes(), encoding("SS", raw.shape, padding=b"\0\0"))
    np.testing.assert_array_equal(back[0], [5, 0, -3, 0, 0, 8, np.nan, np.nan])


def test_a_long_run_of_declared_zeros_at_the_end_is_padding() -> None:
    raw = np.concatenate((np.arange(1, 101), np.zeros(40, dtype=int)))[None, :]
    back = decode(raw.T.astype("<i2").tobytes(), encoding("SS", raw.shape, padding=b"\0\0"))
    assert np.isnan(back[0, 100:]).all()
    assert np.isfinite(back[0, :100]).all()


def test_big_endian_words_of_8_bit_samples_are_put_back_in_order() -> None:
    raw = np.array([[1, 2, 3, 4]])
    swapped = raw.astype("u1").tobytes()
    swapped = bytes(swapped[i ^ 1] for i in range(len(swapped)))
    back = decode(swapped, encoding("UB", raw.shape, big_endian=True, words=True))
    np.testing.assert_array_equal(back, raw)


@pytest.mark.parametrize(
    ("law", "code", "linear"),
    # ITU-T G.711 tables 1a and 2a, on the 16-bit scale: ends, zero and a middle segment.
    [
        ("MB", 0xFF, 0),
        ("MB", 0x80, 32124),
        ("MB", 0x00, -32124),
        ("MB", 0xF0, 120),
        ("MB", 0x70, -120),
        ("AB", 0xD5, 8),
        ("AB", 0x55, -8),
        ("AB", 0xAA, 32256),
        ("AB", 0x2A, -32256),
    ],
)
def test_companded_samples_are_expanded(law: str, code: int, linear: int) -> None:
    assert decode(bytes([code, 0]), encoding(law, (1, 1)))[0, 0] == linear


def test_both_laws_rise_from_the_lowest_to_the_highest_code() -> None:
    for law in ("MB", "AB"):
        values = decode(bytes(range(256)), encoding(law, (1, 256)))[0]
        assert len(np.unique(np.abs(values))) == 128
        np.testing.assert_array_equal(np.sort(values), np.sort(-values))


@pytest.mark.parametrize(
    ("data", "changes", "reason"),
    [
        (b"\0" * 38, {}, RefusalReason.DAMAGED),  # cut
        (b"\0" * 80, {}, RefusalReason.DAMAGED),  # header says less
        (b"\0" * 40, {"interpretation": "XX"}, RefusalReason.DAMAGED),
        (b"\0" * 40, {"bits_allocated": 24}, RefusalReason.DAMAGED),
        (b"\0" * 40, {"channels": 1000}, RefusalReason.TOO_LARGE),
        (b"\0" * 40, {"samples": 10**9}, RefusalReason.TOO_LARGE),
    ],
)
def test_bytes_that_do_not_fit_their_header_are_refused(
    data: bytes, changes: dict[str, object], reason: RefusalReason
) -> None:
    with pytest.raises(EcgRefused) as refused:
        decode(data, encoding("SS", (2, 10), **changes))
    assert refused.value.reason is reason


def test_an_odd_number_of_8_bit_samples_may_carry_its_filler_byte() -> None:
    np.testing.assert_array_equal(decode(b"\x01\x02\x03\x00", encoding("UB", (1, 3))), [[1, 2, 3]])
