"""Waveform objects and ECG sheets for tests, drawn from given signals: every knob is something a recorder does."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, generate_uid
from reportlab.lib import pdfencrypt
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas

from ecg_ingest.lead_images import LEADS

TWELVE_LEAD = "1.2.840.10008.5.1.4.1.1.9.1.1"
ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
MDC = dict(zip(LEADS, (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8), strict=True))
TYPES = {"SB": "i1", "UB": "u1", "SS": "i2", "US": "u2", "SL": "i4", "UL": "u4", "MB": "u1", "AB": "u1"}

Signals = Mapping[str, NDArray[np.float64]]


@dataclass(kw_only=True)
class Group:
    """One multiplex group. `signals` in mV; names may be leads or anything else."""

    signals: Signals
    hz: float = 500.0
    interpretation: str = "SS"
    sensitivity: float = 1.25
    unit: str = "uV"
    baseline: float | None = 0.0
    correction: str | None = "1"
    originality: str | None = "ORIGINAL"
    label: str = "RHYTHM"
    offset_ms: float | None = 0.0
    padding: int | None = None
    codes: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)  # name -> code, scheme, meaning
    raw: NDArray[np.integer] | None = None  # [channels, samples] as written, instead of the signals
    repeat: Sequence[tuple[str, NDArray[np.float64]]] = ()  # more channels, also of names already there

    @property
    def channels(self) -> list[tuple[str, NDArray[np.float64]]]:
        return [*self.signals.items(), *self.repeat]


def waveform(*groups: Group, big_endian: bool = False) -> Dataset:
    """A 12-lead waveform object."""
    dataset = Dataset()
    dataset.SOPClassUID = TWELVE_LEAD
    dataset.SOPInstanceUID = generate_uid()
    dataset.PatientID = "TEST"
    dataset.Modality = "ECG"
    dataset.WaveformSequence = [_group(group, big_endian) for group in groups]
    return dataset


def _group(group: Group, big_endian: bool) -> Dataset:
    item = Dataset()
    channels = group.channels
    dtype = np.dtype(TYPES[group.interpretation]).newbyteorder(">" if big_endian else "<")
    if group.raw is None:
        factor = {"uV": 1e-3, "mV": 1.0, "V": 1e3}[group.unit] * group.sensitivity
        values = np.stack([signal for _, signal in channels]) / factor - (group.baseline or 0.0) / group.sensitivity
        raw = np.rint(values)
        if group.padding is not None:
            raw = np.where(np.isnan(raw), group.padding, raw)
    else:
        raw = group.raw
    item.NumberOfWaveformChannels = len(channels)
    item.NumberOfWaveformSamples = raw.shape[1]
    item.SamplingFrequency = f"{group.hz:g}"
    if group.offset_ms is not None:
        item.MultiplexGroupTimeOffset = f"{group.offset_ms:g}"
    if group.originality is not None:
        item.WaveformOriginality = group.originality
    item.MultiplexGroupLabel = group.label
    item.WaveformBitsAllocated = dtype.itemsize * 8
    item.WaveformSampleInterpretation = group.interpretation
    item.ChannelDefinitionSequence = [_channel(name, group) for name, _ in channels]
    kind = "OB" if dtype.itemsize == 1 else "OW"
    data = raw.T.astype(dtype).tobytes()
    item.add_new("WaveformData", kind, data + b"\0" * (len(data) % 2))
    if group.padding is not None:
        padding = np.array(group.padding).astype(dtype).tobytes()
        item.add_new("WaveformPaddingValue", kind, padding + b"\0" * (len(padding) % 2))
    return item


def _channel(name: str, group: Group) -> Dataset:
    channel, source, unit = Dataset(), Dataset(), Dataset()
    default = (f"2:{MDC[name]}", "MDC", f"Lead {name}") if name in MDC else ("", "", name)
    source.CodeValue, source.CodingSchemeDesignator, source.CodeMeaning = group.codes.get(name, default)
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = group.unit, "UCUM", group.unit
    channel.ChannelSourceSequence = [source]
    channel.ChannelSensitivity = f"{group.sensitivity:g}"
    channel.ChannelSensitivityUnitsSequence = [unit]
    if group.correction is not None:
        channel.ChannelSensitivityCorrectionFactor = group.correction
    if group.baseline is not None:
        channel.ChannelBaseline = f"{group.baseline:g}"
    channel.WaveformBitsStored = 16
    return channel


def part10(dataset: Dataset, *, big_endian: bool = False) -> bytes:
    """A dataset as the bytes of a file."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian if big_endian else ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def encapsulated(pdf: bytes) -> bytes:
    """A PDF inside an Encapsulated PDF object."""
    dataset = Dataset()
    dataset.SOPClassUID = ENCAPSULATED_PDF
    dataset.SOPInstanceUID = generate_uid()
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocument = pdf
    return part10(dataset)


@dataclass(kw_only=True)
class SheetStyle:
    """How a sheet is drawn. Millimetres are those of the paper grid."""

    rows: int = 3
    rhythm: tuple[str, ...] = ("II",)
    labels: Mapping[str, str] = field(default_factory=dict)  # another name where a lead's own belongs
    rhythm_labels: bool = True
    text: str = "25 mm/s   10 mm/mV"
    speed: float = 25.0
    gain: float = 10.0
    pulse_mm: float | None = 10.0
    grid: bool = True
    one_line_a_row: bool = False
    pulse_in_line: bool = False  # each row's first line begins with its pulse
    rhythm_first: bool = False  # rhythm strips above the leads
    pieces: bool = False  # each trace as single line segments
    in_form: bool = False  # drawn inside a form object that scales it
    turned: bool = False  # drawn sideways on a portrait page
    rotate: int = 0  # /Rotate
    scale: float = 1.0  # printed to fit
    hz: float = 500.0
    without: tuple[str, ...] = ()  # labelled, not drawn
    header: str = "Test V5+V1, lead II, V 3"
    swapped: tuple[str, str] | None = None  # traces exchanged under right labels
    page_mm: tuple[float, float] = (297.0, 210.0)
    crop_mm: tuple[float, float, float, float] | None = None  # left, bottom, right, top of the page that is shown


def sheet(signals: Signals, style: SheetStyle, *, pages: int = 1, encrypted: bool = False) -> bytes:
    """A vector PDF of an ECG."""
    buffer = io.BytesIO()
    width, height = style.page_mm
    size = (height * mm, width * mm) if style.turned else (width * mm, height * mm)
    encrypt = pdfencrypt.StandardEncryption("reader", canPrint=0) if encrypted else None
    canvas = Canvas(buffer, pagesize=size, invariant=1, encrypt=encrypt)
    for _ in range(pages):
        if style.rotate:
            canvas.setPageRotation(style.rotate)
        if style.crop_mm:
            canvas.setCropBox(tuple(edge * mm for edge in style.crop_mm))
        if style.turned:
            canvas.translate(height * mm, 0)
            canvas.rotate(90)
        if style.in_form:
            canvas.beginForm(f"sheet{canvas.getPageNumber()}")
            canvas.scale(2.0, 2.0)
            _draw(canvas, signals, style)
            canvas.endForm()
            canvas.scale(0.5, 0.5)
            canvas.doForm(f"sheet{canvas.getPageNumber()}")
        else:
            canvas.scale(style.scale, style.scale)
            _draw(canvas, signals, style)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


LEFT, RIGHT, BOTTOM, TOP = 20.0, 285.0, 15.0, 180.0  # of the grid
BEGIN = LEFT + 12.0  # of the first column
DRAWN_PIXELS_PER_MM = 200 / 25.4


def cell_boxes(style: SheetStyle) -> dict[str, tuple[float, float, float, float]]:
    """Where each lead's cell lies on the page as a viewer shows it at 200 dots an inch: left, top, right, bottom."""
    seconds = 10.0 * style.rows / 12
    pitch = (TOP - BOTTOM) / (style.rows + len(style.rhythm))
    scale = 1.0 if style.in_form else style.scale
    boxes = {}
    for index, lead in enumerate(LEADS):
        column, row = divmod(index, style.rows)
        line = row + len(style.rhythm) * style.rhythm_first
        middle = TOP - (line + 0.55) * pitch
        left = BEGIN + column * seconds * style.speed
        corners = [(left, middle + pitch / 2), (left + seconds * style.speed, middle - pitch / 2)]
        boxes[lead] = _on_screen([(x * scale, y * scale) for x, y in corners], style)
    return boxes


def _on_screen(corners: list[tuple[float, float]], style: SheetStyle) -> tuple[float, float, float, float]:
    """A rectangle of the sheet (millimetres, y upwards) in pixels of the page as it is shown."""
    width, height = style.page_mm
    page = (height, width) if style.turned else (width, height)
    page = page[::-1] if style.rotate in (90, 270) else page  # reportlab swaps the page's sides when it turns it
    left, bottom, right, top = style.crop_mm or (0.0, 0.0, *page)
    points = []
    for across, up in corners:
        x, y = (height - up, across) if style.turned else (across, up)
        x, down = x - left, top - y
        points.append(
            {
                0: (x, down),
                90: (top - bottom - down, x),
                180: (right - left - x, top - bottom - down),
                270: (down, right - left - x),
            }[style.rotate]
        )
    (x0, x1), (y0, y1) = (sorted(values) for values in zip(*points, strict=True))
    return x0 * DRAWN_PIXELS_PER_MM, y0 * DRAWN_PIXELS_PER_MM, x1 * DRAWN_PIXELS_PER_MM, y1 * DRAWN_PIXELS_PER_MM


def _draw(canvas: Canvas, signals: Signals, style: SheetStyle) -> None:
    left, right, bottom, top = LEFT, RIGHT, BOTTOM, TOP
    if style.grid:
        for every, width in ((1.0, 0.1), (5.0, 0.3)):
            canvas.setLineWidth(width)
            for x in np.arange(left, right + 0.1, every):
                canvas.line(x * mm, bottom * mm, x * mm, top * mm)
            for y in np.arange(bottom, top + 0.1, every):
                canvas.line(left * mm, y * mm, right * mm, y * mm)
    canvas.setFont("Helvetica", 9)
    canvas.drawString(left * mm, 195 * mm, style.header)
    canvas.drawString(left * mm, 8 * mm, style.text)
    columns = 12 // style.rows
    seconds = 10.0 / columns
    lines = style.rows + len(style.rhythm)
    pitch = (top - bottom) / lines
    begin = BEGIN
    for line in range(lines):
        baseline = top - (line + 0.55) * pitch
        row = line - len(style.rhythm) if style.rhythm_first else line
        pulse = _pulse(begin, baseline, style) if style.pulse_mm is not None else []
        if pulse and not style.pulse_in_line:
            _polyline(canvas, pulse)
            pulse = []
        if not 0 <= row < style.rows:
            lead = style.rhythm[row % style.rows if row >= 0 else row]
            if style.rhythm_labels:
                canvas.drawString((begin + 1) * mm, (baseline + 0.35 * pitch) * mm, lead)
            _polyline(canvas, pulse + _points(signals[lead], begin, baseline, style))
            continue
        whole = []
        for column in range(columns):
            lead = LEADS[column * style.rows + row]
            x = begin + column * seconds * style.speed
            canvas.drawString((x + 1) * mm, (baseline + 0.35 * pitch) * mm, style.labels.get(lead, lead))
            drawn = lead
            if style.swapped and lead in style.swapped:
                drawn = style.swapped[1 - style.swapped.index(lead)]
            first = round(column * seconds * style.hz)
            part = signals[drawn][first : first + round(seconds * style.hz)]
            whole.append(part)
            if not style.one_line_a_row and lead not in style.without:
                start = pulse if column == 0 else []
                _polyline(canvas, start + _points(part, x, baseline, style), pieces=style.pieces)
        if style.one_line_a_row:
            _polyline(canvas, pulse + _points(np.concatenate(whole), begin, baseline, style))


def _points(values: NDArray[np.float64], x: float, baseline: float, style: SheetStyle) -> list[tuple[float, float]]:
    xs = x + np.arange(values.size) * (style.speed / style.hz)
    return list(zip(xs.tolist(), (baseline + values * style.gain).tolist(), strict=True))


def _pulse(begin: float, baseline: float, style: SheetStyle) -> list[tuple[float, float]]:
    x, wide, high = begin - 10.0, 0.2 * style.speed, style.pulse_mm or 0.0
    corners = [(0.0, 0.0), (1.0, 0.0), (1.0, high), (1.0 + wide, high), (1.0 + wide, 0.0), (2.0 + wide, 0.0)]
    return [(x + dx, baseline + dy) for dx, dy in corners]


def _polyline(canvas: Canvas, points: list[tuple[float, float]], *, pieces: bool = False) -> None:
    canvas.setLineWidth(0.5)
    if pieces:
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            canvas.line(x0 * mm, y0 * mm, x1 * mm, y1 * mm)
        return
    path = canvas.beginPath()
    path.moveTo(points[0][0] * mm, points[0][1] * mm)
    for x, y in points[1:]:
        path.lineTo(x * mm, y * mm)
    canvas.drawPath(path)
