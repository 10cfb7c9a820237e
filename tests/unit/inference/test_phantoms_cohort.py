"""How much phantoms show is known beforehand; cohorts have visits, forms and a table to train from."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pydicom import dcmread

from inference.phantoms import Difficulty, Forms, Scenario, Shown, make_patient, write_cohort
from inference.phantoms.drawn import draw_examination
from inference.phantoms.patients import plan_visit
from inference.phantoms.pressure import oracle_r2
from inference.radiograph import RadiographPreprocessing, read_radiograph
from pacs_node.commands.phantoms import phantoms


def shown(difficulty: Difficulty, *, patients: int, visit: int = 0) -> tuple[Shown, ...]:
    return tuple(plan_visit(index, 3, difficulty, visit=visit).shown for index in range(patients))


@pytest.mark.parametrize("visit", [0, 1])
def test_the_oracle_of_paper_phantoms_knows_as_much_as_the_paper_says(visit: int) -> None:
    # Seeded; the standard error of a squared correlation of .43 over 12,000 is .007.
    visits = shown(Difficulty.PAPER, patients=12_000, visit=visit)
    known = oracle_r2(visits, visits)
    assert known["fused"] == pytest.approx(0.43, abs=0.02)
    assert known["chest"] == pytest.approx(0.12, abs=0.02)
    assert known["ecg"] == pytest.approx(0.38, abs=0.02)
    assert np.std([one.mpap_mmhg for one in visits]) == pytest.approx(11.45, abs=0.3)
    assert 8.0 <= min(one.mpap_mmhg for one in visits) < max(one.mpap_mmhg for one in visits) <= 75.0


def test_easy_phantoms_show_almost_everything() -> None:
    visits = shown(Difficulty.EASY, patients=2_000)
    assert oracle_r2(visits[:1000], visits[1000:])["fused"] > 0.9


def test_a_later_ecg_still_shows_part_of_the_pressure_of_the_visit_before() -> None:
    first, later = shown(Difficulty.EASY, patients=3_000), shown(Difficulty.EASY, patients=3_000, visit=1)
    change = np.array([b.mpap_mmhg - a.mpap_mmhg for a, b in zip(first, later, strict=True)])
    behind = np.array([one.mpap_mmhg - one.ecg_mmhg for one in later])
    ahead = np.array([one.mpap_mmhg - one.chest_mmhg for one in later])
    assert np.polyfit(change, behind, 1)[0] == pytest.approx(0.35, abs=0.08)
    assert np.polyfit(change, ahead, 1)[0] == pytest.approx(0.0, abs=0.08)


def test_the_visits_of_a_patient_are_one_person_and_other_objects() -> None:
    first, second = (make_patient(3, 1, Scenario.PAIRED_WAVEFORM, visit=visit) for visit in (0, 1))
    headers = [dcmread(io.BytesIO(item.part10)) for visit in (first, second) for item in visit.objects]
    assert len({header.SOPInstanceUID for header in headers}) == 4
    assert len({header.AccessionNumber for header in headers}) == 4
    assert len({(header.PatientID, header.PatientBirthDate, str(header.PatientName)) for header in headers}) == 1
    assert (second.described.radiograph_at - first.described.radiograph_at).days >= 120
    assert [item.name for item in second.objects] == ["radiograph-2.dcm", "ecg-2.dcm"]


def test_a_scanned_ecg_is_a_colour_picture_of_a_page() -> None:
    header = dcmread(io.BytesIO(make_patient(1, 1, Scenario.PAIRED_SCAN).objects[1].part10))
    assert header.SOPClassUID.name == "Secondary Capture Image Storage"
    page = header.pixel_array
    assert page.shape[2] == 3
    assert page.shape[1] > page.shape[0] > 1000
    assert np.median(page) > 220  # paper
    assert page.min() < 60  # ink


def test_drawn_arrays_show_what_the_reader_sees_in_the_object() -> None:
    preprocessing = RadiographPreprocessing()
    drawn = draw_examination(5, 2, Difficulty.PAPER, preprocessing)
    whole = make_patient(5, 2, Scenario.PAIRED_WAVEFORM, difficulty=Difficulty.PAPER)
    read = read_radiograph(whole.objects[0].part10, preprocessing).picture
    assert drawn.shown == whole.shown
    assert drawn.patient_id == whole.truth.patient_id
    assert np.corrcoef(drawn.picture.astype(float).ravel(), read.ravel())[0, 1] > 0.995
    group = dcmread(io.BytesIO(whole.objects[1].part10)).WaveformSequence[0]
    steps = np.frombuffer(group.WaveformData, "<i2").reshape(-1, 12).T
    assert np.allclose(drawn.signals_mv, steps * 0.00125)


def test_a_cohort_of_two_visits_has_a_table_of_its_pairs(tmp_path: Path) -> None:
    truths = write_cohort(tmp_path, patients=3, seed=2, visits=2, forms=Forms.WAVEFORM, difficulty=Difficulty.PAPER)
    assert len(truths) == 6
    rows = list(csv.DictReader((tmp_path / "cohort.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 6
    for row in rows:
        assert (tmp_path / row["radiograph"]).is_file()
        assert (tmp_path / row["ecg"]).is_file()
        assert 15 <= int(row["age"]) <= 95
    assert len((tmp_path / "shown.csv").read_text(encoding="utf-8").splitlines()) == 7


def test_the_command_writes_what_was_asked_for(tmp_path: Path) -> None:
    options = ["--patients", "1", "--difficulty", "paper", "--visits", "2", "--forms", "pdf"]
    result = CliRunner().invoke(phantoms, [str(tmp_path), *options])
    assert result.exit_code == 0, result.output
    assert len(list(tmp_path.rglob("*.dcm"))) == 4
    assert "2 visits" in result.output
