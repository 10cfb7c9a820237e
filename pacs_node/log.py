"""Structured logs on standard error. Events are verbs with keys; values that could name a patient are dropped."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

import structlog

from pacs_node.settings import Log

FORBIDDEN_KEYS = frozenset(
    {
        "patient",
        "patient_id",
        "patient_name",
        "name",
        "birth_date",
        "sex",
        "accession_number",
        "issuer",
        "path",
    }
)
"""Keys that carry identity. An event that uses one is a fault of ours; its value never reaches the stream."""


def configure(settings: Log) -> None:
    """Set up structlog for this process, and tell of what libraries log or warn of without their words.

    Libraries quote values, and values may be a patient's: of theirs only logger, level and kind of error are written.
    """
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            drop_identity,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, settings.level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=cast(TextIO, _StandardError())),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Wordless()], level=logging.WARNING, force=True)
    logging.raiseExceptions = False
    logging.captureWarnings(capture=True)
    threading.excepthook = _thread_ended


def say_ended(reason: str, exit_status: int) -> None:
    """Write why this process ends, as one event of the log; of one that ended before it had settings, too."""
    if not structlog.is_configured():
        configure(Log())
    structlog.get_logger().error("process_failed", reason=reason, exit_status=exit_status)


class _Wordless(logging.Handler):
    """Writes that a library logged something, and not what."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0] if record.exc_info else None
        error = {"error": kind.__name__} if kind else {}
        structlog.get_logger().log(
            max(record.levelno, logging.WARNING),
            "library_message",
            logger=record.name,
            at=f"{record.module}:{record.lineno}",
            **error,
        )


def _thread_ended(arguments: threading.ExceptHookArgs) -> None:
    structlog.get_logger().error("thread_ended", error=arguments.exc_type.__name__)


class _StandardError:
    """Standard error as it is when an event is written: whoever redirects it, redirects the log."""

    def write(self, text: str) -> int:
        """Write to it. A full disk or a closed pipe costs the line, and never the work that is told of."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush it."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def drop_identity(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: values under a forbidden key are replaced."""
    for key in FORBIDDEN_KEYS.intersection(event):
        event[key] = "(not logged)"
    return event
