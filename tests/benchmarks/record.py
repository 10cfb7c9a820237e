"""Write each figure as one JSON line that says what was measured, on what machine, with what; then all as a table.

Nothing here compares a figure with a bound: a slow machine is not a fault.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

PACKAGES = ("pulmolink", "pydicom", "pynetdicom", "highdicom", "torch", "sqlalchemy", "numpy")
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured quantity."""

    benchmark: str  # such as "receive"
    subject: str  # what was measured, in words
    unit: str
    samples: tuple[float, ...]  # every single measurement, in the order taken
    parameters: dict[str, Any]
    load_before: float  # one-minute load average when the measurement began

    @property
    def median(self) -> float:
        """The middle sample."""
        return statistics.median(self.samples)

    @property
    def p95(self) -> float:
        """The 95th percentile by the nearest rank; the largest of fewer than twenty samples."""
        ordered = sorted(self.samples)
        return ordered[max(0, -(-95 * len(ordered) // 100) - 1)]


class Recorder:
    """Appends figures to a file of JSON lines and keeps them for the table."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("", encoding="utf-8")
        self._file = file
        self.figures: list[Figure] = []
        self.skipped: list[tuple[str, str]] = []

    def add(
        self, benchmark: str, subject: str, unit: str, samples: Sequence[float], load: float, **parameters: Any
    ) -> Figure:
        """Record one figure."""
        figure = Figure(
            benchmark=benchmark,
            subject=subject,
            unit=unit,
            samples=tuple(samples),
            parameters=parameters,
            load_before=load,
        )
        self.figures.append(figure)
        self._write(
            {
                "benchmark": benchmark,
                "subject": subject,
                "unit": unit,
                "median": round(figure.median, 3),
                "p95": round(figure.p95, 3),
                "count": len(figure.samples),
                "samples": [round(sample, 3) for sample in figure.samples],
                "parameters": parameters,
                "load_before": load,
            }
        )
        return figure

    def skip(self, benchmark: str, subject: str, reason: str) -> None:
        """Record that something could not be measured here."""
        self.skipped.append((f"{benchmark}: {subject}", reason))
        self._write({"benchmark": benchmark, "subject": subject, "skipped": reason})

    def _write(self, line: dict[str, Any]) -> None:
        whole = line | {"at": datetime.now(UTC).isoformat(), "machine": machine(), "versions": versions()}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(whole) + "\n")

    def show(self, console: Console) -> None:
        """Every figure, one table a benchmark; what was received stands beside its peers."""
        for benchmark in dict.fromkeys(figure.benchmark for figure in self.figures):
            figures = [figure for figure in self.figures if figure.benchmark == benchmark]
            if all("receiver" in figure.parameters for figure in figures):
                if benchmark == "receive":
                    console.print(_side_by_side(figures))
            else:
                console.print(_one_below_another(benchmark, figures))
        self.show_conditions(console)

    def show_conditions(self, console: Console) -> None:
        """What was left out, on which machine, with what."""
        for what, reason in self.skipped:
            console.print(f"skipped: {what}: {reason}")
        where, what_ran = machine(), versions()
        console.print(
            f"{where['cpu']}, {where['cores']} cores, {where['memory_gib']} GiB, {where['system']}; "
            f"commit {what_ran['commit']}, torch {what_ran['torch']}. JSON lines: {self._file}",
            highlight=False,
        )


def _one_below_another(benchmark: str, figures: list[Figure]) -> Table:
    table = Table(title=benchmark, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("what")
    for column in ("median", "p95", "unit", "n", "load"):
        table.add_column(column, justify="left" if column == "unit" else "right", no_wrap=True)
    for figure in figures:
        table.add_row(
            figure.subject,
            f"{figure.median:.4g}",
            f"{figure.p95:.4g}",
            figure.unit,
            str(len(figure.samples)),
            f"{figure.load_before:.1f}",
        )
    return table


def _side_by_side(figures: list[Figure]) -> Table:
    """A row a load, a column a receiver, the peers with the ratio of ours to theirs."""
    receivers = list(dict.fromkeys(figure.parameters["receiver"] for figure in figures))
    table = Table(title="received, instances a second (ours / theirs)", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("object, client, associations")
    for name in receivers:
        table.add_column(name, justify="right", no_wrap=True)
    rows: dict[str, dict[str, Figure]] = {}
    for figure in figures:
        rows.setdefault(figure.parameters["row"], {})[figure.parameters["receiver"]] = figure
    for row, found in rows.items():
        own = found[receivers[0]].median
        table.add_row(
            row,
            f"{own:.1f}",
            *(_beside(own, found[name].median) if name in found else "" for name in receivers[1:]),
        )
    return table


def _beside(own: float, theirs: float) -> str:
    """A peer's figure and the ratio; a peer that took nothing has none."""
    return f"{theirs:.1f} ({own / theirs:.2f})" if theirs else "0"


def load_now() -> float:
    """The one-minute load average: what else ran on this machine."""
    return round(os.getloadavg()[0], 2)


@cache
def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory, operating system."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def versions() -> dict[str, str]:
    """What ran: our commit, Python, and the libraries that cost time."""
    commit = subprocess.run(
        ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    found = {name: version(name) for name in PACKAGES}
    return {"commit": commit.stdout.strip() or "unknown", "python": platform.python_version(), **found}
