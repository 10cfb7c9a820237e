"""Draw an ECG recording on a page: 3x4 with a rhythm strip, or 6x2, as a vector PDF with text labels.

A4 landscape, 25 mm/s, 10 mm/mV, one path a lead. The same recording gives the same bytes (reportlab's
invariant mode). The page carries what an electrocardiograph prints beside the traces; it makes no diagnosis.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas

from inference.phantoms.ecg import LEADS, SAMPLING_HZ, STEP_UV

MM_PER_SECOND = 25.0
MM_PER_MILLIVOLT = 10.0
PAGE_MM = (297.0, 210.0)
FOOT = "25 mm/s   10 mm/mV   0.05-150 Hz   synthetic phantom, not a patient"
LEFT_MM = 26.0  # where the traces begin; the calibration pulse stands left of it
THIN = 2  # every second sample is drawn: 0.1 mm apart at 25 mm/s


class Layout(StrEnum):
    """Which leads stand where."""

    THREE_BY_FOUR = "3x4+1"  # 2.5 s a lead, lead II below over the whole width
    SIX_BY_TWO = "6x2"  # 5 s a lead


@dataclass(frozen=True, kw_only=True)
class SheetText:
    """What is printed in the head of the page."""

    patient_name: str  # romanised
    patient_id: str
    recorded: str  # date and time as printed
    beats_per_minute: int


def draw_sheet(steps: NDArray[np.int16], layout: Layout, text: SheetText) -> bytes:
    """The page as PDF bytes.

    Parameters
    ----------
    steps
        The recording, int16 [12, samples] in recorder steps of `STEP_UV`, at `SAMPLING_HZ`.
    layout
        The arrangement of the leads; their columns follow one another in time.
    text
        The head of the page.
    """
    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=(PAGE_MM[0] * mm, PAGE_MM[1] * mm), invariant=1, pageCompression=1)
    canvas.setTitle("12-lead ECG")
    canvas.setAuthor("pulmolink phantom")
    _head(canvas, text)
    _grid(canvas)
    columns, rows = (4, 3) if layout is Layout.THREE_BY_FOUR else (2, 6)
    seconds = 10.0 / columns
    rhythm = layout is Layout.THREE_BY_FOUR
    lines = rows + 1 if rhythm else rows
    top, bottom = 168.0, 16.0
    pitch = (top - bottom) / lines
    millivolts = steps * (STEP_UV / 1000.0)
    for row in range(lines):
        baseline = top - (row + 0.5) * pitch
        _calibration(canvas, baseline)
        if row == rows:
            _trace(canvas, "II", millivolts[1], LEFT_MM, baseline, pitch)
            continue
        for column in range(columns):
            lead = column * rows + row
            first = round(column * seconds * SAMPLING_HZ)
            part = millivolts[lead, first : first + round(seconds * SAMPLING_HZ)]
            x = LEFT_MM + column * seconds * MM_PER_SECOND
            _trace(canvas, LEADS[lead], part, x, baseline, pitch)
    canvas.setFont("Helvetica", 8)
    canvas.drawString(LEFT_MM * mm, 6 * mm, FOOT)
    canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def _head(canvas: Canvas, text: SheetText) -> None:
    """Who, when and how fast, above the grid."""
    canvas.setFont("Helvetica-Bold", 11)
    canvas.drawString(LEFT_MM * mm, 198 * mm, text.patient_name)
    canvas.setFont("Helvetica", 9)
    canvas.drawString(LEFT_MM * mm, 192 * mm, f"ID {text.patient_id}")
    canvas.drawString(LEFT_MM * mm, 187 * mm, f"Recorded {text.recorded}")
    canvas.drawString(150 * mm, 198 * mm, "12-lead ECG")
    canvas.drawString(150 * mm, 192 * mm, f"Rate {text.beats_per_minute} /min")


def _grid(canvas: Canvas) -> None:
    """Paper: a line a millimetre, a stronger one every five."""
    left, right, bottom, top = 11.0, 286.0, 11.0, 181.0
    for every, width, colour in ((1.0, 0.12, (1.0, 0.85, 0.85)), (5.0, 0.3, (0.98, 0.65, 0.65))):
        canvas.setStrokeColorRGB(*colour)
        canvas.setLineWidth(width)
        path = canvas.beginPath()
        for x in np.arange(left, right + 0.5 * every, every):
            path.moveTo(float(x) * mm, bottom * mm)
            path.lineTo(float(x) * mm, top * mm)
        for y in np.arange(bottom, top + 0.5 * every, every):
            path.moveTo(left * mm, float(y) * mm)
            path.lineTo(right * mm, float(y) * mm)
        canvas.drawPath(path)


def _calibration(canvas: Canvas, baseline: float) -> None:
    """A pulse of 1 mV and 0.2 s before the row."""
    path = canvas.beginPath()
    corners = [(-9.0, 0.0), (-7.5, 0.0), (-7.5, 10.0), (-2.5, 10.0), (-2.5, 0.0), (-1.0, 0.0)]
    path.moveTo((LEFT_MM + corners[0][0]) * mm, (baseline + corners[0][1]) * mm)
    for x, y in corners[1:]:
        path.lineTo((LEFT_MM + x) * mm, (baseline + y) * mm)
    canvas.setStrokeColorRGB(0, 0, 0)
    canvas.setLineWidth(0.6)
    canvas.drawPath(path)


def _trace(
    canvas: Canvas, label: str, millivolts: NDArray[np.floating[Any]], x: float, baseline: float, pitch: float
) -> None:
    """One lead: its label and one path. `x`, `baseline` and `pitch` (the row's height) in millimetres."""
    canvas.setFillColorRGB(0, 0, 0)
    canvas.setFont("Helvetica", 9)
    canvas.drawString((x + 1.0) * mm, (baseline + min(0.5 * pitch - 4.0, 13.0)) * mm, label)
    xs = (x + np.arange(0, len(millivolts), THIN) * (MM_PER_SECOND / SAMPLING_HZ)) * mm
    ys = (baseline + millivolts[::THIN] * MM_PER_MILLIVOLT) * mm
    path = canvas.beginPath()
    path.moveTo(float(xs[0]), float(ys[0]))
    for px, py in zip(xs[1:].tolist(), ys[1:].tolist(), strict=True):
        path.lineTo(px, py)
    canvas.setStrokeColorRGB(0, 0, 0)
    canvas.setLineWidth(0.6)
    canvas.setLineJoin(1)
    canvas.drawPath(path)
