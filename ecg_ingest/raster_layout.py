"""Which layout the labels of a picture form: rows and columns of lead names, in standard or Cabrera order.

Pure geometry over labels that were found. What fits no layout, or two, is refused: nothing is guessed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.glyphs import MINUS_AVR
from ecg_ingest.lead_images import LEADS
from ecg_ingest.printed_labels import PrintedLabel

_CABRERA = ("aVL", "I", MINUS_AVR, "II", "aVF", "III", *LEADS[6:])


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A table of lead names as printed, row by row from the top."""

    name: str  # "3x4"
    order: str  # "standard" or "cabrera"
    rows: tuple[tuple[str, ...], ...]

    @property
    def columns(self) -> int:
        """How many leads stand side by side."""
        return len(self.rows[0])


def _by_columns(name: str, order: str, leads: Sequence[str], rows: int) -> Layout:
    columns = [leads[start : start + rows] for start in range(0, len(leads), rows)]
    return Layout(name=name, order=order, rows=tuple(zip(*columns, strict=True)))


LAYOUTS = tuple(
    _by_columns(name, order, leads, rows)
    for name, rows in (("3x4", 3), ("6x2", 6), ("12x1", 12), ("4x3", 4))
    for order, leads in (("standard", LEADS), ("cabrera", _CABRERA))
)

_SAME_PLACE_MM = 6.0  # across: labels of a column, about its usual place
_SAME_ROW = 0.24  # of the distance between rows
_LEAST_ROW_MM, _MOST_ROW_MM = 7.0, 70.0
_LEAST_COLUMN_MM, _MOST_COLUMN_MM = 28.0, 170.0
_CONFLICT_COST, _HIDDEN_COST = 2.0, 0.5


@dataclass(frozen=True, kw_only=True)
class LayoutFit:
    """A layout laid over a picture: where each label should stand, and which stands there."""

    layout: Layout
    across: NDArray[np.float64]  # [rows, columns] centre of each label, pixels
    down: NDArray[np.float64]
    found: dict[tuple[int, int], PrintedLabel]  # by row and column
    conflicts: tuple[tuple[int, int, PrintedLabel], ...]  # another lead's name where one should stand

    @property
    def score(self) -> float:
        """Labels in place less twice the free ones out of place; a bar that may be a I counts half."""
        inside = sum(0.5 if label.lead == "I" else 1.0 for label in self.found.values())
        return inside - sum(_CONFLICT_COST if label.free else _HIDDEN_COST for _, _, label in self.conflicts)

    @property
    def column_pixels(self) -> float:
        """From one column to the next; 0 with one column."""
        return float(np.diff(self.across, axis=1).mean()) if self.layout.columns > 1 else 0.0

    @property
    def row_pixels(self) -> float:
        """From one row to the next."""
        return float(np.diff(self.down, axis=0).mean())


def fit_layouts(labels: Sequence[PrintedLabel], pixels_per_mm: float) -> list[LayoutFit]:
    """The best placing of every layout, the one with most labels in place first."""
    named = [label for label in labels if label.lead != "I"]
    fits = []
    for layout in LAYOUTS:
        best: LayoutFit | None = None
        for placing in _placings(layout, named, pixels_per_mm):
            fit = _lay(layout, placing, labels, pixels_per_mm)
            if best is None or fit.score > best.score:
                best = fit
        if best is not None:
            fits.append(settled(best, labels, pixels_per_mm))
    fits.sort(key=lambda fit: -fit.score)
    return fits


_Placing = tuple[float, float, float, float]  # left, step across, top, step down


def _placings(layout: Layout, labels: Sequence[PrintedLabel], pixels_per_mm: float) -> list[_Placing]:
    """Places of the table that two labels (three, if they stand in one row or column) would give."""
    places = {name: (row, column) for row, names in enumerate(layout.rows) for column, name in enumerate(names)}
    known = [(label, *places[label.lead]) for label in labels if label.lead in places]
    across: list[tuple[float, float]] = []
    down: list[tuple[float, float]] = []
    both: list[_Placing] = []
    for (one, r1, c1), (other, r2, c2) in itertools.combinations(known, 2):
        (x1, y1), (x2, y2) = one.centre, other.centre
        x_fit = y_fit = None
        if c1 != c2:
            step = (x2 - x1) / (c2 - c1)
            if _LEAST_COLUMN_MM <= step / pixels_per_mm <= _MOST_COLUMN_MM:
                x_fit = (x1 - c1 * step, step)
        if r1 != r2:
            step = (y2 - y1) / (r2 - r1)
            if _LEAST_ROW_MM <= step / pixels_per_mm <= _MOST_ROW_MM:
                y_fit = (y1 - r1 * step, step)
        if layout.columns == 1 and abs(x1 - x2) < 2.0 * _SAME_PLACE_MM * pixels_per_mm:
            x_fit = ((x1 + x2) / 2.0, 1.0)
        if x_fit and y_fit:
            both.append((*x_fit, *y_fit))
        elif x_fit and r1 == r2:
            across.append(x_fit)
        elif y_fit and c1 == c2:
            down.append(y_fit)
    if not both:
        both = [(*x, *y) for x in across[:40] for y in down[:40]]
    return both


def _lay(layout: Layout, placing: _Placing, labels: Sequence[PrintedLabel], pixels_per_mm: float) -> LayoutFit:
    left, step_across, top, step_down = placing
    rows, columns = len(layout.rows), layout.columns
    across = np.tile(left + step_across * np.arange(columns), (rows, 1)).astype(np.float64)
    down = np.tile((top + step_down * np.arange(rows))[:, None], (1, columns)).astype(np.float64)
    return _matched(layout, across, down, labels, pixels_per_mm)


def _matched(
    layout: Layout,
    across: NDArray[np.float64],
    down: NDArray[np.float64],
    labels: Sequence[PrintedLabel],
    pixels_per_mm: float,
) -> LayoutFit:
    """Labels at their places in the table, and others' names at those places."""
    reach_down = _SAME_ROW * abs(float(down[1, 0] - down[0, 0]))
    found: dict[tuple[int, int], PrintedLabel] = {}
    conflicts: list[tuple[int, int, PrintedLabel]] = []
    for label in labels:
        x, y = label.centre
        near = (np.abs(across - x) < _SAME_PLACE_MM * pixels_per_mm) & (np.abs(down - y) < reach_down)
        for row, column in np.argwhere(near).tolist():
            expected = layout.rows[row][column]
            if same_name(label.lead, expected):
                kept = found.get((row, column))
                if kept is None or kept.likeness < label.likeness:
                    found[row, column] = label
            elif not _may_be_part(label.lead, expected):
                conflicts.append((row, column, label))
    # A second word beside the right one (a note, a filter's name) is no contradiction.
    return LayoutFit(layout=layout, across=across, down=down, found=found, conflicts=tuple(conflicts))


def same_name(printed: str, expected: str) -> bool:
    """Cabrera sheets print aVR with or without its minus."""
    return printed == expected or {printed, expected} == {"aVR", MINUS_AVR}


def _may_be_part(printed: str, expected: str) -> bool:
    """Of II or III a stroke may be lost in the trace; one more cannot appear."""
    return (
        set(printed) == {"I"}
        and (set(expected) != {"I"} or len(printed) <= len(expected))
        and (len(printed) == 1 or set(expected) == {"I"})
    )


def settled(fit: LayoutFit, labels: Sequence[PrintedLabel], pixels_per_mm: float) -> LayoutFit:
    """The table moved to fit all labels in place: shifted, stretched, and sheared where many labels say so."""
    for _ in range(2):
        cells = [cell for cell in fit.found if fit.layout.rows[cell[0]][cell[1]] != "I"] or list(fit.found)
        if len(cells) < 3:
            return fit
        rows = np.array([cell[0] for cell in cells], dtype=np.float64)
        columns = np.array([cell[1] for cell in cells], dtype=np.float64)
        x = np.array([fit.found[cell].centre[0] for cell in cells])
        y = np.array([fit.found[cell].centre[1] for cell in cells])
        grid_rows, grid_columns = np.mgrid[0 : len(fit.layout.rows), 0 : fit.layout.columns].astype(np.float64)
        across = _plane(rows, columns, x, grid_rows, grid_columns, fit.across, main_is_row=False)
        down = _plane(rows, columns, y, grid_rows, grid_columns, fit.down, main_is_row=True)
        fit = _matched(fit.layout, across, down, labels, pixels_per_mm)
    return fit


def _plane(
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    values: NDArray[np.float64],
    grid_rows: NDArray[np.float64],
    grid_columns: NDArray[np.float64],
    otherwise: NDArray[np.float64],
    *,
    main_is_row: bool,
) -> NDArray[np.float64]:
    """values = a + b * row + c * column by least squares; the cross term only where labels determine it well."""
    main, cross = (rows, columns) if main_is_row else (columns, rows)
    terms = [np.ones_like(main)]
    grid_main, grid_cross = (grid_rows, grid_columns) if main_is_row else (grid_columns, grid_rows)
    grid = [np.ones_like(grid_main)]
    if len(set(main.tolist())) > 1:
        terms.append(main)
        grid.append(grid_main)
    elif float(np.ptp(grid_main)) > 0.0:
        return otherwise
    if len(values) >= 6 and len(set(cross.tolist())) > 1:
        terms.append(cross)
        grid.append(grid_cross)
    solved, *_ = np.linalg.lstsq(np.stack(terms, axis=1), values, rcond=None)
    fitted: NDArray[np.float64] = np.asarray(sum(s * g for s, g in zip(solved, grid, strict=True)), dtype=np.float64)
    return fitted
