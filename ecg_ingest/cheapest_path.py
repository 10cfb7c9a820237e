"""The cheapest way from left to right through a picture of costs, by dynamic programming over all its pixels.

Pure: costs in, heights out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STEP = 0.14  # cost of a move up or down by one pixel, against one column without ink


def even_climb(height: int) -> NDArray[np.float32]:
    """Heights in costs where every pixel up or down costs the same."""
    return STEP * np.arange(height, dtype=np.float32)


def cheapest_paths(
    missing: NDArray[np.float32], climb: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The cheapest way from left to right through each layer of costs.

    Parameters
    ----------
    missing : float32 array [width, layers, height]
        Cost of each pixel: 0 on ink, 1 off it, more where a layer must not go.
    climb : float32 array [width, layers, height], or what broadcasts to it
        Heights measured in costs: to move from one pixel of a column to another costs their difference there.
        Along ink it may be next to nothing: a line climbs its own strokes to their tops, and does not jump
        over blank paper to another's.

    Returns
    -------
    paths : int array [layers, width]
        The row of each column's pixel.
    costs : float array [layers]
        What each path costs.
    """
    width, layers, height = missing.shape
    measures = np.broadcast_to(climb, missing.shape)
    history = np.empty((width, layers, height), dtype=np.float32)
    history[0] = missing[0]
    # min over y' of total[y'] + |measure[y] - measure[y']|: once down the column, once up it
    fallen, risen = np.empty((2, layers, height), dtype=np.float32)
    upwards = risen[:, ::-1]
    for column in range(1, width):
        measure, before, total = measures[column], history[column - 1], history[column]
        np.subtract(before, measure, out=fallen)
        np.add(before, measure, out=risen)
        np.minimum.accumulate(fallen, axis=1, out=fallen)
        np.minimum.accumulate(upwards, axis=1, out=upwards)
        fallen += measure
        risen -= measure
        np.minimum(fallen, risen, out=total)
        total += missing[column]
    paths = np.empty((layers, width), dtype=np.int64)
    at = paths[:, -1] = history[-1].argmin(axis=1)
    costs = history[-1].min(axis=1).astype(np.float64)
    layer = np.arange(layers)
    for column in range(width - 1, 0, -1):
        measure = measures[column]
        np.subtract(measure, measure[layer, at][:, None], out=fallen)
        np.abs(fallen, out=fallen)
        fallen += history[column - 1]
        at = paths[:, column - 1] = fallen.argmin(axis=1)
    return paths, costs
