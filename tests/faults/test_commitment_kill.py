"""kill -9 between a modality's request and our report: the report still comes (issue 3, storage commitment)."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pacs_node.flow.commitment_answer import Answerer
from pacs_node.service import utc_now
from pacs_node.settings import load
from storage.objects import ObjectStore
from storage.records import RequestState
from storage.store import Store
from tests.faults.test_kill import process_of
from tests.integration.rig import Node, eventually, listening
from tests.unit.dicom.commitment_peers import Modality, ask, named

SETTINGS = """
[[sources]]
ae_title = "MODALITY"
host = "127.0.0.1"
commitment_port = {port}
[commitment]
same_association_seconds = 2
[delivery]
timeout_seconds = 1
first_retry_seconds = 0.5
[worker]
lease_seconds = 1
"""


@pytest.fixture
def modality(tmp_path: Path) -> Modality:
    return Modality(node_port=0)


@pytest.fixture
def node(tmp_path: Path, modality: Modality) -> Node:
    node = Node(tmp_path / "node", extra=SETTINGS.format(port=modality.port))
    node.configure()
    modality.node_port = node.port
    return node


@contextmanager
def answering(node: Node) -> Iterator[None]:
    """A worker's answering thread, without the worker, which takes seconds to start."""
    settings = load(node.config)
    stop = threading.Event()
    with Store.open(settings.storage.database) as store:
        answerer = Answerer(store, ObjectStore(settings.storage.objects), settings, utc_now)
        thread = threading.Thread(target=answerer.run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(20)


def test_a_receiver_killed_after_its_response_and_before_its_report(node: Node, modality: Modality) -> None:
    with process_of(node, "receive") as receiver:
        eventually(lambda: listening(node.port), 30, "the receiver listens")
        with modality.calling() as association:
            assert ask(association, "2.25.1", named("1.2.3")) == 0
            receiver.kill()
            receiver.wait()
    assert modality.heard == []
    with modality.listening(), process_of(node, "work"):
        heard = modality.hears(seconds=60)
        _answered(node)
    assert (heard.transaction_uid, heard.failed) == ("2.25.1", {"1.2.3": 0x0112})


def test_a_receiver_killed_before_its_response_promised_nothing_and_reports_nevertheless(
    node: Node, modality: Modality
) -> None:
    place = ("after", "storage.commitment_requests.CommitmentRequests.add_request")
    with process_of(node, "receive", place) as receiver:
        eventually(lambda: listening(node.port), 30, "the receiver listens")
        with modality.calling() as association, pytest.raises(AttributeError):  # an answer without a status
            ask(association, "2.25.1", named("1.2.3"))
        assert receiver.wait(timeout=20) == -signal.SIGKILL
    with modality.listening(), answering(node):
        modality.hears(seconds=30)


@pytest.mark.parametrize(("moment", "reports"), [("before", 1), ("after", 2)])
def test_a_worker_killed_at_its_report_is_followed_by_another(
    node: Node, modality: Modality, moment: str, reports: int
) -> None:
    """After it, the report is repeated, for nobody knows whether it was heard: it says the same."""
    with process_of(node, "receive"), modality.listening():
        eventually(lambda: listening(node.port), 30, "the receiver listens")
        assert modality.ask("2.25.1", named("1.2.3")) == 0
        place = (moment, "pacs_node.dicom.client.Conversation.report_commitment")
        with process_of(node, "work", place) as doomed:
            assert _ended(doomed) == -signal.SIGKILL
        with answering(node):
            _answered(node)
    assert [(heard.transaction_uid, heard.failed) for heard in modality.heard] == [
        ("2.25.1", {"1.2.3": 0x0112})
    ] * reports


def _ended(process: subprocess.Popen[bytes]) -> int:
    return process.wait(timeout=60)


def _answered(node: Node) -> None:
    with Store.open(load(node.config).storage.database) as store:
        eventually(lambda: store.count_requests() == {RequestState.ANSWERED: 1}, 30, "the confirmation is noted")
