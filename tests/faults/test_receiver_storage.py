"""What was acknowledged is there, whatever the disk or the kernel does (issue 3, item 3)."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.replay import Line
from tests.integration.rig import Node, eventually, listening
from tests.unit.dicom.peers import CONTEXTS, Listening, film, stored

Listen = Callable[..., Listening]
SEED = 3
CALLS = ("open", "write", "writev", "fsync", "rename", "utime")
"""What the way of an object to disk asks of the system."""


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, at: int, number: int) -> Iterator[None]:
    """The call `at`, counted over all of `CALLS` from here on, fails; later ones succeed."""
    count = 0
    guard = threading.Lock()

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal count
            with guard:
                count += 1
                fails = count == at
            if fails:
                raise OSError(number, os.strerror(number))
            return real(*arguments, **keywords)

        return call

    with monkeypatch.context() as system:
        for name in CALLS:
            system.setattr(os, name, wrap(getattr(os, name)))
        yield


def check_failure_at(node: Listening, monkeypatch: pytest.MonkeyPatch, at: int, number: int) -> None:
    """An object under a failing disk: refused and absent, or acknowledged and whole. Then it is sent again."""
    content = film(f"1.2.{at}.{number}")
    line = node.associate()
    with failing(monkeypatch, at, number):
        line.socket.sendall(stored(content))
        status = line.status()
    rows = [row.instance for row in node.store.instances() if row.instance.sop_instance_uid == f"1.2.{at}.{number}"]
    if status == 0:
        assert node.objects.get(rows[0].sha256) == content
    else:
        assert status == (0xA700 if number == errno.ENOSPC else 0x0110)
        assert rows == []
    assert list((node.objects.root / "tmp").iterdir()) == []
    line.socket.sendall(stored(content))
    assert line.status() == 0
    line.release()


class TestDisks:
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
    def test_a_call_that_fails_is_told_and_nothing_half_done_stays(
        self, listen: Listen, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        node = listen()
        for at in range(1, 16):
            check_failure_at(node, monkeypatch, at, number)

    @pytest.mark.long
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
    def test_three_hundred_calls_that_fail(self, listen: Listen, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        """Objects in many small fragments, so that there are so many calls."""
        node = listen()
        for at in range(1, 301):
            content = film(f"1.2.{at}.{number}", ImageComments="x" * 8000)
            line = node.associate()
            with failing(monkeypatch, at, number):
                line.socket.sendall(stored(content, pdu_bytes=40))
                status = line.status()
            assert status in {0, 0xA700, 0x0110}
            line.socket.sendall(stored(content))
            assert line.status() == 0
            line.release()
        assert len(node.store.instances()) == 300
        assert list((node.objects.root / "tmp").iterdir()) == []


class PowerLoss:
    """What a disk holds after power is lost: only what was synced. Watches the calls of this process.

    A file's bytes survive its fsync; a folder's entries survive the folder's. `survivors` is what is left.
    """

    def __init__(self, system: pytest.MonkeyPatch, *, folders_are_synced: bool) -> None:
        self.entries: dict[Path, bytes] = {}  # on disk: path to bytes
        self._synced: dict[int, bytes] = {}  # inode to the bytes that were synced
        real = os.fsync

        def fsync(descriptor: int) -> None:
            real(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if path.is_dir():
                if folders_are_synced:
                    self._keep(path)
            else:
                self._synced[os.fstat(descriptor).st_ino] = path.read_bytes()

        system.setattr(os, "fsync", fsync)

    def _keep(self, folder: Path) -> None:
        for path in folder.iterdir():
            if path.is_file():
                self.entries[path] = self._synced.get(path.stat().st_ino, b"")


@pytest.mark.parametrize("folders_are_synced", [True, False])
def test_after_power_loss_every_acknowledged_object_is_whole(
    listen: Listen, monkeypatch: pytest.MonkeyPatch, folders_are_synced: bool
) -> None:
    """With the negative control: without the folders' sync the same objects are lost, so the test would notice."""
    node = listen()
    with monkeypatch.context() as system:
        disk = PowerLoss(system, folders_are_synced=folders_are_synced)
        line = node.associate()
        for number in range(20):
            line.socket.sendall(stored(film(f"1.2.{number}")))
            assert line.status() == 0
            instance = node.store.instances()[-1].instance
            whole = disk.entries.get(node.objects.path(instance.sha256)) == film(f"1.2.{number}")
            assert whole is folders_are_synced
        line.release()


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


def kill_at_random(folder: Path, kills: int, senders: int, receivers: int) -> None:
    """kill -9 of the receivers at so many random moments under load; the moments' seed is fixed."""
    chance = random.Random(SEED)
    node = Node(folder, extra="[log]\nlevel = 'warning'\n")
    node.configure()
    config = node.config.read_text(encoding="utf-8")
    node.config.write_text(config.replace("[node]\n", f"[node]\nreceivers = {receivers}\n"), encoding="utf-8")
    running: list[Endless] = []
    for kill in range(kills + 1):
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "pacs_node", "--config", str(node.config), "receive"],
                stderr=subprocess.DEVNULL,
            )
            for _ in range(receivers)
        ]
        try:
            eventually(lambda: listening(node.port), 30, "the receiver listens")
            if not running:
                running = [Endless(node.port, number) for number in range(senders)]
            if kill == kills:
                time.sleep(0.5)
                for sender in running:
                    sender.stop()
            else:
                time.sleep(chance.uniform(0.05, 0.8))
        finally:
            for process in processes:
                process.send_signal(signal.SIGKILL)
                process.wait()
    verified = node.run("db", "verify", check=False).stdout
    assert all(one.startswith("object_orphaned") or one.endswith(" problems") for one in verified.splitlines()), (
        verified
    )
    rows = {row["radiograph_uid"] for row in node.matches()}
    acknowledged = {uid for sender in running for uid in sender.acknowledged}
    assert len(acknowledged) > kills
    assert acknowledged <= rows


def test_two_receivers_killed_at_three_random_moments_lose_nothing(tmp_path: Path) -> None:
    kill_at_random(tmp_path / "node", kills=3, senders=4, receivers=2)


@pytest.mark.long
def test_receivers_killed_at_two_hundred_random_moments_lose_nothing(tmp_path: Path) -> None:
    kill_at_random(tmp_path / "node", kills=200, senders=8, receivers=1)
