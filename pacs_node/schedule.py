"""The scheduler process: when each round of `flow.upkeep` runs (APScheduler)."""

from __future__ import annotations

import threading

import structlog
from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from pacs_node.flow.upkeep import Upkeep
from pacs_node.service import wait_until

log = structlog.get_logger()

SECONDS_BETWEEN = {
    "close_windows": 10,
    "clear_ended_leases": 30,
    "purge_unpaired": 3600,
    "sweep_objects": 6 * 3600,
    "clear_done": 6 * 3600,
    "forget_commitments": 6 * 3600,
}


def run(upkeep: Upkeep, stop: threading.Event) -> None:
    """Run the rounds until `stop` is set; the round in hand is finished first."""
    scheduler = BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(1)})
    for name, seconds in SECONDS_BETWEEN.items():
        scheduler.add_job(
            getattr(upkeep, name),
            "interval",
            seconds=seconds,
            id=name,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )
    scheduler.add_listener(_failed, EVENT_JOB_ERROR)
    upkeep.close_windows()
    scheduler.start()
    wait_until(stop)
    scheduler.shutdown(wait=True)


def _failed(event: JobExecutionEvent) -> None:
    log.error("round_failed", round=event.job_id, error=type(event.exception).__name__)
