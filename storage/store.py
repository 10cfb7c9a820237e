"""The door to the rows: one `Store` a process, shared by its threads. Each room behind it does one thing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from storage.deliveries import Deliveries
from storage.queue import Queue
from storage.reading import Reading
from storage.transaction import PatientLock, Transaction
from storage.upkeep import Upkeep


class Store(Queue, Deliveries, Reading, Upkeep):
    """Instances, matches, reports and deliveries in a database.

    `Store.open(url)` checks the schema; `storage.database.upgrade(url)` makes it.
    """

    @contextmanager
    def transaction(self, lock: PatientLock | None = None) -> Iterator[Transaction]:
        """One write transaction: on disk when the block ends, undone if it raises.

        Parameters
        ----------
        lock
            The patient whose pairing changes. Transactions of one patient run one after the other; on SQLite
            all do.
        """
        with self.writing() as connection:
            yield Transaction(connection, lock)
