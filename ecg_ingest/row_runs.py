"""Each row's way through a sheet's ink, and the upright run of ink around it in every column.

Pure: ink and the rows' rough heights in, paths out. On a fine sheet two pixels of a column are taken together while
the way is sought, which takes half the time: the ink in its columns is then looked at pixel by pixel again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.cheapest_path import cheapest_paths
from ecg_ingest.crossings import Run
from ecg_ingest.row_bands import band_costs, row_bands
from ecg_ingest.stretches import stretches

_ROWS_AT_ONCE = 6  # that are followed: memory grows with each
_TOGETHER, _FINE_PIXELS_PER_MM = 2, 5.9  # pixels of a column, where a pen is as wide


def row_runs(upright: NDArray[np.bool_], rows: list[NDArray[np.float64]], pixels_per_mm: float) -> list[Run]:
    """Follow every row.

    Parameters
    ----------
    upright : bool array [width, height]
        The ink, column by column.
    rows : list of float arrays [width]
        Each row's usual height in each column.
    pixels_per_mm : float
        Of the ink.
    """
    together = _TOGETHER if pixels_per_mm >= _FINE_PIXELS_PER_MM else 1
    last = upright.shape[1] - 1
    pooled = upright[:, ::together].astype(np.uint8)
    for step in range(1, together):
        beside = upright[:, step::together]
        pooled[:, : beside.shape[1]] += beside
    rough = [(own + 0.5) / together - 0.5 for own in rows]
    bands = row_bands(rough, pooled.shape[1], pixels_per_mm / together)
    columns = np.arange(upright.shape[0])
    runs: list[Run] = []
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        wanted = range(first, min(first + _ROWS_AT_ONCE, len(rows)))
        found, _ = cheapest_paths(*band_costs(pooled, rough, bands, wanted, pixels_per_mm / together, together))
        for number, path in zip(wanted, found, strict=True):
            top = np.clip(path + bands[number][0], 0, pooled.shape[1] - 1) * together
            inked = np.stack([upright[columns, np.minimum(top + step, last)] for step in range(together)])
            runs.append(_run(upright, pooled > 0, np.minimum(top + inked.argmax(axis=0), last), together))
    return runs


def _run(upright: NDArray[np.bool_], pooled: NDArray[np.bool_], path: NDArray[np.int64], together: int) -> Run:
    on = upright[np.arange(path.size), path]
    ends = np.stack([_run_end(upright, path, on, direction) for direction in (-1, 1)])
    if together > 1:
        wide = [_run_end(pooled, path // together, on, direction) for direction in (-1, 1)]
        _leave_specks(path, ends, upright, wide[0] * together, (wide[1] + 1) * together)
    return Run(
        path=path, on=on, ends=ends.astype(np.float64), whole=ends.astype(np.float64), other=ends.astype(np.float64)
    )


def _run_end(
    upright: NDArray[np.bool_], path: NDArray[np.int64], on: NDArray[np.bool_], direction: int
) -> NDArray[np.int64]:
    """The last pixel upwards (-1) or downwards (1) of the upright run of ink around a path, the path's own off ink."""
    end = path.copy()
    going = np.flatnonzero(on)
    while going.size:
        ahead = end[going] + direction
        inside = (ahead >= 0) & (ahead < upright.shape[1])
        going, ahead = going[inside], ahead[inside]
        inked = upright[going, ahead]
        going, ahead = going[inked], ahead[inked]
        end[going] = ahead
    return end


def _leave_specks(
    path: NDArray[np.int64],
    ends: NDArray[np.int64],
    upright: NDArray[np.bool_],
    tops: NDArray[np.int64],
    bottoms: NDArray[np.int64],
) -> None:
    """Move a path to the longest run of ink on its way, where several were one when pixels were taken together."""
    broken = ends[1] - ends[0] + 1 < bottoms - tops - 2 * (_TOGETHER - 1)
    broken &= upright[np.arange(path.size), path]
    before, after = np.concatenate((path[:1], path[:-1])), np.concatenate((path[1:], path[-1:]))
    highest = np.minimum(np.minimum(before, path), after)
    lowest = np.maximum(np.maximum(before, path), after)
    for column in np.flatnonzero(broken & (highest < lowest)).tolist():
        top = int(tops[column])
        ink = upright[column, top : int(bottoms[column])]
        starts, stops = np.array(stretches(ink)).T + top
        on_way = np.minimum(stops - 1, lowest[column]) >= np.maximum(starts, highest[column])
        longest = int(np.argmax(np.where(on_way, stops - starts, 0)))
        if not starts[longest] <= path[column] < stops[longest]:
            path[column] = starts[longest]
            ends[:, column] = starts[longest], stops[longest] - 1
