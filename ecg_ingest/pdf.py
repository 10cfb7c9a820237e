"""A vector PDF of a 12-lead ECG to the recording that was drawn on it.

Finds the one page that is an ECG sheet, its scale and its leads, and turns lines back into millivolts. A
page without text labels or lines (a scan, outlined letters) is refused as `PageIsPicture`: it can be drawn
and read by its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.lead_images import LEADS, EcgRefused, LeadBox, RefusalReason
from ecg_ingest.page import Page, read_pages
from ecg_ingest.paper_scale import Pulse, Scale, find_pulse, read_scale
from ecg_ingest.recording import Recording
from ecg_ingest.sheet import Cell, Label, Sheet, even_step, find_labels, find_traces, read_sheet

SAMPLING_HZ = 500.0  # of the recovered signals; finer than any sheet is drawn
NOMINAL_SECONDS = (2.5, 5.0, 10.0)
_NOMINAL_TOLERANCE = 0.1
MAX_SECONDS_ON_PAGE = 60.0

_LEAST_LABELS = 6  # fewer lead names are words of a text
_PICTURE_SHARE = 0.25  # of the page: a scan, not a logo
_RHYTHM_LAG = 8  # samples (16 ms): strips may begin a point before or after the leads
_SAME_LEAD = 0.15  # normalised difference up to which a rhythm strip is the lead that it is called


@dataclass(frozen=True, kw_only=True)
class EcgSheet:
    """What a page gave."""

    recording: Recording
    layout: str  # "3x4+1", "6x2", ...
    boxes: tuple[LeadBox, ...]  # in pixels of the page as `page.draw_page` draws it
    seconds_per_column: float
    pixels_per_mm: float
    dots_per_inch: float


@dataclass(frozen=True, kw_only=True)
class PicturePage:
    """A page that shows an ECG, if it does, in pixels or outlines."""

    number: int  # from 0
    text: str  # what it says in letters all the same
    dots_per_inch: float  # at which `draw_page` draws it


class PageIsPicture(EcgRefused):
    """Pages that can only be read by their pixels."""

    def __init__(self, pages: tuple[PicturePage, ...], detail: str) -> None:
        super().__init__(
            RefusalReason.UNSUPPORTED_FORM, detail, "export the ECG as a vector PDF with text, or send the waveform"
        )
        self.pages = pages


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What could make a page an ECG."""

    page: Page
    labels: list[Label]
    traces: list[NDArray[np.float64]]
    pulses: list[Pulse]

    @property
    def names(self) -> int:
        """Different leads named."""
        return len({label.lead for label in self.labels})

    @property
    def is_ecg(self) -> bool:
        """Lead names over lines."""
        return self.names >= _LEAST_LABELS and len(self.traces) >= 3


def read_pdf(data: bytes) -> EcgSheet:
    """Recover the signals of an ECG sheet.

    Column c of a sheet is taken to show the seconds after column c - 1; columns of 2.5, 5 or 10 s up to a
    sample or two count as such.

    Raises
    ------
    EcgRefused
        With the reason; see `page`, `sheet` and `paper_scale`.
    """
    pages = [_look(page) for page in read_pages(data)]
    found = _ecg_page(pages)
    sheet = read_sheet(found.labels, found.traces)
    scale = read_scale(" ".join(word.text for word in found.page.words), found.page.strokes, found.pulses)
    if any(finding.code == "scale_from_page" for finding in scale.findings) and b"/UserUnit" in data:
        raise EcgRefused(
            RefusalReason.NO_SCALE,
            "the page has a unit of its own, and neither grid nor pulse says what a millimetre is",
            "let the recorder print the grid or a calibration pulse",
        )
    widths = [float(np.ptp(cell.points[:, 0])) for cell in sheet.cells]
    return EcgSheet(
        recording=_recording(sheet, scale),
        layout=sheet.layout,
        boxes=_boxes(sheet, found.page, next(number for number, page in enumerate(pages) if page is found)),
        seconds_per_column=float(np.median(widths)) / scale.points_per_second,
        pixels_per_mm=scale.points_per_mm * found.page.dots_per_inch / 72.0,
        dots_per_inch=found.page.dots_per_inch,
    )


def _boxes(sheet: Sheet, page: Page, number: int) -> tuple[LeadBox, ...]:
    """Each lead from its line's beginning to its end, and half-way to the lines above and below it."""
    boxes = []
    for cell in sorted(sheet.cells, key=lambda cell: LEADS.index(cell.lead)):
        level = float(np.median(cell.points[:, 1]))
        others = [float(np.median(other.points[:, 1])) for other in sheet.cells if other.column == cell.column]
        others += [float(np.median(strip.points[:, 1])) for strip in sheet.rhythm]
        pitch = float(np.median(np.diff(np.sort(others))))
        above = min((other for other in others if other > level), default=level + pitch)
        below = max((other for other in others if other < level), default=level - pitch)
        left, right = float(cell.points[0, 0]), float(cell.points[-1, 0])
        corners = np.array([[x, y, 1.0] for x in (left, right) for y in ((above + level) / 2.0, (below + level) / 2.0)])
        places = corners @ page.to_pixels.T
        (x0, y0), (x1, y1) = places.min(axis=0).tolist(), places.max(axis=0).tolist()
        boxes.append(LeadBox(lead=cell.lead, page=number, left=x0, top=y0, right=x1, bottom=y1))
    return tuple(boxes)


def _look(page: Page) -> _Found:
    pulses, rest = [], []
    for stroke in page.strokes:
        pulse = find_pulse(stroke)
        if pulse is None:
            rest.append(stroke)
        else:
            pulses.append(pulse)
    traces, at_traces = find_traces(rest)
    return _Found(page=page, labels=find_labels(page.words), traces=traces, pulses=[*pulses, *at_traces])


def _ecg_page(pages: list[_Found]) -> _Found:
    """The one page that is an ECG, or a refusal that says what the pages are instead."""
    sheets = [found for found in pages if found.is_ecg]
    if len(sheets) > 1:
        raise EcgRefused(
            RefusalReason.SEVERAL_PAGES, f"{len(sheets)} pages hold ECG traces", "send one ECG on one page"
        )
    if sheets:
        others = [found for found in pages if found is not sheets[0]]
        if any(len(found.traces) >= 3 or found.page.picture_share > _PICTURE_SHARE for found in others):
            raise EcgRefused(
                RefusalReason.SEVERAL_PAGES,
                "another page of the PDF holds traces or a picture",
                "send one ECG on one page",
            )
        return sheets[0]
    if all(not found.page.words and not found.page.strokes and not found.page.picture_share for found in pages):
        raise EcgRefused(RefusalReason.EMPTY, "the PDF's pages are blank", "export the ECG again")
    pictures = tuple(
        PicturePage(
            number=number, text=" ".join(word.text for word in found.page.words), dots_per_inch=found.page.dots_per_inch
        )
        for number, found in enumerate(pages)
        if found.page.picture_share > _PICTURE_SHARE or len(found.traces) >= 3
    )
    if pictures:
        raise PageIsPicture(pictures, "the PDF holds a picture, or traces whose lead names are not text")
    raise EcgRefused(RefusalReason.NOT_AN_ECG, "the PDF holds no ECG traces", "check the routing rule")


def _recording(sheet: Sheet, scale: Scale) -> Recording:
    """Cells on one time axis, in mV about each line's own median (paper has no zero)."""
    starts = _column_starts(sheet, scale)
    widest = max(float(np.ptp(cell.points[:, 0])) for cell in (*sheet.cells, *sheet.rhythm))
    length = round((max(starts) + widest / scale.points_per_second) * SAMPLING_HZ) + 1
    if length > MAX_SECONDS_ON_PAGE * SAMPLING_HZ:
        raise EcgRefused(
            RefusalReason.NO_SCALE,
            f"at the sheet's scale a line lasts {widest / scale.points_per_second:.0f} s",
            "the printed speed does not fit the sheet",
        )
    signals = np.full((len(LEADS), length), np.nan)
    for cell in sheet.cells:
        # A column's leads share its clock, though a pulse cut off may have taken a few points of one.
        origin = min(float(other.points[0, 0]) for other in sheet.cells if other.column == cell.column)
        late = (float(cell.points[0, 0]) - origin) / scale.points_per_second
        values = _sampled(cell, scale)
        first = round((starts[cell.column] + late) * SAMPLING_HZ)
        # Columns may overlap by the sample that they share; each lead has its own row.
        signals[LEADS.index(cell.lead), first : first + values.size] = values[: length - first]
    for strip in sheet.rhythm:
        if strip.lead:
            _join_rhythm(signals[LEADS.index(strip.lead)], _sampled(strip, scale), strip.lead)
    filled = np.flatnonzero(np.isfinite(signals).any(axis=0))
    return Recording(
        signals_mv=signals[:, : filled[-1] + 1],
        sampling_hz=SAMPLING_HZ,
        clocks=(0,) * len(LEADS),
        derived_leads=(),
        findings=scale.findings,
    )


def _column_starts(sheet: Sheet, scale: Scale) -> list[float]:
    """When each column begins, in seconds."""
    first = {cell.column: cell.points for cell in reversed(sheet.cells)}
    seconds = [float(np.ptp(first[column][:, 0])) / scale.points_per_second for column in range(sheet.columns)]
    for nominal in NOMINAL_SECONDS:
        if all(abs(duration - nominal) < _NOMINAL_TOLERANCE for duration in seconds):
            return [column * nominal for column in range(sheet.columns)]
    origin = float(first[0][0, 0])
    return [float(first[column][0, 0] - origin) / scale.points_per_second for column in range(sheet.columns)]


def _sampled(cell: Cell, scale: Scale) -> NDArray[np.float64]:
    """A line as samples in mV about its median."""
    seconds = (cell.points[:, 0] - cell.points[0, 0]) / scale.points_per_second
    times = np.arange(int(np.floor(seconds[-1] * SAMPLING_HZ + 1e-6)) + 1) / SAMPLING_HZ
    values = _between_points(times, np.maximum.accumulate(seconds), cell.points[:, 1])
    return (values - np.median(values)) / scale.points_per_millivolt


def _between_points(
    times: NDArray[np.float64], seconds: NDArray[np.float64], heights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The line's height at `times`.

    Evenly spaced points are samples of the recorder, often only 125 a second: a cubic through them
    (Catmull-Rom) gives back what straight lines cut from the QRS. Unevenly spaced points were thinned where
    the line was straight, so there it is straight.
    """
    if even_step(seconds) is None:
        return np.interp(times, seconds, heights)
    steps = np.diff(seconds)
    slopes = np.gradient(heights, seconds)
    left = np.clip(np.searchsorted(seconds, times, side="right") - 1, 0, steps.size - 1)
    width = steps[left]
    t = (times - seconds[left]) / width
    start, end = heights[left], heights[left + 1]
    one, two = slopes[left] * width, slopes[left + 1] * width
    curve: NDArray[np.float64] = (
        (1.0 + 2.0 * t) * (1.0 - t) ** 2 * start
        + t * (1.0 - t) ** 2 * one
        + t * t * (3.0 - 2.0 * t) * end
        + t * t * (t - 1.0) * two
    )
    return curve


def _join_rhythm(row: NDArray[np.float64], strip: NDArray[np.float64], lead: str) -> None:
    """Confirm a rhythm strip against its lead where both are shown, and take its other seconds from it."""
    shifted = [_moved(strip, lag, row.size) for lag in range(-_RHYTHM_LAG, _RHYTHM_LAG + 1)]
    differences = [_difference(row, candidate) for candidate in shifted]
    nearest = min(range(len(shifted)), key=lambda index: (differences[index], abs(index - _RHYTHM_LAG)))
    strip = shifted[nearest]
    both = np.isfinite(row) & np.isfinite(strip)
    if both.sum() < SAMPLING_HZ:
        return
    level = float(np.median(row[both] - strip[both]))
    if differences[nearest] > _SAME_LEAD:
        raise EcgRefused(
            RefusalReason.LEADS_AMBIGUOUS,
            f"the rhythm strip called {lead} is not the lead {lead} above it",
            "the sheet's labels or columns contradict one another: export it again",
        )
    alone = ~np.isfinite(row) & np.isfinite(strip)
    row[alone] = strip[alone] + level


def _moved(strip: NDArray[np.float64], lag: int, size: int) -> NDArray[np.float64]:
    """The strip `lag` samples later, cut or filled with NaN to `size`."""
    moved = np.full(size, np.nan)
    source = strip[max(0, -lag) :][: size - max(0, lag)]
    moved[max(0, lag) : max(0, lag) + source.size] = source
    return moved


def _difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Normalised difference of two leads about their medians where both exist; 0 for two flat ones."""
    both = np.isfinite(one) & np.isfinite(other)
    if not both.any():
        return 0.0
    a, b = one[both] - np.median(one[both]), other[both] - np.median(other[both])
    scale = float(np.sqrt(np.mean(a * a) + np.mean(b * b)))
    return float(np.sqrt(np.mean((a - b) ** 2))) / scale if scale else 0.0
