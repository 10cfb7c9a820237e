"""Why a table of predictions, or a cohort, is not evaluated. Rows are named by their line, never by a patient."""

from __future__ import annotations

from dataclasses import dataclass

SHOWN = 20  # refused rows that a message lists; the rest is counted


@dataclass(frozen=True, kw_only=True)
class RefusedRow:
    """A row that cannot be used. Lines count from 1, the header's; rows from 1 below it; 0 is the file as a whole."""

    line: int
    column: str  # "" where the row as a whole is meant
    reason: str
    counted: str = "line"  # or "row"

    def __str__(self) -> str:
        where = f"{self.counted} {self.line}" if self.line else "file"
        return f"{where}{f', {self.column}' if self.column else ''}: {self.reason}"


class EvaluationError(Exception):
    """Something that was asked of an evaluation cannot be done."""

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(sentence, hint)
        self.sentence = sentence
        self.hint = hint

    def __str__(self) -> str:
        return self.sentence


class TableRefused(EvaluationError):
    """A table with rows that cannot be used; `rows` names each."""

    def __init__(self, rows: tuple[RefusedRow, ...], hint: str = "") -> None:
        listed = "\n".join(f"  {row}" for row in rows[:SHOWN])
        rest = f"\n  and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        whole = all(row.line == 0 or (row.line == 1 and row.counted == "line") for row in rows)
        what = "the table is" if whole else "1 row is" if len(rows) == 1 else f"{len(rows)} rows are"
        then = f"\n{hint[:1].upper()}{hint[1:]}." if hint else ""
        super().__init__(f"{what} refused:\n{listed}{rest}{then}", "")
        self.rows = rows


class CohortTooSmall(EvaluationError):
    """Fewer patients than figures may be given for."""
