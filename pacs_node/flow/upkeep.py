"""What is done because time passed: windows close, leases end, old inputs and orphaned objects go."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from pacs_node.flow.drop_identity import DONE
from pacs_node.settings import Settings
from storage.errors import StoreMismatch, SweepRefused
from storage.objects import ObjectStore
from storage.store import Store

log = structlog.get_logger()

PURGE_AT_ONCE = 500
"""Inputs removed in one round, so that a round stays short."""
ORPHAN_AGE = timedelta(hours=1)
"""An object without a row may belong to a receive that is still running; after this it does not."""


class Upkeep:
    """The rounds of the scheduler; each is safe to run at any time, on any node, twice."""

    def __init__(self, store: Store, objects: ObjectStore, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._objects = objects
        self._settings = settings
        self._clock = clock

    def close_windows(self) -> int:
        """Radiographs whose window passed without an ECG say so."""
        closed = self._store.close_windows(self._clock(), timedelta(days=self._settings.pairing.window_days))
        if closed:
            log.info("windows_closed", radiographs=closed)
        return closed

    def clear_ended_leases(self) -> int:
        """Claims of workers that died are open to others (they are claimable already; this tidies the rows)."""
        ended = self._store.clear_ended_leases(self._clock())
        if ended:
            log.warning("leases_ended", claims=ended)
        return ended

    def purge_unpaired(self) -> int:
        """Remove the bytes of inputs that nobody paired within `storage.retain_unpaired_days`; rows stay."""
        days = self._settings.storage.retain_unpaired_days
        if days == 0:
            return 0
        now = self._clock()
        old = self._store.unpaired_inputs(now - timedelta(days=days), PURGE_AT_ONCE)
        for stored in old:
            named = self._store.mark_purged(stored.instance_id, now)
            self._store.set_aside(self._objects, named, ORPHAN_AGE.total_seconds())
        if old:
            log.info("inputs_purged", instances=len(old))
        return len(old)

    def sweep_objects(self) -> int:
        """Set aside objects that no row needs, remove those set aside long ago; how many left the folder's tree."""
        self._objects.sweep_temporary(ORPHAN_AGE.total_seconds())
        moved = self._forget_former_features()
        try:
            moved += self._store.sweep_orphans(self._objects, ORPHAN_AGE.total_seconds())
        except (SweepRefused, StoreMismatch) as error:
            log.error("sweep_refused", reason=str(error), hint=error.hint)
        days = self._settings.storage.keep_orphaned_days
        removed = self._objects.remove_set_aside(timedelta(days=days).total_seconds()) if days else 0
        if moved or removed:
            log.info("objects_swept", set_aside=moved, removed=removed)
        return moved

    def clear_done(self) -> int:
        """Remove files of the watched folder's done/ that were put there `folder.keep_done_days` ago."""
        rules = self._settings.folder
        if not (rules.is_watched and rules.keep_done_days):
            return 0
        before = (self._clock() - timedelta(days=rules.keep_done_days)).timestamp()
        removed = 0
        with suppress(FileNotFoundError), os.scandir(Path(rules.path) / DONE) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_ctime < before:
                    Path(entry.path).unlink(missing_ok=True)
                    removed += 1
        if removed:
            log.info("done_files_removed", files=removed)
        return removed

    def forget_commitments(self) -> int:
        """Forget what was asked and answered `commitment.keep_days` ago; what is awaited or owed stays."""
        before = self._clock() - timedelta(days=self._settings.commitment.keep_days)
        return self._store.forget_requests(before) + self._store.forget_questions(before)

    def _forget_former_features(self) -> int:
        """Chest features and pictures of models that were replaced."""
        moved = 0
        while pictures := self._store.remove_former_features(PURGE_AT_ONCE):
            moved += self._store.set_aside(self._objects, pictures, ORPHAN_AGE.total_seconds())
        return moved
