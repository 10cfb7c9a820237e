"""Whether a line that belongs to no row of leads repeats one: a rhythm strip shows a lead over the whole sheet.

Pure. Which line is the strip says which lines are the rows, where labels may stand above or below them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.lead_images import EcgRefused
from ecg_ingest.raster_columns import Columns
from ecg_ingest.raster_layout import Layout
from ecg_ingest.raster_signals import SAMPLING_HZ, CellSignal, cell_signals
from ecg_ingest.trace import Line

_LAG_SECONDS = 0.03  # by which rows may be printed apart
_MOST_APART = 0.4  # 0 is the same line, 1 nothing in common
_LEAST_SECONDS = 1.0  # that a strip and a lead must have in common


def repeats(strip: Line, lead: str, cells: Mapping[str, CellSignal], columns: Columns, pixels_per_mm: float) -> bool:
    """Whether a line is a rhythm strip of this lead: where the lead's own cell stands, both show the same seconds."""
    names = tuple(str(column) for column in range(len(columns.starts) - 1))
    try:
        parts = cell_signals([strip], Layout(name="", order="", rows=(names,)), columns, pixels_per_mm)
    except EcgRefused:  # it does not run over the whole sheet
        return False
    return _apart(parts[str(cells[lead].column)].samples_mv, cells[lead].samples_mv) < _MOST_APART


def _apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Root mean square of the difference over that of both, the least over small shifts."""
    size = min(one.size, other.size)
    reach = round(_LAG_SECONDS * SAMPLING_HZ)
    least = 1.0
    for lag in range(-reach, reach + 1):
        a, b = one[max(0, lag) : size + min(0, lag)], other[max(0, -lag) : size + min(0, -lag)]
        both = np.isfinite(a) & np.isfinite(b)
        if both.sum() < _LEAST_SECONDS * SAMPLING_HZ:
            continue
        x, y = a[both] - np.median(a[both]), b[both] - np.median(b[both])
        least = min(least, float(np.sqrt(((x - y) @ (x - y)) / max(float(x @ x + y @ y), 1e-12))))
    return least
