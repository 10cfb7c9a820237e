"""Lines of pixels to millivolts and seconds, and what proves that each lead is what it is called.

Pure. The proof of a cell's place is its label and its row; of the limb leads also their equations; of a rhythm
strip that it repeats a lead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.glyphs import MINUS_AVR
from ecg_ingest.lead_images import LEADS, EcgRefused, QualityFinding, RefusalReason
from ecg_ingest.paper_scale import STANDARD_MM_PER_MILLIVOLT, STANDARD_MM_PER_SECOND
from ecg_ingest.raster_columns import Columns
from ecg_ingest.raster_layout import Layout
from ecg_ingest.recording import Recording
from ecg_ingest.trace import Line, heights

SAMPLING_HZ = 500.0
LEAST_SHARE = 0.55  # of a column that a lead must fill: sheets are cropped
_BRIDGED_SECONDS = 0.08  # gaps in the ink up to this are bridged
_MOST_LEAN_MM = 4.0  # between any two rows
_LEAST_LEAN_MM, _LEAN_AGREES_MM, _LEANS_TOGETHER = 0.25, 0.5, 0.6
_HALVES_APART_MM, _HALVES_LEAN_TOGETHER = 1.5, 0.65  # between the leans of a sheet's halves, top to bottom
_BEATS_ALIKE = 0.25
_EDGE_MM = 1.0  # within this of a column's edge a stroke may be a separator
_STROKE_MM = 3.0
_MOST_SHARED = 0.12  # of two leads' columns that may lie on one another
_TOLD_DOUBT = 0.05  # of a lead's energy, from which on a finding says so
_MOST_DOUBT = 0.35  # of a lead's energy: what its neighbours' strokes would change, were they its
_MOST_DOUBT_OF_ALL = 0.6  # of the leads' summed up: one crossing spoils the lines of two and more


@dataclass(frozen=True, kw_only=True)
class CellSignal:
    """One lead's cell."""

    row: int
    column: int
    samples_mv: NDArray[np.float64]  # [seconds * SAMPLING_HZ], NaN where the sheet shows nothing
    first: float  # pixels from the column's beginning to the line's
    last: float
    doubt: float = 0.0  # of its energy, what strokes that may be a neighbour's would change


def row_shifts(lines: Sequence[Line], pixels_per_mm: float) -> NDArray[np.float64]:
    """By how many pixels each line lies too far to the right, [rows, width]: sheets lie, and are printed, leaning.

    All rows of a sheet beat at once. How far each must be moved for its beats to meet the others' is a
    straight line over the rows, or nothing is moved. Of a sheet seen from below or above the left half leans
    one way and the right half the other: its lean changes evenly from left to right.
    """
    width = lines[0].top.size if lines else 0
    shifts = np.zeros((len(lines), width))
    if len(lines) < 2:
        return shifts
    levels = np.array([float(np.nanmedian(line.middle)) if np.isfinite(line.middle).any() else 0.0 for line in lines])
    least = _LEAST_LEAN_MM * pixels_per_mm
    whole = _lean(lines, levels, pixels_per_mm)
    if whole.agreeing >= _LEANS_TOGETHER and np.abs(whole.slope * (levels - levels[0])).max() >= least:
        shifts += (whole.slope * (levels - levels[0]))[:, None]
    known = np.flatnonzero(np.isfinite(np.stack([line.top for line in lines])).any(axis=0))
    if known.size == 0:
        return shifts
    left, middle, right = int(known[0]), int(known[0] + known[-1]) // 2, int(known[-1]) + 1
    one, other = (
        _lean([line.part(*half) for line in lines], levels, pixels_per_mm) for half in ((left, middle), (middle, right))
    )
    apart = abs(other.slope - one.slope) * float(np.ptp(levels))
    if apart >= _HALVES_APART_MM * pixels_per_mm and _agree(one, other, levels, pixels_per_mm):
        places = np.array([(left + middle) / 2.0, (middle + right) / 2.0])
        change = (other.slope - one.slope) / (places[1] - places[0])
        slopes = one.slope + change * (np.arange(width) - places[0])
        shifts = (levels - levels.mean())[:, None] * slopes[None, :]
    return shifts


@dataclass(frozen=True, kw_only=True)
class _Lean:
    """Pixels to the right a pixel down that beats move from row to row."""

    slope: float
    agreeing: float  # share of the pairs of rows that say so
    lags: dict[tuple[int, int], float]  # pixels, by pair of rows


def _agree(one: _Lean, other: _Lean, levels: NDArray[np.float64], pixels_per_mm: float) -> bool:
    """Whether the leans of a sheet's halves are sure: each by itself, or what rows move more in one than in the other.

    The moment at which a lead is steepest differs between leads, but not between the beats of one.
    """
    if min(one.agreeing, other.agreeing) >= _HALVES_LEAN_TOGETHER:
        return True
    both = [pair for pair in one.lags if pair in other.lags]
    if len(both) < levels.size:
        return False
    more = np.array([other.lags[pair] - one.lags[pair] for pair in both])
    away = np.array([levels[second] - levels[first] for first, second in both])
    off = np.abs(more - (other.slope - one.slope) * away)
    return float(np.mean(off < _LEAN_AGREES_MM * pixels_per_mm)) >= _HALVES_LEAN_TOGETHER


def _lean(lines: Sequence[Line], levels: NDArray[np.float64], pixels_per_mm: float) -> _Lean:
    """The straight line over the rows by which their beats are shifted."""
    unknown = _Lean(slope=0.0, agreeing=0.0, lags={})
    beats = [_beats(line, pixels_per_mm) for line in lines]
    reach = round(_MOST_LEAN_MM * pixels_per_mm)
    if beats[0].size < 4 * reach:
        return unknown
    lags: dict[tuple[int, int], float] = {}
    weights = []
    for one in range(len(lines)):
        for other in range(one + 1, len(lines)):
            products = [
                float(
                    beats[one][reach : beats[one].size - reach]
                    @ beats[other][reach + lag : beats[other].size - reach + lag]
                )
                for lag in range(-reach, reach + 1)
            ]
            best = int(np.argmax(products))
            if products[best] > _BEATS_ALIKE and 0 < best < 2 * reach:
                lags[one, other] = float(best - reach)
                weights.append(products[best])
    if len(lags) < len(lines) - 1:
        return unknown
    away = np.array([levels[other] - levels[one] for one, other in lags])
    found, weight = np.array(list(lags.values())), np.array(weights)
    slope = 0.0
    for _ in range(5):  # the weighted median slope, nearly
        slope = float(np.sum(weight * away * found) / np.sum(weight * away * away))
        off = np.abs(found - slope * away)
        weight = np.array(weights) / (1.0 + (off / (0.4 * pixels_per_mm)) ** 2)
    agreeing = float(np.mean(np.abs(found - slope * away) < _LEAN_AGREES_MM * pixels_per_mm))
    return _Lean(slope=slope, agreeing=agreeing, lags=lags)


def moved_left(line: Line, shifts: NDArray[np.float64]) -> Line:
    """A line moved to the left by whole pixels, in each column by as many as `shifts` [width] says."""
    source = np.arange(line.top.size) + np.rint(shifts).astype(np.int64)
    inside = (source >= 0) & (source < line.top.size)
    at = np.clip(source, 0, line.top.size - 1)
    return Line(
        top=np.where(inside, line.top[at], np.nan),
        bottom=np.where(inside, line.bottom[at], np.nan),
        thickness=line.thickness,
        doubt=None if line.doubt is None else np.where(inside, line.doubt[at], 0.0),
    )


def _beats(line: Line, pixels_per_mm: float) -> NDArray[np.float64]:
    """Where a line is steep, as a unit vector about its mean."""
    known = np.isfinite(line.top)
    tall = np.where(known, np.minimum(line.bottom - line.top, 4.0 * pixels_per_mm), 0.0)
    width = max(3, round(0.6 * pixels_per_mm)) | 1
    smooth = np.convolve(tall, np.hanning(width + 2)[1:-1], mode="same")
    smooth = smooth - smooth.mean()
    unit: NDArray[np.float64] = smooth / max(float(np.linalg.norm(smooth)), 1e-9)
    return unit


def cell_signals(
    lines: Sequence[Line], layout: Layout, columns: Columns, pixels_per_mm: float
) -> dict[str, CellSignal]:
    """Every lead's signal about its own median.

    Raises
    ------
    EcgRefused
        LEADS_MISSING where a cell is empty, TRACES_OVERLAP where two leads' lines are one, or cannot be told apart.
    """
    cells: dict[str, CellSignal] = {}
    doubts: dict[str, float] = {}
    for row, names in enumerate(layout.rows):
        for column, name in enumerate(names):
            left, right = columns.starts[column], columns.starts[column + 1]
            part = _without_separators(lines[row], left, right, pixels_per_mm)
            samples, first, last = _sampled(part, left, right, pixels_per_mm)
            if np.isfinite(samples).mean() < LEAST_SHARE:
                raise EcgRefused(
                    RefusalReason.LEADS_MISSING,
                    f"lead {name.lstrip('-')} can be followed over {np.isfinite(samples).mean():.0%} of its place",
                    "scan the complete sheet",
                )
            doubt = doubts[name.lstrip("-")] = _doubt(lines[row].part(left, right), pixels_per_mm)
            inverted = name == MINUS_AVR
            samples = -samples if inverted else samples
            cells["aVR" if inverted else name] = CellSignal(
                row=row, column=column, samples_mv=samples, first=first, last=last, doubt=doubt
            )
    _refuse_shared(lines, layout, columns)
    _refuse_doubtful(doubts)
    return cells


def _doubt(line: Line, pixels_per_mm: float) -> float:
    """What strokes that may be a neighbour's make of a lead's energy."""
    if line.doubt is None or not line.doubt.any():
        return 0.0
    values = heights(line, pixels_per_mm)
    known = np.isfinite(values)
    away = values[known] - np.median(values[known])
    return float(np.sum(line.doubt[known] ** 2)) / max(float(np.sum(away**2)), 1e-9)


def strokes_in_doubt(cells: dict[str, CellSignal]) -> tuple[QualityFinding, ...]:
    """Of which leads strokes may be a neighbour's, though too few to refuse the sheet."""
    return tuple(
        QualityFinding(
            code="strokes_in_doubt",
            lead=lead,
            detail=f"strokes that may be a neighbouring row's make up to {cells[lead].doubt:.0%} of its energy",
        )
        for lead in LEADS
        if lead in cells and cells[lead].doubt > _TOLD_DOUBT
    )


def _refuse_doubtful(doubts: dict[str, float]) -> None:
    """No equation proves a chest lead: where one row's S waves run into the next row's R waves, nothing would."""
    lead = max(doubts, key=lambda name: doubts[name])
    if doubts[lead] > _MOST_DOUBT or sum(doubts.values()) > _MOST_DOUBT_OF_ALL:
        raise EcgRefused(
            RefusalReason.TRACES_OVERLAP,
            f"the waves of lead {lead} and of its neighbours cross: strokes may be either's",
            "print the ECG with more room between the rows",
        )


def _refuse_shared(lines: Sequence[Line], layout: Layout, columns: Columns) -> None:
    for column in range(layout.columns):
        parts = [line.part(columns.starts[column], columns.starts[column + 1]) for line in lines]
        for row in range(1, len(parts)):
            same = np.abs(parts[row].middle - parts[row - 1].middle) < 1.0
            if same.size and float(np.mean(same)) > _MOST_SHARED:
                raise EcgRefused(
                    RefusalReason.TRACES_OVERLAP,
                    f"the lines of {layout.rows[row - 1][column]} and {layout.rows[row][column]} run into one another",
                    "print the ECG with more room between the rows",
                )


def _without_separators(line: Line, left: float, right: float, pixels_per_mm: float) -> Line:
    """The line without the strokes at a column's edges: separators, ticks, the foot of a pulse, the neighbour's wave.

    What lies between such a stroke and the edge goes with it: it may be a part of the same.
    """
    top, bottom = line.top.copy(), line.bottom.copy()
    reach = max(1, round(_EDGE_MM * pixels_per_mm))
    for edge, is_left in ((left, True), (right, False)):
        low, high = max(0, round(edge) - reach), max(0, round(edge) + reach + 1)
        tall = np.flatnonzero(bottom[low:high] - top[low:high] > _STROKE_MM * pixels_per_mm)
        if tall.size:
            gone = slice(low, low + int(tall[-1]) + 1) if is_left else slice(low + int(tall[0]), high)
            top[gone] = bottom[gone] = np.nan
    return Line(top=top, bottom=bottom, thickness=line.thickness)


def _sampled(line: Line, left: float, right: float, pixels_per_mm: float) -> tuple[NDArray[np.float64], float, float]:
    """A line between two places as samples in mV about their median, and where it begins and ends."""
    per_second = STANDARD_MM_PER_SECOND * pixels_per_mm
    count = round((right - left) / per_second * SAMPLING_HZ)
    low, high = max(0, round(left)), min(line.top.size, round(right))
    if high - low < 2:
        return np.full(count, np.nan), 0.0, 0.0
    values = heights(
        Line(top=line.top[low:high], bottom=line.bottom[low:high], thickness=line.thickness), pixels_per_mm
    )
    columns = np.flatnonzero(np.isfinite(values))
    if columns.size < 4:
        return np.full(count, np.nan), 0.0, 0.0
    known = values[columns]
    seconds = (columns + 0.5 + low - left) / per_second
    times = (np.arange(count) + 0.5) / SAMPLING_HZ
    values = np.interp(times, seconds, known, left=np.nan, right=np.nan)
    after = np.clip(np.searchsorted(seconds, times), 1, seconds.size - 1)
    values[seconds[after] - seconds[after - 1] > _BRIDGED_SECONDS] = np.nan
    if not np.isfinite(values).any():
        return np.full(count, np.nan), 0.0, 0.0
    _close_ends(values)
    millivolts = -(values - np.nanmedian(values)) / (STANDARD_MM_PER_MILLIVOLT * pixels_per_mm)
    return millivolts, float(columns[0] + low - left), float(columns[-1] + 1 + low - left)


def _close_ends(values: NDArray[np.float64]) -> None:
    """Carry the first and last value to the ends over at most 30 ms: a pen's width, a separator."""
    known = np.flatnonzero(np.isfinite(values))
    reach = round(0.03 * SAMPLING_HZ)
    if known[0] <= reach:
        values[: known[0]] = values[known[0]]
    if values.size - 1 - known[-1] <= reach:
        values[known[-1] + 1 :] = values[known[-1]]


def recording_of(cells: dict[str, CellSignal], seconds: float, findings: tuple[QualityFinding, ...]) -> Recording:
    """Cells on one time axis: column c shows the seconds after column c - 1."""
    count = max(cell.column for cell in cells.values()) + 1
    each = round(seconds * SAMPLING_HZ)
    signals = np.full((len(LEADS), count * each), np.nan)
    for row, lead in enumerate(LEADS):
        cell = cells[lead]
        part = cell.samples_mv[:each]
        signals[row, cell.column * each : cell.column * each + part.size] = part
    return Recording(
        signals_mv=signals, sampling_hz=SAMPLING_HZ, clocks=(0,) * len(LEADS), derived_leads=(), findings=findings
    )
