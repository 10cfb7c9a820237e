"""A second package on live traffic: it estimates what the served one estimated, and only the store hears of it.

A process of its own, behind the workers: it holds no match, writes no report, sends nothing, and its end, however it
comes, is no worker's. It takes what is due from `storage.shadows`.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

import structlog

from ecg_ingest.lead_images import EcgRefused, RenderStyle
from inference.predictor import Predictor
from inference.radiograph import RadiographUnusable
from pacs_node.flow.pace import Pace
from pacs_node.flow.pair import ESTIMATED
from pacs_node.flow.stages import ecg_findings
from pacs_node.flow.worker import PAUSE_SECONDS, owner_name
from pacs_node.opening.opener import NotOpened, Opener, OpenerUnavailable
from storage.errors import StorageBusy, StorageFull, StorageUnavailable
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
        self._predictor = predictor
        self._opener = opener
        self._clock = clock
        self._style = RenderStyle(**cast(dict[str, Any], dict(predictor.ecg_style)))
        self._owner = owner_name()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; the estimate in hand is finished first."""
        pace = Pace(self._store, POLL_SECONDS)
        while not stop.is_set():
            try:
                if not self.work_one():
                    pace.wait(stop)
            except (StorageFull, StorageBusy, StorageUnavailable) as error:
                log.error("storage_failed", error=type(error).__name__)
                stop.wait(PAUSE_SECONDS)

    def work_one(self) -> bool:
        """Claim and make one estimate; False if none is due."""
        due = self._store.claim_shadow(self._owner, LEASE_SECONDS, self._clock())
        if due is None:
            return False
        if due.attempts > ATTEMPTS:
            self._end(due, reason="attempts_spent: earlier tries ended without an answer")
            return True
        match = self._store.match(due.match_id)
        try:
            if match.state not in ESTIMATED:
                self._end(due, reason="no_estimate: the match was superseded, held or failed")
            else:
                self._end(due, prediction_json=self._estimate(match))
        except (RadiographUnusable, EcgRefused, NotOpened) as refusal:
            self._end(due, reason=f"refused: {refusal.reason.value}")
        except OpenerUnavailable as error:
            log.error("opener_failed", match_id=match.match_id, error=type(error).__name__)
            self._store.release_shadow(due.match_id, self._owner)
            threading.Event().wait(PAUSE_SECONDS)
        except (StorageFull, StorageBusy, StorageUnavailable):
            raise
        except Exception as error:  # noqa: BLE001 - the shadow's outermost loop: one match must not stop the rest
            self._after_failure(due, error)
        return True

    def _estimate(self, match: Match) -> str:
        if match.ecg_id is None:
            raise ValueError("an estimated match has an ECG")
        chest = self._predictor.chest(
            self._opener.radiograph(self._bytes(match.radiograph_id), self._predictor.preprocessing)
        )
        leads = self._opener.ecg(self._bytes(match.ecg_id), self._style)
        prediction = self._predictor.predict(chest.embedding, leads.pixels)
        return replace(prediction, findings=(*chest.findings, *ecg_findings(leads), *prediction.findings)).to_json()

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
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(frame.filename)}:{frame.lineno}"  # noqa: PTH119 - a name, not a path
        reason = f"failed: {type(error).__name__} at {place}"
        if due.attempts >= ATTEMPTS:
            self._end(due, reason=reason)
        else:
            self._store.retry_shadow(due.match_id, self._owner, reason, RETRY_SECONDS, self._clock())
        log.error("shadow_failed", match_id=due.match_id, error=type(error).__name__, at=place, attempts=due.attempts)
