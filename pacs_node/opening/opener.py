"""The worker's side of opening: bytes of a file in, a checked value out, or a refusal; the file is never opened here.

A child that dies, or is late by the clock, is not proof against its file: the machine may have ended or starved it. So
the file is tried once more, in another child. What ends twice, or breaks a bound of its own, is refused.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import structlog

import pacs_node
from pacs_node.opening import server
from pacs_node.opening.answers import ARRAYS, lead_images, radiograph, sheet
from pacs_node.opening.framing import (
    Answer,
    AnswerMalformed,
    Kind,
    Outcome,
    Request,
    receive_answer,
    send_request,
)
from pacs_node.settings import Limits

if TYPE_CHECKING:  # opening an ECG needs nothing of radiographs
    import numpy as np
    from numpy.typing import NDArray

    from ecg_ingest.lead_images import LeadImages, RenderStyle
    from inference.radiograph import Radiograph, RadiographPreprocessing

log = structlog.get_logger()

START_SECONDS = 60.0
"""The readers are loaded by then, or the machine cannot run them."""
END_SECONDS = 5.0
"""A child that was killed, or has answered, has ended by then."""
TRIES = 2
NO_LANDLOCK = "the kernel has no Landlock, or it is off: what opens files may read every file that this user may"

_PROGRAM = (sys.executable, "-P", "-m", "pacs_node.opening.server")
_KEPT_VARIABLES = ("LD_LIBRARY_PATH", "PYTHONHOME")
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")}
_LARGE_PAGES = {
    # Every child touches its memory for the first time: in large pages a radiograph takes 35 ms instead of 48.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=1073741824"
    ":glibc.malloc.mmap_threshold=1073741824"
}

T = TypeVar("T")


class NotOpenedReason(StrEnum):
    """Why a file could not be opened within what a file may use. A closed set, as the readers' reasons are."""

    CRASHED = "opening_crashed"
    TOO_SLOW = "opening_too_slow"
    TOO_LARGE = "opening_too_large"


class NotOpened(Exception):
    """A file that must not be used, because opening it broke a bound. The fields are those of a reader's refusal."""

    def __init__(self, reason: NotOpenedReason, detail: str, hint: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail
        self.hint = hint


class OpenerUnavailable(Exception):
    """No child can be started: not the file's fault, and to be tried again."""

    hint = "look for this process's first lines in the log: the readers' libraries, memory, or process limits"


@dataclass(frozen=True, kw_only=True)
class _Failed:
    """One try that gave no answer."""

    reason: NotOpenedReason
    detail: str
    final: bool = False  # a second try would end the same way


@dataclass(frozen=True, kw_only=True)
class _Child:
    """A confined process that waits for a file."""

    number: int
    connection: socket.socket


class Opener:
    """Opens files in children. For one thread; starts its program when first needed, or at `start`."""

    def __init__(self, limits: Limits, *, program: Sequence[str] = _PROGRAM) -> None:
        self._limits = limits
        self._command = [*program, str(os.getpid()), str(limits.opening_bytes), str(limits.opening_cpu_seconds)]
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._waiting: _Child | None = None

    def __enter__(self) -> Opener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ecg(self, data: bytes, style: RenderStyle) -> LeadImages:
        """As `ecg_ingest.read`.

        Raises
        ------
        EcgRefused, NotOpened
            The ECG must not be used.
        OpenerUnavailable
            Nothing can be opened now.
        """
        return self._open(Request(kind=Kind.ECG, options=asdict(style), data=data), lead_images)

    def sheet(self, data: bytes, page: int | None = 0) -> NDArray[np.uint8] | None:
        """As `ecg_ingest.sheet_picture.sheet_picture`: [height, width, 3] RGB, None for signals without a sheet.

        Raises
        ------
        EcgRefused, NotOpened
            The sheet cannot be shown.
        OpenerUnavailable
            Nothing can be opened now.
        """
        return self._open(Request(kind=Kind.SHEET, options={"page": page}, data=data), sheet)

    def radiograph(self, dicom: bytes, preprocessing: RadiographPreprocessing) -> Radiograph:
        """As `inference.radiograph.read_radiograph`.

        Raises
        ------
        RadiographUnusable, NotOpened
            The radiograph must not be used.
        OpenerUnavailable
            Nothing can be opened now.
        """
        return self._open(Request(kind=Kind.RADIOGRAPH, options=preprocessing.to_json(), data=dicom), radiograph)

    def start(self) -> None:
        """Begin to load the readers, without waiting for it."""
        if self._server is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                # A session of its own: a terminal's Ctrl-C is not for it. It ends with this process.
                self._server = subprocess.Popen(
                    self._command,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    env=_environment(),
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise OpenerUnavailable(f"the program that opens files does not start: {error.strerror}") from error
        self._control = ours

    def wait_ready(self) -> None:
        """Return when a confined child waits. Raises OpenerUnavailable."""
        if self._waiting is None:
            self._waiting = self._next_child()

    @property
    def process_id(self) -> int | None:
        """Of the program that makes the children, which are in its process group; None if it does not run."""
        return None if self._server is None else self._server.pid

    def close(self) -> None:
        """End the program and every child."""
        if self._waiting is not None:
            self._waiting.connection.close()
        if self._control is not None:
            self._control.close()
        if self._server is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
        self._server = self._control = self._waiting = None

    def _open(self, request: Request, meaning: Callable[[Answer], T]) -> T:
        if len(request.data) > self._limits.opening_bytes // 2:
            raise self._refusal(self._too_large())
        for tries in range(1, TRIES + 1):
            result = self._try(request, meaning)
            if not isinstance(result, _Failed):
                return result
            log.warning("opening_failed", reason=result.reason.value, how=result.detail, tries=tries)
            if result.final or tries == TRIES:
                raise self._refusal(result)
        raise AssertionError("the last try returns or raises")

    def _try(self, request: Request, meaning: Callable[[Answer], T]) -> T | _Failed:
        child = self._take_child()
        deadline = time.monotonic() + self._limits.opening_seconds
        answer, late, strange = None, False, False
        with child.connection as connection:
            try:
                send_request(connection, request, deadline)
                answer = receive_answer(connection, ARRAYS[request.kind], deadline)
            except TimeoutError:
                late = True
            except AnswerMalformed:
                strange = True
            except (OSError, EOFError):
                pass  # it ended; how, its program says
        status = self._end_of(child, kill=late or strange)
        if answer is None or answer.outcome not in {Outcome.OPENED, Outcome.REFUSED}:
            return self._failure(answer, status, late=late, strange=strange)
        try:
            return meaning(answer)
        except AnswerMalformed:
            return self._failure(None, status, late=False, strange=True)

    def _failure(self, answer: Answer | None, status: int | None, *, late: bool, strange: bool) -> _Failed:
        crashed = NotOpenedReason.CRASHED
        if late:
            bound = f"{self._limits.opening_seconds:g} s (limits.opening_seconds)"
            return _Failed(reason=NotOpenedReason.TOO_SLOW, detail=f"not open after {bound}")
        if strange:
            return _Failed(reason=crashed, detail="what its process answered was no result")
        if answer is not None and answer.outcome is Outcome.OUT_OF_MEMORY:
            return self._too_large()
        if answer is not None:
            where = answer.fields.get("where")
            known = where if isinstance(where, str) and len(where) < 200 and where.isprintable() else "unknown"
            return _Failed(reason=crashed, detail=f"its reader failed: {known}", final=True)
        if status == -signal.SIGXCPU:
            bound = f"{self._limits.opening_cpu_seconds} s of processor time (limits.opening_cpu_seconds)"
            return _Failed(reason=NotOpenedReason.TOO_SLOW, detail=f"not open after {bound}", final=True)
        how = "no status" if status is None else f"status {status}" if status >= 0 else _signal_name(-status)
        if status == -signal.SIGABRT:
            how += f", as libraries do at {self._limits.opening_bytes >> 20} MiB (limits.opening_bytes)"
        return _Failed(reason=crashed, detail=f"its process ended on it ({how})")

    def _too_large(self) -> _Failed:
        bound = f"{self._limits.opening_bytes >> 20} MiB of memory (limits.opening_bytes)"
        return _Failed(reason=NotOpenedReason.TOO_LARGE, detail=f"needs more than {bound}", final=True)

    @staticmethod
    def _refusal(failed: _Failed) -> NotOpened:
        hint = (
            "the file is damaged or made to do harm: let an engineer see it before it is sent again"
            if failed.reason is NotOpenedReason.CRASHED
            else "if it is a genuine examination, raise the limit and rerun"
        )
        return NotOpened(failed.reason, failed.detail, hint)

    def _take_child(self) -> _Child:
        try:
            self.wait_ready()
        except OpenerUnavailable:
            self.wait_ready()  # its program may have been ended by something else
        child, self._waiting = self._waiting, None
        if child is None:
            raise OpenerUnavailable("no child waits")
        return child

    def _next_child(self) -> _Child:
        """The next child that says that it is confined. Its program is ended if there is none."""
        self.start()
        if self._control is None:
            raise OpenerUnavailable("the program that opens files does not run")
        try:
            self._control.settimeout(START_SECONDS)
            message, descriptors, _, _ = socket.recv_fds(self._control, server.WAITING.size, 1)
            mark, number, version = server.WAITING.unpack(message)
            connection = socket.socket(fileno=descriptors[0])
            connection.settimeout(START_SECONDS)
            if mark != server.WAITING_MARK or connection.recv(1) != server.READY:
                connection.close()
                raise EOFError
        except (OSError, EOFError, IndexError, struct.error) as error:
            self.close()
            raise OpenerUnavailable(
                f"no confined process to open files in ({type(error).__name__}); see its first lines in the log"
            ) from error
        if number == 1:
            if version:
                log.info("opener_ready", landlock=version)
            else:
                log.warning("opener_ready", landlock=version, reason=NO_LANDLOCK)
        return _Child(number=number, connection=connection)

    def _end_of(self, child: _Child, *, kill: bool) -> int | None:
        """How the child ended: exit status or, negative, signal. None, and no program, if it cannot be found out."""
        if self._control is None:
            return None
        # One that closed its connection has ended, or is made to.
        for forced in (True,) if kill else (False, True):
            try:
                if forced:
                    self._control.send(server.KILL.pack(child.number))
                self._control.settimeout(END_SECONDS)
                mark, number, status = server.ENDED.unpack(self._control.recv(server.ENDED.size))
                if (mark, number) == (server.ENDED_MARK, child.number):
                    return int(status)
            except TimeoutError:
                continue
            except (OSError, struct.error):
                break
        self.close()
        return None


def _environment() -> dict[str, str]:
    """What the program needs to find its libraries, and nothing of what this process was told."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    own = str(Path(pacs_node.__file__).resolve().parent.parent)
    return {"PYTHONPATH": own, **kept, **_ONE_THREAD, **_LARGE_PAGES}


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
