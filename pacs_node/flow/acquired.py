"""When an examination was made: the best date and time of a header as an instant in UTC.

A date without a time counts as noon, and says so. The offset is the value's own, else
TimezoneOffsetFromUTC (0008,0201), else the site's time zone.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from ecg_ingest.channels import Elements
from pacs_node.flow.classify import text
from storage.records import Acquired

SOURCES = (
    ("AcquisitionDate", "AcquisitionTime"),
    ("StudyDate", "StudyTime"),
    ("SeriesDate", "SeriesTime"),
    ("ContentDate", "ContentTime"),
)
"""Asked in this order, after AcquisitionDateTime. Series and content come last: devices that process an image again,
and archives that take over old ones, date these by their own work."""

_DATE = re.compile(r"(\d{4})[.\-]?(\d{2})[.\-]?(\d{2})")
_TIME = re.compile(r"(\d{2}):?(\d{2})?:?(\d{2})?(?:\.(\d{1,6}))?")
_DATETIME = re.compile(r"(\d{8})(\d{2,6}(?:\.\d{1,6})?)?([+-]\d{4})?")
_OFFSET = re.compile(r"([+-])(\d{2})([0-5]\d)")
_EARLIEST = 1890  # before the first radiograph; such dates are fillers


def acquired(header: Elements, site: ZoneInfo) -> Acquired | None:
    """The instant of acquisition, or None if no usable date is there."""
    stated = _offset(text(header, "TimezoneOffsetFromUTC"))
    match = _DATETIME.fullmatch(text(header, "AcquisitionDateTime"))
    if match is not None:
        own = _offset(match[3] or "")
        found = _instant(match[1], match[2] or "", own or stated, site, "AcquisitionDateTime")
        if found is not None:
            return found
    for date_key, time_key in SOURCES:
        found = _instant(text(header, date_key), text(header, time_key), stated, site, date_key)
        if found is not None:
            return found
    return None


def _instant(date_text: str, time_text: str, offset: timezone | None, site: ZoneInfo, source: str) -> Acquired | None:
    date = _DATE.fullmatch(date_text)
    if date is None or int(date[1]) < _EARLIEST:
        return None
    clock = _clock(time_text)
    hour, minute, second, microsecond = clock or (12, 0, 0, 0)
    zone = offset or site
    try:
        local = datetime(int(date[1]), int(date[2]), int(date[3]), hour, minute, second, microsecond, tzinfo=zone)
        instant = local.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return Acquired(
        at=instant,
        source=source,
        timezone=offset.tzname(None) if offset else site.key,
        date_only=clock is None,
    )


def _clock(value: str) -> tuple[int, int, int, int] | None:
    """Hour, minute, second, microsecond; None if there is no usable time of day."""
    match = _TIME.fullmatch(value)
    if match is None:
        return None
    hour, minute, second = int(match[1]), int(match[2] or 0), int(match[3] or 0)
    if hour > 23 or minute > 59 or second > 60:
        return None
    return hour, minute, min(second, 59), int((match[4] or "0").ljust(6, "0"))  # 60: a leap second


def _offset(value: str) -> timezone | None:
    match = _OFFSET.fullmatch(value)
    if match is None:
        return None
    minutes = (int(match[2]) * 60 + int(match[3])) * (-1 if match[1] == "-" else 1)
    return timezone(timedelta(minutes=minutes)) if -12 * 60 <= minutes <= 14 * 60 else None
