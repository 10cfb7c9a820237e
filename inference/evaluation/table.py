"""Read a table of predictions (CSV) and refuse, by line, every row that cannot be used. Nothing is guessed or filled.

In: one row an examination, as `model train` and `model ablate` write it. Out: `Predictions`, arrays in the order of
the file.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.csv_file import AS_CSV, no_number, other_separator, uneven
from inference.evaluation.errors import EvaluationError, RefusedRow, TableRefused

REQUIRED = ("examination", "patient", "mpap_mmhg", "predicted_mmhg")
BOUNDS = ("lower_mmhg", "upper_mmhg")
PROBABILITIES = ("probability_above_20", "probability_at_least_25")
GROUPS = ("sex", "smoker", "ph_group", "site", "scanner")
OPTIONAL = (*BOUNDS, *PROBABILITIES, "acquired_at", "age", *GROUPS, "model")
LOWEST_MPAP_MMHG = 1.0  # a mean pressure outside is a slip of the pen or of the unit
HIGHEST_MPAP_MMHG = 150.0
HIGHEST_AGE_YEARS = 120.0
MAXIMUM_ROWS = 2_000_000
MAXIMUM_TEXT = 128  # characters of an identifier or of a group's name
_SEX = {"m": "M", "f": "F", "o": "O"}
_SMOKER = {
    **dict.fromkeys(("yes", "true", "1"), "yes"),
    **dict.fromkeys(("no", "false", "0"), "no"),
    **{word: word for word in ("current", "former", "never")},
}


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """One model's predictions, a row an examination [n]; NaN, NaT or "" where a cell was empty.

    `patient` numbers the patients 0..patients-1 in the order of their first row: their names end here.
    """

    model: str
    examination: NDArray[np.str_]
    patient: NDArray[np.intp]
    measured_mmhg: NDArray[np.float64]
    predicted_mmhg: NDArray[np.float64]
    lower_mmhg: NDArray[np.float64]
    upper_mmhg: NDArray[np.float64]
    probabilities: Mapping[str, NDArray[np.float64]]  # by the names of `PROBABILITIES`
    acquired_at: NDArray[np.datetime64]  # UTC
    age_years: NDArray[np.float64]
    groups: Mapping[str, NDArray[np.str_]]  # by the names of `GROUPS`

    @property
    def patients(self) -> int:
        """How many patients."""
        return int(self.patient.max()) + 1 if len(self.patient) else 0

    def rows(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Predictions:
        """These rows alone, their patients numbered anew."""
        _, first, numbers = np.unique(self.patient[chosen], return_index=True, return_inverse=True)
        return Predictions(
            model=self.model,
            examination=self.examination[chosen],
            patient=np.argsort(np.argsort(first))[numbers],
            measured_mmhg=self.measured_mmhg[chosen],
            predicted_mmhg=self.predicted_mmhg[chosen],
            lower_mmhg=self.lower_mmhg[chosen],
            upper_mmhg=self.upper_mmhg[chosen],
            probabilities={name: values[chosen] for name, values in self.probabilities.items()},
            acquired_at=self.acquired_at[chosen],
            age_years=self.age_years[chosen],
            groups={name: values[chosen] for name, values in self.groups.items()},
        )


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a file held: predictions by model, and the rows that were refused."""

    models: Mapping[str, Predictions]
    refused: tuple[RefusedRow, ...]

    def of(self, model: str | None = None) -> Predictions:
        """The predictions of `model`, or of the only model there is.

        Raises
        ------
        EvaluationError
            If the table does not hold that model, or several and none was named.
        """
        names = ", ".join(repr(name) for name in self.models)
        if model is None:
            if len(self.models) != 1:
                raise EvaluationError(f"the table holds {len(self.models)} models: {names}", "name one with --model")
            return next(iter(self.models.values()))
        if model not in self.models:
            raise EvaluationError(f"the table does not hold the model {model!r}", f"it holds {names}")
        return self.models[model]


def read_table(path: Path, *, drop_refused: bool = False) -> Table:
    """The predictions in the CSV file at `path`.

    Parameters
    ----------
    path
        UTF-8, comma separated, with a header. Columns `REQUIRED`; of `OPTIONAL` any. An empty cell means unknown.
    drop_refused
        Go on without the rows that were refused; they are in `Table.refused`.

    Raises
    ------
    TableRefused
        If a row is refused and `drop_refused` is not set, or a required column is missing, or no row is left.
    OSError
        If the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return parse_table(stream, drop_refused=drop_refused)
    except UnicodeDecodeError:
        raise TableRefused((RefusedRow(line=0, column="", reason="is not UTF-8 text"),), AS_CSV) from None


def parse_table(lines: Iterable[str], *, drop_refused: bool = False) -> Table:
    """As `read_table`, from lines of text."""
    reader = csv.reader(lines, strict=True)
    refused: list[RefusedRow] = []
    rows: list[_Row] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(rows) >= MAXIMUM_ROWS:
                raise TableRefused((_row(reader.line_num, "", f"more than {MAXIMUM_ROWS:,} rows"),))
            if len(cells) != len(header):
                refused.append(_row(reader.line_num, "", uneven(len(cells), len(header))))
                continue
            row = _Row(reader.line_num, dict(zip(header, (cell.strip() for cell in cells), strict=True)))
            refused += row.faults
            if not row.faults:
                rows.append(row)
    except csv.Error as error:
        raise TableRefused((_row(reader.line_num, "", f"is not CSV ({error})"),)) from None
    contradictions = _contradictions(rows)
    refused = sorted([*refused, *contradictions], key=lambda item: item.line)
    bad = {item.line for item in contradictions}
    rows = [row for row in rows if row.line not in bad]
    if refused and not drop_refused:
        raise TableRefused(tuple(refused), "correct them, or leave them out with --drop-refused")
    if not rows:
        raise TableRefused(tuple(refused) or (_row(0, "", "holds no row"),))
    names = list(dict.fromkeys(row.text("model") for row in rows))
    models = {name: _predictions(name, [row for row in rows if row.text("model") == name]) for name in names}
    return Table(models=models, refused=tuple(refused))


class _Row:
    """One row's cells as values; what is wrong with them is in `faults`."""

    def __init__(self, line: int, cells: Mapping[str, str]) -> None:
        self.line = line
        self.faults: list[RefusedRow] = []
        self._cells = cells
        self.numbers = {
            "mpap_mmhg": self._number("mpap_mmhg", LOWEST_MPAP_MMHG, HIGHEST_MPAP_MMHG, required=True),
            "predicted_mmhg": self._number("predicted_mmhg", required=True),
            **{name: self._number(name) for name in BOUNDS},
            **{name: self._number(name, 0.0, 1.0) for name in PROBABILITIES},
            "age": self._number("age", 0.0, HIGHEST_AGE_YEARS),
        }
        lower, upper = (self.numbers[name] for name in BOUNDS)
        if math.isnan(lower) != math.isnan(upper):
            self._refuse("lower_mmhg", "one bound of the interval without the other")
        elif lower > upper:
            self._refuse("lower_mmhg", "lies above upper_mmhg")
        self.acquired_at = self._moment("acquired_at")
        self.sex = self._word("sex", _SEX)
        self.smoker = self._word("smoker", _SMOKER)
        for name in ("examination", "patient"):
            if not self.text(name):
                self._refuse(name, "is empty")
        for name in ("examination", "patient", "ph_group", "site", "scanner", "model"):
            if len(self.text(name)) > MAXIMUM_TEXT:
                self._refuse(name, f"is longer than {MAXIMUM_TEXT} characters")

    def text(self, name: str) -> str:
        return self._cells.get(name, "")

    def group(self, name: str) -> str:
        return {"sex": self.sex, "smoker": self.smoker}.get(name, self.text(name))

    def _refuse(self, column: str, reason: str) -> None:
        self.faults.append(_row(self.line, column, reason))

    def _number(self, name: str, low: float = -math.inf, high: float = math.inf, *, required: bool = False) -> float:
        text = self.text(name)
        if not text:
            if required:
                self._refuse(name, "is empty")
            return math.nan
        try:
            value = float(text)
        except ValueError:
            self._refuse(name, no_number(text))
            return math.nan
        if not math.isfinite(value):
            self._refuse(name, "is not finite")
            return math.nan
        if not low <= value <= high:
            self._refuse(name, f"{value:g} lies outside {low:g} to {high:g}")
        return value

    def _moment(self, name: str) -> np.datetime64:
        text = self.text(name)
        if not text:
            return np.datetime64("NaT", "us")
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self._refuse(name, "is not an ISO 8601 date or time")
            return np.datetime64("NaT", "us")
        return np.datetime64((moment.astimezone(UTC) if moment.tzinfo else moment).replace(tzinfo=None), "us")

    def _word(self, name: str, known: Mapping[str, str]) -> str:
        text = self.text(name)
        if text and text.lower() not in known:
            self._refuse(name, f"is none of {', '.join(known)}")
        return known.get(text.lower(), "")


def _row(line: int, column: str, reason: str) -> RefusedRow:
    return RefusedRow(line=line, column=column, reason=reason)


def _check_header(header: Sequence[str]) -> None:
    if separator := other_separator(header):
        raise TableRefused((_row(1, "", f"has {separator} between its cells"),), f"{AS_CSV} and points in numbers")
    faults = [_row(1, name, "the column is missing") for name in REQUIRED if name not in header]
    faults += [_row(1, name, "the column stands twice") for name in dict.fromkeys(header) if header.count(name) > 1]
    faults += [
        _row(1, name, "the column is not known; nothing would read it")
        for name in header
        if name not in {*REQUIRED, *OPTIONAL}
    ]
    if faults:
        raise TableRefused(tuple(faults), f"columns: {', '.join(REQUIRED)}; optional: {', '.join(OPTIONAL)}")


def _contradictions(rows: Sequence[_Row]) -> list[RefusedRow]:
    """Rows that contradict an earlier one: neither is right by itself, so all of them are refused."""
    found = _twice(rows, lambda row: (row.text("model"), row.text("examination")), "examination", "stands twice")
    found += _differs(rows, "examination", "patient", lambda row: row.text("patient"))
    found += _differs(rows, "examination", "mpap_mmhg", lambda row: row.numbers["mpap_mmhg"])
    found += _differs(rows, "patient", "sex", lambda row: row.sex or None)
    return found


def _twice(rows: Sequence[_Row], key: Callable[[_Row], object], column: str, reason: str) -> list[RefusedRow]:
    together: dict[object, list[_Row]] = {}
    for row in rows:
        together.setdefault(key(row), []).append(row)
    return [_row(row.line, column, reason) for same in together.values() if len(same) > 1 for row in same]


def _differs(rows: Sequence[_Row], of: str, column: str, value: Callable[[_Row], object]) -> list[RefusedRow]:
    """Rows of one examination or patient that give different values; None is no value."""
    values: dict[str, set[object]] = {}
    for row in rows:
        if value(row) is not None:
            values.setdefault(row.text(of), set()).add(value(row))
    return [
        _row(row.line, column, f"differs between rows of one {of}")
        for row in rows
        if len(values.get(row.text(of), ())) > 1
    ]


def _predictions(model: str, rows: Sequence[_Row]) -> Predictions:
    numbers: dict[str, int] = {}
    patient = [numbers.setdefault(row.text("patient"), len(numbers)) for row in rows]

    def column(name: str) -> NDArray[np.float64]:
        return np.array([row.numbers[name] for row in rows], dtype=np.float64)

    return Predictions(
        model=model,
        examination=np.array([row.text("examination") for row in rows], dtype=np.str_),
        patient=np.array(patient, dtype=np.intp),
        measured_mmhg=column("mpap_mmhg"),
        predicted_mmhg=column("predicted_mmhg"),
        lower_mmhg=column("lower_mmhg"),
        upper_mmhg=column("upper_mmhg"),
        probabilities={name: column(name) for name in PROBABILITIES},
        acquired_at=np.array([row.acquired_at for row in rows], dtype="datetime64[us]"),
        age_years=column("age"),
        groups={name: np.array([row.group(name) for row in rows], dtype=np.str_) for name in GROUPS},
    )
