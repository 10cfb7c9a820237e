"""The header index says what pydicom says, on every real file and on files made to mislead; and it is bounded."""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
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
XXeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
XXmplicitVRLittleEndian,
)

from ecg_ingest.channels import PARSER_FAULTS, waveform_leads
from pacs_node.flow import index
from pacs_node.flow.acquired import acquired
from pacs_node.flow.classify import classify, text
from pacs_node.flow.index import BeyondBuffer, Bounds, HeaderIndex, NotIndexed, read_index
from pacs_node.flow.part10 import DataSetBytes, HeaderUnreadable, from_part10, inflate_beginning
from pacs_node.flow.receive import person
from pacs_node.settings import Settings
from tests.unit.flow.headers import NOON, at, identified, radiograph, waveform

BOUNDS = Bounds(depth=64, elements=200_000)
CARRIED = Path(str(get_testdata_file("waveform_ecg.dcm", download=False))).parent
SITE = Settings().node.zone
SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


def indexed(parts: DataSetBytes) -> HeaderIndex:
XXf parts.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
XX   return read_index(inflate_beginning(parts.data, 2**24)[0], ExplicitVRLittleEndian, BOUNDS)
XXeturn read_index(parts.data, parts.transfer_syntax_uid, BOUNDS)


def encoded(dataset: Dataset, syntax: str) -> bytes:
    buffer = io.BytesIO()
XXataset.save_as(
XX   buffer,
XX   implicit_vr=syntax == ImplicitVRLittleEndian,
XX   little_endian=syntax != ExplicitVRBigEndian,
XX   enforce_file_format=False,
    )
XXeturn buffer.getvalue()


def read_back(data: bytes, syntax: str) -> Dataset:
XXeturn dcmread(io.BytesIO(_file(data, syntax)), stop_before_pixels=True)


def _file(data: bytes, syntax: str) -> bytes:
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
XXeturn bytes(128) + b"DICM" + struct.pack("<HH2sH", 2, 0x10, b"UI", len(value)) + value + data


def same(ours: Any, theirs: Any) -> None:
XX""Every keyword that rules ask for reads alike, as text and as items."""
    for keyword in index.KEYWORDS:
XX   if keyword.endswith("Sequence"):
XX       mine, other = ours.get(keyword), theirs.get(keyword)
XX       mine = mine if isinstance(mine, list) else []
XX       other = list(other) if isinstance(other, Sequence) else []
XX       assert len(mine) == len(other), keyword
XX       for one, two in zip(mine, other, strict=True):
XX           same(one, two)
XX   elif keyword != "SpecificCharacterSet":
XX       assert text(ours, keyword) == text(theirs, keyword), keyword


def decides_alike(ours: Any, theirs: Any) -> None:
XXssert classify(ours) == classify(theirs)
XXssert person(ours, "") == person(theirs, "")
XXssert acquired(ours, SITE) == acquired(theirs, SITE)
XXssert waveform_leads(ours) == waveform_leads(theirs)


def real_files(*folders: Path) -> Iterator[Path]:
    for folder in folders:
XX   yield from sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size < 2**22)


class TestRealFiles:
XXef check(self, paths: list[Path]) -> int:
XX   """How many agreed. What one of the two refuses, the other may read: there we are the stricter one."""
XX   agreed = 0
XX   for path in paths:
XX       content = path.read_bytes()
XX       try:
XX           parts = from_part10(content)
XX           theirs = dcmread(io.BytesIO(content), stop_before_pixels=True)
XX           list(theirs)
XX       except (HeaderUnreadable, *PARSER_FAULTS):
XX           continue
XX       try:
XX           ours = indexed(parts)
XX           same(ours, theirs)
XX       except HeaderUnreadable:
XX           continue
XX       decides_alike(ours, theirs)
XX       agreed += 1
XX   return agreed

XXef test_of_pydicom_read_alike(self) -> None:
XX   assert self.check(list(real_files(CARRIED))) > 60

XXef test_of_the_samples_read_alike(self, samples: Path) -> None:
XX   files = list(real_files(samples / "cxr", samples / "ecg_dicom", samples / "charset"))
XX   assert self.check([path for path in files if path.suffix != ".png"]) >= 13

XXef test_damaged_ones_of_the_samples_are_read_alike_or_refused(self, samples: Path) -> None:
XX   self.check(list(real_files(samples / "broken")))


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
XXef test_any_text_reads_alike_in_every_encoding(self, syntax: str, values: dict[str, str]) -> None:
XX   data = encoded(radiograph(**values), syntax)
XX   same(read_index(data, syntax, BOUNDS), read_back(data, syntax))

    @pytest.mark.parametrize("syntax", SYNTAXES)
    @pytest.mark.parametrize("undefined", [True, False])
XXef test_an_ecg_is_the_same_ecg_in_every_encoding(self, syntax: str, undefined: bool) -> None:
XX   dataset = identified(waveform(), "1.2", **at(NOON))
XX   for element in dataset.iterall():
XX       if element.VR == "SQ":
XX           element.is_undefined_length = undefined
XX           for item in element.value:
XX               item.is_undefined_length_sequence_item = undefined
XX   data = encoded(dataset, syntax)
XX   ours, theirs = read_index(data, syntax, BOUNDS), read_back(data, syntax)
XX   same(ours, theirs)
XX   decides_alike(ours, theirs)
XX   assert len(waveform_leads(ours)) == 12

    @pytest.mark.parametrize("name", sorted(set(python_encoding) - {""}))
XXef test_every_character_set_reads_alike(self, name: str) -> None:
XX   dataset = radiograph(SpecificCharacterSet=name if "2022" not in name else ["", name])
XX   dataset.PatientName = "Yamada^Tarou"
XX   data = encoded(dataset, ExplicitVRLittleEndian)
XX   # Bytes of every kind, as a device with another idea of the character set sends them.
XX   data = data.replace(b"Yamada^Tarou", b"Yam\xb3\xc4^\xbb=\xa1\xa6\xb1\xb2")
XX   same(read_index(data, ExplicitVRLittleEndian, BOUNDS), read_back(data, ExplicitVRLittleEndian))

XXef test_a_data_set_that_contradicts_its_transfer_syntax_is_read_as_it_is(self) -> None:
XX   data = encoded(radiograph(), ExplicitVRLittleEndian)
XX   assert text(read_index(data, ImplicitVRLittleEndian, BOUNDS), "ViewPosition") == "PA"
XX   data = encoded(radiograph(), ImplicitVRLittleEndian)
XX   assert text(read_index(data, ExplicitVRLittleEndian, BOUNDS), "ViewPosition") == "PA"

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
XXef test_changed_bytes_are_read_or_refused_and_nothing_else(self, changes: list[tuple[int, int]]) -> None:
XX   data = bytearray(encoded(identified(waveform(), "1.2", **at(NOON)), ExplicitVRLittleEndian))
XX   for position, value in changes:
XX       data[position % len(data)] = value
XX   try:
XX       found = read_index(bytes(data), ExplicitVRLittleEndian, BOUNDS)
XX       classify(found), person(found, ""), acquired(found, SITE)
XX   except HeaderUnreadable:
XX       pass

XXef test_asking_for_what_is_not_indexed_is_our_mistake(self) -> None:
XX   with pytest.raises(NotIndexed):
XX       read_index(encoded(radiograph(), ExplicitVRLittleEndian), ExplicitVRLittleEndian, BOUNDS).get("Rows")


def sequences(depth: int, *, undefined: bool, tag: tuple[int, int] = (0x0008, 0x1140)) -> bytes:
XX""Sequences within sequences, explicit little endian, made in linear time."""
XXf undefined:
XX   begin = struct.pack("<HH2sHI", *tag, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
XX   end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
XX   return begin * depth + end * depth
    heads = [
XX   struct.pack("<HH2sHI", *tag, b"SQ", 0, 20 * level + 8) + struct.pack("<HHI", 0xFFFE, 0xE000, 20 * level)
XX   for level in reversed(range(depth))
    ]
XXeturn b"".join(heads)


class TestBounds:
    @pytest.mark.parametrize("depth", [65, 5_000])
XXef test_deep_sequences_of_undefined_length_are_refused(self, depth: int) -> None:
XX   with pytest.raises(HeaderUnreadable, match="header_depth"):
XX       read_index(sequences(depth, undefined=True), ExplicitVRLittleEndian, BOUNDS)

XXef test_sixty_three_deep_is_followed(self) -> None:
XX   read_index(sequences(63, undefined=True), ExplicitVRLittleEndian, BOUNDS)

    @pytest.mark.parametrize("depth", [65, 5_000])
XXef test_deep_sequences_of_defined_length_are_stepped_over(self, depth: int) -> None:
XX   data = sequences(depth, undefined=False) + encoded(radiograph(), ExplicitVRLittleEndian)
XX   assert text(read_index(data, ExplicitVRLittleEndian, BOUNDS), "ViewPosition") == "PA"

XXef test_too_many_elements_are_refused(self) -> None:
XX   data = struct.pack("<HH2sH", 0x0009, 0x1001, b"LO", 0) * 5_000
XX   with pytest.raises(HeaderUnreadable, match="header_elements"):
XX       read_index(data, ExplicitVRLittleEndian, Bounds(depth=64, elements=1_000))

    @pytest.mark.parametrize("length", [0x7FFFFFFF, 0xFFFFFFFE])
XXef test_a_length_beyond_the_data_set_is_refused_without_memory(self, length: int) -> None:
XX   data = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, length) + bytes(64)
XX   with pytest.raises(HeaderUnreadable, match="cut short"):
XX       read_index(data, ExplicitVRLittleEndian, BOUNDS)

    @pytest.mark.parametrize("cut", range(1, 400, 7))
XXef test_a_data_set_cut_anywhere_is_read_so_far_or_refused(self, cut: int) -> None:
XX   data = encoded(identified(waveform(), "1.2", **at(NOON)), ExplicitVRLittleEndian)
XX   try:
XX       classify(read_index(data[:cut], ExplicitVRLittleEndian, BOUNDS))
XX   except HeaderUnreadable:
XX       pass

XXef test_a_beginning_is_enough_if_the_header_lies_in_it(self) -> None:
XX   dataset = radiograph()
XX   dataset[0x7FE00010] = DataElement(0x7FE00010, "OW", bytes(10_000))
XX   data = encoded(dataset, ExplicitVRLittleEndian)
XX   found = read_index(data[:1000], ExplicitVRLittleEndian, BOUNDS, total_bytes=len(data))
XX   assert text(found, "ViewPosition") == "PA"

XXef test_a_beginning_says_so_if_it_is_not_enough(self) -> None:
XX   data = encoded(identified(waveform(), "1.2", **at(NOON)), ExplicitVRLittleEndian)
XX   with pytest.raises(BeyondBuffer):
XX       waveform_leads(read_index(data[:300], ExplicitVRLittleEndian, BOUNDS, total_bytes=len(data)))

XXef test_the_worst_within_the_bounds_takes_a_second_at_most_here(self) -> None:
XX   data = struct.pack("<HH2sH", 0x0009, 0x1001, b"LO", 0) * 199_990
XX   began = time.process_time()
XX   read_index(data, ExplicitVRLittleEndian, BOUNDS)
XX   assert time.process_time() - began < 5  # generous: a figure, not a benchmark
