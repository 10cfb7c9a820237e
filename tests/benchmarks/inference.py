"""Measure answering an examination: the plain way, this predictor, other engines, and the machine's own limit.

python -m tests.benchmarks.inference [--model ...] [--rounds N] [--quick] [--out FOLDER] writes FOLDER/inference.jsonl,
one JSON object a figure, and prints a table. Weights are random, the same for all. Each contender is a process of its
own; they take turns, so that whatever else the machine does falls on all alike. An examination is what comes after
reading the files: the picture of 512 x 512 and twelve lead images, to nine values. Bounds are not asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tests.benchmarks.contenders import MODELS, OWN, WAYS
from tests.benchmarks.record import REPOSITORY, Figure, Recorder, load_now

PLAIN = "plain"
ORDER = (PLAIN, "one batch", *OWN, *(name for name in WAYS if name not in {PLAIN, "one batch"}))
DESCRIBED = {
    PLAIN: "timm eager fp32, nine single forwards, the ECG branch each time",
    "one batch": "timm eager fp32, the nine patches in one batch, the ECG once",
    "pulmolink fp32": "this predictor, a package loaded as the worker loads it",
    "pulmolink bf16": "the same, made by `model lower`",
    "pulmolink int8": "the same, made by `model lower`; its share is of the fp32 rate",
    "torch.compile fp32": "weights frozen; load_seconds holds the compilation",
    "onnxruntime int8": "dynamic, per channel; its share is of the fp32 rate",
}


def main(arguments: list[str]) -> int:
    """Run everything; exit status 0 whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.inference", description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="dinov2-large", help="chest encoder (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender (%(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each (%(default)s)")
    parser.add_argument("--only", nargs="*", choices=ORDER, default=ORDER, help="contenders (all); plain always runs")
    parser.add_argument("--quick", action="store_true", help="one turn each, nothing compiled: shows that it runs")
    parser.add_argument(
        "--out", type=Path, default=Path("bench-output"), help="folder of inference.jsonl (%(default)s)"
    )
    chosen = parser.parse_args(arguments)
    recorder = Recorder(chosen.out / "inference.jsonl")
    progress = Console(stderr=True)
    left_out = {"torch.compile fp32"} if chosen.quick else set()
    names = [name for name in ORDER if name == PLAIN or name in {*chosen.only} - left_out]
    with tempfile.TemporaryDirectory(prefix="pulmolink-bench-") as folder:
        bench = Bench(Path(folder), chosen.model, chosen.threads)
        progress.print("[dim]writing one network in every form[/]")
        made = bench.make(names)
        processes: dict[str, Contender] = {}
        try:
            for name in ("gemm", *names):
                progress.print(f"[dim]loading {name}[/]")
                process = Contender(bench, name)
                if process.skipped:
                    recorder.skip("inference", name, process.skipped)
                else:
                    processes[name] = process
            load = load_now()
            for turn in range(1 if chosen.quick else chosen.rounds):
                for name, process in processes.items():
                    progress.print(f"[dim]turn {turn + 1}: {name}[/]")
                    process.turn()
        finally:
            for process in processes.values():
                process.end()
    recorder.skip("inference", "GPU", "this benchmark measures the processor; no GPU was measured")
    report = Report(recorder, processes, made["flops"], load, {"model": chosen.model, "threads": chosen.threads})
    report.record()
    report.show(Console())
    recorder.show_conditions(Console())
    return 0


@dataclass(frozen=True)
class Bench:
    """Where the files of all contenders lie."""

    folder: Path
    model: str
    threads: int

    def command(self, name: str) -> list[str]:
        """What starts the process of `name`."""
        module = "tests.benchmarks.contenders"
        return [sys.executable, "-m", module, name, str(self.folder), self.model, str(self.threads)]

    def make(self, names: list[str]) -> dict[str, Any]:
        """Write what the contenders `names` need; the work of an examination."""
        command = [*self.command("make"), *names]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return dict(json.loads(done.stdout.splitlines()[-1]))


@dataclass
class Contender:
    """The process of one contender."""

    bench: Bench
    name: str
    said: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        # As the worker sets it before torch is loaded; the others keep their libraries' own choice.
        own = {"OMP_WAIT_POLICY": "PASSIVE"} if self.name in OWN else {}
        self._process = subprocess.Popen(
            self.bench.command(self.name),
            cwd=REPOSITORY,
            env=os.environ | own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.ready = self._read()
        self.skipped = self.ready.get("skipped")
        if self.skipped:
            self.end()

    def turn(self) -> None:
        """Measure once."""
        if self._process.stdin is None:
            raise RuntimeError("no pipe")
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.said.append(self._read())

    def of(self, what: str) -> list[float]:
        """What was measured, in the order taken."""
        return [float(said[what]) for said in self.said]

    def end(self) -> None:
        """Let it go."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait(timeout=60)

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self._process.wait(timeout=60)}")
        return dict(json.loads(line))


class Report:
    """What the processes said, as figures and as a table."""

    def __init__(
        self, recorder: Recorder, processes: dict[str, Contender], flops: int, load: float, with_: dict[str, Any]
    ) -> None:
        self._recorder = recorder
        self._gemm = {kind: [said[kind] for said in processes["gemm"].said] for kind in processes["gemm"].said[0]}
        self._contenders = {name: process for name, process in processes.items() if name != "gemm"}
        self._flops, self._load, self._with = flops, load, with_
        self._figures: dict[str, Figure] = {}

    def record(self) -> None:
        """Every figure as a line."""
        for kind, rates in self._gemm.items():
            self._add("gemm", f"matrix multiplication, {kind}", "GFLOP/s", rates)
        plain = self._contenders[PLAIN]
        for name, process in self._contenders.items():
            seconds = process.of("seconds")
            apart = max(abs(a - b) for a, b in zip(process.ready["mmhg"], plain.ready["mmhg"], strict=True))
            self._figures[name] = self._add(
                "examination",
                f"{name}: {DESCRIBED[name]}" if name in DESCRIBED else name,
                "ms",
                [1e3 * value for value in seconds],
                contender=name,
                examinations_a_second=round(1 / statistics.median(seconds), 4),
                processor_seconds=[round(value, 3) for value in process.of("cpu_seconds")],
                times_plain=round(statistics.median(plain.of("seconds")) / statistics.median(seconds), 3),
                gflop=round(self._flops / 1e9, 1),
                share_of_gemm=round(self._share(name, statistics.median(seconds)), 3),
                load_seconds=round(process.ready["load_seconds"], 1),
                maximum_delta_mmhg=round(apart, 5),
                weights="random",
            )
            self._add("memory", f"peak resident memory of {name}", "MiB", process.of("peak_mib"))
            if name in OWN:
                parts = {
                    "ecg_seconds": "an ECG's arrival, chest embedding kept",
                    "decode_seconds": "reading a radiograph",
                }
                for key, subject in parts.items():
                    share = statistics.median(process.of(key)) / statistics.median(plain.of("seconds"))
                    milliseconds = [1e3 * value for value in process.of(key)]
                    self._add("part", f"{subject} ({name})", "ms", milliseconds, share_of_plain=round(share, 5))

    def show(self, console: Console) -> None:
        """All contenders beside the plain way and the limit."""
        table = Table(
            title=f"one examination, {self._with['model']} (random weights), {self._with['threads']} threads",
            title_justify="left",
            box=SIMPLE_HEAD,
        )
        table.add_column("way", no_wrap=True)
        for column in ("s", "CPU s", "exams/s", "x plain", "of GEMM", "peak MiB", "max |Δ|"):
            table.add_column(column, justify="right", no_wrap=True)
        for name, figure in self._figures.items():
            found = figure.parameters
            table.add_row(
                name,
                f"{figure.median / 1e3:.2f}",
                f"{statistics.median(self._contenders[name].of('cpu_seconds')):.2f}",
                f"{found['examinations_a_second']:.3f}",
                f"{found['times_plain']:.2f}",
                f"{found['share_of_gemm']:.0%}",
                f"{max(self._contenders[name].of('peak_mib')):.0f}",
                f"{found['maximum_delta_mmhg']:.5f}",
            )
        console.print(table)
        for name in self._figures:
            if name in DESCRIBED:
                console.print(f"{name}: {DESCRIBED[name]}", highlight=False)
        console.print(
            "CPU s: processor time of all threads. max |Δ|: of the nine values from plain, mmHg.", highlight=False
        )
        for kind, rates in self._gemm.items():
            console.print(f"matrix multiplication, {kind}: {statistics.median(rates):.0f} GFLOP/s", highlight=False)
        console.print(
            f"an examination: {self._flops / 1e9:.0f} GFLOP; load when it began: {self._load}", highlight=False
        )
        for figure in self._recorder.figures:
            if figure.benchmark == "part":
                share = figure.parameters["share_of_plain"]
                times = f", 1/{1 / share:.0f} of the plain way" if share else ""
                console.print(f"{figure.subject}: {figure.median:.1f} ms{times}", highlight=False)

    def _share(self, name: str, seconds: float) -> float:
        """Of the machine's rate in the precision that `name` multiplies in; int8 is held against fp32."""
        kind = "bfloat16" if name.endswith("bf16") else "float32"
        return self._flops / seconds / 1e9 / statistics.median(self._gemm[kind])

    def _add(self, benchmark: str, subject: str, unit: str, samples: list[float], **more: Any) -> Figure:
        return self._recorder.add(benchmark, subject, unit, samples, self._load, **self._with, **more)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the contenders and removes gigabytes on the way out
    sys.exit(main(sys.argv[1:]))
