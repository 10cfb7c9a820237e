"""How many points are a second and a millivolt on a sheet: from its grid, its printed scale and its pulses.

Pure. Believes what two sources say alike, refuses what one source contradicts, and invents nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.lead_images import EcgRefused, QualityFinding, RefusalReason

POINTS_PER_MM = 72.0 / 25.4
STANDARD_MM_PER_SECOND = 25.0
STANDARD_MM_PER_MILLIVOLT = 10.0
PULSE_SECONDS = 0.2  # a calibration pulse is 1 mV for 0.2 s

_SPEED = re.compile(r"(\d+(?:[.,]\d+)?)\s*mm\s*/\s*(?:s|秒)", re.IGNORECASE)
_GAIN = re.compile(r"(\d+(?:[.,]\d+)?)\s*(mm|cm)\s*/\s*mV", re.IGNORECASE)
_HEIGHT_TOLERANCE = 0.05
_WIDTH_TOLERANCE = 0.15
_PULSE_POINTS = 1000
_PULSE_AT_LEAST_MM = 3.0  # high
_TAIL_MM = 6.0  # between a pulse's fall and the heart's line
_PULSE_AT_MOST_MM = 20.0  # wide, with what is level before and after it
_GRID_LINE_MM = 20.0  # shorter lines are ticks
_LEAST_GRID_LINES = 10


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """A calibration pulse: its width at half height and its height, in points."""

    width: float
    height: float


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What a point on the page means."""

    points_per_second: float
    points_per_millivolt: float
    points_per_mm: float  # across
    findings: tuple[QualityFinding, ...]


def printed_scale(text: str) -> tuple[float | None, float | None]:
    """Paper speed (mm/s) and gain (mm/mV) that a text names; None for what it does not.

    Raises
    ------
    EcgRefused
        NON_STANDARD_SCALE if it names several.
    """
    speed = _one([float(found.replace(",", ".")) for found in _SPEED.findall(text)], "paper speeds")
    gain = _one(
        [
            float(found.replace(",", ".")) * (10.0 if unit.lower() == "cm" else 1.0)
            for found, unit in _GAIN.findall(text)
        ],
        "gains",
    )
    return speed, gain


def read_scale(text: str, strokes: Sequence[NDArray[np.float64]], pulses: Sequence[Pulse]) -> Scale:
    """The scale of a sheet.

    A millimetre is the grid's, where there is one (sheets are printed "to fit"), else the page's. Speed and
    gain come from the printed text, else from the calibration pulse (1 mV, 0.2 s). A pulse must agree with
    the text; a scale other than 25 mm/s and 10 mm/mV needs both.

    Raises
    ------
    EcgRefused
        NO_SCALE if neither says it; NON_STANDARD_SCALE if they contradict, or vary over the sheet.
    """
    speed, gain = printed_scale(text)
    pulse = _one_pulse(pulses)
    across, down = grid_millimetre(strokes)
    findings: tuple[QualityFinding, ...] = ()
    if across is not None and down is not None and not _near(across, down, _HEIGHT_TOLERANCE):
        raise EcgRefused(
            RefusalReason.NON_STANDARD_SCALE,
            "the grid's squares are not square",
            "export the page undistorted",
        )
    if across is None or down is None:
        across = down = POINTS_PER_MM
        if pulse is not None and gain is not None and _printed_to_fit(pulse.height / gain / POINTS_PER_MM):
            across = down = pulse.height / gain  # the pulse is a ruler that shrinks with the page
        elif pulse is None:
            findings = (
                QualityFinding(
                    code="scale_from_page",
                    lead="",
                    detail="no grid and no pulse: millimetres are the page's own",
                ),
            )
    return Scale(
        points_per_second=_checked_speed(speed, pulse, across) * across,
        points_per_millivolt=_checked_gain(gain, pulse, down) * down,
        points_per_mm=across,
        findings=findings,
    )


def _checked_speed(speed: float | None, pulse: Pulse | None, millimetre: float) -> float:
    width = None if pulse is None else pulse.width / millimetre
    if speed is None:
        if width is not None and _near(width, PULSE_SECONDS * STANDARD_MM_PER_SECOND, _WIDTH_TOLERANCE):
            return STANDARD_MM_PER_SECOND
        raise EcgRefused(
            RefusalReason.NO_SCALE,
            "neither text nor a calibration pulse of 5 mm width says the paper speed",
            "let the recorder print 25 mm/s on the sheet",
        )
    proven = width is not None and _near(width, PULSE_SECONDS * speed, _WIDTH_TOLERANCE)
    if not proven and speed != STANDARD_MM_PER_SECOND:
        raise EcgRefused(
            RefusalReason.NON_STANDARD_SCALE,
            f"the sheet says {speed:g} mm/s and no calibration pulse confirms it",
            "export the ECG at 25 mm/s",
        )
    return speed


def _checked_gain(gain: float | None, pulse: Pulse | None, millimetre: float) -> float:
    height = None if pulse is None else pulse.height / millimetre
    if gain is None:
        for known in (STANDARD_MM_PER_MILLIVOLT, 5.0, 20.0):
            if height is not None and _near(height, known, _HEIGHT_TOLERANCE):
                return known
        raise EcgRefused(
            RefusalReason.NO_SCALE,
            "neither text nor a calibration pulse says the gain",
            "let the recorder print 10 mm/mV on the sheet",
        )
    if height is not None and not _near(height, gain, _HEIGHT_TOLERANCE):
        raise EcgRefused(
            RefusalReason.NON_STANDARD_SCALE,
            f"the sheet says {gain:g} mm/mV and its calibration pulse is {height:.1f} mm high",
            "export the ECG at 10 mm/mV",
        )
    if height is None and gain != STANDARD_MM_PER_MILLIVOLT:
        raise EcgRefused(
            RefusalReason.NON_STANDARD_SCALE,
            f"the sheet says {gain:g} mm/mV and no calibration pulse confirms it",
            "export the ECG at 10 mm/mV",
        )
    return gain


def _one(values: list[float], what: str) -> float | None:
    """The value that all mentions agree on; None where there is none."""
    if len(set(values)) > 1:
        raise EcgRefused(
            RefusalReason.NON_STANDARD_SCALE,
            f"the sheet names several {what}: {', '.join(f'{value:g}' for value in sorted(set(values)))}",
            "export the ECG at 25 mm/s and 10 mm/mV throughout",
        )
    return values[0] if values else None


def _one_pulse(pulses: Sequence[Pulse]) -> Pulse | None:
    if not pulses:
        return None
    heights = [pulse.height for pulse in pulses]
    if max(heights) > min(heights) * (1.0 + _HEIGHT_TOLERANCE):
        raise EcgRefused(
            RefusalReason.NON_STANDARD_SCALE,
            "the calibration pulses differ in height",
            "export the ECG at 10 mm/mV for limb and chest leads alike",
        )
    return Pulse(width=float(np.median([pulse.width for pulse in pulses])), height=float(np.median(heights)))


def _printed_to_fit(ratio: float) -> bool:
    """Whether a page may be enlarged by this much; narrow enough to tell grids of 1, 2, 5 and 10 mm apart."""
    return 0.65 <= ratio <= 1.5


def _near(value: float, expected: float, tolerance: float) -> bool:
    return abs(value - expected) <= tolerance * expected


def find_pulse(stroke: NDArray[np.float64]) -> Pulse | None:
    """The calibration pulse that this line is, or None: up, level, down, and nothing else."""
    if not 4 <= len(stroke) <= _PULSE_POINTS:
        return None
    x, y = stroke[:, 0], stroke[:, 1]
    width, height = float(np.ptp(x)), float(np.ptp(y))
    if not (2.0 < width / POINTS_PER_MM < 25.0 and 2.0 < height / POINTS_PER_MM < 45.0) or np.diff(x).min() < -0.05:
        return None
    steps = np.diff(x)
    middle = (y[:-1] + y[1:]) / 2.0
    level = np.abs(np.diff(y)) < 0.05 * height
    top = float(steps[level & (middle > y.max() - 0.05 * height)].sum())
    base = float(steps[level & (middle < y.min() + 0.05 * height)].sum())
    if top < 0.2 * width or top + base < 0.8 * width or top < 1.0 * POINTS_PER_MM:
        return None
    half = float(y.min()) + height / 2.0
    above = np.flatnonzero(y > half)
    if np.any(np.diff(above) > 1):
        return None
    rise = float(x[above[0]] if above[0] == 0 else (x[above[0]] + x[above[0] - 1]) / 2.0)
    fall = float(x[above[-1]] if above[-1] == x.size - 1 else (x[above[-1]] + x[above[-1] + 1]) / 2.0)
    return Pulse(width=fall - rise, height=height)


def cut_pulse(trace: NDArray[np.float64]) -> tuple[Pulse | None, NDArray[np.float64]]:
    """A line without the calibration pulse it begins with, and that pulse; the line itself if it has none.

    The pulse's tail goes too: it is exactly level or one long stroke, a heart's line is neither.
    """
    height = trace[:, 1] - trace[0, 1]
    head = int(np.searchsorted(trace[:, 0], trace[0, 0] + _PULSE_AT_MOST_MM * POINTS_PER_MM))
    above = np.flatnonzero(height[:head] > _PULSE_AT_LEAST_MM * POINTS_PER_MM)
    if above.size == 0:
        return None, trace
    back = np.flatnonzero(height[above[0] : head] < _PULSE_AT_LEAST_MM * POINTS_PER_MM)
    if back.size == 0:
        return None, trace
    end = int(above[0] + back[0])
    while end + 1 < len(trace) and abs(trace[end + 1, 1] - trace[0, 1]) < abs(trace[end, 1] - trace[0, 1]) - 0.05:
        end += 1
    pulse = find_pulse(trace[: end + 1])
    if pulse is None:
        return None, trace
    usual = float(np.median(np.diff(trace[:, 0])))
    steps = np.diff(trace[end:], axis=0)
    tail = int(np.searchsorted(trace[end:, 0], trace[end, 0] + _TAIL_MM * POINTS_PER_MM))
    strokes = np.flatnonzero(steps[:tail, 0] > 5.0 * usual)
    if strokes.size:
        return pulse, trace[end + int(strokes[-1]) + 1 :]
    moves = np.flatnonzero(np.abs(steps[:, 1]) > 0.02)
    return pulse, trace[end + (int(moves[0]) if moves.size else 0) :]


def grid_millimetre(strokes: Sequence[NDArray[np.float64]]) -> tuple[float | None, float | None]:
    """Points a millimetre across and down, from the grid's lines; None where there is no regular grid."""
    upright: list[float] = []
    level: list[float] = []
    for stroke in strokes:
        if len(stroke) > 5:
            continue
        size = np.ptp(stroke, axis=0)
        thin, long = float(size.min()), float(size.max())
        if thin > 0.5 or long < _GRID_LINE_MM * POINTS_PER_MM:
            continue
        centre = stroke.min(axis=0) + size / 2.0
        (upright if size[1] > size[0] else level).append(float(centre[0] if size[1] > size[0] else centre[1]))
    return _period(upright), _period(level)


def _period(positions: list[float]) -> float | None:
    """Points a millimetre of lines at these places: their spacing is 1 mm or 5 mm, as printed."""
    ordered = np.unique(np.round(positions, 1))
    ordered = ordered[np.concatenate(([True], np.diff(ordered) > 0.3))] if ordered.size else ordered
    if ordered.size < _LEAST_GRID_LINES:
        return None
    gaps = np.diff(ordered)
    usual = float(np.median(gaps))  # to a tenth of a point, which over hundreds of lines is several of them
    rough = float(gaps[np.abs(gaps - usual) < 0.2 * usual].mean())
    numbers = np.round((ordered - ordered[0]) / rough)
    fitted = float(np.polyfit(numbers, ordered, 1)[0])
    numbers = np.round((ordered - ordered[0]) / fitted)
    off = np.abs(ordered - ordered[0] - numbers * fitted)
    if np.mean(off < 0.15 * fitted) < 0.8:
        return None
    keep = off < 0.15 * fitted
    fitted = float(np.polyfit(numbers[keep], ordered[keep], 1)[0])
    for every in (1.0, 5.0):
        if _printed_to_fit(fitted / (every * POINTS_PER_MM)):
            return fitted / every
    return None
