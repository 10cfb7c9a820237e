"""Lines of JSON for many tasks: appended as they are done, by several processes, stopped and continued at will.

A task whose line is there is not done again, unless the code changed since. While the pause file exists the
processes stand still (SIGSTOP), so that another measurement has the machine. A process that dies leaves a line that
says so, and another takes its place.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.benchmarks.ecg_judge import Judge, Row, Task, code_digest, one_core

_SPAWN = multiprocessing.get_context("spawn")
_LOOK_SECONDS, _SAY_SECONDS = 0.5, 60.0


def read_lines(path: Path) -> list[Row]:
    """Every whole line; one that was cut off by a crash is passed over."""
    rows: list[Row] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                rows.append(json.loads(line))
    return rows


def of_code(rows: Sequence[Row], code: str) -> list[Row]:
    """The lines of one state of the code, the last of each task."""
    return list({(row["group"], row["sheet"]): row for row in rows if row["code"] == code}.values())


def missing(tasks: Sequence[Task], rows: Sequence[Row]) -> list[Task]:
    """Tasks without a line of the present code."""
    done = {(row["group"], row["sheet"]) for row in of_code(rows, code_digest())}
    return [task for task in tasks if task not in done]


def do(
    tasks: Sequence[Task],
    path: Path,
    samples: Path,
    *,
    processes: int,
    pause: Path | None,
    say: Callable[[str], None],
) -> bool:
    """Do the tasks, a line each at the end of `path`. False if a signal ended it early."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    _end_last_line(path)
    following = _SPAWN.Value("q", 0)
    doing = _SPAWN.Array("q", [-1] * processes)

    def started(slot: int) -> Any:
        process = _SPAWN.Process(
            target=_work, args=(tasks, path, samples, following, doing, slot, os.getpid()), daemon=True
        )
        process.start()
        return process

    workers = [started(slot) for slot in range(min(processes, len(tasks)))]
    try:
        with _ended_by_signals():
            _watch(workers, started, tasks, path, following, doing, pause, say)
    except KeyboardInterrupt:
        return False
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
                os.kill(worker.pid, signal.SIGCONT)
            worker.join()
    return True


def _watch(
    workers: list[Any],
    started: Callable[[int], Any],
    tasks: Sequence[Task],
    path: Path,
    following: Any,
    doing: Any,
    pause: Path | None,
    say: Callable[[str], None],
) -> None:
    """Until all workers ended: stop and wake them, replace the dead, say how far it is."""
    stands = False
    active, said = 0.0, 0.0
    before = time.monotonic()
    while any(worker.is_alive() for worker in workers):
        time.sleep(_LOOK_SECONDS)
        now = time.monotonic()
        active, before = active + (0.0 if stands else now - before), now
        if (wanted := pause is not None and pause.exists()) != stands:
            stands = wanted
            for worker in workers:
                if worker.is_alive():
                    os.kill(worker.pid, signal.SIGSTOP if stands else signal.SIGCONT)
        for slot, worker in enumerate(workers):
            if worker.exitcode:  # killed, or crashed in what it read
                if doing[slot] < 0:
                    raise RuntimeError(f"a process ended with {worker.exitcode} before it read anything")
                group, name = tasks[doing[slot]]
                row = {"group": group, "sheet": name, "code": code_digest(), "accepted": False, "wrong": []}
                _append(path, row | {"reason": "crashed", "detail": f"the process ended with {worker.exitcode}"})
                doing[slot] = -1
                workers[slot] = started(slot)
                if stands:
                    os.kill(workers[slot].pid, signal.SIGSTOP)
        if active - said >= _SAY_SECONDS:
            said = active
            done = min(following.value, len(tasks))
            left = (len(tasks) - done) * active / max(1, done) / 60.0
            say(f"{done} of {len(tasks)}; about {left:.0f} min left")


def _work(tasks: Sequence[Task], path: Path, samples: Path, following: Any, doing: Any, slot: int, parent: int) -> None:
    """One process: take the next task, until there is none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    one_core()
    judge = Judge(samples)
    while os.getppid() == parent:
        with following.get_lock():
            at = following.value
            following.value += 1
        if at >= len(tasks):
            return
        doing[slot] = at
        _append(path, judge.row(tasks[at]))
        doing[slot] = -1


def _append(path: Path, row: Row) -> None:
    """One line in one write: lines of several processes do not mix (open(2), O_APPEND)."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, json.dumps(row).encode() + b"\n")
    finally:
        os.close(descriptor)


def _end_last_line(path: Path) -> None:
    if path.is_file() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")


class _ended_by_signals:  # noqa: N801 - reads as a phrase
    """SIGTERM ends like Ctrl-C."""

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGTERM, signal.default_int_handler)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)


def interleaved(groups: Sequence[Sequence[Task]]) -> Iterator[Task]:
    """In turn from each group: what is stopped early has measured all of them."""
    for at in range(max(map(len, groups), default=0)):
        for group in groups:
            if at < len(group):
                yield group[at]
