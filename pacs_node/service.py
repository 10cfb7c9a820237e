"""Which processes run: `serve` starts receiver, workers, scheduler and web, and starts again what ends.

Each also runs alone. A supervised process has its settings from its standard input, one JSON object a line: all
parts of a service go by the same ones, whatever becomes of the file, and a receiver takes a further line over as it
runs. The supervisor holds that input open: when it dies, however it dies, its children stop.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import structlog

from pacs_node import reload
from pacs_node.cli import SUPERVISED
from pacs_node.settings import Settings

log = structlog.get_logger()

LONGEST_RESTART_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A process that ran so long starts again at once; its earlier ends are forgotten."""
GRACE_SECONDS = 5.0
"""How much longer than limits.drain_seconds a process may take to end before it is killed."""
PORT_WAIT_SECONDS = 10.0
"""How long `serve` waits at its start for a predecessor to leave the DICOM port."""


def utc_now() -> datetime:
    """The clock of every process."""
    return datetime.now(UTC)


def stop_event(*, supervised: bool, told: Callable[[Settings], None] | None = None) -> threading.Event:
    """An event set by SIGTERM and SIGINT and, if `supervised`, by the end of standard input.

    A supervised process leaves Ctrl-C and hanging up, which a terminal sends to all, to its supervisor.

    Parameters
    ----------
    told
        Called with the new settings, in a thread of its own, when the supervisor sends some.
    """
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN if supervised else lambda *_: stop.set())
    if supervised:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

        def watch() -> None:
            try:
                while (settings := handed_settings()) is not None:
                    if told is not None:
                        told(settings)
            finally:  # whatever happens, nobody is left without a supervisor
                stop.set()

        threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()
    return stop


def handed_settings() -> Settings | None:
    """The next settings that the supervisor hands over; None: it is gone."""
    # Not sys.stdin: its buffer's lock, held by a daemon thread, aborts the interpreter at its end.
    with open(0, "rb", buffering=0, closefd=False) as orders:
        line = orders.readline()
    return Settings.model_validate_json(line) if line.endswith(b"\n") else None


def hangup_event(stop: threading.Event) -> threading.Event:
    """An event set by SIGHUP: read the settings again. On a terminal it means that the terminal is gone: stop."""
    hangup = threading.Event()
    on_terminal = os.isatty(0)
    signal.signal(signal.SIGHUP, lambda *_: stop.set() if on_terminal else hangup.set())
    return hangup


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
    leave_by: float | None = None  # it was told to end, and is started again then
    failures: int = field(default=0)


class Supervisor:
    """Keeps the processes of `serve` running until told to stop.

    Parameters
    ----------
    check
        Raises for settings that cannot be used; asked before others are taken over.
    """

    def __init__(self, settings: Settings, config: Path | None, check: Callable[[Settings], None]) -> None:
        self._settings = settings
        self._config = config
        self._check = check
        receivers, workers = ["receive"] * settings.node.receivers, ["work"] * settings.worker.processes
        watch = ["watch"] if settings.folder.is_watched else []
        shadow = ["shadow"] if settings.model.shadow else []
        names = [*receivers, "schedule", "web", *watch, *workers, *shadow]
        self._children = [_Child(name=name, arguments=self._command(name)) for name in names]

    def run(self, stop: threading.Event, hangup: threading.Event) -> None:
        """Start everything, start again what ends, and on `stop` end everything within the drain time.

        On `hangup` the settings are read again. Receivers take them over and keep their associations; the others end
        after the work in hand and start anew.
        """
        try:
            while not stop.wait(0.1):
                if hangup.is_set():
                    hangup.clear()
                    self._reload()
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
                self._hand_over(child)
            return
        status = child.process.poll()
        if status is None:
            if child.leave_by is not None and now > child.leave_by:
                log.error("process_killed", process=child.name)
                child.process.kill()
            return
        if child.leave_by is not None:
            log.info("process_starts_again", process=child.name)
            child.leave_by = None
            self._close(child)
            return
        child.failures = 1 if now - child.started > STEADY_SECONDS else child.failures + 1
        wait = min(LONGEST_RESTART_SECONDS, 0.5 * 2 ** (child.failures - 1))
        log.error("process_ended", process=child.name, exit_status=status, restart_in_seconds=wait)
        self._close(child)
        child.start_at = now + wait

    def _reload(self) -> None:
        """Take over what the file says now, or keep everything as it is."""
        new = reload.reread(self._config, self._settings, self._check)
        if new is None:
            return
        changed = new != self._settings
        self._settings = new
        for child in self._children:
            if child.process is None:
                continue
            if child.name == "receive":
                self._hand_over(child)  # also if nothing differs: certificates may
            elif changed and child.leave_by is None:
                child.leave_by = time.monotonic() + new.limits.drain_seconds + GRACE_SECONDS
                child.process.terminate()

    def _hand_over(self, child: _Child) -> None:
        if child.process is not None and child.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it ended, which is noticed next
                child.process.stdin.write(self._settings.model_dump_json().encode() + b"\n")
                child.process.stdin.flush()

    def _end_all(self) -> None:
        running = [child for child in self._children if child.process is not None]
        for child in running:
            if child.process is not None and child.process.poll() is None:
                child.process.terminate()
        deadline = time.monotonic() + self._settings.limits.drain_seconds + GRACE_SECONDS
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
            with contextlib.suppress(BrokenPipeError):  # what it never read
                child.process.stdin.close()
        child.process = None

    def _command(self, name: str) -> list[str]:
        config = ["--config", str(self._config)] if self._config else []
        return [sys.executable, "-m", "pacs_node", *config, name, SUPERVISED]


def wait_for_port(host: str, port: int) -> None:
    """Return once the address can be listened on.

    Raises
    ------
    OSError
        Somebody else still holds it after `PORT_WAIT_SECONDS`; or, at once, no wait would help: it is not ours.
    """
    deadline = time.monotonic() + PORT_WAIT_SECONDS
    while True:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                    raise
            else:
                return
        time.sleep(0.2)
