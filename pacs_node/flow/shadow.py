"""A second package on live traffic: it estimates what the served one estimated, and only the store hears of it.

A process of its own, behind the workers: it holds no match, writes no report, sends nothing, and its end, however it
comes, is no worker's. It takes what is due from `storage.shadows`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

import structlog

from ecg_ingest.lead_images import EcgRefused
from inference.predictor import Predictor
from inference.radiograph import RadiographUnusable
from pacs_node.flow.estimating import Estimating
from pacs_node.flow.loop import NOT_THE_WORKS_FAULT, owner_name, pause_after, place_of, work_until
from pacs_node.flow.pace import Pace
from pacs_node.flow.pair import ESTIMATED
from pacs_node.opening.opener import NotOpened, Opener
from storage.objects import ObjectStore
from storage.records import Match, ShadowEstimate
from storage.store import Store

log = structlog.get_logger()

LEASE_SECONDS = 900.0
"""A shadow that died is found out so late; nobody waits for it."""
ATTEMPTS = 3
RETRY_SECONDS = 60.0
POLL_SECONDS = 0.5


class Shadow:
    """Makes the second estimates that are due, one at a time."""

    def __init__(
        self,
        store: Store,
        objects: ObjectStore,
        predictor: Predictor,
        opener: Opener,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._objects = objects
        self._estimating = Estimating(predictor, opener)
        self._clock = clock
        self._owner = owner_name()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; the estimate in hand is finished first."""
        work_until(stop, self, Pace(self._store, POLL_SECONDS))

    def work_one(self, stop: threading.Event | None = None) -> bool:
        """Claim and make one estimate; False if none is due. `stop` ends the pause after a failure not its own."""
        due = self._store.claim_shadow(self._owner, LEASE_SECONDS, self._clock())
        if due is None:
            return False
        try:
            if due.attempts > ATTEMPTS:
                self._end(due, reason="attempts_spent: earlier tries ended without an answer")
            elif (match := self._store.match(due.match_id)).state not in ESTIMATED:
                self._end(due, reason="no_estimate: the match was superseded, held or failed")
            else:
                self._end(due, prediction_json=self._estimate(match))
        except (RadiographUnusable, EcgRefused, NotOpened) as refusal:
            self._end(due, reason=f"refused: {refusal.reason.value}")
        except NOT_THE_WORKS_FAULT as error:
            pause_after(error, stop, match_id=due.match_id)
            self._store.release_shadow(due.match_id, self._owner)
        except Exception as error:  # noqa: BLE001 - the shadow's outermost loop: one match must not stop the rest
            self._after_failure(due, error)
        return True

    def _estimate(self, match: Match) -> str:
        if match.ecg_id is None:
            raise ValueError("an estimated match has an ECG")
        chest = self._estimating.chest(self._bytes(match.radiograph_id))
        leads = self._estimating.leads(self._bytes(match.ecg_id))
        return self._estimating.estimate(chest.embedding, chest.findings, leads).to_json()

    def _bytes(self, instance_id: int) -> bytes:
        return self._objects.get(self._store.instance(instance_id).instance.sha256)

    def _end(self, due: ShadowEstimate, *, prediction_json: str = "", reason: str = "") -> None:
        kept = self._store.save_shadow(
            due.match_id, self._owner, prediction_json=prediction_json, reason=reason, now=self._clock()
        )
        event = "shadow_estimated" if prediction_json else "shadow_without_estimate"
        log.info(event if kept else "shadow_dropped", match_id=due.match_id, reason=reason.partition(":")[0])

    def _after_failure(self, due: ShadowEstimate, error: Exception) -> None:
        """Try again later, or end without an estimate. The message of the error stays out of log and row."""
        place = place_of(error)
        reason = f"failed: {type(error).__name__} at {place}"
        if due.attempts >= ATTEMPTS:
            self._end(due, reason=reason)
        else:
            self._store.retry_shadow(due.match_id, self._owner, reason, RETRY_SECONDS, self._clock())
        log.error("shadow_failed", match_id=due.match_id, error=type(error).__name__, at=place, attempts=due.attempts)
