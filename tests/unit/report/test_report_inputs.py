"""What may be reported at all: one person, one geometry, sound numbers."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from inference.prediction import Finding
from pacs_node.report.errors import HeaderUnusable, PatientsDiffer, ReportError
from tests.unit.report.report_examinations import ecg_header, examination, geometry, prediction, radiograph_header


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientID", "9RG2"),
        ("IssuerOfPatientID", "OTHER HOSPITAL"),
        ("PatientBirthDate", "19400306"),
        ("PatientSex", "M"),
    ],
)
def test_an_ecg_that_contradicts_the_radiographs_patient_is_never_reported(keyword: str, value: str) -> None:
    ecg = ecg_header()
    setattr(ecg, keyword, value)
    with pytest.raises(PatientsDiffer) as caught:
        examination(ecg=ecg)
    assert caught.value.attribute == keyword
    assert value not in str(caught.value)


@pytest.mark.parametrize("keyword", ["PatientBirthDate", "PatientSex"])
def test_an_ecg_silent_about_birth_date_or_sex_does_not_contradict(keyword: str) -> None:
    ecg = ecg_header()
    setattr(ecg, keyword, "")
    assert examination(ecg=ecg).ecg_header.patient_id == "9RG1"


def test_the_configured_issuer_counts_where_an_object_names_none() -> None:
    radiograph = radiograph_header()
    radiograph.IssuerOfPatientID = "HOSPITAL"
    with pytest.raises(PatientsDiffer):
        examination(radiograph=radiograph)
    assert examination(radiograph=radiograph, default_issuer="HOSPITAL")


@pytest.mark.parametrize("patient_id", ["", "   ", "1\\2", "x" * 65])
def test_a_patient_id_that_cannot_be_written_as_it_is_is_refused(patient_id: str) -> None:
    radiograph, ecg = radiograph_header(), ecg_header()
    for header in (radiograph, ecg):
        header.add_new("PatientID", "UC", patient_id)
    with pytest.raises(HeaderUnusable, match="PatientID"):
        examination(radiograph=radiograph, ecg=ecg)


@pytest.mark.parametrize("uid", ["", "not a uid"])
def test_a_radiograph_without_a_valid_uid_is_refused(uid: str) -> None:
    radiograph = radiograph_header()
    radiograph.add_new("StudyInstanceUID", "LO", uid)
    with pytest.raises(HeaderUnusable, match="StudyInstanceUID"):
        examination(radiograph=radiograph)


def test_an_estimate_made_on_another_pixel_matrix_is_refused() -> None:
    with pytest.raises(HeaderUnusable, match="Rows and Columns"):
        examination(geometry=replace(geometry(), rows=100))


def test_a_patch_outside_the_radiograph_is_refused() -> None:
    with pytest.raises(ReportError, match="patch 1"):
        examination(geometry=replace(geometry(), left=-5000.0))


@pytest.mark.parametrize(
    "changes",
    [
        {"display": np.zeros((8, 8, 3), np.uint8)},
        {"display": np.zeros((1025, 8), np.uint8)},
        {"gap_seconds": -1.0},
        {"gap_seconds": 86400.0},
        {"gap_seconds": float("nan")},
        {"created_at": datetime(2026, 11, 5)},  # noqa: DTZ001
        {"revision": 0},
        {"run_digest": ""},
        {"site_timezone": "Nowhere/City"},
        {"prediction": prediction(mpap_mmhg=float("nan"))},
        {"prediction": prediction(patch_mpap_mmhg=(20.0,) * 8)},
        {"prediction": prediction(interval_low_mmhg=50.0)},
        {"prediction": prediction(findings=(Finding(subject="moon", code="a", severity="note", detail=""),))},
        {"prediction": prediction(probability_above_20=1.2)},
    ],
)
def test_a_value_out_of_range_is_refused_before_anything_is_written(changes: dict[str, Any]) -> None:
    with pytest.raises(ReportError):
        examination(**changes)


def test_a_date_without_a_time_keeps_its_day_whatever_zone_the_report_is_written_in() -> None:
    """Noon in Tokyo is the evening before in New York, where the radiograph's clock stands."""
    noon_in_tokyo = datetime.fromisoformat("2026-11-05T12:00+09:00")
    inputs = examination(ecg_at=noon_in_tokyo, ecg_date_only=True)
    assert inputs.written_at.strftime("%z") == "-0400"
    assert inputs.ecg_local.strftime("%Y-%m-%d %H:%M") == "2026-11-05 12:00"
