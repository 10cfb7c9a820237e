"""The cheapest way from left to right through a picture of costs, by dynamic programming over all its pixels.

Pure: costs in, heights out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_STEP = 0.14  # cost of a move up or down by one pixel, against one column without ink


def cheapest_paths(
    missing: NDArray[np.float32], climb: NDArray[np.float32] | float = _STEP
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The cheapest way from left to right through each layer of costs.

    Parameters
    ----------
    missing : float32 array [layers, height, width]
        Cost of each pixel: 0 on ink, 1 off it, more where a layer must not go.
    climb : float32 array [layers, height, width], or float
        Cost of moving up or down over each pixel of a column. Along ink it may be next to nothing: a line
        climbs its own strokes to their tops, and does not jump over blank paper to another's.

    Returns
    -------
    paths : int array [layers, width]
        The row of each column's pixel.
    costs : float array [layers]
        What each path costs.
    """
    layers, height, width = missing.shape
    # Heights measured in costs: from y to y' is |measure[y'] - measure[y]|.
    if isinstance(climb, float):
        measures = np.broadcast_to((climb * np.arange(height, dtype=np.float32)), (width, layers, height))
    else:
        measures = np.ascontiguousarray(np.cumsum(climb, axis=1, dtype=np.float32).transpose(2, 0, 1))
    by_column = np.ascontiguousarray(missing.transpose(2, 0, 1))
    total = by_column[0].copy()
    history = np.empty((width, layers, height), dtype=np.float32)
    history[0] = total
    for column in range(1, width):
        # min over y' of total[y'] + |measure[y] - measure[y']|: once down the column, once up it
        measure = measures[column]
        fall = np.minimum.accumulate(total - measure, axis=1)
        fall += measure
        rise = np.minimum.accumulate((total + measure)[:, ::-1], axis=1)[:, ::-1]
        rise -= measure
        total = np.minimum(fall, rise, out=fall)
        total += by_column[column]
        history[column] = total
    paths = np.empty((layers, width), dtype=np.int64)
    paths[:, -1] = total.argmin(axis=1)
    costs = total.min(axis=1).astype(np.float64)
    numbers = np.arange(layers)
    for column in range(width - 1, 0, -1):
        measure = measures[column]
        own = measure[numbers, paths[:, column]][:, None]
        paths[:, column - 1] = (history[column - 1] + np.abs(measure - own)).argmin(axis=1)
    return paths, costs
