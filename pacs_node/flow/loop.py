"""The loop of a process that works what is due, one piece at a time, until it is told to stop."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import traceback
from typing import Protocol

import structlog

from pacs_node.flow.pace import Pace
from pacs_node.opening.opener import OpenerUnavailable
from storage.errors import StorageBusy, StorageFull, StorageUnavailable

log = structlog.get_logger()

PAUSE_SECONDS = 5.0
"""A full disk, an unreachable database or a missing child to open files in is not asked again at once."""
NOT_THE_WORKS_FAULT = (StorageFull, StorageBusy, StorageUnavailable, OpenerUnavailable)
"""Nothing else would go better now, and the try does not count."""


class Work(Protocol):
    """Something of which pieces become due."""

    def work_one(self, stop: threading.Event | None = None) -> bool:
        """Claim and work one piece; False if none is due."""


def work_until(stop: threading.Event, work: Work, pace: Pace) -> None:
    """Work until `stop` is set; the piece in hand is finished first."""
    while not stop.is_set():
        try:
            if not work.work_one(stop):
                pace.wait(stop)
        except (StorageFull, StorageBusy, StorageUnavailable) as error:
            log.error("storage_failed", error=type(error).__name__)
            stop.wait(PAUSE_SECONDS)


def pause_after(error: Exception, stop: threading.Event | None, **said: object) -> None:
    """Say that storage or the opener failed, and wait until it may go better or `stop` is set."""
    event = "opener_failed" if isinstance(error, OpenerUnavailable) else "storage_failed"
    log.error(event, **said, error=type(error).__name__)
    (stop or threading.Event()).wait(PAUSE_SECONDS)


def place_of(error: Exception) -> str:
    """File and line where `error` arose: what may be logged of it, as its message may quote a patient."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{os.path.basename(frame.filename)}:{frame.lineno}"  # noqa: PTH119 - a name, not a path


def owner_name() -> str:
    """A lease owner that no other process or thread has."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
