"""Claim what is due and work it, one match at a time, until told to stop.

Any number of workers may run; the leases in the match table keep them apart. A worker that dies leaves a
lease that ends, and another one resumes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from pacs_node.flow.digest import chest_key
from pacs_node.flow.lease import kept_lease
from pacs_node.flow.loop import NOT_THE_WORKS_FAULT, owner_name, pause_after, place_of, work_until
from pacs_node.flow.pace import Pace
from pacs_node.flow.stages import Stages, failed_try
from pacs_node.report.errors import ReportError
from pacs_node.settings import Settings
from storage.records import Match, MatchState
from storage.store import Store

log = structlog.get_logger()

IN_TURN = (MatchState.PAIRED, MatchState.PREDICTED)


class Worker:
    """Works matches with one `Stages`."""

    def __init__(
        self,
        store: Store,
        stages: Stages,
        settings: Settings,
        clock: Callable[[], datetime],
        model_digest: str,
    ) -> None:
        self._store = store
        self._stages = stages
        self._settings = settings.worker
        self._clock = clock
        self._chest_key = chest_key(model_digest, settings)
        self._owner = owner_name()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; the match in hand is finished first."""
        work_until(stop, self, Pace(self._store, self._settings.poll_seconds))

    def work_one(self, stop: threading.Event | None = None) -> bool:
        """Claim and work one match; False if none is due. `stop` ends the pause after a failure that is not its own."""
        match = self._store.claim_match(
            IN_TURN, self._owner, lease_seconds=self._settings.lease_seconds, now=self._clock()
        ) or self._store.claim_chest(
            self._chest_key, self._owner, lease_seconds=self._settings.lease_seconds, now=self._clock()
        )
        if match is None:
            return False
        started = time.monotonic()
        if match.attempts > self._settings.attempts:
            self._store.fail_match(
                match.match_id,
                self._owner,
                "attempts_spent: earlier tries ended without an answer",
                self._clock(),
            )
            log.error("match_failed", match_id=match.match_id, stage=match.state.value, attempts=match.attempts)
            return True
        try:
            with kept_lease(self._store, match.match_id, self._owner, self._settings.lease_seconds, self._clock):
                stored = self._stages.run(match, self._owner)
        except NOT_THE_WORKS_FAULT as error:
            pause_after(error, stop, match_id=match.match_id, stage=match.state.value)
            self._store.release(match.match_id, self._owner)
        except ReportError as error:
            self._store.hold_match(match.match_id, self._owner, f"report_refused: {error}", self._clock())
            log.warning("match_held", match_id=match.match_id, stage=match.state.value, error=type(error).__name__)
        except Exception as error:  # noqa: BLE001 - the worker's outermost loop: one match must not stop the rest
            self._after_failure(match, error)
        else:
            log.info(
                "worked" if stored else "result_dropped",
                match_id=match.match_id,
                stage=match.state.value,
                milliseconds=round(1000 * (time.monotonic() - started)),
            )
        return True

    def _after_failure(self, match: Match, error: Exception) -> None:
        """Try again later, or give up when the attempts are spent. The message stays out of the log."""
        place = place_of(error)
        reason = f"{failed_try(match)}{type(error).__name__} at {place}: {error}"
        now = self._clock()
        spent = match.attempts >= self._settings.attempts
        if spent:
            self._store.fail_match(match.match_id, self._owner, reason, now)
        else:
            wait = self._settings.retry_seconds * 2 ** (match.attempts - 1)
            self._store.retry_match(match.match_id, self._owner, reason, now + timedelta(seconds=wait), now)
        log.error(
            "stage_failed",
            match_id=match.match_id,
            stage=match.state.value,
            error=type(error).__name__,
            at=place,
            attempts=match.attempts,
            final=spent,
        )
