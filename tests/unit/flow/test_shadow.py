"""A second package on live traffic: its answers are kept, nothing of it is reported, and its faults are its own."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from inference.package import MANIFEST, locate, read_manifest
from inference.phantoms import PhantomPatient, Scenario, make_patient
from inference.prediction import Prediction
from inference.predictor import Predictor
from pacs_node.flow.part10 import from_part10
from pacs_node.flow.receive import Incoming
from pacs_node.flow.shadow import ATTEMPTS, RETRY_SECONDS, Shadow
from pacs_node.flow.stages import Stages
from pacs_node.flow.worker import Worker
from pacs_node.opening.opener import Opener
from pacs_node.settings import Limits
from storage.errors import StorageBusy
from storage.records import MatchState
from tests.unit.flow.conftest import Node


@pytest.fixture(scope="module")
def served() -> Predictor:
    return Predictor.load("synthetic-demo", threads=1)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """The same weights under another version: another package, whose answers are known."""
    folder = tmp_path_factory.mktemp("second") / "package"
    shutil.copytree(locate("synthetic-demo"), folder)
    (folder / MANIFEST).write_bytes(replace(read_manifest(folder), version="9.0.0").to_bytes())
    return Predictor.load(folder, threads=1)


@pytest.fixture(scope="module")
def opener() -> Iterator[Opener]:
    with Opener(Limits()) as running:
        yield running


@pytest.fixture(scope="module")
def patient() -> PhantomPatient:
    return make_patient(0, 11, Scenario.PAIRED_WAVEFORM)


@pytest.fixture
def shadowed(make_node: Callable[..., Node], patient: PhantomPatient, served: Predictor, opener: Opener) -> Node:
    """A node with a shadow configured, whose worker has estimated and reported a pair."""
    destination = {"name": "pacs", "ae_title": "PACS", "host": "localhost", "port": 104}
    node = make_node(model={"shadow": "second"}, destinations=[destination])
    for item in patient.objects:
        node.receiver.receive(Incoming(parts=from_part10(item.part10), calling_ae="TEST"))
    stages = Stages(node.store, node.objects, served, opener, node.settings, node.clock)
    worker = Worker(node.store, stages, node.settings, node.clock, served.identity.digest)
    while worker.work_one():
        pass
    return node


def shadow(node: Node, predictor: Predictor, opener: Opener) -> Shadow:
    return Shadow(node.store, node.objects, predictor, opener, node.clock)


def rows_of(node: Node) -> tuple[object, ...]:
    """Everything that reports, deliveries and the pages of a node are made of."""
    (match,) = node.store.matches()
    return match, node.store.reports(match.match_id), node.store.deliveries()


def test_the_shadow_says_the_same_of_the_same_weights_and_only_its_own_row_holds_it(
    shadowed: Node, second: Predictor, opener: Opener
) -> None:
    before = rows_of(shadowed)
    objects = set(shadowed.objects.digests())
    working = shadow(shadowed, second, opener)
    assert [working.work_one(), working.work_one()] == [True, False]
    (row,) = shadowed.store.shadows()
    told, (match,) = Prediction.from_json(row.prediction_json), shadowed.store.matches()
    first = Prediction.from_json(match.prediction_json)
    assert told.model == second.identity
    assert told.mpap_mmhg == pytest.approx(first.mpap_mmhg, abs=1e-3)
    assert told.findings == first.findings
    assert rows_of(shadowed) == before
    assert set(shadowed.objects.digests()) == objects
    assert match.state is MatchState.REPORTED


def test_no_report_says_anything_of_the_shadow(shadowed: Node, second: Predictor, opener: Opener) -> None:
    shadow(shadowed, second, opener).work_one()
    (match,) = shadowed.store.matches()
    for report in shadowed.store.reports(match.match_id):
        content = shadowed.objects.get(report.sha256)
        assert read_manifest(locate("synthetic-demo")).version.encode() in content or report.kind.value == "overlay"
        assert second.identity.version.encode() not in content
        assert second.identity.digest.encode() not in content


def test_a_shadow_that_fails_is_tried_again_and_given_up_while_the_served_estimate_stands(
    shadowed: Node, second: Predictor, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows_of(shadowed)
    monkeypatch.setattr(second, "predict", lambda *_: 1 / 0)
    working = shadow(shadowed, second, opener)
    with structlog.testing.capture_logs() as logged:
        for _ in range(ATTEMPTS):
            assert working.work_one()
            shadowed.clock.now += timedelta(seconds=RETRY_SECONDS)
    assert not working.work_one()
    (row,) = shadowed.store.shadows()
    assert row.done_at is not None
    assert row.reason.startswith("failed: ZeroDivisionError at test_shadow.py:")
    assert [entry["event"] for entry in logged].count("shadow_failed") == ATTEMPTS
    assert rows_of(shadowed) == before


def test_a_package_that_kills_its_process_is_not_tried_for_ever(
    shadowed: Node, second: Predictor, opener: Opener
) -> None:
    """A claim that never ends is all that a crash leaves behind."""
    for number in range(ATTEMPTS):
        assert shadowed.store.claim_shadow(f"killed {number}", 0.0, shadowed.clock()) is not None
    assert shadow(shadowed, second, opener).work_one()
    (row,) = shadowed.store.shadows()
    assert (row.reason.partition(":")[0], row.prediction_json) == ("attempts_spent", "")


def test_a_busy_store_does_not_keep_the_lease_of_what_is_given_up(
    shadowed: Node, second: Predictor, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards: the row stood leased for a quarter of an hour."""
    monkeypatch.setattr("pacs_node.flow.loop.PAUSE_SECONDS", 0.0)
    for number in range(ATTEMPTS):
        assert shadowed.store.claim_shadow(f"killed {number}", 0.0, shadowed.clock()) is not None

    def busy(*_: object, **__: object) -> bool:
        raise StorageBusy("locked")

    working = shadow(shadowed, second, opener)
    with monkeypatch.context() as patch:
        patch.setattr(shadowed.store, "save_shadow", busy)
        assert working.work_one()
    assert working.work_one()
    (row,) = shadowed.store.shadows()
    assert row.reason.partition(":")[0] == "attempts_spent"


def test_an_input_that_the_shadow_cannot_use_is_said_by_its_reason(
    shadowed: Node, second: Predictor, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inference.radiograph import RadiographUnusable, UnusableReason

    def refuse(*_: object) -> None:
        raise RadiographUnusable(UnusableReason.BLANK, "nothing to see")

    monkeypatch.setattr(opener, "radiograph", refuse)
    shadow(shadowed, second, opener).work_one()
    (row,) = shadowed.store.shadows()
    assert row.reason == "refused: blank"


def test_a_shadow_without_anything_to_open_files_gives_the_match_back_and_stops_when_told(
    shadowed: Node, second: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacs_node.flow.loop.PAUSE_SECONDS", 3600.0)
    stop = threading.Event()
    stop.set()
    with Opener(Limits(), program=("/nowhere/python",)) as broken:
        assert shadow(shadowed, second, broken).work_one(stop)
    (row,) = shadowed.store.shadows()
    assert (row.attempts, row.done_at) == (0, None)
    assert shadowed.store.claim_shadow("another", 60.0, shadowed.clock()) is not None


def test_without_a_shadow_configured_nothing_becomes_due(
    node: Node, patient: PhantomPatient, served: Predictor, opener: Opener
) -> None:
    for item in patient.objects:
        node.receiver.receive(Incoming(parts=from_part10(item.part10), calling_ae="TEST"))
    stages = Stages(node.store, node.objects, served, opener, node.settings, node.clock)
    Worker(node.store, stages, node.settings, node.clock, served.identity.digest).work_one()
    assert node.store.shadows() == ()


def test_the_shadow_must_not_be_the_package_that_is_served() -> None:
    from pacs_node.settings import Settings, contradictions

    settings = Settings.model_validate({"model": {"package": "a-1.0.0", "shadow": "a-1.0.0"}})
    assert [problem for problem in contradictions(settings) if problem.startswith("model.shadow")]


def test_a_node_with_a_shadow_runs_it_as_a_process_of_its_own() -> None:
    from pacs_node.service import Supervisor
    from pacs_node.settings import Settings

    with_one = Supervisor(Settings.model_validate({"model": {"shadow": "b-1.0.0"}}), None, lambda _: None)
    without = Supervisor(Settings(), None, lambda _: None)
    names = [[child.name for child in one._children] for one in (with_one, without)]
    assert ("shadow" in names[0], "shadow" in names[1]) == (True, False)


def test_a_shadow_of_no_use_ends_its_own_process_with_a_sentence(tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    variables = {
        "PULMOLINK_STORAGE_DATABASE": f"sqlite:///{tmp_path}/rows.db",
        "PULMOLINK_STORAGE_OBJECTS": str(tmp_path / "objects"),
        "PULMOLINK_MODEL_SHADOW": "no-such-package",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pacs_node", "shadow"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no-such-package: is neither a model package's folder" in done.stderr
