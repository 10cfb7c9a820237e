"""The header index says what pydicom says, on every real file and on files made to mislead; and it is bounded."""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.charset import python_encoding
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ecg_ingest.channels import PARSER_FAULTS, waveform_leads
from pacs_node.flow import index
from pacs_node.flow.acquired import acquired
from pacs_node.flow.classify import classify, is_unreadable, text
from pacs_node.flow.index import BeyondBuffer, Bounds, HeaderIndex, NotIndexed, read_index
from pacs_node.flow.part10 import DataSetBytes, HeaderUnreadable, from_part10, inflate_beginning
from pacs_node.flow.receive import person
from pacs_node.settings import Settings
from tests.unit.flow.headers import NOON, at, identified, radiograph, waveform

BOUNDS = Bounds(depth=64, elements=200_000, value_bytes=65536)
CARRIED = Path(str(get_testdata_file("waveform_ecg.dcm", download=False))).parent
SITE = Settings().node.zone
SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


def indexed(parts: DataSetBytes) -> HeaderIndex:
    if parts.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        return read_index(inflate_beginning(parts.data, 2**24)[0], ExplicitVRLittleEndian, BOUNDS)
    return read_index(parts.data, parts.transfer_syntax_uid, BOUNDS)


def encoded(dataset: Dataset, syntax: str) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(
        buffer,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=False,
    )
    return buffer.getvalue()


def read_back(data: bytes, syntax: str) -> Dataset:
    return dcmread(io.BytesIO(_file(data, syntax)), stop_before_pixels=True)


def _file(data: bytes, syntax: str) -> bytes:
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    return bytes(128) + b"DICM" + struct.pack("<HH2sH", 2, 0x10, b"UI", len(value)) + value + data


def same(ours: Any, theirs: Any) -> None:
    """Every keyword that rules ask for reads alike, as text and as items."""
    for keyword in index.KEYWORDS:
        if keyword.endswith("Sequence"):
            mine, other = ours.get(keyword), theirs.get(keyword)
            mine = mine if isinstance(mine, list) else []
            other = list(other) if isinstance(other, Sequence) else []
            assert len(mine) == len(other), keyword
            for one, two in zip(mine, other, strict=True):
                same(one, two)
        elif keyword != "SpecificCharacterSet":
            assert text(ours, keyword) == text(theirs, keyword), keyword


def decides_alike(ours: Any, theirs: Any) -> None:
    assert classify(ours) == classify(theirs)
    assert person(ours, "") == person(theirs, "")
    assert acquired(ours, SITE) == acquired(theirs, SITE)
    assert waveform_leads(ours) == waveform_leads(theirs)


def real_files(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size < 2**22)


class TestRealFiles:
    def check(self, paths: list[Path]) -> int:
        """How many agreed. What one of the two refuses, the other may read: there we are the stricter one."""
        agreed = 0
        for path in paths:
            content = path.read_bytes()
            try:
                parts = from_part10(content)
                theirs = dcmread(io.BytesIO(content), stop_before_pixels=True)
                list(theirs)
            except (HeaderUnreadable, *PARSER_FAULTS):
                continue
            try:
                ours = indexed(parts)
                same(ours, theirs)
            except HeaderUnreadable:
                continue
            decides_alike(ours, theirs)
            agreed += 1
        return agreed

    def test_of_pydicom_read_alike(self) -> None:
        assert self.check(list(real_files(CARRIED))) > 60

    def test_of_the_samples_read_alike(self, samples: Path) -> None:
        files = list(real_files(samples / "cxr", samples / "ecg_dicom", samples / "charset"))
        assert self.check([path for path in files if path.suffix != ".png"]) >= 13

    def test_damaged_ones_of_the_samples_are_read_alike_or_refused(self, samples: Path) -> None:
        self.check(list(real_files(samples / "broken")))


TEXT = st.text(st.characters(codec="ascii", min_codepoint=32), max_size=20)
KEYWORDS = st.sampled_from(
    (
        *("Modality", "ViewPosition", "StudyDescription", "PatientName", "PatientID", "ImageType", "ImageComments"),
        *("StudyDate", "SeriesTime", "PatientOrientation", "ProtocolName", "AccessionNumber", "DocumentTitle"),
    )
)


class TestMadeFiles:
    @pytest.mark.parametrize("syntax", SYNTAXES)
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(values=st.dictionaries(KEYWORDS, TEXT, max_size=8))
    def test_any_text_reads_alike_in_every_encoding(self, syntax: str, values: dict[str, str]) -> None:
        data = encoded(radiograph(**values), syntax)
        same(read_index(data, syntax, BOUNDS), read_back(data, syntax))

    @pytest.mark.parametrize("syntax", SYNTAXES)
    @pytest.mark.parametrize("undefined", [True, False])
    def test_an_ecg_is_the_same_ecg_in_every_encoding(self, syntax: str, undefined: bool) -> None:
        dataset = identified(waveform(), "1.2", **at(NOON))
        for element in dataset.iterall():
            if element.VR == "SQ":
                element.is_undefined_length = undefined
                for item in element.value:
                    item.is_undefined_length_sequence_item = undefined
        data = encoded(dataset, syntax)
        ours, theirs = read_index(data, syntax, BOUNDS), read_back(data, syntax)
        same(ours, theirs)
        decides_alike(ours, theirs)
        assert len(waveform_leads(ours)) == 12

    @pytest.mark.parametrize("name", sorted(set(python_encoding) - {""}))
    def test_every_character_set_reads_alike(self, name: str) -> None:
        dataset = radiograph(SpecificCharacterSet=name if "2022" not in name else ["", name])
        dataset.PatientName = "Yamada^Tarou"
        data = encoded(dataset, ExplicitVRLittleEndian)
        # Bytes of every kind, as a device with another idea of the character set sends them.
        data = data.replace(b"Yamada^Tarou", b"Yam\xb3\xc4^\xbb=\xa1\xa6\xb1\xb2")
        same(read_index(data, ExplicitVRLittleEndian, BOUNDS), read_back(data, ExplicitVRLittleEndian))

    def test_a_data_set_that_contradicts_its_transfer_syntax_is_read_as_it_is(self) -> None:
        data = encoded(radiograph(), ExplicitVRLittleEndian)
        assert text(read_index(data, ImplicitVRLittleEndian, BOUNDS), "ViewPosition") == "PA"
        data = encoded(radiograph(), ImplicitVRLittleEndian)
        assert text(read_index(data, ExplicitVRLittleEndian, BOUNDS), "ViewPosition") == "PA"

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
    def test_changed_bytes_are_read_or_refused_and_nothing_else(self, changes: list[tuple[int, int]]) -> None:
        data = bytearray(encoded(identified(waveform(), "1.2", **at(NOON)), ExplicitVRLittleEndian))
        for position, value in changes:
            data[position % len(data)] = value
        with suppress(HeaderUnreadable):
            found = read_index(bytes(data), ExplicitVRLittleEndian, BOUNDS)
            classify(found)
            person(found, "")
            acquired(found, SITE)

    @pytest.mark.parametrize("undefined", [True, False])
    def test_a_sequence_where_a_value_belongs_says_nothing_and_is_no_text(self, undefined: bool) -> None:
        data = replaced(encoded(identified(radiograph(), "1.2"), ExplicitVRLittleEndian), 0x20, item(undefined))
        ours = read_index(data, ExplicitVRLittleEndian, BOUNDS)
        with pytest.raises(ValueError, match="PatientID"):
            ours.get("PatientID")
        assert text(ours, "PatientID") == ""
        assert is_unreadable(ours, "PatientID")
        assert not is_unreadable(ours, "IssuerOfPatientID")
        decides_alike(ours, read_back(data, ExplicitVRLittleEndian))

    def test_a_value_where_a_sequence_belongs_says_nothing(self) -> None:
        data = struct.pack("<HH2sH", 0x003A, 0x0200, b"LO", 4) + b"LEAD"
        ours = read_index(data, ExplicitVRLittleEndian, BOUNDS)
        with pytest.raises(ValueError, match="ChannelDefinitionSequence"):
            ours.get("ChannelDefinitionSequence")
        assert ours.fingerprint("ChannelDefinitionSequence") is None

    def test_asking_for_what_is_not_indexed_is_our_mistake(self) -> None:
        with pytest.raises(NotIndexed):
            read_index(encoded(radiograph(), ExplicitVRLittleEndian), ExplicitVRLittleEndian, BOUNDS).get("Rows")


def item(undefined: bool) -> bytes:
    """The header and value of a sequence of one empty item, without its tag."""
    if undefined:
        return struct.pack("<2sHI", b"SQ", 0, 0xFFFFFFFF) + struct.pack(
            "<HHIHHI", *(0xFFFE, 0xE000, 0, 0xFFFE, 0xE0DD, 0)
        )
    return struct.pack("<2sHI", b"SQ", 0, 8) + struct.pack("<HHI", 0xFFFE, 0xE000, 0)


def replaced(data: bytes, element: int, instead: bytes) -> bytes:
    """`data`, explicit little endian, with VR, length and value of (0010,`element`) replaced."""
    tag = struct.pack("<HH", 0x10, element)
    assert data.count(tag) == 1
    start = data.index(tag) + 4
    end = start + 4 + int.from_bytes(data[start + 2 : start + 4], "little")
    return data[:start] + instead + data[end:]


def sequences(depth: int, *, undefined: bool, tag: tuple[int, int] = (0x0008, 0x1140)) -> bytes:
    """Sequences within sequences, explicit little endian, made in linear time."""
    if undefined:
        begin = struct.pack("<HH2sHI", *tag, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
        end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        return begin * depth + end * depth
    heads = [
        struct.pack("<HH2sHI", *tag, b"SQ", 0, 20 * level + 8) + struct.pack("<HHI", 0xFFFE, 0xE000, 20 * level)
        for level in reversed(range(depth))
    ]
    return b"".join(heads)


class TestBounds:
    @pytest.mark.parametrize("depth", [65, 5_000])
    def test_deep_sequences_of_undefined_length_are_refused(self, depth: int) -> None:
        with pytest.raises(HeaderUnreadable, match="header_depth"):
            read_index(sequences(depth, undefined=True), ExplicitVRLittleEndian, BOUNDS)

    def test_sixty_three_deep_is_followed(self) -> None:
        read_index(sequences(63, undefined=True), ExplicitVRLittleEndian, BOUNDS)

    @pytest.mark.parametrize("depth", [65, 5_000])
    def test_deep_sequences_of_defined_length_are_stepped_over(self, depth: int) -> None:
        data = sequences(depth, undefined=False) + encoded(radiograph(), ExplicitVRLittleEndian)
        assert text(read_index(data, ExplicitVRLittleEndian, BOUNDS), "ViewPosition") == "PA"

    def test_too_many_elements_are_refused(self) -> None:
        data = struct.pack("<HH2sH", 0x0009, 0x1001, b"LO", 0) * 5_000
        with pytest.raises(HeaderUnreadable, match="header_elements"):
            read_index(data, ExplicitVRLittleEndian, replace(BOUNDS, elements=1_000))

    def test_a_long_value_is_refused_if_it_is_asked_for_and_stepped_over_if_not(self) -> None:
        name = "=".join(["Yamada"] * 10_000)
        data = encoded(radiograph(PatientName=name, DerivationDescription="x" * 100_000), ImplicitVRLittleEndian)
        found = read_index(data, ImplicitVRLittleEndian, BOUNDS)
        assert text(found, "ViewPosition") == "PA"
        with pytest.raises(HeaderUnreadable, match="header_value_bytes"):
            found.get("PatientName")

    def test_a_sequence_may_be_longer_than_a_value(self) -> None:
        data = encoded(identified(waveform(), "1.2"), ExplicitVRLittleEndian)
        found = read_index(data, ExplicitVRLittleEndian, replace(BOUNDS, value_bytes=64))
        assert len(waveform_leads(found)) == 12

    @pytest.mark.parametrize("length", [0x7FFFFFFF, 0xFFFFFFFE])
    def test_a_length_beyond_the_data_set_is_refused_without_memory(self, length: int) -> None:
        data = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, length) + bytes(64)
        with pytest.raises(HeaderUnreadable, match="cut short"):
            read_index(data, ExplicitVRLittleEndian, BOUNDS)

    @pytest.mark.parametrize("cut", range(1, 400, 7))
    def test_a_data_set_cut_anywhere_is_read_so_far_or_refused(self, cut: int) -> None:
        data = encoded(identified(waveform(), "1.2", **at(NOON)), ExplicitVRLittleEndian)
        with suppress(HeaderUnreadable):
            classify(read_index(data[:cut], ExplicitVRLittleEndian, BOUNDS))

    def test_a_beginning_is_enough_if_the_header_lies_in_it(self) -> None:
        dataset = radiograph()
        dataset[0x7FE00010] = DataElement(0x7FE00010, "OW", bytes(10_000))
        data = encoded(dataset, ExplicitVRLittleEndian)
        found = read_index(data[:1000], ExplicitVRLittleEndian, BOUNDS, total_bytes=len(data))
        assert text(found, "ViewPosition") == "PA"

    def test_a_beginning_says_so_if_it_is_not_enough(self) -> None:
        data = encoded(identified(waveform(), "1.2", **at(NOON)), ExplicitVRLittleEndian)
        with pytest.raises(BeyondBuffer):
            waveform_leads(read_index(data[:300], ExplicitVRLittleEndian, BOUNDS, total_bytes=len(data)))

    def test_the_worst_within_the_bounds_takes_a_second_at_most_here(self) -> None:
        data = struct.pack("<HH2sH", 0x0009, 0x1001, b"LO", 0) * 199_990
        began = time.process_time()
        read_index(data, ExplicitVRLittleEndian, BOUNDS)
        assert time.process_time() - began < 5  # generous: a figure, not a benchmark
