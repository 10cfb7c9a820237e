"""Phantom patients are the same every time, valid, and show the pressure they are said to have."""

from __future__ import annotations

import csv
import hashlib
import io
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pydicom import Dataset, dcmread

from ecg_ingest import RenderStyle, read
from inference.phantoms import PhantomPatient, Scenario, make_patient, scenario_of, write_cohort
from inference.phantoms.signs import chest_signs, ecg_signs
from inference.radiograph import RadiographPreprocessing, read_radiograph
from pacs_node.commands.phantoms import phantoms


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cohort")
    write_cohort(out, patients=8, seed=1)
    return out


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def headers(patient: PhantomPatient) -> list[Dataset]:
    return [dcmread(io.BytesIO(item.part10)) for item in patient.objects]


def at(dataset: Dataset) -> datetime:
    return datetime.strptime(dataset.ContentDate + dataset.ContentTime, "%Y%m%d%H%M%S")  # noqa: DTZ007


def test_the_same_seed_gives_byte_identical_files(cohort: Path, tmp_path: Path) -> None:
    write_cohort(tmp_path, patients=8, seed=1)
    assert digests(tmp_path) == digests(cohort)


def test_another_seed_gives_other_patients(tmp_path: Path) -> None:
    first, second = make_patient(0, 1), make_patient(0, 2)
    assert first.truth.patient_id != second.truth.patient_id
    assert first.truth.radiograph_uid != second.truth.radiograph_uid


def test_the_truth_has_a_row_a_patient_and_the_promised_columns(cohort: Path) -> None:
    rows = list(csv.DictReader((cohort / "truth.csv").read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == ["patient_id", "radiograph_uid", "ecg_uid", "mpap_mmhg"]
    assert len(rows) == 8
    assert sum(row["ecg_uid"] == "" for row in rows) == 3
    files = [dcmread(path, stop_before_pixels=True) for path in cohort.rglob("*.dcm")]
    known = {dataset.SOPInstanceUID for dataset in files}
    for row in rows:
        assert row["radiograph_uid"] in known
        assert row["ecg_uid"] == "" or row["ecg_uid"] in known
    assert len(known) == len(files)


def test_every_object_is_valid_dicom(cohort: Path, tool: Callable[[str], str]) -> None:
    for path in sorted(cohort.rglob("*.dcm")):
        done = subprocess.run([tool("dciodvfy"), str(path)], capture_output=True, text=True, check=False)
        errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
        assert errors == [], path.name


def test_a_cycle_of_sixteen_has_four_that_may_not_pair() -> None:
    lone = {
        Scenario.AP_VIEW,
        Scenario.ECG_NINE_DAYS_AWAY,
        Scenario.CONTRADICTING_BIRTH_DATE,
        Scenario.RADIOGRAPH_ONLY,
    }
    assert {scenario_of(index) for index in range(16)} >= lone
    assert sum(scenario_of(index) in lone for index in range(16)) == 4
    assert sum(scenario_of(index) in lone for index in range(8)) == 3


@pytest.mark.parametrize("scenario", list(Scenario))
def test_each_scenario_is_what_it_says(scenario: Scenario) -> None:
    patient = make_patient(4, 2, scenario)
    found = headers(patient)
    assert {dataset.PatientID for dataset in found} == {patient.truth.patient_id}
    gaps = [abs(at(dataset) - at(found[0])) for dataset in found[1:]]
    week = timedelta(days=7)
    pairs = scenario.value.startswith("paired") or scenario is Scenario.TWO_ECGS
    assert bool(patient.truth.ecg_uid) == pairs
    if pairs:
        assert gaps[0] <= week
        assert found[1].SOPInstanceUID == patient.truth.ecg_uid
        assert {dataset.PatientBirthDate for dataset in found} == {found[0].PatientBirthDate}
    if scenario is Scenario.TWO_ECGS:
        assert gaps[0] < gaps[1] <= week
    if scenario is Scenario.AP_VIEW:
        assert found[0].ViewPosition == "AP"
    elif scenario is not Scenario.ECG_ONLY:
        assert found[0].ViewPosition == "PA"
    if scenario is Scenario.ECG_NINE_DAYS_AWAY:
        assert gaps == [timedelta(days=9)]
    if scenario is Scenario.CONTRADICTING_BIRTH_DATE:
        assert found[0].PatientBirthDate != found[1].PatientBirthDate
        assert gaps[0] <= week
    if scenario is Scenario.RADIOGRAPH_ONLY:
        assert len(found) == 1
    if scenario is Scenario.ECG_ONLY:
        assert [dataset.Modality for dataset in found] == ["ECG"]


def test_radiographs_vary_in_class_polarity_and_offset() -> None:
    found = [headers(make_patient(index, 5, Scenario.RADIOGRAPH_ONLY))[0] for index in range(6)]
    assert {dataset.Modality for dataset in found} == {"CR", "DX"}
    assert {dataset.PhotometricInterpretation for dataset in found} == {"MONOCHROME1", "MONOCHROME2"}
    assert {"TimezoneOffsetFromUTC" in dataset for dataset in found} == {True, False}
    assert any("=" in str(dataset.PatientName) for dataset in found)


def test_a_japanese_name_is_written_in_three_groups() -> None:
    dataset = headers(make_patient(0, 1, Scenario.RADIOGRAPH_ONLY))[0]
    assert list(dataset.SpecificCharacterSet) == ["", "ISO 2022 IR 87"]
    name = dataset.PatientName
    assert str(name.alphabetic).startswith("Phantom^")
    assert str(name.ideographic).startswith("幻影^")
    assert str(name.phonetic).startswith("げんえい^")


def test_a_certain_patient_can_be_asked_for() -> None:
    when = datetime.fromisoformat("2026-03-04T10:00:00+09:00")
    patient = make_patient(0, 1, Scenario.PAIRED_WAVEFORM, mpap_mmhg=55.5, radiograph_at=when)
    assert patient.truth.mpap_mmhg == 55.5
    assert headers(patient)[0].StudyDate == "20260304"


def test_the_limb_leads_of_a_recording_are_exact() -> None:
    group = headers(make_patient(3, 1, Scenario.PAIRED_WAVEFORM))[1].WaveformSequence[0]
    steps = np.frombuffer(group.WaveformData, "<i2").reshape(-1, 12).T.astype(int)
    assert steps.shape == (12, 5000)
    one, two = steps[0], steps[1]
    assert (steps[2] == two - one).all()
    assert (2 * steps[3] == -(one + two)).all()
    assert (2 * steps[4] == 2 * one - two).all()
    assert (2 * steps[5] == 2 * two - one).all()


@pytest.mark.parametrize("index", [3, 6])
def test_the_readers_see_the_same_heart_on_paper_and_in_samples(index: int) -> None:
    forms = (Scenario.PAIRED_WAVEFORM, Scenario.PAIRED_PDF_3X4, Scenario.PAIRED_PDF_6X2)
    seen = [read(make_patient(index, 1, form).objects[1].part10, style=RenderStyle()) for form in forms]
    for page in seen[1:]:
        shown = np.isfinite(page.signals_mv)
        assert shown.any(axis=1).all()
        across = np.corrcoef(seen[0].pixels.ravel(), page.pixels.ravel())[0, 1]
        assert across > 0.85


def test_the_signs_follow_the_pressure_in_the_published_direction() -> None:
    # Seeded, over many patients, since each examination scatters around the truth.
    rng = np.random.default_rng(3)
    mild = [(chest_signs(14, rng), ecg_signs(14, rng)) for _ in range(60)]
    severe = [(chest_signs(55, rng), ecg_signs(55, rng)) for _ in range(60)]

    def rise(of: Callable[[object, object], float]) -> float:
        return float(np.mean([of(*pair) for pair in severe]) - np.mean([of(*pair) for pair in mild]))

    assert rise(lambda chest, _: chest.cardiothoracic_ratio) > 0.05  # type: ignore[attr-defined]
    assert rise(lambda chest, _: chest.main_artery_mm) > 5  # type: ignore[attr-defined]
    assert rise(lambda chest, _: chest.right_descending_artery_mm) > 4  # type: ignore[attr-defined]
    assert rise(lambda chest, _: chest.right_border_share) > 0.05  # type: ignore[attr-defined]
    assert rise(lambda _, ecg: ecg.axis_degrees) > 45  # type: ignore[attr-defined]
    assert rise(lambda _, ecg: ecg.r_mv[0]) > 0.5  # type: ignore[attr-defined]
    assert rise(lambda _, ecg: ecg.s_mv[5]) > 0.3  # type: ignore[attr-defined]
    assert rise(lambda _, ecg: ecg.p_ii_mv) > 0.1  # type: ignore[attr-defined]
    assert rise(lambda _, ecg: ecg.t_mv[1]) < -0.2  # type: ignore[attr-defined]


def test_the_radiograph_reads_without_a_finding() -> None:
    for index in range(4):
        part10 = make_patient(index, 6, Scenario.RADIOGRAPH_ONLY).objects[0].part10
        assert read_radiograph(part10, RadiographPreprocessing()).findings == ()


def test_the_command_writes_a_cohort_and_says_so(tmp_path: Path) -> None:
    result = CliRunner().invoke(phantoms, [str(tmp_path / "out"), "--patients", "2", "--seed", "4"])
    assert result.exit_code == 0
    assert "2 patients" in result.output
    assert (tmp_path / "out" / "truth.csv").read_text().count("\n") == 3


def test_the_command_fails_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = CliRunner().invoke(phantoms, [str(tmp_path / "file" / "out"), "--patients", "1"])
    assert result.exit_code == 1
