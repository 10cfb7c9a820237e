"""Real parts for tests: a node of ours, Orthanc, DICOM files re-tagged to one patient. On loopback, ended by pid."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import FileDataset

START_SECONDS = 60.0


def free_port() -> int:
    """A loopback port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of `condition` within `seconds`; fails by name otherwise."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)


def listening(port: int) -> bool:
    """Whether somebody accepts connections on `port`."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@dataclass
class Node:
    """`pulmolink serve` as a process, in a folder of its own."""

    folder: Path
    destinations: dict[str, int] = field(default_factory=dict)  # name: port; the AE title is ORTHANC
    extra: str = ""  # more TOML, appended
    command: tuple[str, ...] = (sys.executable, "-m", "pacs_node")
    port: int = field(default_factory=free_port)
    web_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "pulmolink.toml"

    @property
    def log(self) -> str:
        """Everything the node wrote to standard error."""
        return (self.folder / "node.log").read_text(encoding="utf-8")

    def configure(self) -> None:
        """Write the configuration file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        destinations = "".join(
            f'[[destinations]]\nname = "{name}"\nae_title = "ORTHANC"\nhost = "127.0.0.1"\nport = {port}\n'
            for name, port in self.destinations.items()
        )
        self.config.write_text(
            f'[node]\nport = {self.port}\nsite_timezone = "Asia/Tokyo"\n'
            f'[storage]\ndatabase = "sqlite:///{self.folder}/pulmolink.db"\nobjects = "{self.folder}/objects"\n'
            f"{destinations}[web]\nport = {self.web_port}\n{self.extra}",
            encoding="utf-8",
        )

    def start(self) -> None:
        """Start `serve` in a process group of its own and wait until it listens."""
        if not self.config.exists():
            self.configure()
        with (self.folder / "node.log").open("ab") as stream:
            self.process = subprocess.Popen(
                [*self.command, "--config", str(self.config), "serve"],
                stderr=stream,
                start_new_session=True,
                env=os.environ | {"PYTHONWARNINGS": "default"},
            )
        process = self.process
        eventually(lambda: process.poll() is not None or listening(self.port), START_SECONDS, "the node listens")
        assert process.poll() is None, f"the node ended: {self.log}"

    def kill(self) -> None:
        """kill -9 of the whole process group."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        """SIGTERM to `serve`; its exit status."""
        if self.process is None:
            return 0
        self.process.terminate()
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            self.process = None

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of `pulmolink` with this node's configuration."""
        return subprocess.run(
            [*self.command, "--config", str(self.config), *arguments],
            capture_output=True,
            text=True,
            check=check,
            timeout=300,
        )

    def json(self, *arguments: str) -> Any:
        """The JSON that a command prints."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def matches(self) -> list[dict[str, Any]]:
        """`matches --json`."""
        rows: list[dict[str, Any]] = self.json("matches")
        return rows

    def __enter__(self) -> Node:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@dataclass
class Orthanc:
    """A real Orthanc with a DICOM and an HTTP port, in a folder of its own."""

    program: str
    folder: Path
    port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until both ports answer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "orthanc.json"
        config.write_text(
            json.dumps(
                {
                    "Name": "test",
                    "StorageDirectory": str(self.folder / "storage"),
                    "IndexDirectory": str(self.folder / "index"),
                    "DicomAet": "ORTHANC",
                    "DicomPort": self.port,
                    "HttpPort": self.http_port,
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "DicomAlwaysAllowStore": True,
                    "DicomAlwaysAllowEcho": True,
                    "DefaultEncoding": "Utf8",
                    "OverwriteInstances": False,
                    "Plugins": [],
                }
            ),
            encoding="utf-8",
        )
        with (self.folder / "orthanc.log").open("ab") as stream:
            self.process = subprocess.Popen([self.program, str(config)], stdout=stream, stderr=stream)
        eventually(lambda: listening(self.port) and listening(self.http_port), START_SECONDS, "Orthanc answers")

    def stop(self) -> None:
        """SIGTERM, then SIGKILL, by its own pid."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def get(self, path: str) -> Any:
        """A JSON resource of its REST interface."""
        return json.loads(self.bytes(path))

    def bytes(self, path: str) -> bytes:
        """A resource of its REST interface as bytes."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=30) as answer:
            return bytes(answer.read())

    def instances(self) -> list[dict[str, str]]:
        """SOP Class, SOP Instance and Study Instance UID of everything it holds, with its own identifier."""
        found = []
        for name in self.get("/instances"):
            tags = self.get(f"/instances/{name}/simplified-tags")
            found.append(
                {
                    "id": name,
                    "sop_class": tags["SOPClassUID"],
                    "uid": tags["SOPInstanceUID"],
                    "study": tags["StudyInstanceUID"],
                    "series": tags["SeriesInstanceUID"],
                }
            )
        return found

    def file(self, name: str, target: Path) -> Path:
        """Download one instance."""
        target.write_bytes(self.bytes(f"/instances/{name}/file"))
        return target

    def __enter__(self) -> Orthanc:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def retag(source: Path, target: Path, **elements: Any) -> FileDataset:
    """Write a copy of a DICOM file with other elements; None deletes one. The copy, for its UIDs."""
    dataset = dcmread(source)
    for keyword, value in elements.items():
        if value is None:
            if keyword in dataset:
                delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    if "SOPInstanceUID" in elements:
        dataset.file_meta.MediaStorageSOPInstanceUID = elements["SOPInstanceUID"]
    dataset.save_as(target, enforce_file_format=False)
    return dataset


def storescu(program: str, port: int, *files: Path, propose: str = "-x=") -> subprocess.CompletedProcess[str]:
    """Send files with DCMTK's storescu; `propose` is its transfer syntax option, such as "-xw" for JPEG 2000."""
    return subprocess.run(
        [program, propose, "-aet", "MODALITY", "-aec", "PULMOLINK", "127.0.0.1", str(port), *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@contextlib.contextmanager
def ended(*parts: Any) -> Iterator[None]:
    """Stop every part at the end, whatever happened."""
    try:
        yield
    finally:
        for part in parts:
            part.kill() if isinstance(part, Node) else part.stop()
