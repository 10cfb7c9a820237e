"""What was acknowledged is there, whoever is killed and however many send it (issue 3, must show 3)."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.benchmarks.replay import Line
from tests.integration.rig import Node, eventually, listening
from tests.unit.dicom.peers import CONTEXTS, Listening, film, stored

Listen = Callable[..., Listening]
SEED = 3


def test_a_row_is_synced_before_the_answer(listen: Listen, tmp_path: Path) -> None:
    """SQLite commits with synchronous=FULL: every commit waits for the disk."""
    node = listen()
    with node.store.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


class Endless:
    """A sender that sends objects one after the other, over as many associations as it takes."""

    def __init__(self, port: int, name: int) -> None:
        self.acknowledged: list[str] = []
        self._port = port
        self._name = name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """End after the object under way."""
        self._stop.set()
        self._thread.join(timeout=60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            with suppress(OSError):
                line = Line("127.0.0.1", self._port, "PULMOLINK", CONTEXTS)
                try:
                    while not self._stop.is_set():
                        uid = f"1.2.{self._name}.{number}"
                        line.socket.sendall(stored(film(uid, PatientID=f"P{self._name}-{number}")))
                        if line.status() == 0:
                            self.acknowledged.append(uid)
                            number += 1
                finally:
                    line.close()
            time.sleep(0.02)


@contextmanager
def receiving(node: Node, receivers: int) -> Iterator[None]:
    """So many receivers of a node, killed in the end."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "pacs_node", "--config", str(node.config), "receive"], stderr=subprocess.DEVNULL
        )
        for _ in range(receivers)
    ]
    try:
        eventually(lambda: listening(node.port), 30, "the receiver listens")
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait()


def configured(folder: Path, receivers: int) -> Node:
    """A node of so many receivers that share a port."""
    node = Node(folder, extra="[log]\nlevel = 'warning'\n")
    node.configure()
    config = node.config.read_text(encoding="utf-8")
    node.config.write_text(config.replace("[node]\n", f"[node]\nreceivers = {receivers}\n"), encoding="utf-8")
    return node


def kill_at_random(folder: Path, kills: int, senders: int, receivers: int) -> None:
    """kill -9 of the receivers at so many random moments under load; the moments' seed is fixed."""
    chance = random.Random(SEED)
    node = configured(folder, receivers)
    running: list[Endless] = []
    for kill in range(kills + 1):
        with receiving(node, receivers):
            if not running:
                running = [Endless(node.port, number) for number in range(senders)]
            if kill == kills:
                time.sleep(0.5)
                for sender in running:
                    sender.stop()
            else:
                time.sleep(chance.uniform(0.05, 0.8))
    _whole(node)
    rows = {row["radiograph_uid"] for row in node.matches()}
    acknowledged = {uid for sender in running for uid in sender.acknowledged}
    assert len(acknowledged) > kills
    assert acknowledged <= rows


def _whole(node: Node) -> None:
    """Every row has its undamaged object."""
    verified = node.run("db", "verify", check=False).stdout
    problems = [line for line in verified.splitlines() if not line.endswith(" problems")]
    assert all(problem.startswith("object_orphaned") for problem in problems), verified


def test_two_receivers_killed_at_five_random_moments_lose_nothing(tmp_path: Path) -> None:
    kill_at_random(tmp_path / "node", kills=5, senders=4, receivers=2)


@pytest.mark.long
def test_receivers_killed_at_two_hundred_random_moments_lose_nothing(tmp_path: Path) -> None:
    kill_at_random(tmp_path / "node", kills=200, senders=8, receivers=1)


def send_at_once(folder: Path, senders: int, times: int) -> None:
    """The same instance from so many senders at the same moment, to two receivers, again and again with another."""
    node = configured(folder, 2)
    statuses: list[int] = []
    together = threading.Barrier(senders)

    def send() -> None:
        with suppress(threading.BrokenBarrierError):
            try:
                line = Line("127.0.0.1", node.port, "PULMOLINK", CONTEXTS)
                for number in range(times):
                    content = stored(film(f"1.2.{number}", PatientID=f"P{number}"))
                    together.wait(60)
                    line.socket.sendall(content)
                    statuses.append(line.status())
                line.release()
            except OSError:
                together.abort()

    with receiving(node, 2):
        threads = [threading.Thread(target=send) for _ in range(senders)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses == [0] * senders * times
    with closing(sqlite3.connect(node.folder / "pulmolink.db")) as database:
        rows = [uid for (uid,) in database.execute("SELECT sop_instance_uid FROM instances")]
    assert sorted(rows) == sorted(f"1.2.{number}" for number in range(times))
    folders = [path for path in (node.folder / "objects").iterdir() if len(path.name) == 2]
    assert sum(len(list(path.iterdir())) for path in folders) == times
    assert list((node.folder / "objects" / "tmp").iterdir()) == []
    _whole(node)


def test_the_same_instance_from_ten_senders_at_once_becomes_one_row_and_one_object(tmp_path: Path) -> None:
    send_at_once(tmp_path / "node", senders=10, times=20)


@pytest.mark.long
def test_the_same_instance_from_ten_senders_at_once_five_hundred_times(tmp_path: Path) -> None:
    send_at_once(tmp_path / "node", senders=10, times=500)
