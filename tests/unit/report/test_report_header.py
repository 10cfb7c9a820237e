"""A received header is read for what is sound in it, whatever else it holds."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs_node.report.header import plain_text, read_header
from tests.unit.report.report_examinations import radiograph_header, with_raw


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (b"19400305", "19400305"),
        (b"1940.03.05", "19400305"),  # ACR-NEMA
        (b"1940-03-05", "19400305"),
        (b"00000000", ""),
        (b"unknown ", ""),
    ],
)
def test_birth_dates_are_kept_in_the_standards_form_or_left_blank(raw: bytes, kept: str) -> None:
    assert read_header(with_raw("PatientBirthDate", raw)).birth_date == kept


@pytest.mark.parametrize(
    ("raw", "kept"), [(b"185059", "185059"), (b"18:50:59", "185059"), (b"1850", "1850"), (b"25:00:00", "")]
)
def test_times_are_kept_in_the_standards_form_or_left_blank(raw: bytes, kept: str) -> None:
    assert read_header(with_raw("StudyTime", raw)).study_time == kept


@pytest.mark.parametrize(("raw", "kept"), [(b"F ", "F"), (b"m ", "M"), (b"FEMALE", ""), (b"", "")])
def test_a_sex_is_one_of_the_three_terms_or_blank(raw: bytes, kept: str) -> None:
    assert read_header(with_raw("PatientSex", raw)).sex == kept


def test_an_accession_number_too_long_to_write_is_left_out_not_cut_into_another() -> None:
    assert read_header(with_raw("AccessionNumber", b"2026-1105-0000001-A ")).accession_number == ""


@pytest.mark.parametrize(("vr", "value"), [("SQ", Sequence([])), ("SQ", Sequence([Dataset()])), ("OB", b"A1")])
def test_what_is_no_text_is_left_out_and_not_put_into_words(vr: str, value: object) -> None:
    header = radiograph_header()
    for keyword in ("AccessionNumber", "PatientName", "IssuerOfPatientID"):
        header[keyword] = DataElement(keyword, vr, value)
    read = read_header(header)
    assert (read.accession_number, read.patient_name, read.issuer) == ("", "", "")


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (b"A^B=C=D=E=F ", "A^B=C=D"),
        (b"A^B^C^D^E^F^G ", "A^B^C^D^E F G"),
        (b"CompressedSamples^RG1 ", "CompressedSamples^RG1"),
    ],
)
def test_a_name_with_too_many_groups_or_components_becomes_one_that_may_be_written(raw: bytes, kept: str) -> None:
    assert read_header(with_raw("PatientName", raw)).patient_name == kept


@pytest.mark.parametrize("raw", [b"L\\F ", b"l\\f "])
def test_a_stated_orientation_is_read(raw: bytes) -> None:
    assert read_header(with_raw("PatientOrientation", raw)).orientation == ("L", "F")


@pytest.mark.parametrize("raw", [b"", b"L ", b"\\ ", b"X\\Y ", b"L\\F\\A "])
def test_an_orientation_that_is_not_two_directions_is_none(raw: bytes) -> None:
    assert read_header(with_raw("PatientOrientation", raw)).orientation is None


@pytest.mark.parametrize("raw", [b"", b"0.1 ", b"0\\0 ", b"wide\\high "])
def test_a_spacing_that_is_not_two_lengths_is_none(raw: bytes) -> None:
    assert read_header(with_raw("ImagerPixelSpacing", raw)).imager_spacing_mm is None


@pytest.mark.parametrize("raw", [b"latin1", b"ISO_IR 100\\", b"GB18030\\what "])
def test_a_character_set_that_is_no_defined_term_is_replaced_by_utf_8(raw: bytes) -> None:
    assert read_header(with_raw("SpecificCharacterSet", raw)).character_set == ("ISO_IR 192",)


def test_real_files_in_many_character_sets_are_read_without_a_warning(samples: Path) -> None:
    paths = sorted((samples / "charset").glob("*.dcm"))
    assert paths
    for path in paths:
        dataset = pydicom.dcmread(path)
        names = radiograph_header()
        for keyword in ("SpecificCharacterSet", "PatientName"):
            if keyword in dataset:
                names.add(dataset[keyword])
        assert read_header(names).patient_name


def test_text_for_a_report_is_one_line_without_what_dicom_reads_as_separator() -> None:
    assert plain_text("a\\b\r\nc\x00d ") == "a/b  c d"
    assert plain_text("x" * 80, 64) == "x" * 64


def test_a_value_that_breaks_its_rules_reaches_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """pydicom logs the invalid values that it meets, birth dates and names among them."""
    header = with_raw("PatientBirthDate", b"5 March 1940")
    with caplog.at_level("DEBUG"):
        read_header(header)
    assert "1940" not in caplog.text
