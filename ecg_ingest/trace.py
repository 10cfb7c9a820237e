"""Follow the lines of an ECG through a picture's ink, and turn a line of pixels into a line of points.

Pure: masks in, heights out. The cheapest way from left to right is found for every row of a sheet by
dynamic programming over all pixels; a step up or down costs its length, a column without ink costs more.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ecg_ingest.cheapest_path import cheapest_paths, even_climb
from ecg_ingest.crossings import BASE_MM, Run, divide, part, running_median
from ecg_ingest.row_bands import ASTRAY_PITCHES
from ecg_ingest.row_runs import row_runs
from ecg_ingest.stretches import stretches

_COARSE_PIXELS_PER_MM = 2.0
_LEAST_COVERAGE = 0.62  # of a row's columns that hold ink on its path
_LEAST_EXTENT = 0.45  # of the picture's inked width that a row spans
_MOST_ROWS = 18
_ERASE_MM = 1.2
_WHOLE = 0.7  # of the usual length that every line of a sheet has
_TOGETHER = 0.2  # of two lines' columns, before one is no line of its own
_STROKE_MM, _STROKE_COST = 3.0, 0.15  # an upright stroke may be another row's: better the level line beside it

_STROKE_LEAST = 0.9  # of the thickness, from the line's middle at its highest to that at its lowest
_FAR_PITCHES, _FAR_MM = 0.75, 12.0  # from every row: ink that is no trace
_PEN_STEPS = 7  # places across a pen
_TALL_RUN = 1.9  # of the line's thickness: a stroke, not a level line


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line that runs across a sheet: its height in each column of pixels, NaN where it does not run."""

    heights: NDArray[np.float64]
    coverage: float

    def level(self, left: float, right: float) -> float:
        """The usual height between two places; NaN if it does not run there."""
        part = self.heights[max(0, round(left)) : max(0, round(right))]
        part = part[np.isfinite(part)]
        return float(np.median(part)) if part.size else float("nan")

    @property
    def roughness(self) -> float:
        """How far it goes up and down on the way, a column."""
        return float(np.nanmean(np.abs(np.diff(self.heights))))

    @property
    def start(self) -> int:
        """First column."""
        return int(np.flatnonzero(np.isfinite(self.heights))[0])

    @property
    def end(self) -> int:
        """Last column and one."""
        return int(np.flatnonzero(np.isfinite(self.heights))[-1]) + 1


def find_rows(mask: NDArray[np.bool_], pixels_per_mm: float) -> list[Row]:
    """Every line that runs across the sheet, from the top.

    The best line is taken, its ink erased, and the next one sought, until what is left no longer covers
    most of its columns. Lines that cross are exchanged where they do: rows of a sheet do not.
    """
    whole, tall, factor = _coarse(mask, pixels_per_mm)
    ink = whole.copy()
    width = ink.shape[1]
    paths: list[NDArray[np.int64]] = []
    misses = 0
    while len(paths) < _MOST_ROWS and misses < 3:
        cost = np.where(ink > 0, _STROKE_COST * tall, 1.0).astype(np.float32)
        found, _ = cheapest_paths(np.ascontiguousarray(cost.T)[:, None], even_climb(ink.shape[0]))
        if ink[found[0], np.arange(width)].mean() < 0.2:
            break
        row = _as_row(found[0], ink, mask.shape[1], factor)
        _erase(ink, found[0])
        if row is None:
            misses += 1
        else:
            paths.append(found[0])
    if not paths:
        return []
    rows = [_as_row(path, whole, mask.shape[1], factor) for path in np.sort(np.stack(paths), axis=0)]
    return _whole_lines([row for row in rows if row is not None], pixels_per_mm)


def _whole_lines(rows: list[Row], pixels_per_mm: float) -> list[Row]:
    """Without lines much shorter than most (a header's text), and without the rougher of two that run together."""
    if not rows:
        return []
    usual = float(np.median([row.end - row.start for row in rows]))
    kept = [row for row in rows if row.end - row.start > _WHOLE * usual]
    dropped: set[int] = set()
    for one, other in itertools.combinations(range(len(kept)), 2):
        apart = np.abs(kept[one].heights - kept[other].heights)
        together = float(np.mean(apart[np.isfinite(apart)] < pixels_per_mm)) if np.isfinite(apart).any() else 0.0
        if together > _TOGETHER:
            dropped.add(max((one, other), key=lambda index: kept[index].roughness))
    return [row for index, row in enumerate(kept) if index not in dropped]


def guided_rows(mask: NDArray[np.bool_], labels: NDArray[np.float64], pitch: float, pixels_per_mm: float) -> list[Row]:
    """One line a row of labels, each sought about its own level and all at once.

    For sheets whose waves reach so far into their neighbours that the best line is not one row's. Where all
    rows stand to their labels alike is where most level ink lies.

    Parameters
    ----------
    labels : float array [rows]
        The height of each row's labels.
    pitch : float
        From one row to the next.
    """
    ink, tall, factor = _coarse(mask, pixels_per_mm)
    height = ink.shape[0]
    level = cv2.GaussianBlur(
        ((ink > 0) & (tall == 0)).mean(axis=1).reshape(-1, 1).astype(np.float32), (0, 0), 1.5
    ).ravel()
    places = labels * factor
    offsets = np.arange(-0.5 * pitch * factor, 0.7 * pitch * factor)
    heights = np.clip(np.rint(places[None, :] + offsets[:, None]).astype(np.int64), 0, height - 1)
    off_page = (places[None, :] + offsets[:, None] >= height).any(axis=1)
    shift = float(offsets[int(np.argmax(np.where(off_page, -1.0, level[heights].sum(axis=1))))])
    levels = np.arange(height)
    base = np.where(ink > 0, _STROKE_COST * tall, 1.0).astype(np.float32)
    costs = np.repeat(base.T[:, None], len(places), axis=1)
    for number, place in enumerate(places):
        away = np.abs(levels - (place + shift)) / (pitch * factor)
        costs[:, number] += (0.15 * away + 1.5 * np.maximum(away - 0.5, 0.0)).astype(np.float32)
    paths, _ = cheapest_paths(costs, even_climb(height))
    rows = []
    for path in paths:
        row = _as_row(path, ink, mask.shape[1], factor)
        if row is not None:
            rows.append(row)
    return rows


def _coarse(mask: NDArray[np.bool_], pixels_per_mm: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8], float]:
    """Ink at two pixels a millimetre, its upright strokes, and the factor."""
    factor = _COARSE_PIXELS_PER_MM / pixels_per_mm
    height, width = max(2, round(mask.shape[0] * factor)), max(2, round(mask.shape[1] * factor))
    ink = (cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > 0.12).astype(np.uint8)
    tall = cv2.morphologyEx(ink, cv2.MORPH_OPEN, np.ones((round(_STROKE_MM * _COARSE_PIXELS_PER_MM), 1), np.uint8))
    return ink, np.asarray(tall, dtype=np.uint8), factor


def _as_row(path: NDArray[np.int64], ink: NDArray[np.uint8], width: int, factor: float) -> Row | None:
    """A coarse path in the picture's pixels; None where it is no line."""
    on = ink[path, np.arange(path.size)].astype(bool)
    start, end = _extent(on)
    coverage = float(on[start:end].mean()) if end > start else 0.0
    if coverage < _LEAST_COVERAGE or end - start < _LEAST_EXTENT * path.size:
        return None
    columns = np.arange(width)
    inside = (columns >= start / factor) & (columns < end / factor)
    heights = np.full(width, np.nan)
    heights[inside] = np.interp((columns[inside] + 0.5) * factor - 0.5, np.arange(path.size), (path + 0.5) / factor)
    return Row(heights=heights, coverage=coverage)


def _extent(on: NDArray[np.bool_]) -> tuple[int, int]:
    """Where a path begins and ends to hold ink mostly: outside, it merely crosses blank paper."""
    value = np.where(on, 1.0, -1.5)
    total = np.concatenate(([0.0], np.cumsum(value)))
    lowest = np.minimum.accumulate(total)
    end = int(np.argmax(total - lowest))
    start = int(np.argmin(total[: end + 1]))
    return start, end


def _erase(ink: NDArray[np.uint8], path: NDArray[np.int64]) -> None:
    """Take a path's line out of the ink: what lies within a millimetre of it."""
    reach = max(1, round(_ERASE_MM * _COARSE_PIXELS_PER_MM))
    columns = np.arange(ink.shape[1])
    for offset in range(-reach, reach + 1):
        at = np.clip(path + offset, 0, ink.shape[0] - 1)
        ink[at, columns] = 0


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row followed at full resolution: what the line covers in each column, NaN where there is none."""

    top: NDArray[np.float64]  # [width] middle of the line at its highest, pixels from the picture's top
    bottom: NDArray[np.float64]  # [width] at its lowest
    thickness: float  # pixels
    doubt: NDArray[np.float64] | None = None  # [width] by how much its height would differ, were a neighbour's ink its

    def part(self, left: float, right: float) -> Line:
        """The line between two columns."""
        at = slice(max(0, round(left)), max(0, round(right)))
        doubt = None if self.doubt is None else self.doubt[at]
        return Line(top=self.top[at], bottom=self.bottom[at], thickness=self.thickness, doubt=doubt)

    @property
    def middle(self) -> NDArray[np.float64]:
        """Half-way."""
        return (self.top + self.bottom) / 2.0


def follow(rows: list[Row], mask: NDArray[np.bool_], darkness: NDArray[np.float32], pixels_per_mm: float) -> list[Line]:
    """Every row's line in full resolution, each kept from running along another's."""
    columns = np.arange(mask.shape[1])
    filled = _guides([_filled(row.heights) for row in rows])
    mask = _near_rows(mask, filled, pixels_per_mm)
    upright = np.ascontiguousarray(mask.T)
    runs = row_runs(upright, filled, pixels_per_mm)
    for upper, lower in itertools.pairwise(runs):
        divide(upper, lower, pixels_per_mm)
    for (upper, above), (lower, below) in itertools.pairwise(zip(runs, filled, strict=True)):
        part(upper, float(np.median(above)), lower, float(np.median(below)), pixels_per_mm)
    return [_doubted(run, _line(run, mask, darkness, columns), pixels_per_mm) for run in runs]


def _doubted(run: Run, line: Line, pixels_per_mm: float) -> Line:
    """The line with what it would be if each stroke that may be either row's were the other's."""
    if (run.other == run.ends).all():
        return line
    half = line.thickness / 2.0 - 0.5
    changed = run.on & (run.other != run.ends).any(axis=0)
    other = Line(
        top=np.where(changed, run.other[0] + half, line.top),
        bottom=np.where(changed, run.other[1] - half, line.bottom),
        thickness=line.thickness,
    )
    doubt = np.nan_to_num(np.abs(heights(line, pixels_per_mm) - heights(other, pixels_per_mm)))
    return replace(line, doubt=doubt)


def _guides(filled: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Rows' heights kept to their own halves: a header's text may have drawn them all up by one line."""
    if len(filled) < 2:
        return filled
    usual = [float(np.median(heights)) for heights in filled]
    reach = ASTRAY_PITCHES * float(np.median(np.diff(usual)))
    return [np.clip(heights, level - reach, level + reach) for heights, level in zip(filled, usual, strict=True)]


def _near_rows(mask: NDArray[np.bool_], rows: list[NDArray[np.float64]], pixels_per_mm: float) -> NDArray[np.bool_]:
    """The ink without what lies far from every row: headers and footers, which a line would climb to over a gap."""
    # Rows' usual heights: beside its end a row's rough way may itself have climbed to the header.
    at = np.median(np.stack(rows), axis=1)
    pitch = float(np.median(np.diff(at))) if len(rows) > 1 else 0.0
    reach = max(_FAR_PITCHES * pitch, _FAR_MM * pixels_per_mm)
    down = np.arange(mask.shape[0])[:, None]
    far = np.asarray(((down + 1 < at - reach) | (down > at + reach)).all(axis=1), dtype=np.bool_)
    kept = mask.copy()
    for start, end in stretches(far):
        top, bottom = max(0, start - 1), min(mask.shape[0], end + 1)  # what touches a near row is near
        count, numbers = cv2.connectedComponents(mask[top:bottom].astype(np.uint8), connectivity=8)
        near = np.zeros(count, dtype=np.bool_)
        if top < start:
            near[numbers[0]] = True
        if bottom > end:
            near[numbers[-1]] = True
        near[0] = False
        kept[top:bottom] = near[numbers]
        if top < start:
            kept[top] = mask[top]
        if bottom > end:
            kept[bottom - 1] = mask[bottom - 1]
    return kept


def _filled(heights: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.flatnonzero(np.isfinite(heights))
    return np.interp(np.arange(heights.size), known, heights[known])


def _line(run: Run, mask: NDArray[np.bool_], darkness: NDArray[np.float32], columns: NDArray[np.int64]) -> Line:
    """What a path's ink covers in each column: the whole upright run of ink around it, less half the pen."""
    on, start, end = run.on, run.start, run.end
    tall = end - start + 1.0
    thickness = _thickness(tall[on])
    half = thickness / 2.0
    # Where the line is level its darkness says its middle to a fraction of a pixel.
    reach = int(np.ceil(thickness)) + 1
    weights = np.zeros(columns.size)
    sums = np.zeros(columns.size)
    middle = np.rint((start + end) / 2.0).astype(np.int64)
    for offset in range(-reach, reach + 1):
        at = np.clip(middle + offset, 0, mask.shape[0] - 1)
        inside = (at >= start - 1) & (at <= end + 1)
        weight = np.where(inside, darkness[at, columns], 0.0)
        weights += weight
        sums += weight * at
    centre = np.where(weights > 0, sums / np.maximum(weights, 1e-6), middle)
    level = tall <= _TALL_RUN * thickness
    top = np.where(level, centre, start + half - 0.5)
    bottom = np.where(level, centre, end - half + 0.5)
    top[~on] = np.nan
    bottom[~on] = np.nan
    return Line(top=top, bottom=bottom, thickness=thickness)


def _thickness(tall: NDArray[np.float64]) -> float:
    """The pen's width: the mean of the upright runs where the line is about level."""
    if tall.size == 0:
        return 1.0
    usual = float(np.median(tall))
    return float(tall[tall <= usual + 1.0].mean())


def heights(line: Line, pixels_per_mm: float) -> NDArray[np.float64]:
    """One height a column, NaN where there is none.

    Where the line is level, its middle. Where it is a stroke, the end that lies further from the level line
    around it: a peak keeps its height. A pen makes waves wider by its own width, which is taken off again.
    """
    known = np.isfinite(line.top)
    if not known.any():
        return np.full(line.top.size, np.nan)
    columns = np.arange(line.top.size)
    tall = known & (line.bottom - line.top > _STROKE_LEAST * line.thickness)
    level = known & ~tall
    if level.sum() < 3:
        return line.middle
    base = np.interp(columns, columns[level], running_median(line.middle[level], round(BASE_MM * pixels_per_mm)))
    up, down = base - line.top, line.bottom - base
    sign = np.where(up >= down, 1.0, -1.0)
    away = np.maximum(up, down)
    # The pen's width: of the places that it touches beside this column, the least reach towards the same side,
    # its own roundness allowed for; but a peak is as high as its highest column.
    radius = max(0.0, (line.thickness - 1.0) / 2.0)
    reach = round(radius)
    narrowed, highest = away.copy(), away.copy()
    for offset in np.linspace(-radius, radius, _PEN_STEPS).tolist():
        round_off = line.thickness / 2.0 - float(np.sqrt((line.thickness / 2.0) ** 2 - offset**2))
        up_beside, down_beside = (np.interp(columns + offset, columns, side) for side in (up, down))
        narrowed = np.fmin(narrowed, np.where(sign > 0, up_beside, down_beside) + round_off)
    for step in range(-reach, reach + 1):
        beside = np.clip(columns + step, 0, columns.size - 1)
        highest = np.fmax(highest, np.where(sign > 0, up[beside], down[beside]))
    peak = _middles(away >= highest - 1.0, reach)
    stroke = base - sign * np.where(peak | ~np.isfinite(narrowed), away, narrowed)
    stroke = np.clip(stroke, line.top, line.bottom)
    return np.where(tall, stroke, line.middle)


def _middles(peak: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Stretches of columns without the pen's half on either side; at least the middle of each stays."""
    kept = np.zeros_like(peak)
    for start, end in stretches(peak):
        middle = (start + end - 1) // 2
        kept[min(start + reach, middle) : max(end - reach, middle + 1)] = True
    return kept
