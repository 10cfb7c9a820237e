"""Where each row's line may run on a sheet, and what it costs there: its own ink is free, another row's is not.

Pure: ink and the rows' rough heights in, costs for `cheapest_paths` out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ASTRAY_PITCHES = 0.45  # of the distance between rows that a line may wander for nothing
_ASTRAY_COST = 0.3
_CLIMB_ON_INK, _CLIMB_OFF_INK = 0.001, 0.05  # a pixel: a QRS is climbed to its top; blank paper is not crossed
_BAND_MM = 36.0  # above and below a row
_BEYOND_MM = 3.0  # of a band beyond where a line may go
_OTHERS_MM, _OTHERS_COST, _BEYOND_COST = 1.0, 0.4, 0.12
_FARTHEST_PITCHES, _FARTHEST_MM = 1.15, 20.0  # from its usual height that a line may go
_OUTSIDE_COST = 3.0


def row_bands(rows: Sequence[NDArray[np.float64]], height: int, pixels_per_mm: float) -> list[tuple[int, int]]:
    """First pixel and end of the part of the sheet in which each row is followed."""
    reach = round(min(_BAND_MM * pixels_per_mm, _farthest(rows, pixels_per_mm) + _BEYOND_MM * pixels_per_mm))
    bands = []
    for own in rows:
        top = int(np.clip(own.min() - reach, 0, height - 2))
        bands.append((top, int(np.clip(own.max() + reach, top + 2, height))))
    return bands


def _pitch(rows: Sequence[NDArray[np.float64]]) -> float:
    return float(np.median(np.diff([np.median(own) for own in rows]))) if len(rows) > 1 else 0.0


def _farthest(rows: Sequence[NDArray[np.float64]], pixels_per_mm: float) -> float:
    return max(_FARTHEST_PITCHES * _pitch(rows), _FARTHEST_MM * pixels_per_mm)


def band_costs(
    upright: NDArray[np.bool_] | NDArray[np.uint8],
    rows: Sequence[NDArray[np.float64]],
    bands: Sequence[tuple[int, int]],
    wanted: Sequence[int],
    pixels_per_mm: float,
    pooled: int = 1,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What each pixel of the wanted rows' bands costs to pass and to climb, both [width, wanted, tallest band].

    Parameters
    ----------
    upright : bool or uint8 array [width, height]
        The ink, column by column: in each place how many of the pixels taken together there are inked.
    rows : sequence of float arrays [width]
        Each row's usual height in each column.
    bands : sequence of (int, int)
        From `row_bands`.
    wanted : sequence of int
        Numbers of the rows: all of a tall sheet's at once take hundreds of megabytes.
    pixels_per_mm : float
        Of the ink.
    pooled : int
        How many pixels of a column are taken together in each place.
    """
    width = upright.shape[0]
    tallest = max(bands[number][1] - bands[number][0] for number in wanted)
    off_ink, less = np.float32(_CLIMB_OFF_INK * pooled), np.float32(_CLIMB_OFF_INK - _CLIMB_ON_INK)
    inked = upright > 0
    costs = np.empty((width, len(wanted), tallest), dtype=np.float32)
    climbs = np.empty_like(costs)
    climb = np.cumsum(off_ink - less * upright, axis=1, dtype=np.float32)
    differences = np.empty((width, tallest + 1), dtype=np.float32)
    pitch, near = _pitch(rows), _OTHERS_MM * pixels_per_mm
    farthest = _farthest(rows, pixels_per_mm)
    for layer, number in enumerate(wanted):
        top, bottom = bands[number]
        tall = bottom - top
        steps = differences[:, : tall + 1]
        steps[:] = 0.0
        for other, heights in enumerate(rows):
            if other == number:
                continue
            away = heights - top
            _dearer(steps, np.floor(away - near) + 1.0, np.ceil(away + near), _OTHERS_COST)
            if other < number:
                _dearer(steps, np.zeros(width), np.ceil(away), _BEYOND_COST)
            else:
                _dearer(steps, np.floor(away) + 1.0, np.full(width, float(tall)), _BEYOND_COST)
        own = rows[number] - top
        _dearer(steps, np.zeros(width), np.ceil(own - farthest), 1.0)
        _dearer(steps, np.floor(own + farthest) + 1.0, np.full(width, float(tall)), 1.0)
        steps[:, 0] += 1.0
        cost = costs[:, layer]
        np.cumsum(steps[:, :tall], axis=1, out=cost[:, :tall])
        cost[:, :tall] -= inked[:, top:bottom]
        if pitch > 0.0:
            astray = np.abs(np.arange(top, bottom) - np.median(rows[number])) / pitch - ASTRAY_PITCHES
            cost[:, :tall] += (_ASTRAY_COST * np.maximum(astray, 0.0)).astype(np.float32)
        cost[:, tall:] = _OUTSIDE_COST
        climbs[:, layer, :tall] = climb[:, top:bottom]
        climbs[:, layer, tall:] = climb[:, bottom - 1 : bottom]
    return costs, climbs


def _dearer(steps: NDArray[np.float32], first: NDArray[np.float64], end: NDArray[np.float64], cost: float) -> None:
    """Let the pixels of each column from `first` to before `end` cost more; `steps` are their costs' differences."""
    last = steps.shape[1] - 1
    low, high = (np.clip(edge, 0, last).astype(np.int64) for edge in (first, end))
    columns = np.arange(steps.shape[0])
    steps[columns, low] += cost
    steps[columns, np.maximum(low, high)] -= cost
