"""A table of labelled examinations, checked row by row: what may be learned from, and why the rest may not.

In: CSV or Parquet; out: rows that are sound in themselves and among one another, and a refusal for each other row.
Nothing is guessed or mended. Files and headers are looked at by whoever can open them, by `check_dates` too.
"""

from __future__ import annotations

import math
import operator
import posixpath
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path

from inference.columns import slips, unknown
from inference.csv_file import NotCsv, no_number, read_rows, uneven
from inference.split import PARTS

REQUIRED = ("patient", "radiograph", "ecg", "mpap_mmhg", "rhc_date")
ATTRIBUTES = ("sex", "age", "smoker", "ph_group", "site", "scanner")
OPTIONAL = (*ATTRIBUTES, "split", "radiograph_date", "ecg_date")

CLOSED = {
    "sex": ("F", "M", "O"),
    "smoker": ("yes", "no", "true", "false", "1", "0", "current", "former", "never"),
    "ph_group": ("1", "2", "3", "4", "5"),
    "split": PARTS,
}
"""What may stand in a column, as `evaluation.table` reads it too."""

MPAP_RANGE_MMHG = (5.0, 120.0)
"""What a right-heart catheter can have measured; beyond lies a slip of the pen or another unit."""
CATHETER_DAYS = 7  # Yoon et al. 2.1
MAXIMUM_ROWS = 5_000_000


class RowFault(StrEnum):
    """Why a row is refused. A closed set."""

    BLANK = "blank"  # a required cell is empty
    CELLS = "cells"  # more or fewer than the head has
    NOT_A_NUMBER = "not_a_number"
    OUT_OF_RANGE = "out_of_range"
    NOT_A_DATE = "not_a_date"
    UNKNOWN_VALUE = "unknown_value"  # of a column with a closed set
    DUPLICATE = "duplicate"
    CONTRADICTION = "contradiction"  # the same examination with other values
    TWO_PATIENTS = "two_patients"  # the same file under two patients, or two patients in one pair
    TWO_SPLITS = "two_splits"  # a patient in training and in test
    MISSING_FILE = "missing_file"
    OUTSIDE_FOLDER = "outside_folder"
    RADIOGRAPH = "radiograph"  # cannot be used: its own reason follows
    ECG = "ecg"
    NO_DATE = "no_date"  # an examination does not say when it was made
    TOO_FAR = "too_far"  # more than `CATHETER_DAYS` from the catheterisation


class TableRefused(Exception):
    """A table that cannot be read as a cohort at all."""

    def __init__(self, file: str, detail: str, hint: str = "") -> None:
        super().__init__(file, detail, hint)
        self.file = file
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.file}: {self.detail}" + (f" ({self.hint})" if self.hint else "")


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A row that is not used. `row` counts from 1 below the head, empty rows too; nothing here names a patient."""

    row: int
    fault: RowFault
    detail: str


@dataclass(frozen=True, kw_only=True)
class CohortRow:
    """A row that is sound in itself."""

    row: int
    patient: str
    radiograph: str  # a path below the data folder, or a SOP Instance UID
    ecg: str
    mpap_mmhg: float
    rhc_on: date
    attributes: tuple[tuple[str, str], ...]  # of `ATTRIBUTES`, as the table writes them; blank where unknown
    split: str  # one of `split.PARTS`, or "" where the table gives none
    radiograph_on: date | None  # where the table says so, for files that do not
    ecg_on: date | None


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A table, row by row: every row is in one of the two."""

    rows: tuple[CohortRow, ...]
    refused: tuple[Refusal, ...]
    unread: tuple[str, ...] = ()  # columns that are none of ours, as the table names them


def read_cohort(path: Path) -> Checked:
    """Read and check the table at `path` (.parquet, else CSV in UTF-8).

    Raises
    ------
    TableRefused
        If it cannot be read, lacks a required column, names one twice or has one that looks like a slip of a known one.
    OSError
        If the file cannot be opened.
    """
    columns, cells = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    known = (*REQUIRED, *OPTIONAL)
    if mistaken := slips(columns, known):
        told = ", ".join(f"{column!r} for {name}" for column, name in mistaken.items())
        raise TableRefused(path.name, f"has a column that looks like a slip: {told}", "rename it, or take it out")
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise TableRefused(path.name, f"lacks the columns {', '.join(missing)}", f"needed: {', '.join(REQUIRED)}")
    doubled = [name for name, count in Counter(columns).items() if count > 1]
    if doubled:
        raise TableRefused(path.name, f"names a column twice: {', '.join(doubled)}")
    rows: list[CohortRow] = []
    refused: list[Refusal] = []
    for number, values in cells:
        if len(values) != len(columns):
            detail = uneven(len(values), len(columns))
            refused.append(Refusal(row=number, fault=RowFault.CELLS, detail=detail))
            continue
        given = {name: value for name, value in zip(columns, values, strict=True) if name in known}
        try:
            rows.append(_row(number, {name: given.get(name, "").strip() for name in known}))
        except _Fault as fault:
            refused.append(Refusal(row=number, fault=fault.fault, detail=fault.detail))
    some_split = {bool(row.split) for row in rows}
    if some_split == {True, False}:
        raise TableRefused(path.name, "has a split for some rows only", "give it for all, or leave the column out")
    among = _among(rows)
    lost = {refusal.row for refusal in among}
    return Checked(
        rows=tuple(row for row in rows if row.row not in lost),
        refused=tuple(sorted((*refused, *among), key=lambda refusal: refusal.row)),
        unread=unknown(columns, known),
    )


def check_dates(row: CohortRow, radiograph_on: date | None, ecg_on: date | None) -> Refusal | None:
    """Refuse a pair of which one was not made within seven days of the catheterisation, both directions, inclusive."""
    for what, on in (("radiograph", radiograph_on), ("ECG", ecg_on)):
        if on is None:
            return Refusal(
                row=row.row,
                fault=RowFault.NO_DATE,
                detail=f"the {what} does not say when it was made; give {what.lower()}_date",
            )
        days = abs((on - row.rhc_on).days)
        if days > CATHETER_DAYS:
            return Refusal(
                row=row.row,
                fault=RowFault.TOO_FAR,
                detail=f"the {what} is {days} days from the catheterisation, more than {CATHETER_DAYS}",
            )
    return None


class _Fault(Exception):
    def __init__(self, fault: RowFault, detail: str) -> None:
        super().__init__(fault, detail)
        self.fault, self.detail = fault, detail


def _row(number: int, cells: dict[str, str]) -> CohortRow:
    for name in REQUIRED:
        if not cells[name]:
            detail = "no ECG of this catheterisation is named" if name == "ecg" else f"{name} is empty"
            raise _Fault(RowFault.BLANK, detail)
    for name, allowed in CLOSED.items():
        cells[name] = _known(cells[name], name, allowed)
    if cells["age"]:
        _number(cells["age"], "age", (0.0, 120.0), "years")
    rhc_on = _date(cells["rhc_date"], "rhc_date")
    assert rhc_on is not None  # noqa: S101 - not blank, so a date or a fault
    return CohortRow(
        row=number,
        patient=cells["patient"],
        radiograph=posixpath.normpath(cells["radiograph"]),
        ecg=posixpath.normpath(cells["ecg"]),
        mpap_mmhg=_number(cells["mpap_mmhg"], "mpap_mmhg", MPAP_RANGE_MMHG, "mmHg"),
        rhc_on=rhc_on,
        attributes=tuple((name, cells[name]) for name in ATTRIBUTES),
        split=cells["split"],
        radiograph_on=_date(cells["radiograph_date"], "radiograph_date"),
        ecg_on=_date(cells["ecg_date"], "ecg_date"),
    )


def _number(text: str, name: str, bounds: tuple[float, float], unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _Fault(RowFault.NOT_A_NUMBER, f"{name} {no_number(text)}") from None
    if not math.isfinite(value):
        raise _Fault(RowFault.NOT_A_NUMBER, f"{name} is not finite")
    if not bounds[0] <= value <= bounds[1]:
        raise _Fault(RowFault.OUT_OF_RANGE, f"{name} is {value:g}, outside {bounds[0]:g} to {bounds[1]:g} {unit}")
    return value


def _date(text: str, name: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise _Fault(RowFault.NOT_A_DATE, f"{name} is not a date such as 2026-03-01") from None


def _known(text: str, name: str, allowed: tuple[str, ...]) -> str:
    """The value as `allowed` writes it; capitals make no difference."""
    found = {value.lower(): value for value in ("", *allowed)}.get(text.lower())
    if found is None:
        raise _Fault(RowFault.UNKNOWN_VALUE, f"{name} is none of {', '.join(allowed)}")
    return found


def _among(rows: Sequence[CohortRow]) -> list[Refusal]:
    """What is wrong between rows. A row is refused once, for the graver reason."""
    found: dict[int, Refusal] = {}

    def refuse(row: CohortRow, fault: RowFault, detail: str) -> None:
        found.setdefault(row.row, Refusal(row=row.row, fault=fault, detail=detail))

    for what in ("radiograph", "ecg"):
        for group in _groups(rows, operator.attrgetter(what)):
            if len({row.patient for row in group}) > 1:
                for row in group:
                    refuse(row, RowFault.TWO_PATIENTS, f"the {what} also stands under another patient")
    for group in _groups(rows, lambda row: row.patient):
        parts = sorted({row.split for row in group})
        if len(parts) > 1:
            for row in group:
                refuse(row, RowFault.TWO_SPLITS, f"the patient stands in {' and '.join(parts)}")
    for group in _groups(rows, lambda row: (row.radiograph, row.ecg)):
        numbers = [row.row for row in group]
        if len({(row.mpap_mmhg, row.rhc_on, row.attributes, row.split) for row in group}) > 1:
            for row in group:
                others = ", ".join(str(number) for number in numbers if number != row.row)
                refuse(row, RowFault.CONTRADICTION, f"the same examination with other values in row {others}")
        else:
            for row in group[1:]:
                refuse(row, RowFault.DUPLICATE, f"repeats row {numbers[0]}")
    return list(found.values())


def _groups(rows: Iterable[CohortRow], key: Callable[[CohortRow], object]) -> list[list[CohortRow]]:
    """Rows of equal key, where there are several."""
    groups: dict[object, list[CohortRow]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return [group for group in groups.values() if len(group) > 1]


def _read_csv(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    try:
        return read_rows(path, MAXIMUM_ROWS)
    except NotCsv as error:
        raise TableRefused(path.name, error.detail, error.hint) from error


def _read_parquet(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, ValueError) as error:
        raise TableRefused(path.name, f"is not a Parquet file ({type(error).__name__})") from error
    if table.num_rows > MAXIMUM_ROWS:
        raise TableRefused(path.name, f"has more than {MAXIMUM_ROWS} rows")
    columns = [column.to_pylist() for column in table.itercolumns()]
    rows = enumerate(zip(*columns, strict=True), start=1)
    return list(table.column_names), [(number, [_cell(value) for value in row]) for number, row in rows]


def _cell(value: object) -> str:
    """A Parquet value as the CSV would write it: whole numbers of float columns without a point."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.date().isoformat() if hasattr(value, "date") else str(value)
