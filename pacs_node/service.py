"""Which processes run: `serve` starts receiver, workers, scheduler and web, and starts again what ends.

Each also runs alone. A supervised process watches its standard input, which the supervisor holds open: when the
supervisor dies, however it dies, its children stop.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import structlog

from pacs_node.settings import Settings

log = structlog.get_logger()

LONGEST_RESTART_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A process that ran so long starts again at once; its earlier ends are forgotten."""
PORT_WAIT_SECONDS = 10.0
"""How long `serve` waits at its start for a predecessor to leave the DICOM port."""


def utc_now() -> datetime:
    """The clock of every process."""
    return datetime.now(UTC)


def stop_event(*, supervised: bool) -> threading.Event:
    """An event set by SIGTERM and SIGINT and, if `supervised`, by the end of standard input.

    A supervised process leaves Ctrl-C, which a terminal sends to all, to its supervisor.
    """
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN if supervised else lambda *_: stop.set())
    if supervised:

        def watch() -> None:
            # Not sys.stdin: its buffer's lock, held by a daemon thread, aborts the interpreter at its end.
            while os.read(0, 4096):
                pass
            stop.set()

        threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()
    return stop


def wait_until(stop: threading.Event) -> None:
    """Wait for `stop`. In steps: a signal that comes just as an endless wait begins is not heard until the next one."""
    while not stop.wait(0.5):
        pass


@dataclass
class _Child:
    """One supervised process and its restarts."""

    name: str
    arguments: list[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    start_at: float = 0.0
    failures: int = field(default=0)


class Supervisor:
    """Keeps the processes of `serve` running until told to stop."""

    def __init__(self, settings: Settings, config: Path | None) -> None:
        self._settings = settings
        self._config = config
        watch = ["watch"] if settings.folder.is_watched else []
        names = ["receive", "schedule", "web", *watch, *["work"] * settings.worker.processes]
        self._children = [_Child(name=name, arguments=self._command(name)) for name in names]

    def run(self, stop: threading.Event) -> None:
        """Start everything, start again what ends, and on `stop` end everything within the drain time."""
        try:
            while not stop.wait(0.1):
                for child in self._children:
                    self._tend(child)
        finally:
            self._end_all()

    def _tend(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process is None:
            if now >= child.start_at:
                child.process = subprocess.Popen(child.arguments, stdin=subprocess.PIPE)
                child.started = now
            return
        status = child.process.poll()
        if status is None:
            return
        child.failures = 1 if now - child.started > STEADY_SECONDS else child.failures + 1
        wait = min(LONGEST_RESTART_SECONDS, 0.5 * 2 ** (child.failures - 1))
        log.error("process_ended", process=child.name, exit_status=status, restart_in_seconds=wait)
        self._close(child)
        child.start_at = now + wait

    def _end_all(self) -> None:
        running = [child for child in self._children if child.process is not None]
        for child in running:
            if child.process is not None and child.process.poll() is None:
                child.process.terminate()
        deadline = time.monotonic() + self._settings.limits.drain_seconds + 5
        for child in running:
            if child.process is None:
                continue
            try:
                child.process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("process_killed", process=child.name)
                child.process.kill()
                child.process.wait()
            self._close(child)

    @staticmethod
    def _close(child: _Child) -> None:
        if child.process is not None and child.process.stdin is not None:
            child.process.stdin.close()
        child.process = None

    def _command(self, name: str) -> list[str]:
        config = ["--config", str(self._config)] if self._config else []
        return [sys.executable, "-m", "pacs_node", *config, name, "--supervised"]


def wait_for_port(host: str, port: int) -> None:
    """Return once the address can be listened on.

    Raises
    ------
    OSError
        Somebody else still holds it after `PORT_WAIT_SECONDS`, or it is not ours.
    """
    deadline = time.monotonic() + PORT_WAIT_SECONDS
    while True:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                if time.monotonic() > deadline:
                    raise
            else:
                return
        time.sleep(0.2)
