"""Errors as a sentence for the terminal and an exit status; of unknown ones the place, never their text."""

from __future__ import annotations

import traceback

from pacs_node.cli import EXIT_FAILED, EXIT_USAGE
from pacs_node.settings_tree import SettingsError


def explain(error: Exception) -> tuple[str, int]:
    """What to say of `error` and the exit status.

    An unknown error is a fault of ours: where it happened is told, but not its message, which may quote a patient.
    """
    if isinstance(error, SettingsError):
        return f"configuration refused:\n{error}", EXIT_USAGE
    hint = getattr(error, "hint", "")
    module = type(error).__module__
    if module.split(".")[0] in {"storage", "inference", "ecg_ingest", "pacs_node"}:
        return f"{error}" + (f" ({hint})" if hint and str(hint) not in str(error) else ""), EXIT_FAILED
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        return f"{error.strerror or error}:{where}", EXIT_FAILED
    frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    return f"internal error {type(error).__name__}; please report this place:\n{frames}", EXIT_FAILED
