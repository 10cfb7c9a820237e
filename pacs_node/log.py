"""Structured logs on standard error. Events are verbs with keys; values that could name a patient are dropped."""

from __future__ import annotations

import logging
import sys
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
    """Set up structlog and silence the standard library's root logger for this process."""
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


class _StandardError:
    """Standard error as it is when an event is written: whoever redirects it, redirects the log."""

    def write(self, text: str) -> int:
        """Write to it."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Flush it."""
        sys.stderr.flush()


def drop_identity(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: values under a forbidden key are replaced."""
    for key in FORBIDDEN_KEYS.intersection(event):
        event[key] = "(not logged)"
    return event
