"""How fast one source may send: its object is read when its turn comes, and the network passes the waiting on to it."""

from __future__ import annotations

import threading
import time

from pacs_node.settings import Source

BURST_SECONDS = 1.0
"""So much of a second's objects may come at once after a pause."""
LONGEST_WAIT_SECONDS = 10.0
"""A turn further away is refused: senders give up waiting for an answer after half a minute or so."""


class Rates:
    """The turns of every source (generic cell rate algorithm). For several threads.

    Parameters
    ----------
    objects_per_second
        For sources that name none of their own; 0: no bound.
    """

    def __init__(self, objects_per_second: float) -> None:
        self._default = objects_per_second
        self._guard = threading.Lock()
        self._due: dict[tuple[str, str], float] = {}

    def turn(self, source: Source) -> float | None:
        """Seconds until the next object of `source` may be read; None: too many wait already."""
        rate = source.objects_per_second or self._default
        if not rate:
            return 0.0
        key = (source.ae_title, source.host)
        now = time.monotonic()
        with self._guard:
            due = max(now, self._due.get(key, now))
            wait = due - now - BURST_SECONDS
            if wait > LONGEST_WAIT_SECONDS:
                return None
            self._due[key] = due + 1 / rate
        return max(0.0, wait)
