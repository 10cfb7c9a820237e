"""Keep a claim while its work goes on: extend the lease from a thread beside, until the work ends.

A process that dies stops extending, so its lease ends as before and another one resumes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import structlog

from storage.errors import StorageError
from storage.store import Store

log = structlog.get_logger()

EXTENSIONS_A_LEASE = 3
"""A lease is extended after a third of its time, so that two tries may fail."""
MOST_LEASES = 30
"""Work that lasts longer than so many leases hangs: its claim is let go."""


@contextmanager
def kept_lease(
    store: Store, match_id: int, owner: str, seconds: float, clock: Callable[[], datetime]
) -> Iterator[threading.Event]:
    """Hold the claim of a match while the block runs.

    Yields
    ------
    threading.Event
        Set once the lease is lost; the store drops the result then anyway.
    """
    with _kept(lambda: store.extend_lease(match_id, owner, seconds, clock()), seconds) as lost:
        yield lost


@contextmanager
def kept_delivery_lease(
    store: Store, delivery_id: int, owner: str, seconds: float, clock: Callable[[], datetime]
) -> Iterator[threading.Event]:
    """As `kept_lease`, for a delivery."""
    with _kept(lambda: store.extend_delivery_lease(delivery_id, owner, seconds, clock()), seconds) as lost:
        yield lost


@contextmanager
def _kept(extend: Callable[[], bool], seconds: float) -> Iterator[threading.Event]:
    done, lost = threading.Event(), threading.Event()

    def go_on_extending() -> None:
        for _ in range(MOST_LEASES * EXTENSIONS_A_LEASE):
            if done.wait(seconds / EXTENSIONS_A_LEASE):
                return
            try:
                if not extend():
                    lost.set()
                    return
            except StorageError as error:
                log.warning("lease_not_extended", error=type(error).__name__)
        lost.set()

    thread = threading.Thread(target=go_on_extending, name="lease", daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        done.set()
        thread.join()
