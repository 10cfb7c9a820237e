"""Catheter values brought in later, and a shadow's estimates, beside what a node served: figures, and nobody's name."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from inference.package import MANIFEST, locate, read_manifest
from inference.prediction import ModelIdentity, Prediction
from pacs_node.cli import main
from pacs_node.commands.model_rhc import _why_none
from pacs_node.dicom.stack import quiet
from pacs_node.flow.receive import Incoming, Receiver
from pacs_node.live import beside_catheter, served
from pacs_node.settings import load
from storage.database import upgrade
from storage.objects import ObjectStore
from storage.records import Catheterisation, MatchState
from storage.store import Store
from tests.unit.flow.headers import NOON, at, encoded, identified, radiograph, waveform

PATIENTS = 14
NAME = "SECRET-PATIENT-"
BIAS_SERVED, BIAS_SHADOW = 4.0, 1.0


def estimate(mpap_mmhg: float, model: ModelIdentity) -> Prediction:
    return Prediction(
        mpap_mmhg=mpap_mmhg,
        interval_low_mmhg=mpap_mmhg - 9.0,
        interval_high_mmhg=mpap_mmhg + 9.0,
        interval_level=0.9,
        probability_above_20=0.9,
        probability_at_least_25=0.8,
        patch_mpap_mmhg=(mpap_mmhg,) * 9,
        findings=(),
        model=model,
        code_version="0.1.0",
        seconds=0.1,
    )


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another package: the same files under another version."""
    folder = tmp_path_factory.mktemp("second") / "second-demo"
    shutil.copytree(locate("synthetic-demo"), folder)
    (folder / MANIFEST).write_bytes(dataclasses.replace(read_manifest(folder), version="9.0.0").to_bytes())
    return folder


@pytest.fixture(scope="module")
def measured() -> np.ndarray:
    return np.random.default_rng(5).uniform(15.0, 60.0, PATIENTS).round(1)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, second: Path, measured: np.ndarray) -> dict[str, str]:
    """A node whose estimates lie 4 mmHg above the truth and its shadow's 1 mmHg; the variables that lead to it."""
    quiet()
    folder = tmp_path_factory.mktemp("node")
    variables = {
        "PULMOLINK_STORAGE_DATABASE": f"sqlite:///{folder}/rows.db",
        "PULMOLINK_STORAGE_OBJECTS": str(folder / "objects"),
        "PULMOLINK_PAIRING_DEFAULT_ISSUER": "HOSPITAL",
        "PULMOLINK_MODEL_SHADOW": str(second),
    }
    upgrade(variables["PULMOLINK_STORAGE_DATABASE"])
    settings = load(None, variables)
    noise = np.random.default_rng(3).normal(0.0, 2.0, (2, PATIENTS))
    first, other = read_manifest("synthetic-demo").identity(), read_manifest(second).identity()
    with Store.open(settings.storage.database) as store:
        receiver = Receiver(store, ObjectStore(settings.storage.objects), settings, lambda: datetime.now(UTC))

        def send(dataset: Any, uid: str, patient: int) -> None:
            when = at(NOON + timedelta(days=patient))
            receiver.receive(
                Incoming(parts=encoded(identified(dataset, uid, PatientID=f"{NAME}{patient}", **when)), calling_ae="M")
            )

        for k in range(PATIENTS):
            send(radiograph(), f"1.{k}", k)
            send(waveform(seconds=5), f"2.{k}", k)
            now = datetime.now(UTC)
            match = store.claim_match([MatchState.PAIRED], "w", 60, now)
            assert match is not None
            told = estimate(float(measured[k] + BIAS_SERVED + noise[0, k]), first).to_json()
            assert store.save_prediction(match.match_id, "w", told, "r" * 64, now, shadowed=True)
            due = store.claim_shadow("s", 60, now)
            assert due is not None
            told = estimate(float(measured[k] + BIAS_SHADOW + noise[1, k]), other).to_json() if k else ""
            reason = "" if k else "refused: blank"
            assert store.save_shadow(due.match_id, "s", prediction_json=told, reason=reason, now=now)
    return variables


@pytest.fixture
def run(
    node: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """A command on the node: exit status, output and what it said beside it."""

    def call(*arguments: str) -> tuple[int, str, str]:
        for name, value in node.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["pulmolink", "model", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert NAME not in said.out + said.err
        return int(ended.value.code or 0), said.out, said.err

    return call


def catheter_table(path: Path, measured: np.ndarray, *more: str) -> Path:
    days = [(NOON + timedelta(days=k + 2)).date().isoformat() for k in range(PATIENTS)]
    rows = [f"{NAME}{k},{days[k]},{measured[k]}" for k in range(PATIENTS)]
    path.write_text("\n".join(["patient_id,rhc_date,mpap_mmhg", *rows, *more]) + "\n", encoding="utf-8")
    return path


def test_bad_catheter_rows_are_named_and_nothing_is_kept_of_the_table(
    run: Callable[..., tuple[int, str, str]], measured: np.ndarray, tmp_path: Path
) -> None:
    table = catheter_table(
        tmp_path / "rhc.csv",
        measured,
        f"{NAME}1,2026-03-01,nan",
        f"{NAME}1,2026-03-01,300",
        f"{NAME}1,01/03/2026,30",
        ",2026-03-01,30",
        f"{NAME}1,2026-03-01",
        f"{NAME}2,2026-03-01,30",
        f"{NAME}2,2026-03-01,31",
    )
    status, _, said = run("rhc", "import", str(table))
    assert status == 1
    for row, reason in (
        (15, "not finite"),
        (16, "outside 5 to 120"),
        (17, "not a date"),
        (18, "patient_id is empty"),
        (19, "has 2 cells"),
        (20, "another pressure of that day in row 21"),
        (21, "another pressure of that day in row 20"),
    ):
        assert f"row {row} refused" in said
        assert reason in said
    assert "nothing was kept: 7 rows" in said
    assert "0 catheter values" in run("rhc", "agreement")[1]


def test_a_slip_in_a_column_is_an_error_and_a_foreign_column_is_told(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    table = tmp_path / "rhc.csv"
    table.write_text("patient_id,rhc_dat,mpap_mmhg\nA,2026-03-01,30\n", encoding="utf-8")
    status, _, said = run("rhc", "import", str(table))
    assert (status, "'rhc_dat' for rhc_date" in said) == (1, True)
    table.write_text("patient_id,rhc_date,mpap_mmhg,pvr\n", encoding="utf-8")
    status, _, said = run("rhc", "import", str(table))
    assert (status, "the column 'pvr' is not known" in said) == (0, True)


def test_agreement_and_shadow_are_figured_from_the_store(
    run: Callable[..., tuple[int, str, str]], measured: np.ndarray, tmp_path: Path
) -> None:
    before = json.loads(run("compare", "--live", "--json")[1])
    assert (before["estimates_of_both"], before["without"], before["due"]) == (PATIENTS - 1, {"refused: blank": 1}, 0)
    apart = before["disagreement"]
    assert apart["limits"]["bias"]["value"] == pytest.approx(BIAS_SHADOW - BIAS_SERVED, abs=2.0)
    assert before["against_catheter"] is None

    table = catheter_table(tmp_path / "rhc.csv", measured)
    assert run("rhc", "import", str(table))[:2] == (0, f"{PATIENTS} values kept, 0 known before, 0 rows refused\n")
    assert run("rhc", "import", str(table))[1].startswith(f"0 values kept, {PATIENTS} known before")
    changed = catheter_table(tmp_path / "changed.csv", measured + np.eye(PATIENTS)[3])
    status, _, said = run("rhc", "import", str(changed))
    assert (status, "row 4 refused: another pressure is known" in said) == (3, True)

    found = json.loads(run("rhc", "agreement", "--json", "--out", str(tmp_path / "report"))[1])
    assert (found["pairs"], found["agreement"]["patients"]) == (PATIENTS, PATIENTS)
    assert found["agreement"]["limits_mmhg"]["bias"]["value"] == pytest.approx(BIAS_SERVED, abs=1.5)
    assert NAME not in "".join(
        file.read_text(encoding="utf-8") for file in (tmp_path / "report").iterdir() if file.is_file()
    )
    words = run("rhc", "agreement")[1]
    assert "lower limit of agreement" in words
    assert "research use only" in words

    after = json.loads(run("compare", "--live", "--json", "--out", str(tmp_path / "shadow"))[1])
    nearer = after["against_catheter"]
    assert nearer["patients"] == PATIENTS - 1
    assert nearer["difference"]["absolute_bias"][0] < 0
    assert nearer["share_nearer_shadow"] > 0.5
    assert (tmp_path / "shadow" / "report.html").is_file()
    assert "shadow minus served" in run("compare", "--live")[1]


def test_that_only_the_issuer_keeps_values_and_estimates_apart_is_said() -> None:
    """Guards: eighty values of eighty estimated patients, no pair, and not a word of why."""
    match = SimpleNamespace(patient=SimpleNamespace(issuer="HOSPITAL", patient_id="P1"))
    estimate = cast(Any, SimpleNamespace(match=match))

    def value(issuer: str, patient_id: str) -> Catheterisation:
        return Catheterisation(issuer=issuer, patient_id=patient_id, measured_on=NOON.date(), mpap_mmhg=30.0)

    def why(*values: Catheterisation) -> str:
        return _why_none(values, [estimate], 7.0, "DEFAULT")

    for assumed in ("", "DEFAULT"):
        assert "patients, import it again with --issuer 'HOSPITAL'" in why(value(assumed, "P1"))
    assert why(value("HOSPITAL", "P2")) == ": they are of other patients"
    assert "none within 7 days" in why(value("HOSPITAL", "P1"))
    assert why() == ""


def test_values_of_another_issuer_are_not_advised_to_be_given_to_our_patients() -> None:
    """Guards: another hospital's table imported for our patients, as both count their patients from one."""
    numbers = ("1", "2", "3")
    estimates = [
        cast(Any, SimpleNamespace(match=SimpleNamespace(patient=SimpleNamespace(issuer="OURS", patient_id=number))))
        for number in numbers
    ]

    def values(issuer: str, count: int) -> list[Catheterisation]:
        return [
            Catheterisation(issuer=issuer, patient_id=number, measured_on=NOON.date(), mpap_mmhg=30.0)
            for number in numbers[:count]
        ]

    told = _why_none([*values("ABROAD", 1), *values("THEIRS", 3)], estimates, 7.0, "")
    assert "--issuer" not in told
    assert "3 patient IDs" in told
    assert "of the issuer 'THEIRS'" in told
    assert "other persons unless the site knows better" in told


def test_few_patients_give_no_figures(run: Callable[..., tuple[int, str, str]]) -> None:
    late = (NOON + timedelta(days=PATIENTS - 5)).strftime("%Y-%m-%d")
    found = json.loads(run("compare", "--live", "--json", "--since", late)[1])
    assert found["disagreement"] is None
    assert "10 are needed" in found["too_few"][0]


def test_comparing_needs_two_tables_or_the_store(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    assert run("compare")[0] == 2
    (tmp_path / "a.csv").write_text("x\n", encoding="utf-8")
    assert run("compare", str(tmp_path / "a.csv"), "--live")[0] == 2


def test_a_catheter_value_stands_beside_the_nearest_estimate_of_its_patient_within_the_window(
    node: dict[str, str],
) -> None:
    settings = load(None, node)
    with Store.open(settings.storage.database) as store:
        estimates = served(store, read_manifest("synthetic-demo").identity().digest)
    one, other = estimates[0], estimates[1]
    moment = one.match.radiograph_at
    assert moment is not None
    day = moment.astimezone(ZoneInfo("Asia/Tokyo")).date()

    def value(on: date, patient_id: str = one.match.patient.patient_id, issuer: str = "HOSPITAL") -> Catheterisation:
        return Catheterisation(issuer=issuer, patient_id=patient_id, measured_on=on, mpap_mmhg=30.0)

    def pairs(*values: Catheterisation) -> list[tuple[int, date]]:
        found = beside_catheter(estimates, values, 7, ZoneInfo("Asia/Tokyo"))
        return [(pair.served.match.match_id, pair.catheter.measured_on) for pair in found]

    first = one.match.match_id
    assert pairs(value(day + timedelta(days=7))) == [(first, day + timedelta(days=7))]
    assert pairs(value(day + timedelta(days=8))) == []
    assert pairs(value(day, issuer="ELSEWHERE")) == []
    # One estimate stands beside one value: the nearer.
    assert pairs(value(day + timedelta(days=3)), value(day - timedelta(days=1))) == [(first, day - timedelta(days=1))]
    assert pairs(value(day, patient_id=other.match.patient.patient_id)) == [(other.match.match_id, day)]
