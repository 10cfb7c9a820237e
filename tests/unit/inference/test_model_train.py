"""`pulmolink model train` and what follows: a run's folder, its package, installing and listing it."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from click.testing import CliRunner, Result

from inference.checkpoint import FILE, RunDiffers
from inference.devices import Workers
from inference.eventlog import EventLog, crc32c
from inference.package import read_package
from inference.phantoms import Forms, write_cohort
from inference.predictions import COLUMNS
from inference.run import Run, RunUnusable
from pacs_node.cli import root

QUICK = ["--backbone", "micro-vit", "--ecg", "micro", "--weights", "none", "--threads", "1", "--device", "cpu"]


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(root, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty phantoms whose table gives its own split, nine of them to calibrate, and one row that cannot be used."""
    out = tmp_path_factory.mktemp("cohort")
    write_cohort(out, patients=20, seed=5, forms=Forms.WAVEFORM)
    lines = (out / "cohort.csv").read_text(encoding="utf-8").splitlines()
    parts = ["train"] * 6 + ["validation"] * 1 + ["calibration"] * 9 + ["test"] * 4
    rows = [f"{line},{part}" for line, part in zip(lines[1:], parts, strict=True)]
    (out / "cohort.csv").write_text("\n".join([lines[0] + ",split", *rows]) + "\n", encoding="utf-8")
    spoilt = "X,none.dcm,none-ecg.dcm,30,2024-05-01,F,50,no,1,north,phantom-cr,train"
    (out / "spoilt.csv").write_text("\n".join([lines[0] + ",split", *rows, spoilt]) + "\n", encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def run(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training with its package."""
    out = tmp_path_factory.mktemp("run")
    options = ["--epochs", "2", "--learning-rate", "1e-3", "--name", "small-demo", "--synthetic"]
    result = call("model", "train", "--cohort", cohort / "cohort.csv", "--data", cohort, "--out", out, *QUICK, *options)
    assert result.exit_code == 0, result.output
    assert "research use only" in result.output
    return out


def test_a_training_leaves_everything_that_is_needed_to_judge_it(run: Path, cohort: Path) -> None:
    assert (run / "history.csv").read_text().splitlines()[0] == "number,loss,validation_mae_mmhg"
    assert len((run / "history.csv").read_text().splitlines()) == 3
    rows = list(csv.DictReader((run / "predictions.csv").read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == list(COLUMNS)
    parts = list(csv.DictReader((run / "split.csv").read_text().splitlines()))
    assert [row["examination"] for row in rows] == [row["examination"] for row in parts if row["part"] == "test"]
    record = Run.read(run)
    assert record.recipe.epochs == 2
    assert record.data["rows"] == 20
    assert record.weights == {"source": "none: random"}


def test_its_package_verifies_and_says_what_it_was_calibrated_on(run: Path) -> None:
    result = call("model", "verify", run / "package")
    assert result.exit_code == 0, result.output
    manifest = read_package(run / "package").manifest
    assert manifest.data["calibrated_on"] == "calibration patients"
    assert manifest.architecture.ecg_branch == "micro-ecg-stand-in"


def test_a_finished_training_called_again_learns_nothing_more(run: Path, cohort: Path) -> None:
    before = (run / FILE).read_bytes()
    options = ["--epochs", "2", "--learning-rate", "1e-3"]
    result = call("model", "train", "--cohort", cohort / "cohort.csv", "--data", cohort, "--out", run, *QUICK, *options)
    assert result.exit_code == 0, result.output
    assert (run / FILE).read_bytes() == before
    other = call(
        "model", "train", "--cohort", cohort / "cohort.csv", "--data", cohort, "--out", run, *QUICK, "--epochs", "3"
    )
    assert other.exit_code == 1
    assert "another training" in str(other.exception) + other.output


@pytest.mark.parametrize(
    "other", [["--seed", "2"], ["--weights", "elsewhere.safetensors"], ["--cohort", "spoilt.csv", "--drop-refused"]]
)
def test_a_folder_of_another_training_is_left_as_it_is(
    run: Path, cohort: Path, tmp_path: Path, other: list[str]
) -> None:
    """Guards: split, refusals and examinations of a finished training replaced before anybody noticed."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("package"))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    options = [str(cohort / text) if text == "spoilt.csv" else text for text in other]
    table = [] if "--cohort" in options else ["--cohort", cohort / "cohort.csv"]
    same = ["--data", cohort, "--out", folder, *QUICK, "--epochs", "2", "--learning-rate", "1e-3"]
    result = call("model", "train", *table, *same, *options)
    assert result.exit_code == 1
    assert "another training" in str(result.exception) + result.output
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_weights_are_known_again_by_their_bytes_not_by_their_files_name(run: Path, tmp_path: Path) -> None:
    from pacs_node.commands.model_train import _check_folder

    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(run / FILE, folder)
    digest = hashlib.sha256(b"first").hexdigest()
    begun = replace(Run.read(run), weights={"source": "vit.safetensors", "sha256": digest, "tokens": 257})
    begun.write(folder)
    weights = tmp_path / "vit.safetensors"
    _check_folder(folder, begun, str(weights))  # a file that is gone: its name is all there is
    weights.write_bytes(b"other")
    with pytest.raises(RunDiffers):
        _check_folder(folder, begun, str(weights))
    (tmp_path / "renamed.safetensors").write_bytes(b"first")
    _check_folder(folder, begun, str(tmp_path / "renamed.safetensors"))


def test_refused_rows_stop_a_training_unless_they_are_dropped(cohort: Path, tmp_path: Path) -> None:
    begin = ["model", "train", "--cohort", cohort / "spoilt.csv", "--data", cohort, "--out", tmp_path, "--epochs", "1"]
    result = call(*begin, *QUICK)
    assert result.exit_code == 1
    assert "row 21 refused" in result.output
    assert (tmp_path / "refused.csv").read_text().splitlines()[1].startswith("21,missing_file,")
    assert not (tmp_path / FILE).exists()
    result = call(*begin, *QUICK, "--drop-refused")
    assert result.exit_code == 3, result.output


def test_a_file_that_was_missing_is_looked_for_again(cohort: Path, tmp_path: Path) -> None:
    """Guards: what was refused once stayed refused, although the file had been put in its place."""
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(cohort, data)
    absent = data / next(csv.DictReader((data / "cohort.csv").read_text(encoding="utf-8").splitlines()))["ecg"]
    absent.rename(data / "elsewhere")
    begin = ["model", "train", "--cohort", data / "cohort.csv", "--out", out, "--read-only", *QUICK]
    result = call(*begin)
    assert result.exit_code == 1
    assert "row 1 refused: missing_file: ECG" in result.output
    (data / "elsewhere").rename(absent)
    result = call(*begin)
    assert result.exit_code == 0, result.output
    assert (out / "refused.csv").read_text() == "row,fault,detail\n"


def test_several_workers_do_not_finish_a_reading_that_was_cut_short(
    run: Path, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards: every worker reading the cohort again, into the same files, at once."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("package", FILE, "refused.csv"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    two = contextlib.nullcontext(Workers(device=torch.device("cpu"), rank=0, count=2))
    monkeypatch.setattr("inference.devices.workers_of", lambda _: two)
    result = call("model", "train", "--cohort", cohort / "cohort.csv", "--data", cohort, "--out", folder, *QUICK)
    assert result.exit_code == 1
    assert "call this with --read-only before torchrun" in result.output
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_table_without_a_usable_row_is_no_cohort(cohort: Path, tmp_path: Path) -> None:
    head, *_ = (cohort / "cohort.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "none.csv").write_text(head + "\n", encoding="utf-8")
    result = call("model", "train", "--cohort", tmp_path / "none.csv", "--out", tmp_path / "run", "--read-only", *QUICK)
    assert result.exit_code == 1
    assert "none.csv holds no row that can be used" in result.output


def test_every_model_command_has_its_line_in_the_help() -> None:
    from pacs_node.commands.model import SHORT_HELPS, model

    assert set(SHORT_HELPS) == set(model.commands)


def test_that_no_package_can_follow_is_said_before_the_training(cohort: Path, tmp_path: Path) -> None:
    """Guards: days of training, and then too few patients to calibrate the interval."""
    head, *rows = (cohort / "cohort.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "few.csv").write_text("\n".join([head, *rows[:12], *rows[16:]]) + "\n", encoding="utf-8")
    options = ["--cohort", tmp_path / "few.csv", "--data", cohort, "--out", tmp_path / "run", "--name", "x-demo"]
    result = call("model", "train", *options, "--synthetic", *QUICK)
    assert result.exit_code == 1
    assert "needs 9 calibration patients, the split has 5" in result.output
    assert not (tmp_path / "run" / FILE).exists()


def test_a_package_of_a_training_that_is_not_finished_is_refused(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    record = json.loads((copy / "run.json").read_text())
    record["recipe"]["epochs"] = 9
    (copy / "run.json").write_text(json.dumps(record))
    result = call("model", "package", copy, "--name", "x-demo", "--synthetic")
    assert isinstance(result.exception, RunUnusable)
    assert "2 of 9 epochs" in str(result.exception)


def test_a_package_is_installed_listed_and_shown_by_its_name(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULMOLINK_MODEL_FOLDER", str(tmp_path / "models"))
    made = call("model", "package", run, "--name", "other-demo", "--synthetic", "--out", tmp_path / "made")
    assert made.exit_code == 0, made.output
    for said in ("installed in", "was installed before"):
        result = call("model", "install", tmp_path / "made")
        assert result.exit_code == 0, result.output
        assert said in result.output
    monkeypatch.setenv("PULMOLINK_MODEL_PACKAGE", "other-demo-0.1.0")
    listed = {row["name"]: row for row in json.loads(call("model", "list", "--json").output)}
    assert listed["other-demo"]["in_use"] is True
    assert listed["synthetic-demo"]["in_use"] is False
    assert call("model", "card", "other-demo-0.1.0").output.startswith("# other-demo 0.1.0")
    assert call("model", "verify", "other-demo-0.1.0").exit_code == 0


def test_a_spoilt_package_is_not_installed(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULMOLINK_MODEL_FOLDER", str(tmp_path / "models"))
    copy = tmp_path / "copy"
    shutil.copytree(run / "package", copy)
    card = copy / "MODEL_CARD.md"
    card.write_bytes(card.read_bytes().replace(b"Research", b"Clinical"))
    for command in ("install", "card"):
        result = call("model", command, copy)
        assert result.exit_code == 1
        assert "MODEL_CARD.md" in str(result.exception)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--backbone", "micro-vit"], "no published weights"),
        (["--backbone", "micro-vit", "--weights", "none", "--ecg", "none", "--name", "x-demo"], "from both inputs"),
        (["--backbone", "micro-vit", "--weights", "none", "--name", "mine", "--synthetic"], "says demo"),
        ([*QUICK, "--precision", "bf16"], "a CPU trains in fp32"),
        ([*QUICK, "--name", "My Model"], "--name: lower-case letters"),
        ([*QUICK, "--name", "mine", "--package-version", "1"], "--package-version: a semantic version"),
        (["--storage", *QUICK], "either --data FOLDER or --storage"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(
    cohort: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    result = call("model", "train", "--cohort", cohort / "cohort.csv", "--data", cohort, "--out", tmp_path, *options)
    assert result.exit_code in {1, 2}
    assert said in result.output + str(result.exception)
    assert not (tmp_path / FILE).exists()


def test_the_events_file_is_a_chain_of_records_with_the_right_checksums(tmp_path: Path) -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    log = EventLog(tmp_path, 1000.0)
    log.scalars(300, {"loss": 0.5}, 1001.0)
    log.close()
    data, messages = log.path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        message = data[12 : 12 + length]
        for part, checksum in ((data[:8], data[8:12]), (message, data[12 + length : 16 + length])):
            crc = crc32c(part)
            assert struct.unpack("<I", checksum)[0] == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
        messages.append(message)
        data = data[16 + length :]
    assert b"brain.Event:2" in messages[0]
    assert messages[1][9:12] == b"\x10\xac\x02"  # step 300
    assert b"loss" in messages[1]
    assert struct.pack("<f", 0.5) in messages[1]


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], object]:
    out = tmp_path_factory.mktemp("ablation")
    options = ["--patients", "40", "--epochs", "1", "--only", "vgg16", "--only", "vgg16+ecg", "--out", str(out)]
    result = call("model", "ablate", "--phantoms", "paper", "--micro", "--seeds", "2", "--json", *options)
    assert result.exit_code == 0, result.output
    return {"json": json.loads(result.stdout), "out": out}.__getitem__


def test_an_ablation_gives_each_row_and_the_oracle(ablation: Callable[[str], object]) -> None:
    told = ablation("json")
    assert isinstance(told, dict)
    assert [row["name"] for row in told["rows"]] == ["vgg16", "vgg16+ecg"]
    for row in told["rows"]:
        assert set(row) >= {"name", "mae", "sd", "slope", "r2", "rmse", "bias", "loa"}
        assert row["loa"][0] < row["bias"] < row["loa"][1]
    assert set(told["oracle_r2"]) == {"fused", "chest", "ecg"}
    assert [run["seed"] for run in told["seeds"]] == [1, 2]


def test_processes_that_draw_end_when_the_one_that_started_them_is_killed() -> None:
    """Guards: two processes left at full load after an ablation was killed."""
    program = (
        "from concurrent.futures import ProcessPoolExecutor; from multiprocessing import get_context;"
        "from pacs_node.commands.phantom_examinations import end_with_parent; import os, time;"
        "pool = ProcessPoolExecutor(2, mp_context=get_context('spawn'), initializer=end_with_parent);"
        "list(pool.map(time.sleep, [0.2, 0.2]));"
        "[pool.submit(time.sleep, 600) for _ in range(8)];"
        "print(*pool._processes, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [psutil.Process(int(number)) for number in parent.stdout.readline().split()]
        assert len(children) == 2
        parent.kill()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


@pytest.mark.long
def test_an_ablation_of_the_true_networks_runs_where_there_is_no_gpu(tmp_path: Path) -> None:
    options = [
        "--patients",
        "30",
        "--epochs",
        "1",
        "--dinov2",
        "small",
        "--only",
        "resnet34+ecg",
        "--only",
        "dinov2+ecg",
    ]
    result = call("model", "ablate", "--phantoms", "easy", "--json", "--out", str(tmp_path), *options)
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    assert [row["name"] for row in rows] == ["resnet34+ecg", "dinov2+ecg"]
    assert rows[1]["network"].startswith("vit_small_patch14_dinov2")
    assert rows[1]["weights"] == "random"


def test_an_ablation_leaves_tables_that_can_be_evaluated(ablation: Callable[[str], object]) -> None:
    out = ablation("out")
    assert isinstance(out, Path)
    from inference.evaluation.table import read_table

    (predictions,) = read_table(out / "seed-1" / "vgg16+ecg.csv").models.values()
    assert len(predictions.measured_mmhg) == 8
