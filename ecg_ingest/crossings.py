"""Tell the ink of two rows apart where their waves run into one another, and say where that is in doubt.

Pure: the upright runs of ink around two rows' paths in, each row's share of them out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.stretches import stretches

BASE_MM = 8.0  # over which the level line around a stroke is taken
_FLANK_MM = 2.5  # beside a stroke that reaches from row to row
_TOGETHER_MM = 1.0  # that two rows' paths may run along one line: they cross
_DOUBT_MM = 1.0  # that both rows' waves, or neither's, go towards one another beside a stroke: it may be either's
_TOUCH_MM = 2.0  # that two rows' waves may run into one another, each known on either side
_SIDE = 3  # columns beside that say how far and how steeply a wave goes on
_PULSES_MM = 12.0  # of a row's ends that calibration pulses may take
_OWN_MM = 1.5  # of a flank, before it counts as a wave of its own
_STROKE_MM = 3.0  # ink taller than this is a stroke, not a level line


@dataclass(frozen=True, kw_only=True)
class Run:
    """A path and the upright run of ink around it in each column."""

    path: NDArray[np.int64]
    on: NDArray[np.bool_]
    ends: NDArray[np.float64]  # [2, width] first and last row
    whole: NDArray[np.float64]  # [2, width] the same before anything was given to a neighbour
    other: NDArray[np.float64]  # [2, width] the same, were each stroke in doubt the other row's

    @property
    def start(self) -> NDArray[np.float64]:
        """First row."""
        return self.ends[0]

    @property
    def end(self) -> NDArray[np.float64]:
        """Last row."""
        return self.ends[1]

    def base(self, pixels_per_mm: float) -> NDArray[np.float64]:
        """The level line that the waves stand on."""
        tall = self.end - self.start
        usual = float(np.median(tall[self.on])) if self.on.any() else 1.0
        level = np.flatnonzero(self.on & (tall <= 1.5 * usual + 1.0))
        if level.size < 3:
            return self.path.astype(np.float64)
        middle = (self.start + self.end)[level] / 2.0
        smooth = running_median(middle, round(BASE_MM * pixels_per_mm))
        return np.interp(np.arange(self.path.size), level, smooth)


def divide(upper: Run, lower: Run, pixels_per_mm: float) -> None:
    """Give each stroke that reaches from one row to the next to the row that it rises (or falls) from.

    Beside a stroke its flanks begin at its own row and do not yet reach the other. The row that a
    stroke merely crosses keeps its level line. Where both rows' waves run towards one another each keeps its own, if
    they merely touch; if not, the stroke is given to the longer and in doubt. So is one beside which no row's
    wave begins, or both go equally far.
    """
    above, below = upper.base(pixels_per_mm), lower.base(pixels_per_mm)
    pen = np.median((upper.end - upper.start)[upper.on]) / 2.0 if upper.on.any() else 1.0
    merged = upper.on & lower.on & (upper.whole == lower.whole).all(axis=0)
    shared = merged & (upper.whole[0] <= above + pen + 1.0) & (upper.whole[1] >= below - pen - 1.0)
    reach = max(2, round(_FLANK_MM * pixels_per_mm))
    parted = upper.on & lower.on & ~merged & (upper.whole[0] < lower.whole[0])
    clear = parted & (np.convolve(merged, np.ones(2 * reach + 1), mode="same") == 0)
    drawn, margin = np.flatnonzero(upper.on & lower.on), round(_PULSES_MM * pixels_per_mm)
    if drawn.size:
        clear[: drawn[0] + margin] = clear[max(0, drawn[-1] - margin) :] = False
    longest = (
        float((upper.end - above)[clear].max(initial=0.0)),
        float((below - lower.start)[clear].max(initial=0.0)),
    )
    for left, right in stretches(merged):
        if shared[left:right].any() and _touch(upper, lower, left, right, parted, (above, below), pixels_per_mm):
            _split(upper, lower, left, right, parted, (above, below), longest, pixels_per_mm)
            shared[left:right] = False
    for left, right in stretches(shared):
        beside = [*range(max(0, left - reach), left), *range(right, min(shared.size, right + reach))]
        beside = [column for column in beside if not shared[column]]
        falls = max((upper.end[c] - above[c] for c in beside if upper.on[c]), default=0.0)
        rises = max((below[c] - lower.start[c] for c in beside if lower.on[c]), default=0.0)
        own_rise = max((above[c] - upper.start[c] for c in beside if upper.on[c]), default=0.0)
        own_fall = max((lower.end[c] - below[c] for c in beside if lower.on[c]), default=0.0)
        own = own_rise > _OWN_MM * pixels_per_mm, own_fall > _OWN_MM * pixels_per_mm
        both = min(rises, falls) > _DOUBT_MM * pixels_per_mm
        neither = max(rises, falls) < _DOUBT_MM * pixels_per_mm or abs(rises - falls) < 2.0 * pen
        levels = above[left:right] - pen, above[left:right] + pen, below[left:right] - pen, below[left:right] + pen
        lower_s = rises >= falls  # the lower row's wave reaches up to the upper row, or through it
        ends = [array[:, left:right] for array in (upper.ends, lower.ends, upper.other, lower.other)]
        _give(ends[0], ends[1], levels, own, to_lower=lower_s)
        _give(ends[2], ends[3], levels, own, to_lower=lower_s != (both or neither))
    # A line that runs through a row's level, on ink on which that row's own line does not run, may have left its own.
    through = (upper.whole != lower.whole).any(axis=0)
    lower.other[0] = np.where(through & lower.on, np.maximum(lower.other[0], above - pen), lower.other[0])
    upper.other[1] = np.where(through & upper.on, np.minimum(upper.other[1], below + pen), upper.other[1])


def _touch(
    upper: Run,
    lower: Run,
    left: int,
    right: int,
    parted: NDArray[np.bool_],
    levels: tuple[NDArray[np.float64], NDArray[np.float64]],
    pixels_per_mm: float,
) -> bool:
    """Whether two rows' waves run into one another in a few columns, and are seen apart on either side of them."""
    if left == 0 or right == parted.size or not (parted[left - 1] and parted[right]):
        return False
    if right - left > _TOUCH_MM * pixels_per_mm:
        return False
    above, below = levels
    reach = max(2, round(_FLANK_MM * pixels_per_mm))
    beside = np.r_[max(0, left - reach) : left, right : min(parted.size, right + reach)]
    beside = beside[parted[beside]]
    falls, rises = float((upper.end - above)[beside].max()), float((below - lower.start)[beside].max())
    apart = float(np.median(below[left:right] - above[left:right]))
    return min(rises, falls) > _DOUBT_MM * pixels_per_mm and max(rises, falls) < apart


def _split(
    upper: Run,
    lower: Run,
    left: int,
    right: int,
    parted: NDArray[np.bool_],
    levels: tuple[NDArray[np.float64], NDArray[np.float64]],
    longest: tuple[float, float],
    pixels_per_mm: float,
) -> None:
    """Where two rows' waves run into one another, each goes on from either side; how far it may is in doubt.

    At least as far as on the sides, at most as far as it would with the steepness that it has there, nor farther than
    the `longest` wave of the row that nothing touches, if there is one as long. Between them they reach over all the
    ink. A wave that may so reach the other row, and ink beyond that row, may be its.
    """
    columns, own = slice(left, right), _OWN_MM * pixels_per_mm
    ink, (above, below) = upper.whole[:, columns], (level[columns] for level in levels)
    floor, deepest = _between(upper.end, left, right, 1.0, parted)
    roof, highest = _between(lower.start, left, right, -1.0, parted)
    usual = above + longest[0], below - longest[1]
    known = bool((floor <= usual[0]).all()), bool((roof >= usual[1]).all())
    falls_through = (deepest > below) & (ink[1] > below + own)
    rises_through = (highest < above) & (ink[0] < above - own)
    deepest = np.minimum(deepest, usual[0]) if known[0] else deepest
    highest = np.maximum(highest, usual[1]) if known[1] else highest
    fall, rise = (floor + deepest) / 2.0, (roof + highest) / 2.0
    gap = np.maximum(rise - fall - 1.0, 0.0) / 2.0
    fall, rise = fall + gap, rise - gap
    deepest = np.where(falls_through, ink[1], np.maximum(deepest, fall + gap))
    highest = np.where(rises_through, ink[0], np.minimum(highest, rise - gap))
    lower.other[1, columns] = np.where(falls_through, below, lower.other[1, columns])
    upper.other[0, columns] = np.where(rises_through, above, upper.other[0, columns])
    for run, way, at, others in ((upper, 1, fall, (floor, deepest)), (lower, 0, rise, (roof, highest))):
        farther = max(others, key=lambda end: float(np.abs(end - at).sum()))
        run.ends[way, columns] = np.clip(at, ink[0], ink[1])
        run.other[way, columns] = np.clip(farther, ink[0], ink[1])


def _between(
    ends: NDArray[np.float64], left: int, right: int, sign: float, parted: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far a wave reaches in columns where another hides its end: at least, and at most; `sign` is its way down.

    Beside them only what is seen apart (`parted`), without a break, says so.
    """
    first = max(0, left - _SIDE)
    before = sign * ends[first:left][np.minimum.accumulate(parted[first:left][::-1])[::-1]]
    after = sign * ends[right : right + _SIDE][np.minimum.accumulate(parted[right : right + _SIDE])][::-1]
    inside = np.arange(right - left, dtype=np.float64)
    least = np.interp(inside, (-1.0, float(right - left)), (before.max(), after.max()))
    steep = [float(np.diff(side).max(initial=0.0)) for side in (before, after)]
    most = np.minimum(before.max() + steep[0] * (inside + 1.0), after.max() + steep[1] * (right - left - inside))
    return sign * least, sign * np.maximum(least, most)


def _give(
    upper: NDArray[np.float64],
    lower: NDArray[np.float64],
    levels: tuple[NDArray[np.float64], ...],
    own: tuple[bool, bool],
    *,
    to_lower: bool,
) -> None:
    """Give the run that two rows share to one of them; `own`: which rows have a wave there that goes the other way."""
    above_top, above_bottom, below_top, below_bottom = levels
    if to_lower:
        upper[1] = np.minimum(upper[1], above_bottom)
        if own[0]:
            lower[0] = np.maximum(lower[0], above_top)
        else:
            upper[0] = np.maximum(upper[0], above_top)
    else:
        lower[0] = np.maximum(lower[0], below_top)
        if own[1]:
            upper[1] = np.minimum(upper[1], below_bottom)
        else:
            lower[1] = np.minimum(lower[1], below_bottom)


def part(upper: Run, above: float, lower: Run, below: float, pixels_per_mm: float) -> None:
    """Where two rows' paths run along one line, it is the nearer row's: the other's own is hidden there."""
    upper_middle, lower_middle = (upper.start + upper.end) / 2.0, (lower.start + lower.end) / 2.0
    level = np.maximum(upper.end - upper.start, lower.end - lower.start) < _STROKE_MM * pixels_per_mm
    together = upper.on & lower.on & level & (np.abs(upper_middle - lower_middle) <= 1.0)
    for left, right in stretches(together):
        if right - left < _TOGETHER_MM * pixels_per_mm:
            continue
        height = float(np.median(upper_middle[left:right]))
        astray = lower if abs(height - above) <= abs(height - below) else upper
        astray.on[left:right] = False


def running_median(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Of `width` values about each, none of them NaN."""
    half = max(1, width // 2)
    padded = np.concatenate((np.full(half, values[0]), values, np.full(half, values[-1])))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    return np.asarray(np.partition(windows, half, axis=1)[:, half])
