"""Both outputs pass the validators of others: dciodvfy (dicom3tools), dsrdump and dcmdump (DCMTK), PixelMed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.valuerep import PersonName

from inference.prediction import Geometry
from pacs_node.report.inputs import RESEARCH_ONLY, ReportInputs
from pacs_node.report.overlay import render_overlay
from pacs_node.report.secondary import secondary_capture
from pacs_node.report.structured import structured_report
from tests.unit.report.report_examinations import (
    ecg_header,
    examination,
    model,
    of_same_patient,
    pdf_header,
    prediction,
    radiograph_header,
    with_raw,
)
from tests.unit.report.test_report_structured import EARLIER

PIXELMED = Path("/usr/share/java/pixelmed.jar")
JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"


def plain() -> ReportInputs:
    return examination()


def demo_revision() -> ReportInputs:
    """A demo model, a long name, a second revision."""
    identity = model(name="synthetic-demo-with-a-name-longer-than-any-description", kind="synthetic-demo")
    return examination(prediction=prediction(model=identity), revision=2, predecessor=EARLIER)


def pdf_ecg() -> ReportInputs:
    return examination(ecg=pdf_header())


def same_study() -> ReportInputs:
    ecg = ecg_header()
    ecg.StudyInstanceUID = radiograph_header().StudyInstanceUID
    return examination(ecg=ecg)


def bare_header() -> ReportInputs:
    """A radiograph whose header has what is needed to identify it, and nothing else."""
    bare = radiograph_header()
    for keyword in (
        "AccessionNumber",
        "PatientBirthDate",
        "PatientSex",
        "StudyTime",
        "StudyDate",
        "StudyID",
        "StudyDescription",
        "ReferringPhysicianName",
        "PatientOrientation",
        "SpecificCharacterSet",
        "TimezoneOffsetFromUTC",
    ):
        del bare[keyword]
    return examination(radiograph=bare)


def broken_header() -> ReportInputs:
    """Values that break the rules of their VR, as old modalities send them."""
    broken = radiograph_header()
    for keyword, value in (
        ("PatientName", b"A^B^C^D^E^F^G=x=y=z"),
        ("PatientBirthDate", b"1940.03.05"),
        ("StudyTime", b"18:50:59"),
        ("PatientSex", b"FEMALE"),
        ("AccessionNumber", b"an accession number too long"),
        ("StudyDescription", b"line one\r\nline two " + b"x" * 90),
        ("PatientOrientation", b"LEFT"),
        ("TimezoneOffsetFromUTC", b"JST "),
        ("ImagerPixelSpacing", b"0,2"),
    ):
        with_raw(keyword, value, broken)
    return examination(radiograph=broken)


def digital_x_ray() -> ReportInputs:
    dx = radiograph_header()
    dx.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dx.Modality = "DX"
    dx.ImagerPixelSpacing = [0.143, 0.143]
    dx.ViewPosition = "PA"
    dx.IssuerOfPatientID = "HOSPITAL"
    return examination(radiograph=dx, default_issuer="HOSPITAL")


def japanese() -> ReportInputs:
    radiograph = radiograph_header()
    radiograph.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    radiograph.PatientName = JAPANESE
    return examination(radiograph=radiograph, ecg=of_same_patient(ecg_header(), radiograph))


EXAMINATIONS = (
    plain,
    demo_revision,
    pdf_ecg,
    same_study,
    bare_header,
    broken_header,
    digital_x_ray,
    japanese,
)


def complaints(tool: Callable[[str], str], path: Path) -> list[str]:
    """dciodvfy's errors about a file."""
    answer = subprocess.run([tool("dciodvfy"), str(path)], capture_output=True, check=False)
    lines = (answer.stdout + answer.stderr).decode("utf-8", "replace").splitlines()
    assert lines, "dciodvfy said nothing at all"
    return [line for line in lines if "error" in line.lower()]


@pytest.mark.parametrize("make", EXAMINATIONS)
def test_the_structured_report_has_no_error_in_dciodvfy(
    make: Callable[[], ReportInputs], tool: Callable[[str], str], tmp_path: Path
) -> None:
    path = tmp_path / "sr.dcm"
    path.write_bytes(structured_report(make()))
    assert complaints(tool, path) == []


@pytest.mark.parametrize("make", EXAMINATIONS)
def test_the_overlay_has_no_error_in_dciodvfy(
    make: Callable[[], ReportInputs], tool: Callable[[str], str], tmp_path: Path
) -> None:
    inputs = make()
    path = tmp_path / "overlay.dcm"
    path.write_bytes(secondary_capture(inputs, render_overlay(inputs)))
    assert complaints(tool, path) == []


@pytest.mark.parametrize("make", EXAMINATIONS)
def test_dsrdump_reads_the_report_without_a_warning_and_prints_it(
    make: Callable[[], ReportInputs], tool: Callable[[str], str], tmp_path: Path
) -> None:
    path = tmp_path / "sr.dcm"
    path.write_bytes(structured_report(make()))
    answer = subprocess.run([tool("dsrdump"), "-Ee", "+Pl", str(path)], capture_output=True, check=False)
    printed = answer.stdout.decode("utf-8", "replace")
    assert answer.returncode == 0
    # DCMTK with glibc's iconv does not know ISO 2022 IR 87 and says so of every file that uses it.
    told = [line for line in answer.stderr.decode().splitlines() if "ISO 2022 IR 87" not in line]
    assert told == []
    assert '"Pulmonary artery Mean blood pressure")="28.2" (mm[Hg],UCUM,"mmHg")' in printed
    assert RESEARCH_ONLY in printed
    assert printed.count("POLYLINE") == 9


def test_a_japanese_name_of_three_component_groups_is_the_senders_byte_for_byte(
    tool: Callable[[str], str], tmp_path: Path
) -> None:
    inputs = japanese()
    sent = tmp_path / "sent.dcm"
    pydicom.dcmwrite(sent, inputs.radiograph, enforce_file_format=True)
    names = []
    for name, data in (
        ("sent.dcm", sent.read_bytes()),
        ("sr.dcm", structured_report(inputs)),
        ("overlay.dcm", secondary_capture(inputs, render_overlay(inputs))),
    ):
        assert pydicom.dcmread(BytesIO(data)).PatientName == PersonName(JAPANESE)
        path = tmp_path / name
        path.write_bytes(data)
        dump = subprocess.run([tool("dcmdump"), "+P", "PatientName", str(path)], capture_output=True, check=True)
        names.append(dump.stdout)
    assert len(set(names)) == 1
    assert b"\x1b$B" in names[0]


@pytest.mark.parametrize(
    "name", ["rsna_cr_pa_jpeg.dcm", "nih_dx_in_sc_implicit.dcm", "philips_cr_pa_monochrome1_j2k.dcm"]
)
def test_real_radiographs_of_other_senders_give_valid_objects(
    name: str, samples: Path, tool: Callable[[str], str], tmp_path: Path
) -> None:
    radiograph = pydicom.dcmread(samples / "cxr" / name, stop_before_pixels=True)
    changes: dict[str, Any] = {"radiograph": radiograph}
    if not radiograph.get("PatientID"):
        radiograph.PatientID = "ADDED"
    changes["ecg"] = of_same_patient(ecg_header(), radiograph)
    rows, columns = int(radiograph.Rows), int(radiograph.Columns)
    changes["geometry"] = Geometry(rows=rows, columns=columns, left=0, top=0, scale_x=columns / 512, scale_y=rows / 512)
    inputs = examination(**changes)
    for kind, data in (
        ("sr.dcm", structured_report(inputs)),
        ("overlay.dcm", secondary_capture(inputs, render_overlay(inputs))),
    ):
        path = tmp_path / kind
        path.write_bytes(data)
        assert complaints(tool, path) == []


@pytest.mark.long
@pytest.mark.parametrize("make", [plain, pdf_ecg, bare_header, demo_revision])
def test_the_structured_report_has_no_error_in_pixelmeds_template_validator(
    make: Callable[[], ReportInputs], tool: Callable[[str], str], tmp_path: Path
) -> None:
    """The validator of the IHE Connectathon; it knows TID 1500 and its parts. About 10 s a file."""
    if not PIXELMED.is_file() or shutil.which("java") is None:
        pytest.skip("PixelMed's validator is not installed (Debian: libpixelmed-java)")
    path = tmp_path / "sr.dcm"
    path.write_bytes(structured_report(make()))
    folder = PIXELMED.parent
    jars = [PIXELMED, *(folder / f"{name}.jar" for name in ("commons-codec", "commons-compress", "jaxb-api"))]
    limits = [f"-Djdk.xml.xpath{limit}Limit=0" for limit in ("ExprGrp", "ExprOp", "TotalOp")]
    answer = subprocess.run(
        [
            tool("java"),
            *limits,
            "-cp",
            ":".join(map(str, jars)),
            "com.pixelmed.validate.DicomSRValidator",
            str(path),
        ],
        capture_output=True,
        check=False,
        text=True,
    )
    told = (answer.stdout + answer.stderr).splitlines()
    assert "IOD validation complete" in told
    assert [line for line in told if "error" in line.lower()] == []
