"""Read a table of catheter values (CSV) row by row: what can be kept, and why the rest may not. Nothing is guessed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from inference.cohort import MPAP_RANGE_MMHG, TableRefused
from inference.columns import slips, unknown
from inference.csv_file import NotCsv, no_number, read_rows, uneven
from storage.records import Catheterisation

COLUMNS = ("patient_id", "rhc_date", "mpap_mmhg")
MOST_ROWS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class CatheterTable:
    """A table, row by row; rows count from 1 below the head. Reasons name no patient."""

    values: tuple[tuple[int, Catheterisation], ...]
    refused: tuple[tuple[int, str], ...]
    unread: tuple[str, ...]  # columns that are none of ours


def read_catheter_table(path: Path, default_issuer: str) -> CatheterTable:
    """The values in `path`; `default_issuer` is that of patient IDs in rows that name none.

    Raises
    ------
    inference.cohort.TableRefused
        If it is no such table.
    OSError
        If it cannot be opened.
    """
    try:
        columns, rows = read_rows(path, MOST_ROWS)
    except NotCsv as error:
        raise TableRefused(path.name, error.detail, error.hint) from error
    _check(path.name, columns)
    values: list[tuple[int, Catheterisation]] = []
    refused: list[tuple[int, str]] = []
    for number, cells in rows:
        if len(cells) != len(columns):
            refused.append((number, uneven(len(cells), len(columns))))
            continue
        row = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
        if fault := _fault(row):
            refused.append((number, fault))
            continue
        value = Catheterisation(
            issuer=row.get("issuer", "") or default_issuer,
            patient_id=row["patient_id"],
            measured_on=date.fromisoformat(row["rhc_date"]),
            mpap_mmhg=float(row["mpap_mmhg"]),
        )
        values.append((number, value))
    among = _among(values)
    return CatheterTable(
        values=tuple((number, value) for number, value in values if number not in among),
        refused=tuple(sorted([*refused, *among.items()])),
        unread=unknown(columns, (*COLUMNS, "issuer")),
    )


def _check(name: str, columns: Sequence[str]) -> None:
    if mistaken := slips(columns, (*COLUMNS, "issuer")):
        told = ", ".join(f"{column!r} for {meant}" for column, meant in mistaken.items())
        raise TableRefused(name, f"has a column that looks like a slip: {told}", "rename it, or take it out")
    if missing := [column for column in COLUMNS if column not in columns]:
        raise TableRefused(name, f"lacks the columns {', '.join(missing)}", f"needed: {', '.join(COLUMNS)}")
    if len(set(columns)) != len(columns):
        raise TableRefused(name, "names a column twice")


def _fault(row: dict[str, str]) -> str:
    """What is wrong with a row by itself, "" if nothing."""
    for name in COLUMNS:
        if not row[name]:
            return f"{name} is empty"
    try:
        date.fromisoformat(row["rhc_date"])
    except ValueError:
        return "rhc_date is not a date such as 2026-03-01"
    try:
        value = float(row["mpap_mmhg"])
    except ValueError:
        return f"mpap_mmhg {no_number(row['mpap_mmhg'])}"
    low, high = MPAP_RANGE_MMHG
    if not math.isfinite(value):
        return "mpap_mmhg is not finite"
    if not low <= value <= high:
        return f"mpap_mmhg is {value:g}, outside {low:g} to {high:g} mmHg"
    return ""


def _among(values: Sequence[tuple[int, Catheterisation]]) -> dict[int, str]:
    """Rows that repeat an earlier one; and all of those that contradict one another, as nobody knows which is right."""
    of_day: dict[object, list[tuple[int, float]]] = {}
    for number, value in values:
        of_day.setdefault((value.issuer, value.patient_id, value.measured_on), []).append((number, value.mpap_mmhg))
    found = {}
    for rows in of_day.values():
        same = len({mmhg for _, mmhg in rows}) == 1
        for number, _ in rows[1:] if same else rows:
            others = ", ".join(str(other) for other, _ in rows if other != number)
            found[number] = f"repeats row {rows[0][0]}" if same else f"another pressure of that day in row {others}"
    return found
