"""Where the columns of a sheet begin, and the calibration pulses beside them, from lines that were followed.

Pure. Labels stand near a column's beginning, but how near differs between recorders: the lines decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ecg_ingest.cheapest_path import cheapest_paths, even_climb
from ecg_ingest.paper_scale import PULSE_SECONDS, STANDARD_MM_PER_SECOND
from ecg_ingest.stretches import stretches
from ecg_ingest.trace import Line

_LABELS_EVEN_MM, _FIRST_LABEL_MM = 2.0, 5.5  # between labels' distances from their columns' beginnings, if in doubt
_LABELS_EVEN_UNFRAMED_MM = 1.2  # the same where the lines do not begin and end with the columns
_FRAMED_MM = 1.5
_PULSE_EVEN = 0.12  # of a pulse's width, that proves a millimetre where the grid is in doubt
_SEARCH_BEFORE_MM, _SEARCH_AFTER_MM = 36.0, 8.0  # of a column's beginning, about its label's left edge
_JUMP_MM = 1.2  # a jump counts up to this
_JUMP_WIDTH_MM = 1.0
_LABEL_BEFORE_MM, _LABEL_AFTER_MM = 1.5, 5.0  # how labels usually stand to where their lead begins
_LABEL_COST = 0.3  # a millimetre that they stand otherwise
_NEAR_MM = 1.0
_PIECE_MM, _GAP_MM = 14.0, 1.2  # a pulse's remains at a line's end, and what separates them from it
_BESIDE_MM, _JUMPS_TOGETHER = 5.0, 0.8
_FOOT_MM = 7.0  # a pulse's foot and the gap behind it

_PULSE_HEIGHT_MM = (3.5, 24.0)
_PULSE_WIDTH_MM = (2.0, 14.0)
_PULSE_FLAT_MM = 0.45
_PULSE_REACH_MM = 22.0
_FLANK_MM = 0.7  # about a pulse's edges
_LETTERS_COST = 0.3  # of a column on a name's letters, to one on blank paper
_RIM_PIXELS = 2  # of letters: what is taller may be a wave's tip
_BRIDGED_MM = 1.0  # of a trace that letters cross


@dataclass(frozen=True, kw_only=True)
class PrintedPulse:
    """A calibration pulse on paper, in millimetres, and the columns of pixels it spans."""

    width_mm: float  # NaN where the picture's edge cuts it
    height_mm: float
    left: int
    right: int


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where leads begin and end, in pixels."""

    starts: tuple[float, ...]  # one a column, and the end of the last
    contradicted: bool  # whether all lines jump together some millimetres beside where columns should begin
    framed: bool  # whether the lines begin and end with them


def find_pulses(line: Line, across: float, down: float) -> list[PrintedPulse]:
    """Calibration pulses in the first and last centimetres of a line: up, level, down.

    Parameters
    ----------
    across, down : float
        Pixels a millimetre.
    """
    known = np.flatnonzero(np.isfinite(line.top))
    if known.size == 0:
        return []
    reach = round(_PULSE_REACH_MM * across)
    found: list[PrintedPulse] = []
    ends = [(known[0], min(known[0] + reach, known[-1] + 1)), (max(known[0], known[-1] + 1 - reach), known[-1] + 1)]
    for left, right in ends:
        pulse = _pulse(line, int(left), int(right), across, down)
        if pulse is not None and all(abs(pulse.left - other.left) > across for other in found):
            found.append(pulse)
    return found


def _pulse(line: Line, left: int, right: int, across: float, down: float) -> PrintedPulse | None:
    window = slice(left, right)
    known = np.isfinite(line.bottom[window])
    if known.sum() < 2.0 * across:
        return None
    lowest = float(np.quantile(line.bottom[window][known], 0.8))
    rough = np.where(known, (lowest - line.top[window]) / down, 0.0)
    for run_left, run_right in stretches(rough > _PULSE_HEIGHT_MM[0]):
        width = (run_right - run_left) / across
        if not _PULSE_WIDTH_MM[0] <= width <= _PULSE_WIDTH_MM[1]:
            continue
        base = _foot(line, left + run_left, left + run_right, across)
        margin = max(1, round(0.22 * (run_right - run_left)))
        inner = slice(left + run_left + margin, left + run_right - margin)
        tops, bottoms = line.top[inner], line.bottom[inner]
        if tops.size < 3 or not np.isfinite(tops).all() or base is None:
            continue
        height = (_feet(line, left + run_left, left + run_right, across, base) - float(np.median(tops))) / down
        flat = float(np.quantile(np.abs(tops - np.median(tops)), 0.9)) / down < _PULSE_FLAT_MM
        level = float(np.quantile(bottoms - tops, 0.8)) / down < 3.0 * _PULSE_FLAT_MM
        up = np.where(known, (base - line.top[window]) / down, np.inf)
        possible = _PULSE_HEIGHT_MM[0] < height < _PULSE_HEIGHT_MM[1]
        if flat and level and possible and _steep(up, run_left, run_right, height, across):
            whole = _stands_whole(line, left + run_left, left + run_right, across)
            return PrintedPulse(
                width_mm=width if whole else float("nan"),
                height_mm=height,
                left=left + run_left,
                right=left + run_right,
            )
    return None


def _stands_whole(line: Line, left: int, right: int, across: float) -> bool:
    """Whether a pulse's feet are seen on both sides: the edge of the picture or paper cuts many."""
    near, far = round(0.5 * across), round(2.0 * across)
    before = line.top[max(0, left - far) : max(0, left - near)]
    after = line.top[right + near : right + far]
    return bool(np.isfinite(before).sum() > 0.2 * across and np.isfinite(after).any())


def _feet(line: Line, left: int, right: int, across: float, base: float) -> float:
    """How far down a pulse's upright flanks reach: the line beside it may wander off at once."""
    reach = max(1, round(_FLANK_MM * across))
    ends = []
    for edge in (left, right):
        columns = slice(max(0, edge - reach), edge + reach + 1)
        tall = line.bottom[columns] - line.top[columns] > 2.0 * across
        if tall.any():
            ends.append(float(line.bottom[columns][tall].max()))
    return float(np.mean(ends)) if ends else base


def _foot(line: Line, left: int, right: int, across: float) -> float | None:
    """The level of the line just before and after a pulse."""
    near, far = max(1, round(0.3 * across)), round(2.5 * across)
    beside = [*range(max(0, left - far), left - near), *range(right + near, min(line.top.size, right + far))]
    level = [
        float(line.middle[column])
        for column in beside
        if np.isfinite(line.top[column]) and line.bottom[column] - line.top[column] < 0.5 * across
    ]
    return float(np.median(level)) if len(level) >= 2 else None


def _steep(up: NDArray[np.float64], left: int, right: int, height: float, across: float) -> bool:
    """Both flanks stand upright, from the foot to nine tenths within a millimetre and a half.

    A heart's waves do not, level-topped or not, and a line that jumps at its end has one flank only. A
    picture's edge may cut a pulse.
    """
    reach = max(2, round(1.5 * across))
    rises = float(up[left : left + reach].max()) > 0.9 * height
    falls = float(up[max(left, right - reach) : right].max()) > 0.9 * height
    before, after = up[max(0, left - reach) : left], up[right : right + reach]
    foot_before = left <= 1 or (before.size > 0 and float(before.min()) < 0.35 * height)
    foot_after = after.size > 0 and float(after.min()) < 0.35 * height
    return rises and falls and foot_before and foot_after


def find_columns(
    lines: Sequence[Line],
    pulses: Sequence[Sequence[PrintedPulse]],
    label_lefts: Sequence[float],
    width: float,
    across: float,
    down: float,
) -> Columns:
    """The beginning of the first column that the lines support best.

    Parameters
    ----------
    lines : sequence of Line
        One a row.
    pulses : sequence of sequences of PrintedPulse
        Of each row.
    label_lefts : sequence of float
        Where the labels of each column begin, in pixels.
    width : float
        Of a column, in pixels.
    across, down : float
        Pixels a millimetre.
    """
    count = len(label_lefts)
    jumps = _jumps(lines, across, down)
    begins, ends = _extents(lines, pulses, across, down)
    first = label_lefts[0]
    trials = np.arange(first - _SEARCH_BEFORE_MM * across, first + _SEARCH_AFTER_MM * across)
    edges = trials[:, None] + width * np.arange(count + 1)
    score = _start_score(trials, begins, across) + 0.7 * _start_score(edges[:, -1], ends, across)
    if count > 1:
        score += 1.5 * np.minimum(_at(jumps, edges[:, 1:-1], across), 1.0).mean(axis=1)
    offsets = np.array(label_lefts) - edges[:, :-1]
    outside = np.maximum(np.maximum(-_LABEL_BEFORE_MM * across - offsets, offsets - _LABEL_AFTER_MM * across), 0.0)
    score -= np.minimum(1.0, _LABEL_COST * outside.mean(axis=1) / across)
    best = float(trials[int(np.argmax(score))])
    edges_inside = best + width * np.arange(1, count, dtype=np.float64)
    return Columns(
        starts=tuple((best + width * np.arange(count + 1)).tolist()),
        contradicted=count > 2 and _jumps_beside(jumps, np.asarray(edges_inside, dtype=np.float64), across),
        framed=_near(begins, best, across) and _near(ends, best + width * count, across),
    )


def _near(places: Sequence[float], edge: float, across: float) -> bool:
    return len(places) > 0 and abs(float(np.median(places)) - edge) <= _FRAMED_MM * across


def _jumps_beside(jumps: NDArray[np.float64], edges: NDArray[np.float64], across: float) -> bool:
    """Whether the lines jump together beside all edges, and not at them: time is not what the grid says."""

    def together(shifts: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.minimum(_at(jumps, edges + shifts[:, None], across), 1.0).mean(axis=1))

    reach = _BESIDE_MM * across
    beside = float(together(np.arange(-reach, reach + 1.0)).max())
    return beside > _JUMPS_TOGETHER and float(together(np.zeros(1))[0]) < 0.5 * beside


def _start_score(trials: NDArray[np.float64], places: Sequence[float], across: float) -> NDArray[np.float64]:
    """Share of the rows whose line begins (or ends) at each of the trials."""
    if not places:
        return np.zeros(trials.size)
    near = np.abs(np.array(places) - trials[:, None]) / (_NEAR_MM * across)
    return np.asarray(np.maximum(0.0, 1.0 - 0.5 * near).mean(axis=1))


def _extents(
    lines: Sequence[Line], pulses: Sequence[Sequence[PrintedPulse]], across: float, down: float
) -> tuple[list[float], list[float]]:
    """Where each row's heart begins and ends: without its pulses."""
    begins, ends = [], []
    for line, own in zip(lines, pulses, strict=True):
        known = np.flatnonzero(np.isfinite(line.top))
        if known.size == 0:
            continue
        middle = (known[0] + known[-1]) / 2.0
        left, right = float(known[0]), float(known[-1] + 1)
        for pulse in own:
            if pulse.left < middle:
                left = max(left, pulse.right + _tail(line, pulse.right, across, 1))
            else:
                right = min(right, pulse.left - _tail(line, pulse.left, across, -1))
        if not own:
            left, right = _without_pieces(known, across)
            left += _cut_pulse(line, round(left), across, down)
        begins.append(left)
        ends.append(right)
    return begins, ends


def _cut_pulse(line: Line, left: int, across: float, down: float) -> float:
    """How far a pulse reaches into the picture that its edge cuts: a level top, and then a fall in one column."""
    reach = slice(left, left + round(_PULSE_WIDTH_MM[0] * across) + 1)
    top, bottom = line.top[reach], line.bottom[reach]
    falls = np.flatnonzero(bottom - top > _PULSE_HEIGHT_MM[0] * down)
    if left > 1 or falls.size == 0 or falls[0] < 3:
        return 0.0
    fall = int(falls[0])
    level = np.isfinite(top[:fall]).all() and float(np.ptp(top[: fall + 1])) < 2.0 * _PULSE_FLAT_MM * down
    return float(fall + 1) if level else 0.0


def _without_pieces(known: NDArray[np.intp], across: float) -> tuple[float, float]:
    """A line's ends without short pieces that stand off: a pulse that the picture's edge cuts is none to see."""
    gaps = np.flatnonzero(np.diff(known) > _GAP_MM * across)
    left, right = float(known[0]), float(known[-1] + 1)
    for gap in gaps.tolist():
        if known[gap] - known[0] < _PIECE_MM * across:
            left = float(known[gap + 1])
    for gap in gaps[::-1].tolist():
        if known[-1] - known[gap + 1] < _PIECE_MM * across:
            right = float(known[gap] + 1)
    return left, right


def _tail(line: Line, at: int, across: float, direction: int) -> float:
    """From a pulse to where the heart's line begins: behind the gap after its foot, else a millimetre on."""
    gap = False
    for step in range(1, round(_FOOT_MM * across)):
        column = at + direction * step
        if not 0 <= column < line.top.size:
            break
        if not np.isfinite(line.top[column]):
            gap = True
        elif gap:
            return float(step)
    return 1.0 * across


def _jumps(lines: Sequence[Line], across: float, down: float) -> NDArray[np.float64]:
    """How far the lines jump at each column of pixels, all rows together: 1 where each jumps by 0.4 mm."""
    width = max(2, round(_JUMP_WIDTH_MM * across))
    total = np.zeros(lines[0].top.size)
    for line in lines:
        known = np.flatnonzero(np.isfinite(line.top))
        if known.size < 4 * width:
            continue
        middle = np.interp(np.arange(line.top.size), known, line.middle[known])
        padded = np.pad(middle, width, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, width)
        middle_two = (width - 1) // 2, width // 2
        medians = np.partition(windows, middle_two, axis=1)[:, list(middle_two)].mean(axis=1)
        jump = np.abs(medians[width : width + middle.size] - medians[: middle.size])
        total += np.minimum(jump / down, _JUMP_MM)
    return total / (0.4 * len(lines))


def _at(jumps: NDArray[np.float64], places: NDArray[np.float64], across: float) -> NDArray[np.float64]:
    """The largest jump near each place, 0 beyond the picture."""
    reach = max(1, round(0.35 * across))
    padded = np.concatenate((np.zeros(2 * reach + 1), jumps, np.zeros(2 * reach + 1)))
    largest = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(axis=1)
    centre = np.rint(places).astype(np.int64) + reach + 1
    return np.asarray(largest[np.clip(centre, 0, largest.size - 1)])


def erase_words(
    mask: NDArray[np.bool_],
    boxes: Sequence[tuple[float, float, float, float]],
    shapes: Sequence[NDArray[np.float32]],
    pixels_per_mm: float,
) -> NDArray[np.bool_]:
    """The ink without the letters of labels: their own strokes only, and a trace through them is closed again.

    Parameters
    ----------
    boxes : sequence of (left, top, right, bottom)
        Where each label stands, in pixels.
    shapes : sequence of arrays
        Each label as printed, 1 ink, any size.
    """
    cleared = mask.copy()
    bridge = np.ones((max(3, round(_BRIDGED_MM * pixels_per_mm)) | 1, 3), np.uint8)
    for (left, top, right, bottom), shape in zip(boxes, shapes, strict=True):
        x0, y0, x1, y1 = round(left), round(top), round(right), round(bottom)
        if x1 <= x0 or y1 <= y0 or x0 < 0 or y0 < 0 or x1 > mask.shape[1] or y1 > mask.shape[0]:
            continue
        letters = cv2.resize(shape, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA) > 0.25
        letters = cv2.dilate(letters.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        cleared[y0:y1, x0:x1] &= ~letters
        _clear_rims(cleared, (x0, y0, x1, y1))
        around = (slice(max(0, y0 - bridge.shape[0]), y1 + bridge.shape[0]), slice(max(0, x0 - 2), x1 + 2))
        closed = cv2.morphologyEx(cleared[around].astype(np.uint8), cv2.MORPH_CLOSE, bridge) > 0
        cleared[around] |= closed & mask[around]
        beyond = (y1 - y0) // 2
        along = (slice(max(0, y0 - beyond), y1 + beyond), slice(max(0, x0 - 2), x1 + 2))
        cleared[along] |= _along(mask[along], cleared[along])
    return cleared


def _clear_rims(cleared: NDArray[np.bool_], box: tuple[int, int, int, int]) -> None:
    """Clear what is left above and below a name's letters where they stand a pixel or two higher than was thought."""
    x0, y0, x1, y1 = box
    margin = max(2, (y1 - y0) // 4)
    top, left = max(0, y0 - margin), max(0, x0 - margin)
    around = cleared[top : y1 + margin, left : x1 + margin]
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(around.astype(np.uint8), connectivity=8)
    for number, (x, y, wide, tall, _) in enumerate(stats[1:count].tolist(), start=1):
        inside = x > 0 and y > 0 and x + wide < around.shape[1] and y + tall < around.shape[0]
        if inside and tall <= _RIM_PIXELS and (top + y + tall <= y0 + 2 or top + y >= y1 - 2):
            around[numbers == number] = False


def _along(mask: NDArray[np.bool_], cleared: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The trace that runs along through a name's letters, where nothing of it is left once they are cleared."""
    gap: NDArray[np.bool_] = np.logical_not(cleared.any(axis=0))
    if gap[0] or gap[-1] or not gap.any():
        return np.zeros_like(mask)
    missing = np.where(cleared, 0.0, np.where(mask, _LETTERS_COST, 1.0)).astype(np.float32).T[:, None]
    missing[0][:, ~cleared[:, 0]] = missing[-1][:, ~cleared[:, -1]] = float(mask.size)
    path = cheapest_paths(missing, even_climb(mask.shape[0]))[0][0]
    pen = float(np.median(cleared[:, ~gap].sum(axis=0)))
    near = np.abs(np.arange(mask.shape[0])[:, None] - path[None, :]) <= pen / 2.0
    trace: NDArray[np.bool_] = near & mask & gap[None, :]
    return trace


def uneven(lefts: Sequence[float], columns: Columns, pulses: Sequence[PrintedPulse], pixels_per_mm: float) -> bool:
    """Whether labels stand nearer to one column's beginning than to another's; the first's may clear a pulse.

    Labels of a single column say nothing of time: there only the width of a pulse does. A strip is as bent as its row.
    """
    apart = np.array([left - start for left, start in zip(lefts, columns.starts[:-1], strict=True)]) / pixels_per_mm
    if apart.size < 2:
        widths = [pulse.width_mm for pulse in pulses if np.isfinite(pulse.width_mm)]
        usual = PULSE_SECONDS * STANDARD_MM_PER_SECOND
        return not widths or abs(float(np.median(widths)) / usual - 1.0) > _PULSE_EVEN
    inner = apart[1:]
    most = _LABELS_EVEN_MM if columns.framed else _LABELS_EVEN_UNFRAMED_MM
    return bool(np.ptp(inner) > most or abs(apart[0] - np.median(inner)) > _FIRST_LABEL_MM)
