"""kill -9 anywhere loses nothing that was acknowledged and makes no second report (issue 2, must show 3)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from inference.phantoms import PhantomObject, Scenario, make_patient
from pacs_node.dicom.archive import Archive
from pacs_node.dicom.client import Conversation, Outcome, Peer, Unreachable, outcome
from pacs_node.flow.part10 import from_part10
from tests.integration.rig import Node, eventually, free_port, listening

# pynetdicom drops the socket of a refused connection unclosed; the senders here are refused whenever the node is dead.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

SEED = 7
BOUNDARIES = {
    "receive": (
        ("before", "storage.objects.ObjectStore.put"),
        ("after", "storage.objects.ObjectStore.put"),
        ("before", "storage.transaction.Transaction.add_match"),
        ("after", "pacs_node.flow.receive.Receiver.receive"),
    ),
    "work": (
        ("before", "storage.queue.Queue.save_chest"),
        ("after", "storage.queue.Queue.save_chest"),
        ("before", "storage.queue.Queue.save_prediction"),
        ("after", "storage.queue.Queue.save_prediction"),
        ("before", "storage.queue.Queue.save_reports"),
        ("after", "storage.queue.Queue.save_reports"),
        ("before", "pacs_node.dicom.client.Conversation.store"),
        ("after", "pacs_node.dicom.client.Conversation.store"),
        ("after", "storage.deliveries.Deliveries.delivered"),
    ),
}
CASES = [(process, moment, place) for process, places in BOUNDARIES.items() for moment, place in places]


@dataclass
class Sender:
    """Sends phantom objects until each is acknowledged, whatever happens to the node."""

    port: int
    folder: Path
    acknowledged: list[str] = field(default_factory=list)  # SOP Instance UIDs

    def send(self, item: PhantomObject, give_up: threading.Event | None = None) -> None:
        """C-STORE `item` again and again until success."""
        path = self.folder / f"{item.sop_instance_uid}.dcm"
        path.write_bytes(item.part10)
        parts = from_part10(item.part10)
        peer = Peer(
            ae_title="PULMOLINK", host="127.0.0.1", port=self.port, calling_ae_title="SENDER", timeout_seconds=10
        )
        while give_up is None or not give_up.is_set():
            with (
                suppress(Unreachable),
                Conversation(peer, [(parts.sop_class_uid, parts.transfer_syntax_uid)]) as conversation,
            ):
                status = conversation.store(
                    path, sop_class=parts.sop_class_uid, transfer_syntax=parts.transfer_syntax_uid
                )
                if outcome(status) is Outcome.STORED:
                    self.acknowledged.append(item.sop_instance_uid)
                    return
            time.sleep(0.1)


@contextmanager
def process_of(node: Node, name: str, killed_at: tuple[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """One process of the node alone, killed at a boundary if one is given."""
    wrapper = ["-m", "tests.faults.killed_at", *killed_at, "--"] if killed_at else ["-m", "pacs_node"]
    with (node.folder / "node.log").open("ab") as stream:
        process = subprocess.Popen([sys.executable, *wrapper, "--config", str(node.config), name], stderr=stream)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.parametrize(("process", "moment", "place"), CASES, ids=[f"{c[0]}-{c[1]}-{c[2]}" for c in CASES])
def test_a_process_killed_at_a_boundary_and_started_again_ends_in_the_same_state(
    tmp_path: Path, process: str, moment: str, place: str
) -> None:
    patient = make_patient(0, SEED, Scenario.PAIRED_WAVEFORM)
    archive_port = free_port()
    node = Node(tmp_path / "node", {"archive": archive_port}, extra=QUICK)
    node.configure()
    sender = Sender(node.port, tmp_path)
    with Archive(tmp_path / "archive", archive_port, ae_title="ORTHANC") as archive:
        sending = threading.Thread(target=lambda: [sender.send(item) for item in patient.objects])
        if process == "receive":
            with process_of(node, "receive", (moment, place)) as doomed:
                eventually(lambda: listening(node.port), 30, "the receiver listens")
                sending.start()
                assert doomed.wait(timeout=30) == -signal.SIGKILL
            with process_of(node, "receive"), process_of(node, "work"):
                sending.join(timeout=60)
                _reaches_delivered(node)
        else:
            with process_of(node, "receive"):
                with process_of(node, "work", (moment, place)) as doomed:
                    eventually(lambda: listening(node.port), 30, "the receiver listens")
                    sending.start()
                    assert doomed.wait(timeout=60) == -signal.SIGKILL
                sending.join(timeout=60)
                with process_of(node, "work"):
                    _reaches_delivered(node)
        arrivals = archive.arrivals()
    _nothing_lost(node, sender)
    (match,) = node.matches()
    assert (match["revision"], match["supersedes"]) == (1, None)
    assert len({arrival.sop_instance_uid for arrival in arrivals}) == 2
    assert len({(arrival.sop_instance_uid, arrival.sha256) for arrival in arrivals}) == 2, "a resend is the same bytes"


QUICK = "[worker]\nlease_seconds = 3\nretry_seconds = 0.5\n[delivery]\nprobe_seconds = 0.5\n[log]\nlevel = 'warning'\n"
"""Short leases, so that the tests do not wait for those of the dead."""


def _reaches_delivered(node: Node) -> None:
    eventually(lambda: [row["state"] for row in node.matches()] == ["DELIVERED"], 90, "the match is DELIVERED")


def _nothing_lost(node: Node, *senders: Sender) -> None:
    """Every acknowledged instance has a row, and every row its undamaged object."""
    export = node.run("db", "verify", check=False).stdout
    assert all(line.startswith("object_orphaned") or line.endswith(" problems") for line in export.splitlines()), export
    rows = {row[uid] for row in node.matches() for uid in ("radiograph_uid", "ecg_uid")}
    for sender in senders:
        for uid in sender.acknowledged:
            assert uid in rows, "an acknowledged instance is in no match"


def test_thirty_kills_at_random_moments_under_four_senders_lose_nothing(tmp_path: Path) -> None:
    """The moments are drawn with a fixed seed; what runs at them differs from run to run."""
    moments = random.Random(SEED)
    patients = [make_patient(index, SEED, Scenario.PAIRED_WAVEFORM) for index in range(24)]
    archive_port = free_port()
    node = Node(tmp_path / "node", {"archive": archive_port}, extra=QUICK)
    node.configure()
    senders = [Sender(node.port, tmp_path) for _ in range(4)]
    give_up = threading.Event()

    def send(sender: Sender, share: list[PhantomObject]) -> None:
        for item in share:
            sender.send(item, give_up)
            time.sleep(2.0)  # spreads the load over all kills

    shares = [[item for patient in patients[number::4] for item in patient.objects] for number in range(4)]
    threads = [threading.Thread(target=send, args=pair) for pair in zip(senders, shares, strict=True)]
    with Archive(tmp_path / "archive", archive_port, ae_title="ORTHANC") as archive:
        try:
            for kill in range(30):
                node.start()
                if kill == 0:
                    for thread in threads:
                        thread.start()
                time.sleep(moments.uniform(0.0, 6.0))
                node.kill()
            node.start()
            for thread in threads:
                thread.join(timeout=120)
            assert not any(thread.is_alive() for thread in threads), "every object was acknowledged in the end"
            eventually(
                lambda: Counter(row["state"] for row in node.matches()) == {"DELIVERED": len(patients)},
                180,
                "every match is DELIVERED",
            )
        finally:
            give_up.set()
            node.kill()
        arrivals = archive.arrivals()
    _nothing_lost(node, *senders)
    rows = node.matches()
    assert {row["radiograph_uid"]: row["ecg_uid"] for row in rows} == {
        patient.truth.radiograph_uid: patient.truth.ecg_uid for patient in patients
    }
    assert all(row["revision"] == 1 for row in rows)
    assert len({arrival.sop_instance_uid for arrival in arrivals}) == 2 * len(patients)
    same = {(arrival.sop_instance_uid, arrival.sha256) for arrival in arrivals}
    assert len(same) == 2 * len(patients), "a resend is the same bytes"


def test_children_stop_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    node = Node(tmp_path / "node")
    node.start()
    assert node.process is not None
    os.kill(node.process.pid, signal.SIGKILL)
    node.process.wait()
    eventually(lambda: not listening(node.port), 40, "the receiver left its port")
    with node:
        pass
