"""What a changed configuration means for a service that runs: what differs, and what has to wait for a restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from pacs_node.settings import Settings, contradictions, load
from pacs_node.settings_tree import SettingsError

log = structlog.get_logger()

NEEDS_RESTART = (
    "node.host",
    "node.port",
    "node.receivers",
    "tls.port",
    "tls.only",
    "web.host",
    "web.port",
    "storage.database",
    "storage.objects",
    "model.shadow",
    "folder.path",
    "worker.processes",
)
"""Keys of which a running service keeps the value: its ports are open, and its parts must not use two stores."""


def changed_keys(old: Settings, new: Settings) -> list[str]:
    """The keys that differ, as "section.key"; a list of tables counts as one."""
    found = []
    for section in Settings.model_fields:
        before, after = getattr(old, section), getattr(new, section)
        if isinstance(before, tuple):
            found += [section] if before != after else []
        else:
            keys = type(before).model_fields
            found += [f"{section}.{key}" for key in keys if getattr(before, key) != getattr(after, key)]
    return found


def keep(old: Settings, new: Settings) -> Settings:
    """`new`, but with the values of `old` for what needs a restart."""
    for name in NEEDS_RESTART:
        section, key = name.split(".")
        value = getattr(getattr(old, section), key)
        new = new.model_copy(update={section: getattr(new, section).model_copy(update={key: value})})
    return new


def reread(config: Path | None, running: Settings, check: Callable[[Settings], None]) -> Settings | None:
    """The settings that a running service takes over from its file, or None: the file is refused, and nothing changes.

    Parameters
    ----------
    check
        Raises an error of this program for settings that cannot be used, though every key is allowed.
    """
    try:
        new = load(config)
        settings = keep(running, new)
        if problems := contradictions(settings):
            waiting = [key for key in changed_keys(running, new) if key in NEEDS_RESTART]
            kept = f" ({', '.join(waiting)} as before: a restart would take the new value)" if waiting else ""
            file = f"{config}: " if config else ""
            raise SettingsError([file + problem + kept for problem in problems])
        check(settings)
    except SettingsError as error:
        for problem in error.problems:
            log.error("settings_refused", reason=problem)
        return None
    except Exception as error:
        if type(error).__module__.split(".")[0] not in {"inference", "pacs_node"}:
            raise
        log.error("settings_refused", reason=str(error))
        return None
    waiting = [key for key in changed_keys(running, new) if key in NEEDS_RESTART]
    log.info("settings_reread", changed=changed_keys(running, settings), needs_restart=waiting)
    return settings
