"""Take the folds of a sheet out of its darkness: long straight shadows, wider and paler than any line printed on it.

Pure: arrays in, arrays out. Where a trace crosses a fold, both are dark; without this the fold becomes ink there.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_LEAN_DEGREES, _LEAN_STEP = 14.0, 0.35  # of a fold against the sheet's edge
_COARSE_PIXELS_PER_MM = 1.0
_ROWS_TOGETHER = 3  # of coarse pixels: a fold leans less than one pixel over them
_PALER = 0.75  # than lines are
_COUNTED = 0.4  # of lines' darkness: what is darker counts as no more in the search, or lines would be found first
_MOST_FOLDS = 4  # one way
_CANDIDATES = 8
_REFINEMENTS = 3
_EVERY, _ROWS = 2, 350  # pixels, and rows of them, that the search looks at
_STANDS_OUT = 0.02  # of the coarse mean, over its surroundings
_SURROUNDINGS_MM, _USUAL_SHARE = 13, 0.93
_REACH_MM = 3.0  # to either side of a fold's middle
_EDGE_MM = 2.0  # beyond it there is paper again
_SHARE = 0.3  # of a fold's length that may be paler than its profile says
_LEAST_DARKNESS = 0.05
_LEAST_WIDTH_MM = 0.7  # at half its darkness; the pens of recorders are thinner
_LEAST_LENGTH = 0.55  # of the picture's height
_LEAST_COVERED, _COVERED_DARKNESS, _UNCOVERED_COST = 0.88, 0.4, 3.0  # of its length; of the profile's darkness

_Way = NDArray[np.float64]
"""From top to bottom: the column, as a polynomial (highest power first) of the height from -0.5 to 0.5."""


def without_folds(darkness: NDArray[np.float32], level: float, pixels_per_mm: float) -> NDArray[np.float32]:
    """The darkness without that of folds, whichever way they run.

    Parameters
    ----------
    darkness : float32 array [height, width]
        0 paper to 1 black. Returned itself where there is no fold.
    level : float
        The darkness of lines.
    pixels_per_mm : float
        Of the array.
    """
    cleared = _without_upright(darkness, level, pixels_per_mm)
    lying = cleared.T
    upright = _without_upright(lying, level, pixels_per_mm)
    return cleared if upright is lying else np.ascontiguousarray(upright.T)


def _without_upright(darkness: NDArray[np.float32], level: float, pixels_per_mm: float) -> NDArray[np.float32]:
    cleared = darkness
    for _ in range(_MOST_FOLDS):
        fold = _darkest_fold(cleared, level, pixels_per_mm)
        if fold is None:
            break
        if cleared is darkness:
            cleared = darkness.copy()
        _take_out(cleared, *fold)
    return cleared


def _darkest_fold(
    darkness: NDArray[np.float32], level: float, pixels_per_mm: float
) -> tuple[_Way, NDArray[np.float64]] | None:
    """The way of a fold and its profile."""
    best: tuple[_Way, NDArray[np.float64]] | None = None
    for candidate in _candidates(darkness, level, pixels_per_mm):
        way = candidate
        for _ in range(_REFINEMENTS):
            way = _refined(darkness, way, pixels_per_mm)
        profile = _profile(darkness, way, level, pixels_per_mm)
        if profile is not None and (best is None or profile.max() > best[1].max()):
            best = way, profile
    return best


def _candidates(darkness: NDArray[np.float32], level: float, pixels_per_mm: float) -> list[_Way]:
    """The straight ways from top to bottom that are darkest on average against what is beside them."""
    factor = _COARSE_PIXELS_PER_MM / pixels_per_mm
    height, width = darkness.shape
    size = max(8, round(width * factor)), max(8, round(height * factor / _ROWS_TOGETHER))
    some = np.ascontiguousarray(darkness[::_EVERY, ::_EVERY])
    coarse = cv2.resize(np.minimum(some, np.float32(_COUNTED * level)), size, interpolation=cv2.INTER_AREA)
    leans = np.tan(np.deg2rad(np.arange(-_LEAN_DEGREES, _LEAN_DEGREES + _LEAN_STEP / 2, _LEAN_STEP)))
    middle, lower = (size[1] - 1) / 2.0, height * factor / size[1]  # pixels across that a row is tall
    sums = np.empty((leans.size, size[0]), dtype=np.float32)
    for number, slope in enumerate(leans.tolist()):
        shear = np.array([[1.0, slope * lower, -slope * lower * middle], [0.0, 1.0, 0.0]])
        straight = cv2.warpAffine(coarse, shear, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        sums[number] = cv2.reduce(straight, 0, cv2.REDUCE_AVG)[0]
    window = min(round(_SURROUNDINGS_MM * _COARSE_PIXELS_PER_MM) | 1, (size[0] - 1) | 1)
    padded = np.pad(sums, ((0, 0), (window // 2, window // 2)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, window, axis=1)
    excess = sums - np.partition(windows, window // 2, axis=2)[:, : size[0], window // 2]
    excess -= np.quantile(excess, _USUAL_SHARE, axis=1, keepdims=True)  # a grid's lines stand out alike
    found: list[_Way] = []
    for _ in range(_CANDIDATES):
        lean, column = divmod(int(np.argmax(excess)), size[0])
        if excess[lean, column] < _STANDS_OUT:
            break
        found.append(np.array([0.0, float(leans[lean]) * height, (column + 0.5) / factor - 0.5]))
        excess[:, max(0, column - 4) : column + 5] = 0.0
    return found


def _centre(way: _Way, rows: NDArray[np.int64], height: int) -> NDArray[np.float64]:
    """The column of a way in each of these rows."""
    return np.asarray(np.polyval(way, (rows + 0.5) / height - 0.5), dtype=np.float64)


def _along(darkness: NDArray[np.float32], way: _Way, reach: int) -> NDArray[np.float32]:
    """What lies beside a way from top to bottom in some hundred rows, [rows, 2 * reach + 1]; NaN off the picture."""
    height, width = darkness.shape
    rows = np.arange(0, height, max(1, height // _ROWS))
    columns = np.rint(_centre(way, rows, height)).astype(np.int64)[:, None] + np.arange(-reach, reach + 1)[None, :]
    inside = (columns >= 0) & (columns < width)
    values: NDArray[np.float32] = darkness[rows[:, None], np.clip(columns, 0, width - 1)].copy()
    values[~inside] = np.nan
    return values


def _refined(darkness: NDArray[np.float32], way: _Way, pixels_per_mm: float) -> _Way:
    """The same way moved to the middle of its shadow in each third: unbent paper may leave a fold bent a little."""
    reach = round(_REACH_MM * pixels_per_mm)
    beside = _along(darkness, way, reach)
    offsets = []
    for part in np.array_split(beside, 3):
        known = part[np.isfinite(part).all(axis=1)]
        if known.shape[0] < 8:
            return way
        profile = _quantile(known, 0.5)
        weight = np.maximum(profile - 0.5 * (profile.max() + float(np.median(profile))), 0.0)
        if weight.sum() <= 0.0:
            return way
        offsets.append(float(weight @ np.arange(-reach, reach + 1)) / float(weight.sum()))
    first, middle, last = offsets
    bent = 4.5 * (first - 2.0 * middle + last), 1.5 * (last - first), middle  # through -1/3, 0 and 1/3
    moved: _Way = way + np.array(bent)
    return moved


def _quantile(values: NDArray[np.float32], share: float) -> NDArray[np.float64]:
    """Of each column, as numpy's: sorting the few values at once is much quicker."""
    ordered = np.sort(values, axis=0).astype(np.float64)
    place = share * (ordered.shape[0] - 1)
    low = int(place)
    high = min(low + 1, ordered.shape[0] - 1)
    between: NDArray[np.float64] = ordered[low] + (place - low) * (ordered[high] - ordered[low])
    return between


def _profile(
    darkness: NDArray[np.float32], way: _Way, level: float, pixels_per_mm: float
) -> NDArray[np.float64] | None:
    """How dark a fold is across, a value a pixel; None where it is none: a line, a column of strokes, a grid's line."""
    reach = round(_REACH_MM * pixels_per_mm)
    beside = _along(darkness, way, reach)
    known = beside[np.isfinite(beside).all(axis=1)]
    if known.shape[0] < _LEAST_LENGTH * beside.shape[0]:
        return None
    away = np.abs(np.arange(-reach, reach + 1)) / pixels_per_mm
    profile = _across(known, 0.5, away)
    inner = known[:, profile >= 0.5 * profile.max()].mean(axis=1) > _COVERED_DARKNESS * profile.max()
    total = np.concatenate(([0.0], np.cumsum(np.where(inner, 1.0, -_UNCOVERED_COST))))
    end = int(np.argmax(total - np.minimum.accumulate(total)))  # paper: the picture may reach beyond it
    start = int(np.argmin(total[: end + 1]))
    if end - start < _LEAST_LENGTH * beside.shape[0] or float(inner[start:end].mean()) < _LEAST_COVERED:
        return None
    profile = _across(known[start:end], _SHARE, away)
    darkest = float(profile.max())
    wide = float(np.count_nonzero(profile > 0.5 * darkest)) / pixels_per_mm
    return profile if _LEAST_DARKNESS < darkest < _PALER * level and wide >= _LEAST_WIDTH_MM else None


def _across(beside: NDArray[np.float32], share: float, away: NDArray[np.float64]) -> NDArray[np.float64]:
    """What is at least as dark over all but a share of a fold's length, above the paper to either side."""
    profile = _quantile(beside, share)
    profile = np.maximum(profile - np.quantile(profile[away >= _EDGE_MM], 0.75), 0.0)
    profile[away >= _EDGE_MM] = 0.0
    return profile


def _take_out(darkness: NDArray[np.float32], way: _Way, profile: NDArray[np.float64]) -> None:
    """Paper under a shadow is as light as beside it, and ink as dark."""
    height, width = darkness.shape
    reach = (profile.size - 1) // 2
    rows = np.arange(height)
    centre = _centre(way, rows, height)
    columns = np.rint(centre).astype(np.int64)[:, None] + np.arange(-reach, reach + 1)[None, :]
    shade = np.interp((columns - centre[:, None]).ravel(), np.arange(-reach, reach + 1), profile).reshape(columns.shape)
    inside = (columns >= 0) & (columns < width)
    at_rows = np.broadcast_to(rows[:, None], columns.shape)[inside]
    lit = (darkness[at_rows, columns[inside]] - shade[inside]) / (1.0 - shade[inside])
    darkness[at_rows, columns[inside]] = np.maximum(lit, 0.0).astype(np.float32)
