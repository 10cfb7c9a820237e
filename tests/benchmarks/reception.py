"""Instances received a second: by our node (durable before the answer), and by peers on the same machine.

A round sends distinct instances over so many associations at once; its figure is instances over the time from the
first sender's start to the last one's end, association set-up included.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tests.benchmarks.loads import Template, ecg, radiograph
from tests.benchmarks.record import REPOSITORY, Figure, Recorder, load_now
from tests.integration.rig import Orthanc, eventually, free_port, listening

OWN_CLIENT_PROCESSES = 4
"""Python senders share a lock within a process, so associations beyond this are spread over processes."""
LIMIT_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is measured."""

    associations: tuple[int, ...]
    rounds: int
    ecgs: int  # instances a round
    radiographs: int


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """A Storage SCP to send to."""

    name: str
    ae_title: str
    port: int
    durable: str  # what its success promises, as far as known


def measure(node: Receiver, recorder: Recorder, extent: Extent, folder: Path, tell: Callable[[str], None]) -> None:
    """Every combination of object, receiver, client and associations."""
    numbers = count(1, 1)
    clients: dict[str, Callable[[Receiver, int, list[Path]], float]] = {"own client": own_client}
    if shutil.which("storescu"):
        clients = {"storescu": storescu} | clients
    else:
        recorder.skip("receive", "storescu", "DCMTK's storescu is not installed (apt install dcmtk)")
    with _peers(recorder, folder) as peers:
        for template, instances in ((ecg(), extent.ecgs), (radiograph(), extent.radiographs)):
            for client, send in clients.items():
                for associations in extent.associations:
                    figures = {}
                    for receiver in (node, *(peers if client == "storescu" else ())):
                        tell(f"{template.subject}, {client}, {associations} associations -> {receiver.name}")
                        figures[receiver.name] = _figure(
                            recorder,
                            template,
                            receiver,
                            (client, send),
                            (associations, instances, extent.rounds),
                            folder,
                            numbers,
                        )
                    _ratios(recorder, figures, node.name)


def _figure(
    recorder: Recorder,
    template: Template,
    receiver: Receiver,
    client: tuple[str, Callable[[Receiver, int, list[Path]], float]],
    size: tuple[int, int, int],
    folder: Path,
    numbers: Iterator[int],
) -> Figure:
    """So many rounds against one receiver. `size` is associations, instances and rounds."""
    associations, instances, rounds = size
    name, send = client
    load = load_now()
    samples = []
    for _ in range(rounds):
        files = template.write(folder / "load", next(numbers) * 1000, instances)
        samples.append(instances / send(receiver, associations, files))
        shutil.rmtree(folder / "load")
    return recorder.add(
        "receive",
        f"{receiver.name} <- {template.subject}, {name}, {associations} associations",
        "instances/s",
        samples,
        load,
        receiver=receiver.name,
        row=f"{template.subject}, {name}, {associations}",
        durable=receiver.durable,
        client=name,
        associations=associations,
        instances=instances,
        bytes_each=len(template.part10),
    )


def _ratios(recorder: Recorder, figures: dict[str, Figure], own: str) -> None:
    """Our median over each peer's of the same load."""
    for name, figure in figures.items():
        if name != own:
            recorder.add(
                "receive, ratio to peer",
                f"{own} / {figure.subject}",
                "times",
                [figures[own].median / figure.median],
                figure.load_before,
                **figure.parameters,
            )


def storescu(receiver: Receiver, associations: int, files: list[Path]) -> float:
    """Seconds that so many storescu processes take to send `files`, each its share over one association."""
    began = time.monotonic()
    running = [
        subprocess.Popen(
            ["storescu", "-R", "-aet", "BENCH", "-aec", receiver.ae_title, "127.0.0.1", str(receiver.port)]
            + [str(path) for path in files[number::associations]],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for number in range(associations)
    ]
    for process in running:
        _, errors = process.communicate(timeout=LIMIT_SECONDS)
        if process.returncode != 0:
            raise RuntimeError(f"storescu to {receiver.name}: {errors.decode(errors='replace')[-500:]}")
    return time.monotonic() - began


def own_client(receiver: Receiver, associations: int, files: list[Path]) -> float:
    """Seconds that our own client takes, start of the Python processes left out."""
    processes = min(associations, OWN_CLIENT_PROCESSES)
    running = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.benchmarks.sender"),
                *(str(receiver.port), receiver.ae_title, str(associations // processes)),
                *map(str, files[number::processes]),
            ],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    times = []
    for process in running:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise RuntimeError("the sender did not start")
    for process in running:
        if process.stdin is not None:
            process.stdin.write("go\n")
            process.stdin.flush()
    for process in running:
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
        if process.returncode != 0:
            raise RuntimeError(f"{receiver.name} did not answer every object of our client with success")
        began, ended = output.split()
        times.append((float(began), float(ended)))
    return max(ended for _, ended in times) - min(began for began, _ in times)


@contextmanager
def _peers(recorder: Recorder, folder: Path) -> Iterator[list[Receiver]]:
    """Orthanc and DCMTK's storescp, where they are installed."""
    found: list[Receiver] = []
    orthanc: Orthanc | None = None
    listener: subprocess.Popen[bytes] | None = None
    try:
        if program := shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin:/usr/local/sbin"):
            orthanc = Orthanc(program, folder / "orthanc")
            orthanc.start()
            durable = "files synced (SyncStorageArea), index by SQLite; 4 DICOM threads, its default"
            found.append(Receiver(name="Orthanc", ae_title="ORTHANC", port=orthanc.port, durable=durable))
        else:
            recorder.skip("receive", "Orthanc", "Orthanc is not installed (apt install orthanc)")
        if program := shutil.which("storescp", path="/usr/bin:/usr/local/bin"):
            port = free_port()
            (folder / "storescp").mkdir()
            listener = subprocess.Popen(
                [program, "--fork", "+B", "-od", str(folder / "storescp"), str(port)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            eventually(lambda: listening(port), 20, "storescp listens")
            durable = "file written, not synced; no index"
            found.append(Receiver(name="storescp", ae_title="STORESCP", port=port, durable=durable))
        else:
            recorder.skip("receive", "storescp", "DCMTK's storescp is not installed (apt install dcmtk)")
        yield found
    finally:
        if listener is not None:
            listener.terminate()
            listener.wait()
        if orthanc is not None:
            orthanc.stop()
