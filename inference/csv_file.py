"""A CSV table as rows of text, and what to do about the tables that spreadsheets write instead of one."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

AS_CSV = "save it as CSV in UTF-8, with commas between cells"


class NotCsv(Exception):
    """A file that cannot be read as rows of cells."""

    def __init__(self, detail: str, hint: str = "") -> None:
        super().__init__(detail, hint)
        self.detail, self.hint = detail, hint


def read_rows(path: Path, most_rows: int) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The head of the table at `path`, and its rows by number.

    Numbers count from 1 below the head, as a spreadsheet shows them less one; empty rows count and are left out. Cells
    are as they stand: there may be more or fewer than the head has.

    Raises
    ------
    NotCsv
        If it is not CSV in UTF-8, is separated by something else than commas, or has more than `most_rows` rows.
    OSError
        If it cannot be opened.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            columns = [name.strip() for name in next(reader, [])]
            rows = [(number, row) for number, row in enumerate(reader, start=1) if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise NotCsv(f"is not CSV in UTF-8 ({type(error).__name__})", AS_CSV) from error
    if separator := other_separator(columns):
        raise NotCsv(f"has {separator} between its cells", f"{AS_CSV} and points in numbers")
    if len(rows) > most_rows:
        raise NotCsv(f"has more than {most_rows:,} rows")
    return columns, rows


def other_separator(columns: Sequence[str]) -> str:
    """What separates the cells of a head that was read as one cell; "" of a head in order."""
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(columns) == 1 and mark in columns[0]:
            return name
    return ""


def uneven(cells: int, columns: int) -> str:
    """What is wrong with a row of another length than the head."""
    return f"has {cells} cells, the head {columns}" + (
        "; a cell that holds a comma needs quotes, a number a point" if cells > columns else ""
    )


def no_number(text: str) -> str:
    """What is wrong with a cell that `float` refuses."""
    return "is not a number" + ("; write a point, not a comma" if re.fullmatch(r"[+-]?\d+,\d+", text) else "")
