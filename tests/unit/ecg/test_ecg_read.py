"""Whatever the bytes, reading ends in pictures or in a refusal that can be sent from one process to another."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from ecg_ingest import EcgRefused, LeadImages, RefusalReason, RenderStyle, read
from ecg_ingest import dicom_file as dicom_file_module
from tests.unit.ecg.ecg_builders import Group, SheetStyle, Signals, part10, sheet, waveform

STYLE = RenderStyle()
FUZZ = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def outcome(data: bytes) -> LeadImages | RefusalReason:
    try:
        return read(data, style=STYLE)
    except EcgRefused as refused:
        return refused.reason


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = (
        "import sys, ecg_ingest; print(sorted({'numpy', 'pydicom', 'pypdfium2', 'PIL'} & set(sys.modules)));"
        "import ecg_ingest.channels; assert 'pypdfium2' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_refusal_survives_the_way_out_of_a_child_process() -> None:
    refused = EcgRefused(RefusalReason.FLAT_LEAD, "lead V2 flat", "record again")
    back = pickle.loads(pickle.dumps(refused))  # noqa: S301
    assert (back.reason, back.detail, back.hint, str(back)) == (
        refused.reason,
        refused.detail,
        refused.hint,
        str(refused),
    )


def test_reading_works_in_a_child_process(heart: Signals) -> None:
    pdf = sheet(heart, SheetStyle())
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        images = pool.apply(read, (pdf,), {"style": STYLE})
        with pytest.raises(EcgRefused) as refused:
            pool.apply(read, (b"%PDF-1.4",), {"style": STYLE})
    np.testing.assert_array_equal(images.pixels, read(pdf, style=STYLE).pixels)
    assert refused.value.reason is RefusalReason.DAMAGED


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"<?xml version='1.0'?><RestingECG/>", "XML"),
        (b"MFER" + bytes(100), "MFER"),
        (bytes(16) + b"SCPECG" + bytes(100), "SCP-ECG"),
        (bytes(range(256)) * 64, "no known form"),
    ],
)
def test_other_forms_are_refused_by_name(data: bytes, word: str) -> None:
    with pytest.raises(EcgRefused) as refused:
        read(data, style=STYLE)
    assert refused.value.reason is RefusalReason.UNSUPPORTED_FORM
    assert word in refused.value.detail


@pytest.mark.parametrize(
    "data",
    [b"\x89PNG\r\n\x1a\n" + bytes(100), b"\xff\xd8\xff\xe0" + bytes(100), b"II*\0" + bytes(100), b"BM" + bytes(100)],
)
def test_pictures_of_nothing_are_damaged(data: bytes) -> None:
    assert outcome(data) is RefusalReason.DAMAGED


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("CT_small.dcm", RefusalReason.NOT_AN_ECG),
        ("rtplan.dcm", RefusalReason.NOT_AN_ECG),
        ("reportsi.dcm", RefusalReason.NOT_AN_ECG),
        ("SC_rgb.dcm", RefusalReason.TOO_SMALL),
    ],
)
def test_other_dicom_objects_are_refused(name: str, reason: RefusalReason) -> None:
    assert outcome(Path(str(get_testdata_file(name))).read_bytes()) is reason


def test_broken_files_of_other_projects_are_refused(samples: Path) -> None:
    for path in sorted((samples / "broken").iterdir()):
        assert isinstance(outcome(path.read_bytes()), RefusalReason)


@FUZZ
@given(end=st.integers(0, 300_000))
def test_a_waveform_cut_anywhere_is_refused_or_whole(mortara_ecg: Path, end: int) -> None:
    data = mortara_ecg.read_bytes()
    result = outcome(data[:end])
    if isinstance(result, LeadImages):  # cut behind the recording, in the median beat
        np.testing.assert_array_equal(result.pixels, read(data, style=STYLE).pixels)


@FUZZ
@given(data=st.data())
def test_a_waveform_header_with_wrong_bytes_never_raises_anything_else(mortara_ecg: Path, data: st.DataObject) -> None:
    content = bytearray(mortara_ecg.read_bytes())
    for _ in range(data.draw(st.integers(1, 20))):
        content[data.draw(st.integers(132, 12_000))] = data.draw(st.integers(0, 255))
    outcome(bytes(content))


@pytest.fixture(scope="module")
def pdf(heart: Signals) -> bytes:
    return sheet(heart, SheetStyle(grid=False))


@FUZZ
@given(data=st.data())
def test_a_pdf_with_wrong_or_missing_bytes_never_raises_anything_else(pdf: bytes, data: st.DataObject) -> None:
    content = bytearray(pdf)
    for _ in range(data.draw(st.integers(0, 20))):
        content[data.draw(st.integers(8, len(content) - 1))] = data.draw(st.integers(0, 255))
    outcome(bytes(content[: data.draw(st.integers(1, len(content)))]))


def test_deeply_nested_sequences_are_refused() -> None:
    content = b""  # written by hand: pydicom's writer would recurse as well
    for _ in range(400):
        content = b"\x40\x00\x30\xa7" + b"\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + content
    content += b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0" * 400
    assert outcome(file_with(content, ImplicitVRLittleEndian)) in {
        RefusalReason.DAMAGED,
        RefusalReason.NOT_AN_ECG,
    }


def file_with(content: bytes, syntax: str) -> bytes:
    """A Part 10 file with this dataset, as bytes."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.9.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()[: _dataset_start(buffer.getvalue())] + content


def _dataset_start(data: bytes) -> int:
    """Where the file meta information ends: its group length stands first."""
    return 144 + int.from_bytes(data[140:144], "little")


def test_a_deflated_waveform_is_read_and_a_deflate_bomb_is_not(heart: Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    data = part10(waveform(Group(signals=heart)))
    packer = zlib.compressobj(wbits=-15)
    deflated = file_with(packer.compress(data[_dataset_start(data) :]) + packer.flush(), DeflatedExplicitVRLittleEndian)
    assert isinstance(outcome(deflated), LeadImages)
    monkeypatch.setattr(dicom_file_module, "MAX_INFLATED_BYTES", 100_000)
    assert outcome(deflated) is RefusalReason.TOO_LARGE


def test_nothing_that_identifies_a_patient_is_in_a_refusal(heart: Signals) -> None:
    dataset = waveform(Group(signals={"Respiration": heart["I"]}))
    dataset.PatientName, dataset.PatientID = "Yamada^Tarou", "4711-SECRET"
    for data in (part10(dataset), sheet(heart, SheetStyle(header="Yamada Tarou 4711-SECRET", without=("V1",)))):
        with pytest.raises(EcgRefused) as refused:
            read(data, style=STYLE)
        said = f"{refused.value} {refused.value.hint}"
        assert "Yamada" not in said
        assert "SECRET" not in said
