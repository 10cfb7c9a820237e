"""Where pynetdicom's association thread is held while a request of ours waits for its answer.

pynetdicom 3.0.4 says that the thread is held before it is (it sets `_is_paused`, then waits), so a request that begins
in that moment shares its queue with the thread, which takes a quick answer and drops it: the request waits out its
timeout and the association is aborted. Seen with one object of about two thousand, 16 associations at once.
"""

from __future__ import annotations

import threading

from pynetdicom.association import Association

WAIT_SECONDS = 0.05
"""How often it is looked whether the thread has ended instead of coming to be held."""


class Checkpoint(threading.Event):
    """An event whose `clear` returns once the thread of `association` is held by `wait`, or will not come again."""

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self._held = threading.Condition()
        self._is_held = False
        self._is_open = True

    def is_set(self) -> bool:
        """Whether the thread may pass."""
        return self._is_open

    def set(self) -> None:
        """Let the thread pass."""
        with self._held:
            self._is_open = True
            self._held.notify_all()

    def clear(self) -> None:
        """Hold the thread; return when it is held."""
        with self._held:
            self._is_open = False
            while not self._is_held and self._may_come():
                self._held.wait(WAIT_SECONDS)

    def wait(self, timeout: float | None = None) -> bool:
        """Called by the thread: pass, or be held. False if `timeout` seconds went by."""
        with self._held:
            self._is_held = not self._is_open
            self._held.notify_all()
            try:
                return self._held.wait_for(self.is_set, timeout)
            finally:
                self._is_held = False

    def _may_come(self) -> bool:
        association = self._association
        return association.is_alive() and not association._kill and threading.current_thread() is not association


def hold_firmly(association: Association) -> None:
    """Give an established `association` such a checkpoint.

    Raises
    ------
    TypeError
        This pynetdicom has no such event any more: to be looked at anew.
    """
    if not isinstance(getattr(association, "_reactor_checkpoint", None), threading.Event):
        raise TypeError("pynetdicom's association is not held by an event any more")
    association._reactor_checkpoint = Checkpoint(association)
