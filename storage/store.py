"""The door to the rows: one `Store` a process, shared by its threads. Each room behind it does one thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from storage.catheters import Catheters
from storage.commitment_requests import CommitmentRequests
from storage.commitments import Commitments
from storage.deliveries import Deliveries
from storage.queue import Queue
from storage.reading import Reading
from storage.shadows import Shadows
from storage.sharing import SharedCommit
from storage.tallies import Tallies
from storage.transaction import PatientLock, Transaction
from storage.upkeep import Upkeep

T = TypeVar("T")


class Store(Queue, Deliveries, Commitments, CommitmentRequests, Reading, Upkeep, Tallies, Shadows, Catheters):
    """Instances, matches, reports, deliveries, commitments, tallies, shadow estimates and catheter values.

    `Store.open(url)` checks the schema; `storage.database.upgrade(url)` makes it.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._shared = SharedCommit(self.writing)

    @contextmanager
    def transaction(self, lock: PatientLock | None = None) -> Iterator[Transaction]:
        """One write transaction: on disk when the block ends, undone if it raises.

        Parameters
        ----------
        lock
            The patient whose pairing changes, and the SOP Instance UID that arrives. Transactions of one of
            either run one after the other; on SQLite all do.
        """
        with self.writing() as connection:
            yield Transaction(connection, lock)

    def transact(self, work: Callable[[Transaction], T], lock: PatientLock | None = None) -> T:
        """Do `work` in a write transaction, and return what it returns once that is on disk.

        As `transaction`, but threads that write at the same moment share one commit; on SQLite `work` may
        then run in another of these threads. Right for receivers, whose senders all wait for the disk.
        """
        if not self.is_sqlite:
            with self.transaction(lock) as transaction:
                return work(transaction)
        return self._shared.run(lambda connection: work(Transaction(connection, lock)))
