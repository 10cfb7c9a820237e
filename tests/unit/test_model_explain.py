"""`model explain` tells what one estimate rests on: as a picture, as JSON, and on the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from ecg_ingest.lead_images import LEADS
from inference.phantoms import PhantomPatient, Scenario, make_patient
from inference.phantoms.wrong_films import WrongFilm, make_wrong_film
from pacs_node.cli import main
from pacs_node.dicom.stack import quiet
from storage.database import upgrade

Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Types a command at a node whose storage lies in `tmp_path`."""
    quiet()
    database = f"sqlite:///{tmp_path}/rows.db"
    monkeypatch.setenv("PULMOLINK_STORAGE_DATABASE", database)
    monkeypatch.setenv("PULMOLINK_STORAGE_OBJECTS", str(tmp_path / "objects"))
    monkeypatch.setenv("COLUMNS", "200")
    upgrade(database)

    def typed(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["pulmolink", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    return typed


@pytest.fixture(scope="module")
def patient() -> PhantomPatient:
    return make_patient(1, 77, Scenario.PAIRED_WAVEFORM, mpap_mmhg=48.0)


@pytest.fixture
def files(tmp_path: Path, patient: PhantomPatient) -> tuple[str, str]:
    folder = tmp_path / "given"
    folder.mkdir()
    for item in patient.objects:
        (folder / item.name).write_bytes(item.part10)
    return str(folder / "radiograph.dcm"), str(folder / "ecg.dcm")


def _make_one_person(files: tuple[str, str]) -> None:
    """Give the ECG the radiograph's person."""
    radiograph, ecg = (dcmread(file) for file in files)
    for keyword in ("PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"):
        setattr(ecg, keyword, radiograph.get(keyword, ""))
    ecg.save_as(files[1])


def test_two_files_are_explained_by_a_picture_and_by_numbers_that_hang_together(
    run: Run, files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "explained"
    assert run("model", "explain", *files, "--out", str(out), "--occlusion", "--json") == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told == json.loads((out / "explanation.json").read_text())
    assert told["notice"] == "research use only"
    assert sum(told["patch_share_mmhg"]) == pytest.approx(told["mpap_mmhg"], abs=0.01)
    assert np.mean(told["patch_mpap_mmhg"]) == pytest.approx(told["mpap_mmhg"], abs=0.01)
    assert tuple(told["lead_effect_mmhg"]) == LEADS
    assert np.array(told["occlusion_effect_mmhg"]).shape == (8, 8)
    assert told["interval_mmhg"][0] < told["mpap_mmhg"] < told["interval_mmhg"][1]
    assert told["findings"] == []
    with Image.open(out / "explanation.png") as picture:
        assert picture.mode == "RGB"
        assert min(picture.size) > 1000
    assert {path.name for path in out.iterdir()} == {"explanation.png", "explanation.json"}


def test_without_occlusion_the_places_are_left_out(
    run: Run, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("model", "explain", *files, "--json") == 0
    assert json.loads(capsys.readouterr().out)["occlusion_effect_mmhg"] is None
    assert run("model", "explain", *files) == 0
    printed = capsys.readouterr().out
    assert "their mean is the estimate" in printed
    assert "all twelve" in printed
    assert "research use only" in printed


def test_a_match_of_the_node_is_explained_by_its_number(
    run: Run, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("import", str(Path(files[0]).parent)) == 0
    capsys.readouterr()
    assert run("model", "explain", "--match", "1", "--json") == 0
    of_match = json.loads(capsys.readouterr().out)
    assert run("model", "explain", *files, "--json") == 0
    assert of_match == json.loads(capsys.readouterr().out)


def test_a_match_without_an_ecg_has_nothing_to_explain(
    run: Run, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(files[1]).unlink()
    assert run("import", str(Path(files[0]).parent)) == 0
    assert run("model", "explain", "--match", "1") == 1
    assert "no ECG" in capsys.readouterr().err


def test_a_film_that_is_no_frontal_chest_is_said_to_be_none(
    run: Run, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(files[0]).write_bytes(make_wrong_film(WrongFilm.LATERAL, 1, 77))
    _make_one_person(files)
    assert run("model", "explain", *files, "--json") == 0
    codes = {finding["code"] for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert {"not_frontal_chest", "out_of_distribution"} <= codes


def test_files_of_two_patients_are_refused(
    run: Run, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(files[1]).write_bytes(make_patient(2, 77, Scenario.PAIRED_WAVEFORM).objects[1].part10)
    assert run("model", "explain", *files) == 1
    assert "different patients" in capsys.readouterr().err


@pytest.mark.parametrize(("keyword", "value"), [("IssuerOfPatientID", "ELSEWHERE"), ("PatientBirthDate", "19000101")])
def test_one_id_of_two_people_is_not_explained(
    run: Run, files: tuple[str, str], keyword: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in pairing: an ID counts with its issuer, and a birth date that contradicts shows two people."""
    dataset = dcmread(files[1])
    setattr(dataset, keyword, value)
    dataset.save_as(files[1])
    assert run("model", "explain", *files) == 1
    assert "different patients" in capsys.readouterr().err


def test_an_ap_film_is_explained_with_a_word_that_the_service_would_not_take_it(
    run: Run, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(files[0]).write_bytes(make_patient(1, 77, Scenario.AP_VIEW).objects[0].part10)
    _make_one_person(files)
    assert run("model", "explain", *files, "--json") == 0
    assert "view_ap" in capsys.readouterr().err


def test_what_cannot_be_read_is_refused_with_the_readers_reason(
    run: Run, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(files[0]).write_bytes(b"no film")
    assert run("model", "explain", *files) == 1
    assert "the radiograph is refused: not_dicom" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["only-one.dcm"], ["a.dcm", "b.dcm", "--match", "1"]])
def test_either_two_files_or_a_match_is_asked_for(
    run: Run, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("model", "explain", *arguments) == 2
    assert "RADIOGRAPH" in capsys.readouterr().err
