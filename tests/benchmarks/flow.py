"""Measure the way through a real `pulmolink serve` on loopback: time to the report, and memory.

python -m tests.benchmarks.flow [--quick] [--out FOLDER] writes FOLDER/flow.jsonl, one JSON object a figure, and
prints a table. Bounds are not asserted.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

import psutil
from rich.console import Console

from pacs_node.dicom.archive import Archive
from tests.benchmarks import answer
from tests.benchmarks.record import Recorder, load_now
from tests.integration.rig import Node, eventually, free_port


def main(arguments: list[str]) -> int:
    """Run everything; exit status 0 whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.flow", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a few instances only: shows that it runs, measures little"
    )
    parser.add_argument("--out", type=Path, default=Path("bench-output"), help="folder of flow.jsonl (%(default)s)")
    chosen = parser.parse_args(arguments)
    recorder = Recorder(chosen.out / "flow.jsonl")
    progress = Console(stderr=True)

    def tell(what: str) -> None:
        progress.print(f"[dim]{what}[/]", highlight=False)

    with tempfile.TemporaryDirectory(prefix="pulmolink-bench-") as name:
        folder = Path(name)
        archive_port = free_port()
        with (
            Archive(folder / "archive", archive_port, ae_title="ORTHANC") as archive,
            Node(folder / "node", {"archive": archive_port}) as node,
        ):
            eventually(lambda: '"model_loaded"' in node.log, 60, "the worker has its model")
            load = load_now()
            course = answer.Course(node=node, archive=archive, folder=folder)
            answer.measure(course, recorder, 2 if chosen.quick else 20, tell)
            _memory(node, recorder, load)
    recorder.show(Console())
    return 0


def _memory(node: Node, recorder: Recorder, load: float) -> None:
    """The peak resident memory of each process of `serve` since it started, as the kernel kept it."""
    if node.process is None:
        raise RuntimeError("the node has ended")
    serve = psutil.Process(node.process.pid)
    for process in (serve, *serve.children(recursive=True)):
        name = next((word for word in process.cmdline()[2:] if word in {"serve", *CHILDREN}), process.name())
        recorder.add("memory", f"peak resident memory of {name}", "MiB", [_peak_mib(process.pid)], load, process=name)


CHILDREN = ("receive", "work", "schedule", "web")


def _peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel tells no peak memory")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the node and the peers on the way out
    sys.exit(main(sys.argv[1:]))
