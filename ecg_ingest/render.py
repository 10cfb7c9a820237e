"""Twelve signals to twelve small pictures on ECG paper: which seconds, which height, how the line is drawn.

Plain numpy, so that the same signals give the same bytes on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.lead_images import LEADS, PIXELS_SHAPE, QualityFinding, RenderStyle
from ecg_ingest.recording import SHORTFALL_SECONDS, Recording, runs

_, HEIGHT, WIDTH, _ = PIXELS_SHAPE

PAPER = (255.0, 251.0, 250.0)
FINE_LINE = (250.0, 226.0, 224.0)  # every millimetre
STRONG_LINE = (240.0, 186.0, 184.0)  # every five millimetres
INK = (16.0, 16.0, 24.0)

LINE_PIXELS = 1.5  # thickness of the trace
PEN = (0.25, 0.5)  # ink beside and in a column: a pen is wider than a column
"""Without it a steep line is one column wide, and a sheet that begins one sample later than the recording
gives another picture (median correlation .88 instead of .966 over five sheets)."""
LEAST_GRID_PIXELS = 3.0  # lines closer together than this would only tint the paper
SMOOTHING_SECONDS = 0.008
"""Mean over this time before drawing: sheets carry 125 to 500 points a second and waveforms up to 1000, and
both are to look alike. It spares a QRS of 80 ms and its R wave to within a few per cent."""
CLIPPED_SHARE = 0.005  # of a picture's columns that leave it before that is said


@dataclass(frozen=True, kw_only=True)
class Window:
    """The stretch of a lead that its picture shows, in samples of the recording."""

    start: int
    end: int  # exclusive; may lie SHORTFALL_SECONDS behind the last sample
    moved: bool  # not the seconds that the style asks for


def render(recording: Recording, style: RenderStyle) -> tuple[NDArray[np.uint8], tuple[QualityFinding, ...]]:
    """Draw all leads.

    Parameters
    ----------
    recording : Recording
        Twelve leads, each with samples (`leads.refuse_impossible` has seen to it).
    style : RenderStyle
        Layout, seconds, height and paper.

    Returns
    -------
    pixels : uint8 array [12, 48, 224, 3]
        RGB in the order of `LEADS`. A picture's height is `style.millivolts_full_height`, its middle the
        lead's median over the seconds shown.
    findings : tuple of QualityFinding
        "window_moved", "rendered_short" and "clipped", each with its lead.
    """
    paper = _paper(style)
    pixels = np.empty(PIXELS_SHAPE, dtype=np.uint8)
    findings: list[QualityFinding] = []
    for row, lead in enumerate(LEADS):
        samples = recording.signals_mv[row]
        window = choose_window(samples, recording.sampling_hz, style.window_start(lead), style.seconds_per_lead)
        if window.moved:
            findings.append(
                QualityFinding(
                    code="window_moved",
                    lead=lead,
                    detail=f"shows {window.start / recording.sampling_hz:.2f} s and on, "
                    f"not {style.window_start(lead):g} s: nothing else was recorded",
                )
            )
        top, bottom = envelope(samples, window, recording.sampling_hz)
        blank = int(np.isnan(top).sum())
        if blank > 1:
            findings.append(
                QualityFinding(
                    code="rendered_short",
                    lead=lead,
                    detail=f"{blank * style.seconds_per_lead / WIDTH * 1000:.0f} ms of the picture are empty",
                )
            )
        half = style.millivolts_full_height / 2.0
        outside = float(np.mean((top > half) | (bottom < -half)))
        if outside > CLIPPED_SHARE:
            findings.append(
                QualityFinding(code="clipped", lead=lead, detail=f"leaves the picture in {outside:.1%} of its width")
            )
        coverage = _trace(top, bottom, style.millivolts_full_height)[:, :, None]
        pixels[row] = np.floor(paper * (1.0 - coverage) + np.array(INK) * coverage + 0.5).astype(np.uint8)
    return pixels, tuple(findings)


def choose_window(samples: NDArray[np.float64], sampling_hz: float, wanted_start: float, seconds: float) -> Window:
    """Which samples a picture shows: the seconds asked for, else the nearest whole window in time.

    Nearest counts from the start asked for; of two equally near the earlier is taken.
    """
    length = round(seconds * sampling_hz)
    wanted = round(wanted_start * sampling_hz)
    slack = math.floor(SHORTFALL_SECONDS * sampling_hz)
    finite = runs(samples)
    for start, end in finite:
        if start - slack <= wanted and wanted + length <= end + slack and end - start >= length - slack:
            return Window(start=wanted, end=wanted + length, moved=False)
    candidates = [
        min(max(wanted, start), max(start, end - length)) for start, end in finite if end - start >= length - slack
    ]
    if not candidates:  # a cropped sheet: the longest stretch from where it should begin, the rest stays empty
        start, end = max(finite, key=lambda run: run[1] - run[0])
        first = wanted if start - slack <= wanted < end else start
        return Window(start=first, end=first + length, moved=first != wanted)
    nearest = min(candidates, key=lambda start: (abs(start - wanted), start))
    return Window(start=nearest, end=nearest + length, moved=True)


def envelope(
    samples: NDArray[np.float64], window: Window, sampling_hz: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Highest and lowest value (mV about the median) that the line passes in each of the 224 columns.

    The line is straight between samples, so a narrow R wave keeps its height whatever the column width.
    NaN where the window has no samples.
    """
    smooth = _smoothed(samples, sampling_hz)
    shown = smooth[max(window.start, 0) : max(window.end, 0)]
    level = float(np.median(shown[np.isfinite(shown)]))
    index = np.arange(samples.size)
    finite = np.isfinite(smooth)
    edges = window.start + np.arange(WIDTH + 1) * ((window.end - window.start) / WIDTH)
    # Samples and the interpolated values at each column's edges, sorted by time.
    at_edges = np.interp(edges, index[finite], smooth[finite], left=np.nan, right=np.nan) - level
    first, last = int(index[finite][0]), int(index[finite][-1])
    at_edges[(edges < first) | (edges > last)] = np.nan
    top = np.fmax(at_edges[:-1], at_edges[1:])
    bottom = np.fmin(at_edges[:-1], at_edges[1:])
    inside = np.arange(max(window.start, 0), min(window.end, samples.size))
    column = np.minimum((inside - window.start) * WIDTH // (window.end - window.start), WIDTH - 1)
    values = smooth[inside] - level
    keep = np.isfinite(values)
    np.fmax.at(top, column[keep], values[keep])
    np.fmin.at(bottom, column[keep], values[keep])
    return top, bottom


def _smoothed(samples: NDArray[np.float64], sampling_hz: float) -> NDArray[np.float64]:
    """A centred running mean over `SMOOTHING_SECONDS`; gaps stay gaps."""
    width = max(1, round(SMOOTHING_SECONDS * sampling_hz)) | 1
    if width == 1:
        return samples
    smooth = samples.copy()
    half = width // 2
    for start, end in runs(samples):
        run = samples[start:end]
        padded = np.concatenate((np.full(half, run[0]), run, np.full(half, run[-1])))
        # A sum over shifted copies, not a running total: the same rounding wherever the run starts.
        total = np.zeros_like(run)
        for shift in range(width):
            total = total + padded[shift : shift + run.size]
        smooth[start:end] = total / width
    return smooth


def _trace(top: NDArray[np.float64], bottom: NDArray[np.float64], full_height: float) -> NDArray[np.float64]:
    """How much ink [48, 224] each pixel has: the share of its height that the line covers in its column."""
    upper = HEIGHT / 2.0 - top * (HEIGHT / full_height) - LINE_PIXELS / 2.0
    lower = HEIGHT / 2.0 - bottom * (HEIGHT / full_height) + LINE_PIXELS / 2.0
    rows = np.arange(HEIGHT, dtype=np.float64)[:, None]
    covered = np.minimum(lower, rows + 1.0) - np.maximum(upper, rows)
    ink = np.clip(np.nan_to_num(covered, nan=0.0), 0.0, 1.0)
    beside = np.concatenate((ink[:, :1], ink, ink[:, -1:]), axis=1)
    return PEN[0] * beside[:, :-2] + PEN[1] * ink + PEN[0] * beside[:, 2:]


def _paper(style: RenderStyle) -> NDArray[np.float64]:
    """The sheet under a trace, [48, 224, 3]: lines each millimetre and, stronger, each five.

    The grid starts at the left edge and at mid-height, so that every picture of a style has the same one.
    """
    sheet = np.broadcast_to(np.array(PAPER), (HEIGHT, WIDTH, 3)).copy()
    if not style.grid:
        return sheet
    across = WIDTH / (style.seconds_per_lead * style.paper_mm_per_second)  # pixels a millimetre
    down = HEIGHT / (style.millivolts_full_height * style.paper_mm_per_millivolt)
    for every, colour in ((1, FINE_LINE), (5, STRONG_LINE)):
        columns = _lines(WIDTH, across * every, 0.0)
        rows = _lines(HEIGHT, down * every, HEIGHT / 2.0)
        ink = np.maximum(rows[:, None], columns[None, :])[:, :, None]
        sheet = sheet * (1.0 - ink) + np.array(colour) * ink
    return sheet


def _lines(size: int, period: float, origin: float) -> NDArray[np.float64]:
    """How much of each of `size` pixels a line one pixel wide covers, every `period` pixels from `origin`."""
    cover = np.zeros(size)
    if period < LEAST_GRID_PIXELS:
        return cover
    for number in range(math.ceil(-origin / period) - 1, math.floor((size - origin) / period) + 2):
        left = origin + number * period - 0.5
        pixels = np.arange(size, dtype=np.float64)
        cover = np.maximum(cover, np.clip(np.minimum(left + 1.0, pixels + 1.0) - np.maximum(left, pixels), 0.0, 1.0))
    return cover
