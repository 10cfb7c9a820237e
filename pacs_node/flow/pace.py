"""Wait for work: until a row changed, or long enough that something may have become due by time alone."""

from __future__ import annotations

import threading
import time

from storage.store import Store

LOOK_ANYWAY_SECONDS = 0.5
"""Settling times and retries become due without any row changing, so look this often regardless."""


class Pace:
    """Paces one polling loop over `store`."""

    def __init__(self, store: Store, poll_seconds: float) -> None:
        self._store = store
        self._poll_seconds = poll_seconds
        self._seen = store.change_counter()

    def wait(self, stop: threading.Event) -> None:
        """Return when a row changed since the last call, after `LOOK_ANYWAY_SECONDS`, or when `stop` is set.

        PostgreSQL does not tell of changes: there it returns after `poll_seconds`.
        """
        if not self._store.is_sqlite:
            stop.wait(self._poll_seconds)  # its counter always moves: to look at it would be a loop without a pause
            return
        deadline = time.monotonic() + LOOK_ANYWAY_SECONDS
        while not stop.is_set() and time.monotonic() < deadline:
            counter = self._store.change_counter()
            if counter != self._seen:
                self._seen = counter
                return
            stop.wait(self._poll_seconds)
