"""When an examination was made: seven days are counted from this, so a wrong offset pairs wrongly."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pydicom import dcmread

from pacs_node.flow.acquired import acquired
from storage.records import Acquired
from tests.unit.flow.headers import radiograph

TOKYO = ZoneInfo("Asia/Tokyo")
BERLIN = ZoneInfo("Europe/Berlin")


def instant(*, zone: ZoneInfo = TOKYO, **elements: object) -> Acquired | None:
    return acquired(radiograph(**elements), zone)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("20240301093015.250000+0900", utc(2024, 3, 1, 0, 30, 15, 250000)),
        ("20240301093015+0900", utc(2024, 3, 1, 0, 30, 15)),
        ("20240301093015-0530", utc(2024, 3, 1, 15, 0, 15)),
        ("20240301093015+0000", utc(2024, 3, 1, 9, 30, 15)),
        ("202403010930+0100", utc(2024, 3, 1, 8, 30)),
        ("2024030109+0100", utc(2024, 3, 1, 8)),
        ("20240301093015.25", utc(2024, 3, 1, 0, 30, 15, 250000)),
        ("20240301093060+0000", utc(2024, 3, 1, 9, 30, 59)),  # a leap second
        ("20240301093015.5 ", utc(2024, 3, 1, 0, 30, 15, 500000)),
    ],
)
def test_every_form_of_a_date_time_gives_its_instant(value: str, expected: datetime) -> None:
    found = instant(AcquisitionDateTime=value)
    assert found is not None
    assert (found.at, found.source, found.date_only) == (expected, "AcquisitionDateTime", False)


@pytest.mark.parametrize(
    ("date", "time", "expected"),
    [
        ("20240301", "093015.250000", utc(2024, 3, 1, 0, 30, 15, 250000)),
        ("20240301", "093015", utc(2024, 3, 1, 0, 30, 15)),
        ("20240301", "0930", utc(2024, 3, 1, 0, 30)),
        ("20240301", "09", utc(2024, 3, 1, 0)),
        ("20240301", "000000", utc(2024, 2, 29, 15)),
        ("2024.03.01", "09:30:15", utc(2024, 3, 1, 0, 30, 15)),  # ACR-NEMA 2.0, still sent
    ],
)
def test_every_form_of_a_date_and_a_time_gives_its_instant(date: str, time: str, expected: datetime) -> None:
    found = instant(StudyDate=date, StudyTime=time)
    assert found == Acquired(at=expected, source="StudyDate", timezone="Asia/Tokyo", date_only=False)


@pytest.mark.parametrize("time", [None, "", "25", "0960", "093061", "nine", "9:30"])
def test_a_date_without_a_usable_time_counts_as_local_noon_and_says_so(time: str | None) -> None:
    found = instant(StudyDate="20240301", StudyTime=time)
    assert found == Acquired(at=utc(2024, 3, 1, 3), source="StudyDate", timezone="Asia/Tokyo", date_only=True)


def test_a_date_time_of_a_date_alone_counts_as_noon_in_its_own_offset() -> None:
    found = instant(AcquisitionDateTime="20240301-0500")
    assert found == Acquired(at=utc(2024, 3, 1, 17), source="AcquisitionDateTime", timezone="UTC-05:00", date_only=True)


def test_the_values_own_offset_goes_before_the_objects_and_that_before_the_sites() -> None:
    both = instant(AcquisitionDateTime="20240301120000+0200", TimezoneOffsetFromUTC="-0800")
    objects = instant(AcquisitionDateTime="20240301120000", TimezoneOffsetFromUTC="-0800")
    sites = instant(AcquisitionDateTime="20240301120000")
    assert [(found.at.hour, found.timezone) for found in (both, objects, sites) if found] == [
        (10, "UTC+02:00"),
        (20, "UTC-08:00"),
        (3, "Asia/Tokyo"),
    ]


@pytest.mark.parametrize("offset", ["0900", "+9", "+9900", "JST", "+1401", "-1201", "+0160"])
def test_an_offset_that_cannot_be_is_not_believed(offset: str) -> None:
    found = instant(StudyDate="20240301", StudyTime="1200", TimezoneOffsetFromUTC=offset)
    assert found is not None
    assert (found.at, found.timezone) == (utc(2024, 3, 1, 3), "Asia/Tokyo")


@pytest.mark.parametrize(
    ("date", "time", "expected"),
    [
        ("20240115", "120000", utc(2024, 1, 15, 11)),  # winter time
        ("20240715", "120000", utc(2024, 7, 15, 10)),  # summer time
        ("20241027", "023000", utc(2024, 10, 27, 0, 30)),  # comes twice: the first one
        ("20240331", "023000", utc(2024, 3, 31, 1, 30)),  # never comes: read as winter time
    ],
)
def test_the_sites_zone_knows_summer_time(date: str, time: str, expected: datetime) -> None:
    found = instant(zone=BERLIN, StudyDate=date, StudyTime=time)
    assert found is not None
    assert found.at == expected


def test_sources_that_reprocessing_changes_are_asked_last() -> None:
    elements: dict[str, object] = {
        "AcquisitionDateTime": "20240301120000",
        "AcquisitionDate": "20240302",
        "SeriesDate": "20240303",
        "StudyDate": "20240304",
        "ContentDate": "20240305",
    }
    order = []
    while (found := acquired(radiograph(**elements), TOKYO)) is not None:
        order.append(found.source)
        del elements[found.source]
    assert order == ["AcquisitionDateTime", "AcquisitionDate", "StudyDate", "SeriesDate", "ContentDate"]


@pytest.mark.parametrize(
    "wrong", ["", "00000000", "19000230", "20241301", "18890101", "2024", "202403", "today", "20240301x", "9999123"]
)
def test_a_date_that_is_none_leaves_the_word_to_the_next_source(wrong: str) -> None:
    found = instant(AcquisitionDateTime=wrong, AcquisitionDate=wrong, SeriesDate="20240301", SeriesTime="09")
    assert found is not None
    assert found.source == "SeriesDate"
    assert instant(StudyDate=wrong) is None


def test_the_last_instant_of_the_calendar_is_no_date() -> None:
    assert instant(StudyDate="99991231", StudyTime="235959", TimezoneOffsetFromUTC="-1200") is None


def test_a_time_without_its_date_is_not_taken_from_another_source() -> None:
    found = instant(AcquisitionTime="093000", StudyDate="20240301", StudyTime="080000")
    assert found is not None
    assert (found.source, found.at) == ("StudyDate", utc(2024, 2, 29, 23))


def test_a_real_radiograph_and_a_real_ecg(philips_radiograph: Path, mortara_ecg: Path) -> None:
    film = acquired(dcmread(philips_radiograph, stop_before_pixels=True), TOKYO)
    tracing = acquired(dcmread(mortara_ecg), TOKYO)
    assert film is not None
    assert tracing is not None
    assert (film.at, film.source, film.timezone) == (utc(2004, 8, 26, 22, 50, 59), "StudyDate", "UTC-04:00")
    assert (tracing.at, tracing.source) == (utc(2013, 1, 25, 1, 59, 19), "AcquisitionDateTime")
