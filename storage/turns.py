"""Let the processes that write one SQLite file take turns, awake as soon as it is theirs.

SQLite lets one write at a time, and who finds it taken sleeps up to 100 ms between two looks. Where receivers and
workers are several processes, the disk then waits for sleepers. So they queue at a lock of their own beside the
database; SQLite's lock stays what guards the rows, also against programs that know of no turns.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from storage.errors import StorageBusy, StorageUnavailable

SUFFIX: Final = "-turn"
FIRST_PAUSE_SECONDS: Final = 0.0002
LONGEST_PAUSE_SECONDS: Final = 0.005


class Turns:
    """The lock beside one database. For one thread at a time of each `Turns`; released when its holder dies.

    Parameters
    ----------
    database
        The SQLite file; the lock is an empty file beside it.
    patience_seconds
        How long to wait for the others.

    Raises
    ------
    StorageUnavailable
        If the lock's file cannot be made.
    """

    def __init__(self, database: Path, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        name = f"{database}{SUFFIX}"
        try:
            self._descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageUnavailable(
                f"the lock file {name} cannot be opened: {error.strerror}",
                "check that this user may write the folder of the database",
            ) from error

    def close(self) -> None:
        """Give the file back. Harmless when repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Hold the turn for the block.

        Raises
        ------
        StorageBusy
            Another process kept it for longer than `patience_seconds`.
        """
        self._take()
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _take(self) -> None:
        # Not by a call that blocks: nothing could end it when the holder hangs.
        deadline = time.monotonic() + self._patience_seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise StorageBusy(f"waited {self._patience_seconds:.0f} s for another writer") from None
                time.sleep(pause)
                pause = min(1.2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                return
