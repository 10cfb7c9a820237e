"""Let threads that write at the same moment share one commit, and so one wait for the disk.

Only SQLite needs it: it has one writer at a time, so commits would queue. PostgreSQL shares them by itself.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from sqlalchemy import Connection

from storage.database import translate_sqlite, translated
from storage.errors import StorageBusy, StorageFull, StorageUnavailable

T = TypeVar("T")
MOST_SHARING = 64
"""Writes in one commit, so that none waits long for the others."""


class SharedCommit:
    """Carries out the writes of several threads in one transaction, each in a savepoint of its own.

    While one thread waits for the disk, the others queue up; the first of them then writes for all of them.
    Nobody waits for company: a lone writer commits at once.
    """

    def __init__(self, writing: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._writing = writing
        self._guard = threading.Lock()
        self._busy = False  # some thread commits, or was told to
        self._queue: deque[_Write] = deque()

    def run(self, write: Callable[[Connection], T]) -> T:
        """What `write` returns, once it is committed and on disk. It may run in another thread than this one.

        An exception that `write` raises undoes what it did and is raised here; others' writes are not
        touched. A failure of the transaction itself, such as a full disk, is raised for every write in it.
        """
        mine = _Write(write)
        with self._guard:
            leads = not self._busy
            self._busy = True
            self._queue.append(mine)
        if not leads:
            try:
                mine.wait()
            except BaseException:
                self._withdraw(mine)
                raise
        if not mine.done:
            self._commit_some()
        if mine.error is not None:
            raise mine.error
        return mine.result

    def _commit_some(self) -> None:
        """Commit the oldest writes, this thread's first among them, then let the next thread go on."""
        with self._guard:
            some = [self._queue.popleft() for _ in range(min(len(self._queue), MOST_SHARING))]
        try:
            with self._writing() as connection:
                if len(some) == 1:
                    # Alone it needs no savepoint: what it raises undoes the transaction.
                    with translated():
                        some[0].result = some[0].run(connection)
                else:
                    for write in some:
                        write.carry_out(connection)
        except BaseException as error:
            for write in some:
                write.error = write.error or error
            if not isinstance(error, Exception):
                raise  # this thread is being stopped
        finally:
            for write in some:
                write.done = True
                write.settle()
            with self._guard:
                self._hand_over()

    def _withdraw(self, write: _Write) -> None:
        """Take back a write whose thread is being stopped, and its turn; one under way is left to end."""
        with self._guard:
            if write in self._queue:
                self._queue.remove(write)
                if write.settled:
                    self._hand_over()

    def _hand_over(self) -> None:
        self._busy = bool(self._queue)
        if self._queue:
            self._queue[0].settle()


class _Write:
    def __init__(self, run: Callable[[Connection], Any]) -> None:
        self.run = run
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False
        self.settled = False
        # An Event would make its waiter and who sets it meet at a second lock.
        self._gate = threading.Lock()
        self._gate.acquire()

    def wait(self) -> None:
        """Until `settle`; for one thread."""
        self._gate.acquire()

    def settle(self) -> None:
        """It is done, or it is its thread's turn to commit. Never called by two threads at once."""
        if not self.settled:
            self.settled = True
            self._gate.release()

    def carry_out(self, connection: Connection) -> None:
        # By the driver itself: SQLAlchemy's savepoints cost as much as all else that a short write does.
        driver: Any = connection.connection.driver_connection
        try:
            with translated():
                driver.execute("SAVEPOINT shared")
                try:
                    self.result = self.run(connection)
                except BaseException:
                    if driver.in_transaction:
                        driver.execute("ROLLBACK TO shared")
                        driver.execute("RELEASE shared")
                    raise
                driver.execute("RELEASE shared")
        except sqlite3.Error as error:
            raise translate_sqlite(error) from None
        except (StorageFull, StorageBusy, StorageUnavailable):
            # SQLite may have undone the whole transaction, savepoints and all: nothing more may run in it.
            raise
        except Exception as error:  # noqa: BLE001 the thread that asked gets it
            self.error = error
