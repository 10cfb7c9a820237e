"""The text of a report is read from the stored report itself, and names nobody unless asked to."""

from __future__ import annotations

from io import BytesIO

import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from pacs_node.report.errors import ReportError
from pacs_node.report.secondary import secondary_capture
from pacs_node.report.structured import structured_report
from pacs_node.report.text import report_text
from tests.unit.report.report_examinations import examination, leads, model, prediction
from tests.unit.report.test_report_secondary import picture
from tests.unit.report.test_report_structured import EARLIER


def test_the_text_tells_estimate_interval_patches_model_and_research_use() -> None:
    text = report_text(structured_report(examination()))
    for part in (
        "RESEARCH USE ONLY - not for diagnosis",
        "28.2 mmHg",
        "17.4 mmHg",
        "41.2 mmHg",
        "P(mPAP > 20 mmHg)",
        "87.3 %",
        "24.1    26.0    27.3\n    25.2    31.8    36.4\n    22.9    29.5    30.2",
        f"{model().name} {model().version}, sha256 {model().digest}",
        "12-lead ECG Waveform Storage",
        "UNVERIFIED",
    ):
        assert part in text


def test_the_text_names_the_patient_only_when_asked() -> None:
    report = structured_report(examination())
    for secret in ("CompressedSamples", "9RG1", "19400305", "exam Number"):
        assert secret not in report_text(report)
        assert secret in report_text(report, patient=True)


def test_the_text_tells_a_demo_and_an_earlier_report() -> None:
    demo = prediction(model=model(kind="synthetic-demo"))
    text = report_text(structured_report(examination(prediction=demo, revision=2, predecessor=EARLIER)))
    assert "SYNTHETIC DEMO MODEL" in text
    assert f"Replaces the earlier report\n    {EARLIER.sop_instance_uid}" in text


def test_lines_stay_short_enough_for_a_terminal() -> None:
    derived = leads(derived_leads=("III", "aVR", "aVL", "aVF"))
    text = report_text(structured_report(examination(leads=derived)))
    assert max(len(line) for line in text.splitlines()) <= 110
    assert text.isascii()


def test_what_is_no_structured_report_is_refused_with_a_sentence() -> None:
    with pytest.raises(ReportError, match="no DICOM file"):
        report_text(b"neither this nor that")
    with pytest.raises(ReportError, match="no Structured Report"):
        report_text(secondary_capture(examination(), picture()))
    bare = pydicom.Dataset()
    bare.SOPClassUID, bare.SOPInstanceUID, bare.Modality = "1.2.840.10008.5.1.4.1.1.88.34", "2.25.1", "SR"
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, bare, enforce_file_format=True)
    with pytest.raises(ReportError, match="no Structured Report"):
        report_text(buffer.getvalue())
