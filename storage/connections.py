"""Hand out read and write transactions to the threads of one process; no table is known here."""

from __future__ import annotations

import itertools
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from sqlalchemy import Connection

from storage.database import BUSY_SECONDS, READING, begun, check_engine, open_engine, sqlite_file, translated
from storage.errors import StorageUnavailable
from storage.turns import Turns


class Connections:
    """The open database that every room of the store works on.

    Threads may share one; processes may not, so make it after a fork or use `spawn`.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        self._readers = self._engine.execution_options(**{READING: True})
        self._process = os.getpid()
        # SQLite has one writer at a time. Threads of this process queue here, in order and at once awake,
        # instead of in SQLite's busy wait, which sleeps up to 100 ms; processes take turns.
        self._writers = threading.Lock()
        self._turns: Turns | None = None
        self._writer: Connection | None = None
        self._listener: sqlite3.Connection | None = None
        self._listening = threading.Lock()
        self._calls = itertools.count(1)
        try:
            check_engine(self._engine, url)
            file = sqlite_file(url)
            if file is not None:
                self._listener = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
                self._turns = Turns(file, BUSY_SECONDS)
        except BaseException:
            self._engine.dispose()
            raise

    @classmethod
    def open(cls, url: str) -> Self:
        """Open the database at `url`.

        Raises
        ------
        SchemaOutdated, SchemaTooNew
            If its schema is not the one of this program.
        StorageUnavailable
            If it cannot be reached.
        """
        return cls(url)

    def close(self) -> None:
        """Close every connection. The store is of no use afterwards."""
        if self._listener is not None:
            with self._listening:
                self._listener.close()
        with self._writers:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            if self._turns is not None:
                self._turns.close()
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_sqlite(self) -> bool:
        """Whether the rows are in an SQLite file; otherwise in PostgreSQL."""
        return self._engine.dialect.name == "sqlite"

    def change_counter(self) -> int:
        """A number that differs from the last one if anything was committed since.

        An idle worker compares it every few milliseconds and looks for work only when it moved (and now
        and then
        besides: time alone makes work due). PostgreSQL has no such number, so it always differs there.
        """
        if self._listener is None:
            return next(self._calls)
        with self._listening:
            # A connection does not count its own commits: this one makes none.
            return int(self._listener.execute("PRAGMA data_version").fetchone()[0])

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent look at the rows."""
        self._check_process()
        with translated(), self._readers.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One write transaction: committed, and on disk, when the block ends; rolled back if it raises."""
        self._check_process()
        if self._turns is not None:
            with self._writers, translated():
                # Kept open: fetching it from the pool and giving it back costs more than a short transaction.
                if self._writer is None:
                    self._writer = self._engine.connect()
                with self._turns.mine(), begun(self._writer):
                    yield self._writer
        else:
            with translated(), self._engine.begin() as connection:
                yield connection

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise StorageUnavailable(
                "a store was used in another process than the one that opened it",
                "open a store in each process",
            )
