"""The receiver beside its peers, in turn on one machine: instances a second, CPU, memory, failures, latency.

python -m tests.benchmarks.receive [--quick] [--rounds N] [--only NAME] [--out FOLDER] writes FOLDER/receive.jsonl,
one JSON object a figure, and prints tables. Senders are DCMTK's storescu, and a replaying sender that costs little;
they share the machine's cores with the receiver. Bounds are not asserted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pacs_node.flow.sop_classes import COMPUTED_RADIOGRAPHY, ENCAPSULATED_PDF
from tests.benchmarks import loads
from tests.benchmarks.receivers import NO_DELAY, Cost, Kind, Running, available, running
from tests.benchmarks.record import REPOSITORY, Recorder, load_now
from tests.benchmarks.replay import VERIFICATION, Line, encode

LIMIT_SECONDS = 300.0
SEED = 11
LATENCIES = 100
MANY_ASSOCIATIONS = 100
FILE_COLUMNS = 210
"""Width of the tables where no terminal says one."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """An object size and how many of them a round sends."""

    template: loads.Template
    instances: int


@dataclass(frozen=True, kw_only=True)
class Round:
    """One measurement."""

    seconds: float
    failures: int
    cost: Cost


def main(arguments: list[str]) -> int:
    """Run everything; exit status 0 whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.receive", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of few instances: shows that it runs")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of which the median counts (%(default)s)")
    parser.add_argument("--only", action="append", default=[], help="only receivers whose name begins so (repeatable)")
    parser.add_argument("--associations", default="1,4,16", help="how many at a time (%(default)s)")
    parser.add_argument("--loads", default="ecg,document,radiograph", help="what to send (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("bench-output"), help="folder of receive.jsonl (%(default)s)")
    chosen = parser.parse_args(arguments)
    recorder = Recorder(chosen.out / "receive.jsonl")
    progress = Console(stderr=True)
    here, missing = available()
    for kind in missing:
        recorder.skip("receive", kind.name, f"{kind.program} is not installed")
    kinds = [kind for kind in here if not chosen.only or any(kind.name.startswith(name) for name in chosen.only)]
    associations = [2] if chosen.quick else [int(number) for number in chosen.associations.split(",")]
    with tempfile.TemporaryDirectory(prefix="pulmolink-bench-") as name:
        folder = Path(name)
        own = [kind for kind in kinds if kind.name == "pulmolink"]
        for label in chosen.loads.split(","):
            load = LOADS[label]()
            instances = 8 if chosen.quick else load.instances
            files = load.template.write(folder / label, 1, instances)
            for sender in (storescu, replay):
                # As many as it takes by default, without its peers: none of them may fail.
                for number in [*associations, *([] if chosen.quick or label != "ecg" else [MANY_ASSOCIATIONS])]:
                    plan = Plan(
                        load=load,
                        files=files,
                        sender=sender,
                        associations=number,
                        rounds=1 if chosen.quick else chosen.rounds,
                        folder=folder / "receiver",
                    )
                    _side_by_side(plan, own if number == MANY_ASSOCIATIONS else kinds, recorder, progress)
            for file in files:
                os.truncate(file, 0)  # not removed: see `running`
        _latencies(kinds, recorder, folder, 5 if chosen.quick else LATENCIES)
    console = Console(width=None if sys.stdout.isatty() else FILE_COLUMNS)
    _show_costs(recorder, console)
    recorder.show(console)
    return 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is sent, how and how often."""

    load: Load
    files: list[Path]
    sender: Callable[[Running, Kind, int, list[Path]], tuple[float, int]]
    associations: int
    rounds: int
    folder: Path

    @property
    def subject(self) -> str:
        """In words."""
        return f"{self.load.template.subject}, {self.sender.__name__}, {self.associations} associations"


def _side_by_side(plan: Plan, kinds: Sequence[Kind], recorder: Recorder, progress: Console) -> None:
    medians: dict[str, float] = {}
    rounds: dict[str, list[Round]] = {kind.name: [] for kind in kinds}
    before = load_now()
    # Receivers in turn within each round, so that a disturbance of the machine meets all of them.
    for number in range(plan.rounds):
        for kind in kinds:
            progress.print(f"[dim]{plan.subject} -> {kind.name}, round {number + 1}[/]", highlight=False)
            rounds[kind.name].append(_round(plan, kind))
    for kind in kinds:
        measured = rounds[kind.name]
        count, size = len(plan.files), len(plan.load.template.part10)
        rates = [(count - one.failures) / one.seconds for one in measured]
        figure = recorder.add(
            "receive",
            f"{plan.subject} -> {kind.name}",
            "instances/s",
            rates,
            before,
            receiver=kind.name,
            row=plan.subject,
            promise=kind.promise,
            sender=plan.sender.__name__,
            associations=plan.associations,
            instances=count,
            bytes_each=size,
            megabytes_a_second=round(statistics.median(rates) * size / 1e6, 1),
            cpu_ms_each=round(statistics.median(one.cost.cpu_seconds for one in measured) / count * 1e3, 3),
            peak_memory_mb=round(max(one.cost.peak_rss_bytes for one in measured) / 1e6, 1),
            failures=sum(one.failures for one in measured),
        )
        medians[kind.name] = figure.median
    own = medians.get("pulmolink")
    for name, median in medians.items():
        if own is not None and median and not name.startswith("pulmolink"):
            ratio = [own / median]
            recorder.add("receive, pulmolink / peer", f"{plan.subject} / {name}", "times", ratio, before, receiver=name)


def _show_costs(recorder: Recorder, console: Console) -> None:
    """What a receiver used for it."""
    title = "receiver's CPU ms an instance, peak memory in MB, failures"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    figures = [figure for figure in recorder.figures if figure.benchmark == "receive"]
    receivers = list(dict.fromkeys(figure.parameters["receiver"] for figure in figures))
    for name in ("object, client, associations", *receivers):
        table.add_column(name, justify="left" if not table.columns else "right", no_wrap=bool(table.columns))
    rows: dict[str, dict[str, str]] = {}
    for figure in figures:
        said = figure.parameters
        told = f"{said['cpu_ms_each']:.2f}  {said['peak_memory_mb']:.0f}  {said['failures']}"
        rows.setdefault(said["row"], {})[said["receiver"]] = told
    for row, found in rows.items():
        table.add_row(row, *(found.get(name, "") for name in receivers))
    console.print(table)


def _round(plan: Plan, kind: Kind) -> Round:
    with running(kind, plan.folder) as receiver:
        receiver.begin()
        try:
            seconds, good = plan.sender(receiver, kind, plan.associations, plan.files)
        finally:
            cost = receiver.end()
    return Round(seconds=seconds, failures=len(plan.files) - good, cost=cost)


def storescu(receiver: Running, kind: Kind, associations: int, files: list[Path]) -> tuple[float, int]:
    """Seconds that so many storescu processes take, and how many objects were answered with success."""
    with contextlib.ExitStack() as opened:
        # Files: a full pipe would halt every sender but the one that is being read.
        logs = [opened.enter_context(tempfile.TemporaryFile()) for _ in range(associations)]
        began = time.monotonic()
        processes = [
            subprocess.Popen(
                ["storescu", "-v", "-R", "-aet", "BENCH", "-aec", kind.ae_title, "127.0.0.1", str(receiver.port)]
                + [str(path) for path in files[number::associations]],
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=os.environ | NO_DELAY,
            )
            for number, log in enumerate(logs)
        ]
        for process in processes:
            try:
                process.wait(timeout=LIMIT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        seconds = time.monotonic() - began
        good = 0
        for log in logs:
            log.seek(0)
            good += log.read().count(b"Received Store Response (Success)")
    return seconds, good


def replay(receiver: Running, kind: Kind, associations: int, files: list[Path]) -> tuple[float, int]:
    """The same by `tests.benchmarks.replay`."""
    command = [sys.executable, "-m", "tests.benchmarks.replay", "127.0.0.1", str(receiver.port), kind.ae_title]
    process = subprocess.Popen(
        [*command, str(associations), *map(str, files)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    if process.stdout is None or process.stdin is None or process.stdout.readline() != "ready\n":
        process.kill()
        process.wait()
        return LIMIT_SECONDS, 0
    try:
        told, _ = process.communicate("go\n", timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return LIMIT_SECONDS, 0
    if not told:
        return LIMIT_SECONDS, 0
    began, ended, good = told.split()
    return float(ended) - float(began), int(good)


def _latencies(kinds: Sequence[Kind], recorder: Recorder, folder: Path, times: int) -> None:
    """Association, C-ECHO and release; and one small C-STORE on an open association."""
    template = loads.ecg()
    files = template.write(folder / "latency", 1, times)
    contexts = [(VERIFICATION, "1.2.840.10008.1.2"), ("1.2.840.10008.5.1.4.1.1.9.1.1", "1.2.840.10008.1.2.1")]
    for kind in kinds:
        before = load_now()
        with running(kind, folder / "receiver") as receiver:
            echoes, stores = [], []
            for _ in range(times):
                began = time.perf_counter()
                line = Line("127.0.0.1", receiver.port, kind.ae_title, contexts)
                line.echo()
                line.release()
                echoes.append((time.perf_counter() - began) * 1e3)
            line = Line("127.0.0.1", receiver.port, kind.ae_title, contexts)
            for number, file in enumerate(files):
                pdus = encode(file.read_bytes(), 3, number + 1, line.pdu_bytes)
                began = time.perf_counter()
                line.socket.sendall(pdus)
                line.status()
                stores.append((time.perf_counter() - began) * 1e3)
            line.release()
        recorder.add("latency", f"association, C-ECHO, release: {kind.name}", "ms", echoes, before)
        recorder.add("latency", f"C-STORE of {template.subject}: {kind.name}", "ms", stores, before)


def _document() -> loads.Template:
    """An ECG as Encapsulated PDF whose stream is 0.5 MB of noise: nothing opens it on reception."""
    dataset = _identified(ENCAPSULATED_PDF, "ECG")
    dataset.DocumentTitle = "12 lead ECG"
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocument = np.random.default_rng(SEED).bytes(500_000)
    return _template(dataset, "document")


def _radiograph() -> loads.Template:
    """A PA radiograph of 10 MB, uncompressed noise."""
    dataset = _identified(COMPUTED_RADIOGRAPHY, "CR")
    dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", "PA"
    dataset.Rows = dataset.Columns = 2236
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = np.random.default_rng(SEED).bytes(2236 * 2236 * 2)
    return _template(dataset, "radiograph")


def _identified(sop_class: str, modality: str) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.Modality = sop_class, modality
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.9.3811.77.1.000000000"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.826.0.1.3680043.9.3811.77.2", "1.2.826.0.1.77.3"
    dataset.PatientID, dataset.PatientName = "BENCHMARK-PATIENT-0", "Bench^Mark"
    dataset.StudyDate, dataset.StudyTime = "20260301", "100000"
    return dataset


def _template(dataset: Dataset, subject: str) -> loads.Template:
    with tempfile.TemporaryFile() as file:
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.save_as(file, enforce_file_format=True)
        file.seek(0)
        content = file.read()
    return loads.Template(
        subject=f"{subject} of {len(content) / 1e6:.2g} MB",
        part10=content,
        sop_instance_uid=dataset.SOPInstanceUID,
        patient_id=dataset.PatientID,
    )


LOADS: dict[str, Callable[[], Load]] = {
    "ecg": lambda: Load(template=loads.ecg(), instances=1600),
    "document": lambda: Load(template=_document(), instances=800),
    "radiograph": lambda: Load(template=_radiograph(), instances=64),
}
"""The three sizes of the side-by-side."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
