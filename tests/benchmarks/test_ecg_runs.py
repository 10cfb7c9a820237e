"""The ECG benchmark stands still while it is told to, and outlives a reader that dies in the middle of a file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked at in /proc")

_ROOT = Path(__file__).resolve().parents[2]
_PATIENCE_SECONDS = 90.0
_T = TypeVar("_T")


def until(what: Callable[[], _T]) -> _T:
    """The first answer that is something."""
    ends = time.monotonic() + _PATIENCE_SECONDS
    while not (answer := what()):
        assert time.monotonic() < ends, "it never came about"
        time.sleep(0.05)
    return answer


def readers(parent: int) -> list[int]:
    """Processes of a benchmark that read; not the one that multiprocessing keeps for itself."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in command(int(child))]


def command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def stands_still(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def opened_for_the_reader(pipe: Path) -> int | None:
    """A pipe's end to write to, as soon as somebody reads from it."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / "ecg.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def test_the_benchmark_pauses_and_replaces_a_reader_that_dies(tmp_path: Path) -> None:
    pause, out, scans = tmp_path / "pause", tmp_path / "out", tmp_path / "samples" / "ecg_scan"
    scans.mkdir(parents=True)
    stuck = scans / "1.png"
    os.mkfifo(stuck)  # whoever reads it waits: that reader is in the middle of a file
    (scans / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    pause.touch()
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.benchmarks.ecg",
            "--groups=real",
            "--processes=1",
            f"--pause={pause}",
            f"--out={out}",
        ],
        cwd=_ROOT,
        env={**os.environ, "PULMOLINK_SAMPLES": str(tmp_path / "samples"), "PYTHONPATH": str(_ROOT)},
        stdout=subprocess.DEVNULL,
    ) as benchmark:
        try:
            first = until(lambda: readers(benchmark.pid))[0]
            until(lambda: stands_still(first))
            pause.unlink()
            pipe = until(lambda: opened_for_the_reader(stuck) or 0)
            assert not stands_still(first)

            pause.touch()
            until(lambda: stands_still(first))
            os.kill(first, signal.SIGKILL)
            os.close(pipe)
            stuck.unlink()
            stuck.write_bytes(b"no picture any more")
            second = until(lambda: [reader for reader in readers(benchmark.pid) if reader != first])[0]
            until(lambda: stands_still(second))
            assert [line["sheet"] for line in lines(out)] == ["1.png"]

            pause.unlink()
            assert benchmark.wait(_PATIENCE_SECONDS) == 0
        finally:
            benchmark.kill()
    found = {line["sheet"]: (line["reason"], line["detail"]) for line in lines(out)}
    assert found["1.png"] == ("crashed", "the process ended with -9")
    assert found["2.png"][0] == "damaged"
