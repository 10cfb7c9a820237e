"""Storage SCPs to compare, each as a process of its own in a fresh folder: ours and its peers, plain and tuned."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.benchmarks.record import REPOSITORY
from tests.integration.rig import eventually, free_port, listening

SAMPLE_SECONDS = 0.5
"""Between looks at a receiver's memory: each walks its page tables, on the cores that are measured."""
_numbers = itertools.count()
NO_DELAY = {"TCP_NODELAY": "1"}
"""For DCMTK, and Orthanc, which is made with it: without, Nagle's algorithm costs them 40 ms an object."""
ORTHANC_PATH = "/usr/sbin:/usr/bin:/usr/local/bin:/usr/local/sbin"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A receiver that can be started."""

    name: str
    promise: str  # what its success means
    ae_title: str
    command: Callable[[Path, int], list[str]]  # from a fresh folder and a port
    program: str = ""  # looked up on PATH; "" needs none


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a receiver's processes used while it was measured."""

    cpu_seconds: float
    peak_rss_bytes: int


class Running:
    """A started receiver. `begin` and `end` stand around a measurement."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.port = port
        self._process = psutil.Process(process.pid)
        self._peak = 0
        self._cpu = 0.0
        self._stop = threading.Event()
        self._sampler: threading.Thread | None = None

    def begin(self) -> None:
        """Start counting."""
        self._peak, self._cpu = 0, self._used()
        self._stop.clear()
        self._sampler = threading.Thread(target=self._sample)
        self._sampler.start()

    def end(self) -> Cost:
        """Stop counting."""
        self._stop.set()
        if self._sampler is not None:
            self._sampler.join()
        return Cost(cpu_seconds=self._used() - self._cpu, peak_rss_bytes=self._peak)

    def _used(self) -> float:
        """CPU seconds of the process, of children that ended and of children that live."""
        times = self._process.cpu_times()
        used = times.user + times.system + times.children_user + times.children_system
        for child in self._process.children(recursive=True):
            try:
                own = child.cpu_times()
            except psutil.NoSuchProcess:
                continue
            used += own.user + own.system
        return used

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            total = 0
            for process in (self._process, *self._process.children(recursive=True)):
                try:
                    # Pages of mapped files (read-only) and of the fork's parent count once in USS.
                    total += process.memory_full_info().uss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
            self._peak = max(self._peak, total)


@contextmanager
def running(kind: Kind, folder: Path) -> Iterator[Running]:
    """Start a receiver in a fresh folder under `folder`, wait until it listens, and end it by its process id.

    What it kept is emptied, not removed: for minutes after files were removed, ext4 searches past each of their inodes
    when it makes new ones (`recently_deleted`), and the next receiver would pay for this one.
    """
    folder = folder / f"{next(_numbers)}"
    folder.mkdir(parents=True)
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            kind.command(folder, port), stdout=log, stderr=log, cwd=REPOSITORY, env=os.environ | NO_DELAY
        )
    try:
        eventually(lambda: process.poll() is not None or listening(port), 60, f"{kind.name} listens")
        if process.poll() is not None:
            raise RuntimeError(f"{kind.name} ended: {(folder / 'log').read_text(errors='replace')[-400:]}")
        time.sleep(0.3)
        yield Running(process, port)
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for path in folder.rglob("*"):
            if path.is_file():
                os.truncate(path, 0)


def available() -> tuple[list[Kind], list[Kind]]:
    """What can be started here, and what lacks its program."""
    here, missing = [], []
    for kind in KINDS:
        found = not kind.program or shutil.which(kind.program, path=f"{ORTHANC_PATH}:/usr/bin:/bin") is not None
        (here if found else missing).append(kind)
    return here, missing


def _pulmolink(module: str, receivers: int) -> Callable[[Path, int], list[str]]:
    def command(folder: Path, port: int) -> list[str]:
        config = folder / "pulmolink.toml"
        config.write_text(
            f'[node]\nport = {port}\nreceivers = {receivers}\n[storage]\ndatabase = "sqlite:///{folder}/rows.db"\n'
            f'objects = "{folder}/objects"\n[log]\nlevel = "warning"\n',
            encoding="utf-8",
        )
        one = [sys.executable, "-m", module, "--config", str(config), "receive"]
        # `serve` would start them, and workers that share the cores.
        each = """trap 'kill $(jobs -p); wait' TERM; for _ in $(seq "$0"); do "$@" & done; wait; wait"""
        return one if receivers == 1 else ["bash", "-c", each, str(receivers), *one]

    return command


def _orthanc(*, tuned: bool) -> Callable[[Path, int], list[str]]:
    def command(folder: Path, port: int) -> list[str]:
        settings: dict[str, object] = {
            "Name": "bench",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "index"),
            "DicomAet": "ORTHANC",
            "DicomPort": port,
            "HttpServerEnabled": False,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowEcho": True,
            "Plugins": [],
        }
        if tuned:
            settings |= {
                "SyncStorageArea": False,
                "MaximumPduLength": 131072,
                "StoreMD5ForAttachments": False,
                "DicomThreadsCount": 16,
            }
        config = folder / "orthanc.json"
        config.write_text(json.dumps(settings), encoding="utf-8")
        return [shutil.which("Orthanc", path=ORTHANC_PATH) or "Orthanc", str(config)]

    return command


def _storescp(*options: str) -> Callable[[Path, int], list[str]]:
    def command(folder: Path, port: int) -> list[str]:
        return ["storescp", "--fork", *options, "-od", str(folder), str(port)]

    return command


def _pynetdicom(folder: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "pynetdicom", "storescp", str(port), "-od", str(folder)]


KINDS = (
    Kind(
        name="pulmolink",
        promise="file, folder and row synced",
        ae_title="PULMOLINK",
        command=_pulmolink("pacs_node", 1),
    ),
    Kind(
        name="pulmolink, 2 receivers",
        promise="as pulmolink, node.receivers = 2",
        ae_title="PULMOLINK",
        command=_pulmolink("pacs_node", 2),
    ),
    Kind(
        name="pulmolink, no sync",
        promise="nothing synced: shows what the disk costs",
        ae_title="PULMOLINK",
        command=_pulmolink("tests.benchmarks.unsynced", 1),
    ),
    Kind(
        name="Orthanc",
        promise="files synced, index by SQLite",
        ae_title="ORTHANC",
        command=_orthanc(tuned=False),
        program="Orthanc",
    ),
    Kind(
        name="Orthanc, tuned",
        promise="nothing synced: sync off, 128 kB PDU, no MD5, 16 threads",
        ae_title="ORTHANC",
        command=_orthanc(tuned=True),
        program="Orthanc",
    ),
    Kind(
        name="storescp",
        promise="file written, nothing synced or indexed",
        ae_title="STORESCP",
        command=_storescp(),
        program="storescp",
    ),
    Kind(
        name="storescp, 128 kB, bit-preserving",
        promise="file written, nothing synced or indexed",
        ae_title="STORESCP",
        command=_storescp("+B", "-pdu", "131072"),
        program="storescp",
    ),
    Kind(
        name="pynetdicom storescp",
        promise="file written, nothing synced or indexed",
        ae_title="STORESCP",
        command=_pynetdicom,
    ),
)
"""Every receiver of the side-by-side."""
