"""Find a layout's names in formation: faint ones, each doubtful, that stand as rows and columns have them.

Where the rows of a sheet lie, its lines say, and how far apart its columns stand, the paper's speed; what is left to
find is where the names stand about them. Many names agree on that by chance only if they are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.paper_scale import STANDARD_MM_PER_SECOND
from ecg_ingest.printed_labels import NO_NAME, PrintedLabel
from ecg_ingest.raster_layout import LAYOUTS, Layout, same_name
from ecg_ingest.raster_rows import MAX_RHYTHM_ROWS
from ecg_ingest.trace import Row

_APART_MM = 2.5  # across and down: how far names may stand from where the others say
_APART_ROW = 0.08  # down, of the distance between rows
_ABOVE_ROW = 0.75  # how far above or below its line a name may stand, of the distance between rows
_LEAST_NAMES, _LEAST_WEIGHT = 4, 0.7
_LEAD = 1.15  # of the best formation's weight to that of the next


def in_formation(
    perhaps: Sequence[PrintedLabel],
    rows: Sequence[Row],
    pixels_per_mm: float,
    column_seconds: Mapping[str, Sequence[float]],
) -> list[PrintedLabel]:
    """The names of the formation that most agree on, none of them sure.

    Nothing where another layout, column width or first row has one as good. Of one layout on the same rows the
    heaviest is taken, however near the next one is: each label there still has to fit its place.

    Parameters
    ----------
    perhaps : sequence of PrintedLabel
        Names that may stand where they are, several at a place.
    rows : sequence of Row
        The lines that run across the sheet.
    column_seconds : mapping
        Seconds of a column at 25 mm/s, by layout.
    """
    if not perhaps or len(rows) < 2:
        return []
    levels = _levels(perhaps, rows)
    best: list[tuple[float, tuple[PrintedLabel, ...]]] = []
    for layout in LAYOUTS:
        extra = len(rows) - len(layout.rows)
        if not 0 <= extra <= MAX_RHYTHM_ROWS:
            continue
        for seconds in column_seconds[layout.name]:
            step = seconds * STANDARD_MM_PER_SECOND * pixels_per_mm
            for first in range(extra + 1):
                best.append(_formation(layout, first, step, perhaps, levels, pixels_per_mm))
    best.sort(key=lambda formation: -formation[0])
    if not best or best[0][0] < _LEAST_WEIGHT or len(best[0][1]) < _LEAST_NAMES:
        return []
    others = [weight for weight, labels in best[1:] if not set(labels) <= set(best[0][1])]
    if others and best[0][0] < _LEAD * others[0]:
        return []
    return [replace(label, sure=False) for label in best[0][1]]


def _levels(perhaps: Sequence[PrintedLabel], rows: Sequence[Row]) -> NDArray[np.float64]:
    """How high each line is about each name [names, rows]."""
    usual = [float(np.nanmedian(row.heights)) for row in rows]
    order = np.argsort(usual)
    found = np.empty((len(perhaps), len(rows)))
    for number, label in enumerate(perhaps):
        around = 3.0 * label.height
        for place, row in enumerate(order.tolist()):
            level = rows[row].level(label.centre[0] - around, label.centre[0] + around)
            found[number, place] = level if np.isfinite(level) else usual[row]
    return found


def _formation(
    layout: Layout,
    first: int,
    step: float,
    perhaps: Sequence[PrintedLabel],
    levels: NDArray[np.float64],
    pixels_per_mm: float,
) -> tuple[float, tuple[PrintedLabel, ...]]:
    """The names that agree best on where they stand about their lines, and how much that weighs."""
    pitch = float(np.median(np.diff(np.median(levels, axis=0))))
    kept: list[tuple[float, float, float, tuple[int, int], PrintedLabel]] = []
    for number, label in enumerate(perhaps):
        for row, names in enumerate(layout.rows):
            for column, name in enumerate(names):
                drop = float(levels[number, first + row]) - label.centre[1]
                if same_name(label.lead, name) and abs(drop) < _ABOVE_ROW * pitch:
                    left = label.centre[0] - column * step
                    kept.append((left, drop, label.likeness - NO_NAME, (row, column), label))
    if not kept:
        return 0.0, ()
    lefts, drops = np.array([entry[0] for entry in kept]), np.array([entry[1] for entry in kept])
    most: tuple[float, tuple[PrintedLabel, ...]] = 0.0, ()
    near_across = _APART_MM * pixels_per_mm
    near_down = max(_APART_ROW * pitch, 0.4 * _APART_MM * pixels_per_mm)
    for left, drop, *_ in kept:
        near = np.flatnonzero((np.abs(lefts - left) < near_across) & (np.abs(drops - drop) < near_down))
        if near.size < _LEAST_NAMES:
            continue
        cells: dict[tuple[int, int], tuple[float, PrintedLabel]] = {}
        for at in near.tolist():
            _, _, weight, cell, label = kept[at]
            if cell not in cells or cells[cell][0] < weight:
                cells[cell] = weight, label
        total = sum(weight for weight, _ in cells.values())
        if total > most[0]:
            most = total, tuple(label for _, label in cells.values())
    return most
