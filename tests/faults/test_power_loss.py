"""Power is lost at every sync, rename and answer, and calls of the system fail: nothing acknowledged is lost.

The receiver runs as a process with `disk/disk.c` preloaded, which needs a C compiler (issue 3, must show 3).
"""

from __future__ import annotations

import errno
import mmap
import os
import sqlite3
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from pacs_node.dicom.pdata import fragments
from pacs_node.dicom.wire import HEADER, P_DATA
from tests.benchmarks.replay import Line
from tests.faults.disk.replay import Crash, Disk, Operation, Record, crashes, records
from tests.integration.rig import Node, eventually, listening
from tests.unit.dicom.peers import CONTEXTS, film, stored

SOURCE = Path(__file__).parent / "disk" / "disk.c"


@pytest.fixture(scope="session")
def disk_library(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`disk.c`, compiled."""
    library = tmp_path_factory.mktemp("disk") / "disk.so"
    options = ["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-pthread"]
    subprocess.run([tool("cc"), *options, "-o", str(library), str(SOURCE), "-ldl"], check=True, timeout=60)
    return library


@dataclass(frozen=True, kw_only=True)
class Control:
    """Tells the preloaded disk which call fails: `struct control` of `disk.c`."""

    shared: mmap.mmap

    def fail(self, at: int, number: int) -> None:
        """The call `at`, counted from here, fails with this errno; 0: none."""
        struct.pack_into("=i", self.shared, 16, number)
        struct.pack_into("=q", self.shared, 8, 0)
        struct.pack_into("=q", self.shared, 0, at)

    @property
    def failed(self) -> bool:
        """Whether it did."""
        return bool(struct.unpack_from("=q", self.shared, 8)[0])


@dataclass(frozen=True, kw_only=True)
class Preloaded:
    """A node whose receiver runs on the recording disk."""

    node: Node
    log: Path
    control: Control
    at_first: dict[str, bytes]
    folders: list[str]

    def disk(self, *forgets: str) -> Disk:
        """The disk as it was before the receiver started."""
        return Disk(self.node.folder, self.at_first, self.folders, forgets)

    def associate(self) -> Line:
        """An association."""
        return Line("127.0.0.1", self.node.port, "PULMOLINK", CONTEXTS)


@contextmanager
def preloaded(folder: Path, library: Path) -> Iterator[Preloaded]:
    """Start a receiver on the recording disk, in a folder where it ran once before."""
    folder = folder.resolve()
    node = Node(folder / "node", extra="[log]\nlevel = 'warning'\n")
    node.configure()
    node.run("db", "upgrade")
    (node.folder / "objects").mkdir(mode=0o700)
    log, shared = folder / "disk.log", folder / "control"
    shared.write_bytes(bytes(24))
    at_first = {
        str(path.relative_to(node.folder)): path.read_bytes() for path in node.folder.rglob("*") if path.is_file()
    }
    folders = [str(path.relative_to(node.folder)) for path in node.folder.rglob("*") if path.is_dir()]
    environment = {
        "LD_PRELOAD": str(library),
        "DISK_ROOT": str(node.folder),
        "DISK_LOG": str(log),
        "DISK_CONTROL": str(shared),
    }
    with shared.open("r+b") as file, (folder / "receiver.log").open("wb") as told:
        control = Control(shared=mmap.mmap(file.fileno(), 24))
        process = subprocess.Popen(
            [sys.executable, "-m", "pacs_node", "--config", str(node.config), "receive"],
            stderr=told,
            env=os.environ | environment,
        )
        try:
            eventually(lambda: process.poll() is not None or listening(node.port), 30, "the receiver listens")
            yield Preloaded(node=node, log=log, control=control, at_first=at_first, folders=folders)
            assert process.poll() is None, (folder / "receiver.log").read_text(encoding="utf-8")
        finally:
            process.kill()
            process.wait()


def send(line: Line, uid: str, *, comment: str = "", pdu_bytes: int = 16384) -> int:
    """C-STORE of a film; the status."""
    line.socket.sendall(stored(film(uid, PatientID=uid, ImageComments=comment), pdu_bytes=pdu_bytes))
    return line.status()


def acknowledged(run: list[Record]) -> list[str]:
    """The SOP Instance UID that each answer calls stored, "" for other answers."""
    return [_stored_uid(record.payload) for record in run if record.operation is Operation.SENT]


def _stored_uid(payload: bytes) -> str:
    if payload[:1] != bytes((P_DATA,)):
        return ""
    ((_, _, command),) = fragments(memoryview(payload)[HEADER.size :])
    elements, at = {}, 0
    while at < len(command):
        _, element, length = struct.unpack_from("<HHI", command, at)
        elements[element] = bytes(command[at + 8 : at + 8 + length])
        at += 8 + length
    if elements[0x0900] != b"\0\0" or 0x1000 not in elements:
        return ""
    return elements[0x1000].decode().rstrip("\0")


class Inspector:
    """Looks at what survived: acknowledged objects that are gone or damaged, rows whose object is."""

    def __init__(self, scratch: Path, answers: list[str]) -> None:
        self._scratch = scratch
        self._answers = answers
        self._digests: dict[int, tuple[bytes, str]] = {}

    def lost(self, crash: Crash, files: dict[str, bytes]) -> list[str]:
        """What is missing after this crash."""
        for name in ("pulmolink.db", "pulmolink.db-wal", "pulmolink.db-shm"):
            path = self._scratch / name
            path.unlink(missing_ok=True)
            if name in files and not name.endswith("-shm"):  # made of shared memory; no crash leaves it
                path.write_bytes(files[name])
        with closing(sqlite3.connect(self._scratch / "pulmolink.db")) as database:
            assert database.execute("PRAGMA quick_check").fetchone() == ("ok",)
            rows = dict(database.execute("SELECT sop_instance_uid, sha256 FROM instances"))
        told = {uid for uid in self._answers[: crash.sent] if uid}
        missing = [f"{uid}: no row" for uid in told - set(rows)]
        for uid, digest in rows.items():
            content = files.get(f"objects/{digest[:2]}/{digest}")
            if content is None or self._digest(content) != digest:
                missing.append(f"{uid}: {'no object' if content is None else 'damaged object'}")
        return missing

    def _digest(self, content: bytes) -> str:
        known = self._digests.get(id(content))
        if known is None or known[0] is not content:
            known = self._digests[id(content)] = (content, sha256(content).hexdigest())
        return known[1]


def lose_power(folder: Path, library: Path, objects: int) -> None:
    """Four senders, two of them with the same objects; then power is lost at every stop of the run."""
    with preloaded(folder, library) as receiver:
        failed: list[BaseException] = []

        def work(number: int) -> None:
            try:
                line = receiver.associate()
                for one in range(objects):
                    assert send(line, f"1.2.{max(1, number)}.{one}") == 0
                line.release()
            except BaseException as error:  # noqa: BLE001 - told to the test
                failed.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
    run = records(receiver.log)
    answers = acknowledged(run)
    assert sum(map(bool, answers)) == 4 * objects
    inspector = Inspector(folder, answers)
    stops = 0
    for crash in crashes(receiver.disk(), run):
        stops += 1
        assert inspector.lost(crash, crash.files) == []
        assert inspector.lost(crash, crash.ahead) == []
    assert stops > 4 * objects * 4
    # The negative controls: leave one kind of sync out, and the same run has lost what it acknowledged.
    for name, forgets in CONTROLS.items():
        *_, last = crashes(receiver.disk(*forgets(receiver)), run)
        assert inspector.lost(last, last.files), f"without the sync of {name} nothing would be missed"


def _object_folders(receiver: Preloaded) -> tuple[str, ...]:
    return tuple(f"objects/{number:02x}" for number in range(256))


CONTROLS: dict[str, Callable[[Preloaded], tuple[str, ...]]] = {
    "folders": _object_folders,
    "files": lambda _receiver: ("objects/tmp/*",),
    "rows": lambda _receiver: ("pulmolink.db-wal",),
}
"""What the disk forgets."""


def test_power_may_be_lost_at_every_sync_rename_and_answer(tmp_path: Path, disk_library: Path) -> None:
    lose_power(tmp_path, disk_library, 6)


@pytest.mark.long
def test_power_may_be_lost_at_every_sync_rename_and_answer_of_a_long_run(tmp_path: Path, disk_library: Path) -> None:
    lose_power(tmp_path, disk_library, 100)


def fail_each(folder: Path, library: Path, number: int, calls: range, comment: str) -> None:
    """Of an object in small fragments the n-th write, sync, rename or truncation fails, for each n.

    Most calls of a short object are the database's, most of one with a long comment are writes of its fragments.
    """
    with preloaded(folder, library) as receiver:
        line = receiver.associate()
        told = []
        for at in calls:
            uid = f"1.2.{number}.{at}"
            receiver.control.fail(at, number)
            status = send(line, uid, comment=comment, pdu_bytes=40)
            failed = receiver.control.failed
            receiver.control.fail(0, 0)
            told.append(status)
            assert status in {0x0000, 0xA700, 0x0110}
            assert failed or status == 0
            rows = _rows(receiver, uid)
            if status == 0:
                assert len(rows) == 1
                assert sha256(_object(receiver, rows[0]).read_bytes()).hexdigest() == rows[0]
            else:
                assert rows == []
            assert send(line, uid, comment=comment) == 0
            assert len(_rows(receiver, uid)) == 1
        line.release()
        verified = receiver.node.run("db", "verify", check=False).stdout
        assert list((receiver.node.folder / "objects" / "tmp").iterdir()) == []
    assert all(one.startswith("object_orphaned") or one.endswith(" problems") for one in verified.splitlines())
    refused = {errno.ENOSPC: 0xA700, errno.EIO: 0x0110}[number]
    assert told.count(refused) > len(calls) // 4


def _rows(receiver: Preloaded, uid: str) -> list[str]:
    with closing(sqlite3.connect(receiver.node.folder / "pulmolink.db")) as database:
        asked = database.execute("SELECT sha256 FROM instances WHERE sop_instance_uid = ?", (uid,))
        return [digest for (digest,) in asked]


def _object(receiver: Preloaded, digest: str) -> Path:
    return receiver.node.folder / "objects" / digest[:2] / digest


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_a_call_that_fails_is_told_and_the_object_may_come_again(
    tmp_path: Path, disk_library: Path, number: int
) -> None:
    fail_each(tmp_path, disk_library, number, range(1, 80, 4), "")


@pytest.mark.long
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_each_of_three_hundred_calls_may_fail(tmp_path: Path, disk_library: Path, number: int) -> None:
    fail_each(tmp_path, disk_library, number, range(1, 301), "x" * 8000)
