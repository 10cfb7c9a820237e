"""The Structured Report says what was estimated, from what, how surely, by which model, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian
from pydicom.valuerep import PersonName

from inference.prediction import Finding
from pacs_node.report.inputs import RESEARCH_ONLY, SYNTHETIC_DEMO, ReportInputs
from pacs_node.report.structured import structured_report
from storage.records import Report, ReportKind
from tests.unit.report.report_examinations import (
    RUN_DIGEST,
    ecg_header,
    examination,
    geometry,
    leads,
    model,
    of_same_patient,
    pdf_header,
    prediction,
    radiograph_header,
    with_raw,
)

EARLIER = Report(
    report_id=1,
    match_id=1,
    kind=ReportKind.SR,
    sop_class_uid=Comprehensive3DSRStorage,
    sop_instance_uid="2.25.111",
    series_instance_uid="2.25.112",
    study_instance_uid="1.3.6.1.4.1.5962.1.2.9.20040826185059.5457",
    transfer_syntax_uid=ExplicitVRLittleEndian,
    sha256="0" * 64,
    size_bytes=1,
    created_at=datetime(2026, 11, 4, tzinfo=UTC),
)


def read(inputs: ReportInputs) -> Dataset:
    """The report, written and read again."""
    return pydicom.dcmread(BytesIO(structured_report(inputs)))


def items(item: Dataset) -> Iterator[Dataset]:
    """Every content item of a document, parents first."""
    for child in item.get("ContentSequence", ()):
        yield child
        yield from items(child)


def coded(document: Dataset, code: str) -> list[Dataset]:
    """The content items whose concept name has this code."""
    return [item for item in items(document) if item.ConceptNameCodeSequence[0].CodeValue == code]


def number(document: Dataset, code: str) -> tuple[float, str]:
    """Value and unit of the only NUM of this code."""
    (item,) = coded(document, code)
    measured = item.MeasuredValueSequence[0]
    return float(measured.NumericValue), measured.MeasurementUnitsCodeSequence[0].CodeValue


def texts(document: Dataset) -> list[str]:
    return [str(item.TextValue) for item in items(document) if item.ValueType == "TEXT"]


def evidence(document: Dataset, keyword: str) -> set[str]:
    return {
        instance.ReferencedSOPInstanceUID
        for study in document.get(keyword, ())
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }


def test_the_report_gives_estimate_interval_probabilities_and_gap_with_their_units() -> None:
    report = read(examination())
    assert number(report, "8414-5") == (28.2, "mm[Hg]")
    assert number(report, "MPAP-INT-LOW") == (17.4, "mm[Hg]")
    assert number(report, "MPAP-INT-HIGH") == (41.2, "mm[Hg]")
    assert number(report, "MPAP-INT-LEVEL") == (90.0, "%")
    assert number(report, "P-MPAP-GT-20") == (87.3, "%")
    assert number(report, "P-MPAP-GE-25") == (64.1, "%")
    assert number(report, "XR-ECG-DAYS") == (3.0, "d")


def test_local_codes_are_declared_with_the_report() -> None:
    declared = {item.CodingSchemeDesignator for item in read(examination()).CodingSchemeIdentificationSequence}
    assert declared == {"99PULMOLINK"}


def test_the_report_is_research_preliminary_and_unverified_and_says_so_before_its_first_number() -> None:
    report = read(examination())
    assert report.ContentQualification == "RESEARCH"
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    (measurements,) = coded(report, "126010")
    kinds = [(item.ValueType, item.get("TextValue")) for item in measurements.ContentSequence[0].ContentSequence]
    assert kinds.index(("TEXT", RESEARCH_ONLY)) < [kind for kind, _ in kinds].index("NUM")
    assert "RESEARCH" in report.SeriesDescription


def test_the_report_names_model_version_and_digests() -> None:
    report = read(examination())
    identity = model()
    assert [item.TextValue for item in coded(report, "111001")] == [identity.name]
    assert [item.TextValue for item in coded(report, "111003")] == [identity.version]
    parameters = " ".join(item.TextValue for item in coded(report, "111002"))
    for digest in (identity.digest, identity.preprocessing_digest, RUN_DIGEST):
        assert digest in parameters
    assert identity.name in report.SeriesDescription


def test_a_demo_model_says_what_it_is() -> None:
    demo = prediction(model=model(name="synthetic-demo", kind="synthetic-demo"))
    assert SYNTHETIC_DEMO in texts(read(examination(prediction=demo)))
    assert SYNTHETIC_DEMO not in texts(read(examination()))


def test_only_one_number_has_the_code_of_the_pressure_so_that_nobody_picks_up_a_patch() -> None:
    report = read(examination())
    assert len(coded(report, "8414-5")) == 1
    assert len(coded(report, "PATCH-MPAP")) == 9


@pytest.mark.parametrize(
    ("low", "high", "code"),
    [
        (20.1, 41.0, "371879000"),  # abnormally high: the whole interval above 20
        (8.0, 20.0, "17621005"),  # normal: the whole interval up to 20
        (17.4, 41.2, "371934000"),  # undetermined
        (20.0, 41.0, "371934000"),
    ],
)
def test_normality_is_stated_only_where_the_whole_interval_lies_on_one_side(low: float, high: float, code: str) -> None:
    estimate = prediction(interval_low_mmhg=low, interval_high_mmhg=high, findings=())
    (normality,) = coded(read(examination(prediction=estimate, leads=leads(quality=()))), "121402")
    assert normality.ConceptCodeSequence[0].CodeValue == code


def test_normality_is_not_stated_of_inputs_below_the_standard() -> None:
    """The interval holds for inputs like those it was made for."""
    odd = Finding(
        subject="radiograph", code="out_of_distribution", severity="warning", detail="unlike the model's data"
    )
    estimate = prediction(interval_low_mmhg=30.0, interval_high_mmhg=41.0, findings=(odd,))
    (normality,) = coded(read(examination(prediction=estimate, leads=leads(quality=()))), "121402")
    assert normality.ConceptCodeSequence[0].CodeValue == "371934000"


def test_the_report_asserts_no_finding() -> None:
    report = read(examination(prediction=prediction(interval_low_mmhg=30.0)))
    assert coded(report, "121071") == []
    assert "hypertension" not in " ".join(texts(report)).lower()


def test_each_patch_is_a_closed_line_in_the_radiographs_pixels_with_its_value() -> None:
    inputs = examination()
    report = read(inputs)
    regions = coded(report, "111030")
    values = [float(item.MeasuredValueSequence[0].NumericValue) for item in coded(report, "PATCH-MPAP")]
    assert values == [round(value, 1) for value in inputs.prediction.patch_mpap_mmhg]
    for index, region in enumerate(regions):
        left, top, right, bottom = inputs.geometry.patch_box(index)
        assert region.GraphicType == "POLYLINE"
        assert region.GraphicData == pytest.approx(
            [left, top, right, top, right, bottom, left, bottom, left, top], rel=1e-6
        )
        (source,) = region.ContentSequence
        assert source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == inputs.radiograph.SOPInstanceUID


def test_a_patch_that_reaches_beyond_the_radiograph_is_cut_at_its_edge() -> None:
    padded = replace(geometry(), left=-60.0, scale_x=(1841 + 120) / 512)
    for region in coded(read(examination(geometry=padded)), "111030"):
        columns, rows = region.GraphicData[::2], region.GraphicData[1::2]
        assert 0 <= min(columns) <= max(columns) <= 1841
        assert 0 <= min(rows) <= max(rows) <= 1955


def test_an_ecg_of_another_study_goes_to_the_other_evidence() -> None:
    inputs = examination()
    report = read(inputs)
    assert report.StudyInstanceUID == inputs.radiograph.StudyInstanceUID
    assert evidence(report, "CurrentRequestedProcedureEvidenceSequence") == {inputs.radiograph.SOPInstanceUID}
    assert evidence(report, "PertinentOtherEvidenceSequence") == {inputs.ecg.SOPInstanceUID}


def test_an_ecg_of_the_same_study_goes_to_the_current_evidence() -> None:
    ecg = ecg_header()
    ecg.StudyInstanceUID = radiograph_header().StudyInstanceUID
    report = read(examination(ecg=ecg))
    current = evidence(report, "CurrentRequestedProcedureEvidenceSequence")
    assert current == {radiograph_header().SOPInstanceUID, ecg.SOPInstanceUID}
    assert "PertinentOtherEvidenceSequence" not in report


@pytest.mark.parametrize(("header", "value_type"), [(ecg_header, "WAVEFORM"), (pdf_header, "COMPOSITE")])
def test_the_ecg_is_a_source_of_group_estimate_and_quality(header: Any, value_type: str) -> None:
    report = read(examination(ecg=header()))
    sources = [item for item in coded(report, "121112") if item.ValueType == value_type]
    assert sorted(item.RelationshipType for item in sources) == ["CONTAINS", "INFERRED FROM", "INFERRED FROM"]


def test_a_picture_of_an_ecg_is_an_image_source() -> None:
    picture = pdf_header()
    picture.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    picture.Rows, picture.Columns = 1200, 1600
    report = read(examination(ecg=picture))
    images = [item.ReferencedSOPSequence[0] for item in coded(report, "121112") if item.ValueType == "IMAGE"]
    assert picture.SOPInstanceUID in {image.ReferencedSOPInstanceUID for image in images}


def test_quality_is_told_per_input_with_its_reasons() -> None:
    noted = prediction(
        findings=(Finding(subject="radiograph", code="rotated", severity="warning", detail="rotated by 8 degrees"),)
    )
    report = read(examination(prediction=noted, leads=leads(quality=())))
    radiograph, ecg = coded(report, "111050")
    assert radiograph.ConceptCodeSequence[0].CodeValue == "111236"
    assert radiograph.ContentSequence[0].TextValue == "radiograph: rotated: rotated by 8 degrees"
    assert ecg.ConceptCodeSequence[0].CodeValue == "111237"
    assert ecg.ContentSequence[0].TextValue == "ecg: nothing found"


def test_a_finding_told_by_reader_and_prediction_stands_once() -> None:
    told_twice = prediction(
        findings=(Finding(subject="ecg", code="noisy", severity="warning", detail="V2: mains hum of 0.06 mV"),)
    )
    _, ecg = coded(read(examination(prediction=told_twice)), "111050")
    notes = [item.TextValue for item in ecg.ContentSequence if item.ValueType == "TEXT"]
    assert notes == ["ecg: noisy: V2: mains hum of 0.06 mV"]


def test_a_note_is_told_but_does_not_lower_the_quality() -> None:
    radiograph, ecg = coded(read(examination()), "111050")
    assert radiograph.ConceptCodeSequence[0].CodeValue == "111237"
    assert "low_contrast" in radiograph.ContentSequence[0].TextValue
    assert ecg.ConceptCodeSequence[0].CodeValue == "111236"


def test_a_date_without_a_time_says_so() -> None:
    told = " ".join(texts(read(examination(ecg_date_only=True))))
    assert "ECG of 2026-11-05 (date only, noon taken)" in told


def test_the_same_inputs_give_the_same_bytes() -> None:
    assert structured_report(examination()) == structured_report(examination())


def test_another_revision_gets_new_uids_a_new_series_and_names_its_predecessor() -> None:
    first, second = read(examination()), read(examination(revision=2, predecessor=EARLIER))
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert evidence(second, "PredecessorDocumentsSequence") == {EARLIER.sop_instance_uid}
    assert "PredecessorDocumentsSequence" not in first
    assert "r2" in second.SeriesDescription


def test_every_uid_of_a_report_is_used_once() -> None:
    report = read(examination())
    uids = [str(item.UID) for item in coded(report, "112040")]
    uids += [report.SOPInstanceUID, report.SeriesInstanceUID]
    assert len(set(uids)) == len(uids) == 12


@pytest.mark.parametrize(
    "keyword",
    [
        "AccessionNumber",
        "PatientBirthDate",
        "PatientSex",
        "StudyTime",
        "StudyDate",
        "StudyID",
        "ReferringPhysicianName",
        "PatientOrientation",
        "ViewPosition",
        "SpecificCharacterSet",
    ],
)
@pytest.mark.parametrize("empty", [True, False])
def test_a_radiograph_without_an_optional_attribute_is_still_reported(keyword: str, empty: bool) -> None:
    radiograph, ecg = radiograph_header(), ecg_header()
    if empty:
        setattr(radiograph, keyword, None)
    else:
        del radiograph[keyword]
    report = read(examination(radiograph=radiograph, ecg=ecg))
    assert report.PatientID == "9RG1"
    if keyword not in {"PatientOrientation", "ViewPosition", "SpecificCharacterSet"}:
        assert keyword in report  # type 2: present, if empty


def test_the_image_library_tells_spacing_and_orientation_only_where_the_header_does() -> None:
    radiograph = radiograph_header()
    assert coded(read(examination(radiograph=radiograph)), "111026") == []
    radiograph.ImagerPixelSpacing = [0.2, 0.25]
    report = read(examination(radiograph=radiograph))
    assert number(report, "111026") == (0.25, "mm")
    assert number(report, "111066") == (0.2, "mm")
    assert [item.TextValue for item in coded(report, "111044")] == ["L"]


def test_the_reports_times_are_in_the_radiographs_own_offset_or_the_sites() -> None:
    report = read(examination())
    assert (report.TimezoneOffsetFromUTC, report.ContentDate, report.ContentTime[:4]) == (
        "-0400",
        "20261105",
        "0000",
    )
    radiograph = radiograph_header()
    del radiograph.TimezoneOffsetFromUTC
    report = read(examination(radiograph=radiograph))
    assert (report.TimezoneOffsetFromUTC, report.ContentTime[:4]) == ("+0900", "1300")


JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"


@pytest.mark.parametrize(
    ("terms", "name"),
    [
        (["", "ISO 2022 IR 87"], JAPANESE),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        ("ISO_IR 192", JAPANESE),
        ("ISO_IR 100", "Müller^Jörg"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
    ],
)
def test_names_come_back_unharmed_in_the_radiographs_own_character_set(terms: Any, name: str) -> None:
    radiograph = radiograph_header()
    radiograph.SpecificCharacterSet = terms
    radiograph.PatientName = name
    sent = BytesIO()
    pydicom.dcmwrite(sent, radiograph, enforce_file_format=True)
    sent.seek(0)
    received = pydicom.dcmread(sent)
    report = read(examination(radiograph=received, ecg=of_same_patient(ecg_header(), radiograph)))
    assert report.PatientName == PersonName(name)
    assert report.SpecificCharacterSet == terms


def test_a_name_in_an_undeclared_character_set_keeps_its_bytes() -> None:
    """Shift JIS without a word about it: common, wrong, and shown rightly by the PACS that expects it."""
    raw = "山田^太郎".encode("shift_jis")
    radiograph = with_raw("PatientName", raw)
    del radiograph.SpecificCharacterSet
    stored = structured_report(examination(radiograph=radiograph))
    assert raw in stored
    assert "SpecificCharacterSet" not in pydicom.dcmread(BytesIO(stored))


def test_text_beyond_the_radiographs_character_set_turns_the_report_to_utf_8() -> None:
    radiograph = radiograph_header()
    radiograph.SpecificCharacterSet = "ISO_IR 100"
    radiograph.PatientName = "Müller^Jörg"
    named = prediction(model=model(name="肺動脈圧モデル"))
    report = read(examination(radiograph=radiograph, prediction=named))
    assert report.SpecificCharacterSet == "ISO_IR 192"
    assert report.PatientName == PersonName("Müller^Jörg")
    assert "肺動脈圧モデル" in [item.TextValue for item in coded(report, "111001")]


def test_the_names_of_real_files_come_back_unharmed(samples: Path) -> None:
    for path in sorted((samples / "charset").glob("*.dcm")):
        named = pydicom.dcmread(path)
        if "PatientName" not in named:
            continue
        radiograph = radiograph_header()
        radiograph.SpecificCharacterSet = named.get("SpecificCharacterSet")
        radiograph.PatientName = named.PatientName
        report = read(examination(radiograph=radiograph))
        assert str(report.PatientName) == str(named.PatientName), path.name


def test_no_log_line_is_written_about_a_patient(caplog: pytest.LogCaptureFixture) -> None:
    """highdicom logs names that it finds odd; ours must never reach it."""
    radiograph = radiograph_header()
    radiograph.PatientName = "Oddname"
    with caplog.at_level("DEBUG"):
        structured_report(examination(radiograph=radiograph))
    assert "Oddname" not in caplog.text
    assert "9RG1" not in caplog.text
