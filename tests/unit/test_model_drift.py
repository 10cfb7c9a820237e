"""`model drift` compares what a node estimated with the table its package was evaluated on."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.drift_reference import Directions, DriftReference
from inference.package import locate, read_manifest, read_package, write_package
from inference.prediction import Finding, ModelIdentity, Prediction
from pacs_node.cli import main
from pacs_node.dicom.stack import quiet
from pacs_node.flow.receive import Incoming, Receiver
from pacs_node.settings import load
from storage.database import upgrade
from storage.objects import ObjectStore
from storage.records import MatchState
from storage.store import Store
from tests.unit.flow.headers import NOON, at, encoded, identified, radiograph, waveform

RESULTS = 60
UNUSUAL = Finding(subject="ecg", code="out_of_distribution", severity="warning", detail="far")


def estimate(
    mpap_mmhg: float,
    findings: tuple[Finding, ...],
    model: ModelIdentity,
    components: tuple[tuple[float, ...], tuple[float, ...]],
) -> Prediction:
    return Prediction(
        mpap_mmhg=mpap_mmhg,
        interval_low_mmhg=mpap_mmhg - 9.0,
        interval_high_mmhg=mpap_mmhg + 9.0,
        interval_level=0.9,
        probability_above_20=0.9,
        probability_at_least_25=0.8,
        patch_mpap_mmhg=(mpap_mmhg,) * 9,
        findings=findings,
        model=model,
        code_version="0.1.0",
        seconds=0.1,
        chest_components=components[0],
        ecg_components=components[1],
    )


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo package, as if made with a reference: 300 held-out patients with their components and headers' tags."""
    folder = tmp_path_factory.mktemp("package") / "with-reference-demo"
    sound = read_package(locate("synthetic-demo"))
    rng = np.random.default_rng(6)

    def directions(size: int) -> Directions:
        spread = np.append(np.linspace(9.0, 2.0, 8), np.full(size - 8, 0.05))
        usual, held_out = (rng.normal(0.0, spread, (n, size)).astype(np.float32) for n in (400, 300))
        return Directions.fit(usual, held_out)

    kept = DriftReference(
        chest=directions(1024), ecg=directions(128), predicted_mmhg=rng.normal(46.0, 8.0, 300).astype(np.float32)
    )
    tags = {"radiograph Manufacturer": {"ACME": 200, "OTHER": 100}, "radiograph KVP": {"90": 100, "120": 200}}
    manifest = dataclasses.replace(
        sound.manifest, name="with-reference-demo", data={**sound.manifest.data, "tags": tags}, files={}
    )
    others = {name: value for name, value in sound.calibration.items() if not name.startswith("drift.")}
    write_package(
        folder,
        manifest,
        weights=sound.weights,
        calibration={**others, **kept.to_tensors()},
        golden=sound.golden,
        card="made for a test",
    )
    return folder


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo package, as if made before packages kept anything of their own patients."""
    folder = tmp_path_factory.mktemp("old") / "old-demo"
    sound = read_package(locate("synthetic-demo"))
    data = {name: value for name, value in sound.manifest.data.items() if name != "tags"}
    manifest = dataclasses.replace(sound.manifest, name="old-demo", data=data, files={})
    kept = {name: value for name, value in sound.calibration.items() if not name.startswith("drift.")}
    write_package(folder, manifest, weights=sound.weights, calibration=kept, golden=sound.golden, card="for a test")
    return folder


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, old: Path) -> dict[str, str]:
    """A node with sixty results about 46 mmHg, a quarter of their ECGs unusual; the variables that lead to it."""
    variables = results(tmp_path_factory, read_manifest(old).identity(), ())
    return variables | {"PULMOLINK_MODEL_PACKAGE": str(old)}


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory, package: Path) -> dict[str, str]:
    """The same of `package`: the third component of the ECGs moved by a spread, and another tube voltage."""
    variables = results(
        tmp_path_factory, read_manifest(package).identity(), (0.0, 0.0, 1.2), Manufacturer="Acme", KVP=70
    )
    return variables | {"PULMOLINK_MODEL_PACKAGE": str(package)}


def results(
    tmp_path_factory: pytest.TempPathFactory, identity: ModelIdentity, moved: tuple[float, ...], **tags: object
) -> dict[str, str]:
    quiet()
    folder = tmp_path_factory.mktemp("node")
    variables = {
        "PULMOLINK_STORAGE_DATABASE": f"sqlite:///{folder}/rows.db",
        "PULMOLINK_STORAGE_OBJECTS": str(folder / "objects"),
    }
    upgrade(variables["PULMOLINK_STORAGE_DATABASE"])
    settings = load(None, variables)
    values = np.random.default_rng(3).normal(46.0, 8.0, RESULTS)
    with Store.open(settings.storage.database) as store:
        receiver = Receiver(store, ObjectStore(settings.storage.objects), settings, lambda: datetime.now(UTC))

        rng = np.random.default_rng(8)

        def components() -> tuple[tuple[float, ...], tuple[float, ...]]:
            if not moved:
                return (), ()
            drawn = rng.normal(0.0, 1.0, (2, 8))
            drawn[1, : len(moved)] += moved
            return tuple(drawn[0].tolist()), tuple(drawn[1].tolist())

        def send(dataset: Any, uid: str, patient: int) -> None:
            for name, value in tags.items():
                setattr(dataset, name, value)
            when = at(NOON + timedelta(days=patient))
            receiver.receive(
                Incoming(parts=encoded(identified(dataset, uid, PatientID=f"P{patient}", **when)), calling_ae="M")
            )

        for k in range(RESULTS):
            send(radiograph(), f"1.{k}", k)
            send(waveform(seconds=5), f"2.{k}", k)
            now = datetime.now(UTC)
            match = store.claim_match([MatchState.PAIRED], "w", 60, now)
            assert match is not None
            found = estimate(float(values[k]), (UNUSUAL,) if k % 4 == 0 else (), identity, components())
            assert store.save_prediction(match.match_id, "w", found.to_json(), "r" * 64, now)
    return variables


def reference(path: Path, mean_mmhg: float) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("examination", "patient", "mpap_mmhg", "predicted_mmhg"))
        for k, value in enumerate(np.random.default_rng(4).normal(mean_mmhg, 8.0, 400)):
            writer.writerow((f"E{k}", f"P{k}", 30, f"{value:.3f}"))
    return path


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> int:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["pulmolink", "model", "drift", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_higher_estimates_and_unusual_ecgs_are_drift_and_usual_radiographs_are_not(
    node: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = reference(tmp_path / "reference.csv", 36.0)
    assert run([str(table), "--json"], monkeypatch, node) == 0
    body = json.loads(capsys.readouterr().out)
    output, chest, ecg = body["compared"]
    assert len(body["not_compared"]) == 2  # the package was made before components and tags were kept
    assert body["notice"] == "research use only"
    assert (output["window"], output["reference"], output["drifted"]) == (RESULTS, 400, True)
    assert (chest["happened"], chest["drifted"]) == (0, False)
    assert (ecg["happened"], ecg["drifted"]) == (15, True)
    assert run([str(table)], monkeypatch, node) == 0
    assert capsys.readouterr().out.count("DRIFT") == 2


def test_estimates_as_in_the_reference_are_no_drift(
    node: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([str(reference(tmp_path / "reference.csv", 46.0)), "--json"], monkeypatch, node) == 0
    assert json.loads(capsys.readouterr().out)["compared"][0]["drifted"] is False


def test_a_window_of_few_results_or_of_another_package_is_not_judged(
    node: dict[str, str],
    old: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = str(reference(tmp_path / "reference.csv", 36.0))
    late = (NOON + timedelta(days=RESULTS - 5)).strftime("%Y-%m-%d")
    assert run([table, "--since", late], monkeypatch, node) == 1
    assert "too few to compare" in capsys.readouterr().err
    other = dataclasses.replace(read_manifest(old), version="9.9.9")
    monkeypatch.setattr("inference.package.read_manifest", lambda _package: other)
    assert run([table], monkeypatch, node) == 1
    assert "the window has 0 results, too few to compare" in capsys.readouterr().err


def test_embeddings_and_tags_are_compared_with_those_of_the_packages_own_patients(
    later: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--json"], monkeypatch, later) == 0
    body = json.loads(capsys.readouterr().out)
    found = {item["name"]: item for item in body["compared"]}
    drifted = sorted(name for name, item in found.items() if item["drifted"])
    assert drifted == [
        "ecg embedding, component 3",
        "ecg unlike the model's own data",
        "radiograph KVP",
        "radiograph Manufacturer",
    ]
    assert len([name for name in found if "embedding" in name]) == 16
    assert found["radiograph KVP"]["window_mean"] == 70
    assert body["not_compared"] == []
    assert "P1" not in json.dumps(body)
    assert run([], monkeypatch, later) == 0
    assert capsys.readouterr().out.count("DRIFT") == 4


def test_a_package_without_estimates_of_its_own_asks_for_a_table(
    node: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([], monkeypatch, node) == 2
    assert "give REFERENCE" in capsys.readouterr().err
