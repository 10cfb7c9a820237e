"""The twelve leads as a strip of ECG paper: three rows of four, 2.5 s each, true to 25 mm/s and 10 mm/mV."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ecg_ingest.lead_images import LEADS, LeadImages
from pacs_node.report.drawing import Colour, blended, font, smooth_lines

PIXELS_PER_MM: Final = 6
MM_PER_SECOND: Final = 25.0
MM_PER_MILLIVOLT: Final = 10.0
SECONDS_PER_LEAD: Final = 2.5
WIDTH: Final = 267 * PIXELS_PER_MM
HEIGHT: Final = 66 * PIXELS_PER_MM

_PAPER: Final[Colour] = (244, 235, 230)
_FINE: Final[Colour] = (233, 211, 205)
_COARSE: Final[Colour] = (214, 172, 164)
_INK: Final[Colour] = (22, 22, 28)
_START_MM: Final = 13  # left of it: the calibration pulse
_ROW_MM: Final = 20
_FIRST_BASELINE_MM: Final = 15


def ecg_strip(leads: LeadImages) -> NDArray[np.uint8]:
    """The strip as RGB [HEIGHT, WIDTH, 3].

    Where the signals are known they are drawn again, sharp; otherwise the lead images are shown as they are.
    """
    paper = _labelled(_paper())  # labels under the traces: a tall wave may cross one, and must not lose a part
    if leads.signals_mv.size and np.isfinite(leads.signals_mv).any() and leads.sampling_hz > 0:
        lines = _pulses()
        for index in range(len(LEADS)):
            lines += _trace(leads, index)
        paper = blended(paper, _INK, smooth_lines((WIDTH, HEIGHT), lines, 1.7))
        return _captioned(paper, "25 mm/s   10 mm/mV   baselines centred")
    _place_images(paper, leads)
    return _captioned(paper, "lead images as the network saw them")


def _paper() -> NDArray[np.uint8]:
    paper = np.full((HEIGHT, WIDTH, 3), _PAPER, np.uint8)
    paper[::PIXELS_PER_MM] = _FINE
    paper[:, ::PIXELS_PER_MM] = _FINE
    coarse = 5 * PIXELS_PER_MM
    for line in range(0, HEIGHT, coarse):
        paper[line : line + 2] = _COARSE
    for line in range(0, WIDTH, coarse):
        paper[:, line : line + 2] = _COARSE
    return paper


def _cell(index: int) -> tuple[float, float]:
    """Start and baseline of lead `index` in millimetres: columns I-III, aVR-aVF, V1-V3, V4-V6."""
    return (
        _START_MM + (index // 3) * SECONDS_PER_LEAD * MM_PER_SECOND,
        _FIRST_BASELINE_MM + (index % 3) * _ROW_MM,
    )


def _trace(leads: LeadImages, index: int) -> list[list[tuple[float, float]]]:
    """Lead `index` as polylines, broken where nothing was recorded."""
    window = _window(leads.signals_mv[index], leads.sampling_hz, column=index // 3)
    known = np.isfinite(window)
    if not known.any():
        return []
    start_mm, baseline_mm = _cell(index)
    per_sample_mm = MM_PER_SECOND / leads.sampling_hz
    x = (start_mm + np.arange(window.size) * per_sample_mm) * PIXELS_PER_MM
    millivolts = window - np.median(window[known])
    y = (baseline_mm - millivolts * MM_PER_MILLIVOLT) * PIXELS_PER_MM
    breaks = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]])))
    return [
        list(zip(x[begin:end].tolist(), y[begin:end].tolist(), strict=True))
        for begin, end in zip(breaks[::2], breaks[1::2], strict=True)
        if end - begin > 1
    ]


def _window(signal: NDArray[np.float32], sampling_hz: float, column: int) -> NDArray[np.float32]:
    """The 2.5 s that belong into `column` of a 3 x 4 page, else the first 2.5 s that were recorded."""
    length = round(SECONDS_PER_LEAD * sampling_hz)
    wanted = signal[column * length : (column + 1) * length]
    if wanted.size >= 0.9 * length and np.isfinite(wanted).mean() >= 0.9:
        return wanted
    known = np.flatnonzero(np.isfinite(signal))
    return signal[known[0] : known[0] + length] if known.size else wanted


def _pulses() -> list[list[tuple[float, float]]]:
    """The calibration pulse of each row: 1 mV for 0.2 s."""
    pulses: list[list[tuple[float, float]]] = []
    for row in range(3):
        low = _FIRST_BASELINE_MM + row * _ROW_MM
        high = low - MM_PER_MILLIVOLT
        corners = [(3, low), (5, low), (5, high), (10, high), (10, low), (12, low)]
        pulses.append([(float(x * PIXELS_PER_MM), float(y * PIXELS_PER_MM)) for x, y in corners])
    return pulses


def _place_images(paper: NDArray[np.uint8], leads: LeadImages) -> None:
    width, height = round(SECONDS_PER_LEAD * MM_PER_SECOND * PIXELS_PER_MM) - 8, 15 * PIXELS_PER_MM
    for index in range(len(LEADS)):
        start_mm, baseline_mm = _cell(index)
        left, middle = round(start_mm * PIXELS_PER_MM), round(baseline_mm * PIXELS_PER_MM)
        top = middle - height // 2 + 8
        image = Image.fromarray(leads.pixels[index]).resize((width, height), Image.Resampling.LANCZOS)
        paper[top : top + height, left : left + width] = np.asarray(image)


def _labelled(paper: NDArray[np.uint8]) -> NDArray[np.uint8]:
    strip = Image.fromarray(paper)
    draw = ImageDraw.Draw(strip)
    for index, lead in enumerate(LEADS):
        start_mm, baseline_mm = _cell(index)
        x, y = round(start_mm * PIXELS_PER_MM), round((baseline_mm - 11.5) * PIXELS_PER_MM)
        _on_paper(draw, (x + 6, y), lead, 21, bold=True)
        if index >= 3:  # the short stroke that parts two leads on paper
            middle = round(baseline_mm * PIXELS_PER_MM)
            draw.line([(x, middle - 9), (x, middle + 9)], fill=_INK, width=2)
    return np.array(strip)


def _captioned(paper: NDArray[np.uint8], caption: str) -> NDArray[np.uint8]:
    strip = Image.fromarray(paper)
    draw = ImageDraw.Draw(strip)
    face = font(17)
    _on_paper(draw, (WIDTH - 10 - round(face.getlength(caption)), HEIGHT - 27), caption, 17)
    return np.asarray(strip)


def _on_paper(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, *, bold: bool = False) -> None:
    draw.text(at, text, fill=_INK, font=font(size, bold=bold), stroke_width=3, stroke_fill=_PAPER)
