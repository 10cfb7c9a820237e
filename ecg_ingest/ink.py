"""Ink against paper and grid: how dark each pixel is, whatever the colour of the paper, and what is ink.

Pure: a picture in, arrays of the same height and width out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ecg_ingest.folds import without_folds
from ecg_ingest.paper_grid import brightest_channel
from ecg_ingest.pen_marks import pen_marks
from ecg_ingest.stretches import stretches

_PAPER_MM = 3.0  # nothing printed on a sheet is wider
_HIGH, _LOW = 0.5, 0.3  # of the ink's darkness: surely ink; ink where it touches what surely is
_INK_SHARE = 0.006  # of a sheet's pixels that are its darkest lines
_GRID_SHARE, _GRID_OF_INK = 0.93, 0.9
"""What 93 of 100 pixels are at most is grid: its lines cover a fifth of a sheet and more, ink a few per cent."""
_ROUGHLY, _ROUGH_ERROR = 16, 0.05  # pixels; of a share, by which so few of them may mistake it
_BAR_WIDE_MM, _BAR_FILLS = 0.45, 0.9
_BAR_MM = 8.0  # upright and straight: taller than letters, and than a trace climbs within one column of pixels


@dataclass(frozen=True, kw_only=True)
class Ink:
    """What is printed over the grid."""

    darkness: NDArray[np.float32]  # [height, width], 0 paper to 1 black
    mask: NDArray[np.bool_]  # [height, width]
    level: float  # darkness of the lines
    grid_level: float  # darkness of the grid's lines, 0 where they vanish
    marks: NDArray[np.bool_] | None = None  # [height, width] ink of another colour: handwriting, coloured names

    @property
    def plain(self) -> NDArray[np.bool_]:
        """Ink of the traces' own colour."""
        return self.mask if self.marks is None else self.mask & ~self.marks


def find_ink(rgb: NDArray[np.uint8], pixels_per_mm: float) -> Ink:
    """Separate the lines from paper and grid.

    The brightest channel hides a coloured grid; what is left of a grey one is lighter than the trace. A
    pixel is ink if it is dark enough, or fairly dark beside one that is, and no fold's shadow.
    """
    shaded = _darkness(brightest_channel(rgb), pixels_per_mm)
    (lines,) = _quantiles(shaded, 1.0 - _INK_SHARE)
    darkness = without_folds(shaded, lines, pixels_per_mm)
    grid_level, level = _quantiles(darkness, _GRID_SHARE, 1.0 - _INK_SHARE)
    grid_level = min(grid_level, _GRID_OF_INK * level)
    high = max(_HIGH * level, grid_level + 0.4 * (level - grid_level))
    low = max(_LOW * level, grid_level + 0.2 * (level - grid_level))
    mask = _hysteresis(darkness, low, high)
    marks = pen_marks(rgb, darkness, mask, high)
    return Ink(darkness=darkness, mask=mask, level=level, grid_level=grid_level, marks=marks)


def _quantiles(darkness: NDArray[np.float32], *shares: float) -> list[float]:
    """Of every fourth pixel, shares in rising order: found among the darkest only, which are few."""
    some = np.ascontiguousarray(darkness[::2, ::2]).ravel()
    limit = float(np.quantile(some[::_ROUGHLY], max(0.0, shares[0] - _ROUGH_ERROR)))
    dark = some[some >= limit]
    places = np.array(shares) * (some.size - 1) - (some.size - dark.size)
    if places[0] < 0.0:
        dark, places = some, np.array(shares) * (some.size - 1)
    low = places.astype(np.int64)
    high = np.minimum(low + 1, dark.size - 1)
    ordered = np.partition(dark, np.union1d(low, high)).astype(np.float64)
    found: list[float] = (ordered[low] + (places - low) * (ordered[high] - ordered[low])).tolist()
    return found


def turned_ink(ink: Ink, quarter_turns: int) -> Ink:
    """The same ink turned clockwise by quarter turns."""
    if quarter_turns % 4 == 0:
        return ink
    return Ink(
        darkness=np.ascontiguousarray(np.rot90(ink.darkness, -quarter_turns)),
        mask=np.ascontiguousarray(np.rot90(ink.mask, -quarter_turns)),
        marks=None if ink.marks is None else np.ascontiguousarray(np.rot90(ink.marks, -quarter_turns)),
        level=ink.level,
        grid_level=ink.grid_level,
    )


def without_bars(ink: Ink, pixels_per_mm: float) -> Ink:
    """The same ink without upright bars, which separate columns and run into the names beside them."""
    tall = np.ones((max(3, round(_BAR_MM * pixels_per_mm)), 1), np.uint8)
    upright = cv2.morphologyEx(ink.mask.astype(np.uint8), cv2.MORPH_OPEN, tall)
    bars = np.zeros_like(upright)
    least = max(1, int(np.ceil(_BAR_WIDE_MM * pixels_per_mm)))  # a steep trace has such a run in a column or two
    for left, right in stretches(cv2.reduce(upright, 0, cv2.REDUCE_MAX)[0] > 0):
        if right - left < least:
            continue
        part = upright[:, left:right]
        _, numbers, stats, _ = cv2.connectedComponentsWithStats(part, connectivity=8)
        wide = stats[:, cv2.CC_STAT_WIDTH]
        filled = stats[:, cv2.CC_STAT_AREA] >= _BAR_FILLS * wide * stats[:, cv2.CC_STAT_HEIGHT]
        filled &= wide >= least
        filled[0] = False
        if filled.any():
            bars[:, left:right] = filled[numbers]
    if not bars.any():
        return replace(ink, marks=None)
    kept = cv2.dilate(bars, np.ones((3, 3), np.uint8)) == 0  # a bar's blurred rim with it
    return Ink(
        darkness=np.where(kept, ink.darkness, np.float32(0.0)),
        mask=ink.mask & kept,
        level=ink.level,
        grid_level=ink.grid_level,
    )


def _darkness(brightest: NDArray[np.uint8], pixels_per_mm: float) -> NDArray[np.float32]:
    """1 - value / paper, with the paper's brightness from what surrounds each pixel."""
    factor = min(1.0, 3.0 / pixels_per_mm)
    small = cv2.resize(brightest, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    side = max(3, round(_PAPER_MM * pixels_per_mm * factor)) | 1
    paper = cv2.morphologyEx(small, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    paper = cv2.GaussianBlur(paper, (0, 0), side)
    paper = cv2.resize(paper, (brightest.shape[1], brightest.shape[0]), interpolation=cv2.INTER_LINEAR)
    paper = np.maximum(paper, 24).astype(np.float32)
    darkness = np.subtract(paper, brightest, dtype=np.float32)
    darkness /= paper
    return np.asarray(np.clip(darkness, 0.0, 1.0, out=darkness), dtype=np.float32)


def _hysteresis(darkness: NDArray[np.float32], low: float, high: float) -> NDArray[np.bool_]:
    fair = darkness > low
    places = np.flatnonzero(fair)
    kept = np.zeros(darkness.shape, dtype=np.bool_)
    count, labels = cv2.connectedComponents(fair.astype(np.uint8), connectivity=8)
    own = np.asarray(labels, dtype=np.int32).ravel()[places]
    has = np.zeros(count, dtype=np.bool_)
    has[own[darkness.ravel()[places] > high]] = True
    kept.ravel()[places] = has[own]
    return kept
