"""What a worker does with a claimed match: a real model and real readers on phantoms, without a network."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
import structlog

from inference.phantoms import PhantomPatient, Scenario, make_patient
from inference.predictor import Predictor
from pacs_node.flow.digest import chest_key
from pacs_node.flow.part10 import from_part10, to_part10
from pacs_node.flow.receive import Incoming
from pacs_node.flow.stages import Stages
from pacs_node.flow.worker import Worker
from pacs_node.opening.opener import Opener, OpenerUnavailable
from pacs_node.settings import Limits
from storage.records import Disposition, MatchState
from tests.unit.flow.conftest import Node


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load("synthetic-demo", threads=1)


@pytest.fixture(scope="module")
def opener() -> Iterator[Opener]:
    with Opener(Limits()) as running:
        yield running


@pytest.fixture(scope="module")
def patient() -> PhantomPatient:
    return make_patient(0, 11, Scenario.PAIRED_WAVEFORM)


def worker(node: Node, predictor: Predictor, opener: Opener) -> Worker:
    stages = Stages(node.store, node.objects, predictor, opener, node.settings, node.clock)
    return Worker(node.store, stages, node.settings, node.clock, predictor.identity.digest)


def send(node: Node, content: bytes) -> None:
    node.receiver.receive(Incoming(parts=from_part10(content), calling_ae="TEST"))


def test_a_pair_goes_to_reported(node: Node, predictor: Predictor, opener: Opener, patient: PhantomPatient) -> None:
    for item in patient.objects:
        send(node, item.part10)
    working = worker(node, predictor, opener)
    assert [working.work_one() for _ in range(3)] == [True, True, False]
    (match,) = node.store.matches()
    assert match.state is MatchState.REPORTED
    assert json.loads(match.prediction_json)["model"]["digest"] == predictor.identity.digest


def test_what_a_cpu_made_of_a_radiograph_is_not_fused_on_a_gpu(
    node: Node, predictor: Predictor, opener: Opener, patient: PhantomPatient
) -> None:
    """Guards: two devices differ in the last bits; one report's UID must not stand for either mixture."""
    send(node, patient.objects[0].part10)
    model = node.settings.model
    for device in ("cpu", "cuda"):
        node.settings = node.settings.model_copy(update={"model": model.model_copy(update={"device": device})})
        working = worker(node, predictor, opener)
        assert [working.work_one(), working.work_one()] == [True, False]
    (match,) = node.store.matches()
    assert node.store.chest_features(match.radiograph_id, predictor.identity.digest) is not None
    on_gpu = chest_key(predictor.identity.digest, node.settings)
    assert on_gpu != predictor.identity.digest
    assert node.store.chest_features(match.radiograph_id, on_gpu) is not None


def test_a_result_that_came_too_late_is_not_logged_as_work(
    node: Node, predictor: Predictor, opener: Opener, patient: PhantomPatient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A nearer ECG, or the end of the lease, voids what a worker computes."""
    for item in patient.objects:
        send(node, item.part10)
    (match,) = node.store.matches()
    read = opener.ecg

    def lose_the_lease(*arguments: object) -> object:
        with node.store.transaction() as tx:
            tx.change_match(
                match.match_id,
                state=MatchState.PAIRED,
                reason="",
                ecg_id=match.ecg_id,
                gap_seconds=match.gap_seconds,
                rule_version=match.rule_version,
                due_at=node.clock(),
                now=node.clock(),
            )
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(opener, "ecg", lose_the_lease)
    with structlog.testing.capture_logs() as logged:
        assert worker(node, predictor, opener).work_one()
    assert [entry["event"] for entry in logged if entry.get("match_id")] == ["result_dropped"]
    assert node.store.match(match.match_id).state is MatchState.PAIRED


def test_a_program_that_opens_nothing_is_not_held_against_the_match(
    node: Node, predictor: Predictor, patient: PhantomPatient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacs_node.flow.loop.PAUSE_SECONDS", 0.0)
    for item in patient.objects:
        send(node, item.part10)
    with Opener(Limits(), program=("/nowhere/python",)) as broken:
        with pytest.raises(OpenerUnavailable):
            broken.wait_ready()
        working = worker(node, predictor, broken)
        assert [working.work_one() for _ in range(10)] == [True] * 10
    (match,) = node.store.matches()
    assert (match.state, match.attempts, match.reason) == (MatchState.PAIRED, 0, "")


def test_a_worker_that_is_told_to_stop_does_not_wait_for_what_opens_files(
    node: Node, predictor: Predictor, patient: PhantomPatient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards: a worker that waited out its pause, although the service was ending."""
    monkeypatch.setattr("pacs_node.flow.loop.PAUSE_SECONDS", 3600.0)
    for item in patient.objects:
        send(node, item.part10)
    stop = threading.Event()
    stop.set()
    with Opener(Limits(), program=("/nowhere/python",)) as broken:
        assert worker(node, predictor, broken).work_one(stop)
    (match,) = node.store.matches()
    assert (match.state, match.attempts) == (MatchState.PAIRED, 0)


def test_a_failed_try_is_forgotten_when_one_succeeds(
    node: Node, predictor: Predictor, opener: Opener, patient: PhantomPatient, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(node, patient.objects[0].part10)
    working = worker(node, predictor, opener)
    with monkeypatch.context() as broken:
        broken.setattr(predictor, "chest", lambda _: 1 / 0)
        working.work_one()
    (match,) = node.store.matches()
    assert match.reason.startswith("waiting_failed: ZeroDivisionError")
    node.clock.now = match.due_at
    assert working.work_one()
    (match,) = node.store.matches()
    assert (match.state, match.reason) == (MatchState.WAITING, "")


def test_a_radiograph_that_cannot_be_used_is_refused_when_it_comes(
    node: Node, predictor: Predictor, opener: Opener, patient: PhantomPatient
) -> None:
    parts = from_part10(patient.objects[0].part10)
    send(node, to_part10(parts)[:-1_000_000])
    working = worker(node, predictor, opener)
    assert working.work_one()
    (match,) = node.store.matches()
    assert (match.state, match.reason.partition(": truncated")[0]) == (MatchState.HELD, "radiograph_refused")
    assert node.store.instance(match.radiograph_id).instance.disposition is Disposition.REFUSED
