"""The right side of the overlay picture: estimate and interval, probabilities, the facts behind them."""

from __future__ import annotations

from datetime import datetime
from itertools import zip_longest
from typing import Final

from PIL import ImageDraw

from pacs_node.report import canvas, heatmap
from pacs_node.report.drawing import Colour, font, shortened, wrapped
from pacs_node.report.inputs import ReportInputs
from pacs_node.report.quality import input_qualities

_LEFT: Final = canvas.PANEL[0]
_RIGHT: Final = canvas.PANEL[2]
_GAUGE_MMHG: Final = (0.0, 70.0)
_MOST_NOTE_LINES: Final = 4


def draw_panel(draw: ImageDraw.ImageDraw, inputs: ReportInputs) -> None:
    """Draw all of it between the edges of `canvas.PANEL`."""
    below = _draw_estimate(draw, inputs, canvas.PANEL[1])
    below = _draw_gauge(draw, inputs, below + 12)
    below = _draw_probabilities(draw, inputs, below + 22)
    below = _draw_facts(draw, inputs, below + 18)
    _draw_notes(draw, inputs, below + 4)
    if inputs.is_synthetic_demo:
        _draw_demo_warning(draw)
    _draw_scale(draw)


def _draw_estimate(draw: ImageDraw.ImageDraw, inputs: ReportInputs, top: int) -> int:
    prediction = inputs.prediction
    number, unit = font(104, bold=True), font(34)
    text = f"{prediction.mpap_mmhg:.1f}"
    draw.text((_LEFT, top), "Estimated mPAP", fill=canvas.SOFT, font=font(24))
    draw.text((_LEFT - 4, top + 26), text, fill=canvas.WHITE, font=number)
    draw.text((_LEFT + round(number.getlength(text)) + 14, top + 88), "mmHg", fill=canvas.WHITE, font=unit)
    interval = (
        f"{prediction.interval_level * 100:g} % interval  "
        f"{prediction.interval_low_mmhg:.1f} to {prediction.interval_high_mmhg:.1f} mmHg"
    )
    draw.text((_LEFT, top + 152), interval, fill=canvas.WHITE, font=font(27, bold=True))
    return top + 190


def _draw_gauge(draw: ImageDraw.ImageDraw, inputs: ReportInputs, top: int) -> int:
    """The interval on a scale of 0 to 70 mmHg with both published limits; values beyond stop at its ends."""
    prediction = inputs.prediction
    track, bottom = top + 30, top + 58
    draw.rectangle((_LEFT, track, _RIGHT, bottom), fill=canvas.TRACK)
    low, high = _gauge_x(prediction.interval_low_mmhg), _gauge_x(prediction.interval_high_mmhg)
    draw.rectangle((low, track, max(high, low + 2), bottom), fill=canvas.INTERVAL)
    if prediction.interval_high_mmhg > _GAUGE_MMHG[1]:  # an arrowhead: it goes on
        middle = (track + bottom) // 2
        draw.polygon([(_RIGHT - 16, track + 5), (_RIGHT - 3, middle), (_RIGHT - 16, bottom - 5)], fill=canvas.WHITE)
    face = font(19)
    for mmhg, label in ((20.0, ">20"), (25.0, "\u226525")):
        x = _gauge_x(mmhg)
        draw.line([(x, track - 6), (x, bottom + 6)], fill=canvas.AMBER, width=2)
        anchor = x - round(face.getlength(label)) - 2 if mmhg == 20 else x + 4
        draw.text((anchor, top), label, fill=canvas.AMBER, font=face)
    x = _gauge_x(prediction.mpap_mmhg)
    draw.rectangle((x - 4, track - 8, x + 4, bottom + 8), fill=canvas.WHITE, outline=canvas.BLACK)
    for mmhg in range(int(_GAUGE_MMHG[0]), int(_GAUGE_MMHG[1]) + 1, 10):
        text = str(mmhg)
        x = _gauge_x(mmhg) - round(face.getlength(text) / 2)
        x = min(max(x, _LEFT), _RIGHT - round(face.getlength(text)))
        draw.text((x, bottom + 10), text, fill=canvas.SOFT, font=face)
    return bottom + 34


def _gauge_x(mmhg: float) -> int:
    low, high = _GAUGE_MMHG
    share = min(max((mmhg - low) / (high - low), 0.0), 1.0)
    return round(_LEFT + share * (_RIGHT - _LEFT))


def _draw_probabilities(draw: ImageDraw.ImageDraw, inputs: ReportInputs, top: int) -> int:
    rows = (
        ("P(mPAP > 20 mmHg)", inputs.prediction.probability_above_20),
        ("P(mPAP \u2265 25 mmHg)", inputs.prediction.probability_at_least_25),
    )
    face, bold = font(24), font(27, bold=True)
    for label, share in rows:
        draw.text((_LEFT, top + 3), label, fill=canvas.SOFT, font=face)
        text = _percent(share)
        draw.text((_LEFT + 372 - round(bold.getlength(text)), top), text, fill=canvas.WHITE, font=bold)
        bar = (_LEFT + 392, top + 8, _RIGHT, top + 28)
        draw.rectangle(bar, fill=canvas.TRACK)
        if share > 0:
            draw.rectangle((bar[0], bar[1], bar[0] + round(share * (bar[2] - bar[0])), bar[3]), fill=canvas.INTERVAL)
        top += 42
    return top


def _percent(share: float) -> str:
    """Whole percent; never 0 or 100, which would sound certain, unless it is exactly that."""
    if 0 < share < 0.01:
        return "<1 %"
    if 0.99 < share < 1:
        return ">99 %"
    return f"{share * 100:.0f} %"


def _draw_facts(draw: ImageDraw.ImageDraw, inputs: ReportInputs, top: int) -> int:
    model = inputs.prediction.model
    draw.line([(_LEFT, top), (_RIGHT, top)], fill=canvas.LINE, width=2)
    facts = [
        ("Radiograph", _when(inputs.radiograph_local, inputs.radiograph_date_only)),
        ("ECG", _when(inputs.ecg_local, inputs.ecg_date_only)),
        ("Gap", _gap(inputs)),
        *([("Revision", f"{inputs.revision}, replaces an earlier report")] if inputs.predecessor else []),
        ("Model", f"{model.name} {model.version}"),
        ("", f"{model.kind}, sha256 {model.digest[:12]}"),
    ]
    top += 16
    for label, text in facts:
        draw.text((_LEFT, top), label, fill=canvas.SOFT, font=font(22))
        face = font(22)
        colour = canvas.AMBER if not label and inputs.is_synthetic_demo else canvas.WHITE
        draw.text((_LEFT + 160, top), shortened(text, _RIGHT - _LEFT - 160, face), fill=colour, font=face)
        top += 33
    return top


def _when(at: datetime, date_only: bool) -> str:
    return f"{at:%Y-%m-%d}  time not given, noon taken" if date_only else f"{at:%Y-%m-%d %H:%M %z}"


def _gap(inputs: ReportInputs) -> str:
    if inputs.gap_seconds < 60:
        return "less than a minute"
    order = "after" if inputs.ecg_at > inputs.radiograph_at else "before"
    hours = inputs.gap_seconds / 3600
    length = f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
    return f"ECG {length} {order} the radiograph"


def _draw_notes(draw: ImageDraw.ImageDraw, inputs: ReportInputs, top: int) -> None:
    """What a reader should weigh about the inputs, in as many lines as there is room for."""
    face = font(20)
    lines: list[tuple[str, Colour]] = []
    hidden = 0
    for note, colour in _notes(inputs):
        wraps = wrapped(note, _RIGHT - _LEFT, face)
        if len(lines) + len(wraps) > _MOST_NOTE_LINES:
            hidden += 1
            continue
        lines += [(line, colour) for line in wraps]
    if hidden:
        lines.append((f"and {hidden} more in the report", canvas.SOFT))
    if lines:
        draw.line([(_LEFT, top), (_RIGHT, top)], fill=canvas.LINE, width=2)
    for number, (line, colour) in enumerate(lines):
        draw.text((_LEFT, top + 14 + number * 28), line, fill=colour, font=face)


def _notes(inputs: ReportInputs) -> list[tuple[str, Colour]]:
    """The notes on both inputs, each with its colour; in turn, so that neither crowds out the other."""
    told = []
    for quality, name in zip(input_qualities(inputs), ("Radiograph", "ECG"), strict=True):
        colour = canvas.SOFT if quality.meets_standard else canvas.AMBER
        told.append([(f"{name}: {note.replace('_', ' ')}", colour) for note in quality.notes])
    return [note for pair in zip_longest(*told) for note in pair if note is not None]


def _draw_demo_warning(draw: ImageDraw.ImageDraw) -> None:
    bottom = canvas.SCALE_BAR[1] - 44
    draw.rounded_rectangle((_LEFT, bottom - 40, _RIGHT, bottom), radius=6, outline=canvas.AMBER, width=3)
    text = "SYNTHETIC DEMO MODEL - means nothing for a patient"
    face = font(20, bold=True)
    x = (_LEFT + _RIGHT - round(face.getlength(text))) // 2
    draw.text((x, bottom - 33), text, fill=canvas.AMBER, font=face)


def _draw_scale(draw: ImageDraw.ImageDraw) -> None:
    """Title and numbers of the colour scale; its colours are already there."""
    left, top, right, bottom = canvas.SCALE_BAR
    face = font(19)
    draw.text(
        (left, top - 30),
        "Estimate of each patch in mmHg; the map is translucent",
        fill=canvas.SOFT,
        font=face,
    )
    low, high = heatmap.SCALE_MMHG
    for mmhg in (10, 15, 20, 25, 30, 40, 50):
        x = round(left + (mmhg - low) / (high - low) * (right - left - 1))
        ends = {low: f"\u2264{low:g}", high: f"\u2265{high:g}"}
        text = ends.get(float(mmhg), str(mmhg))
        width = round(face.getlength(text))
        draw.line([(x, bottom), (x, bottom + 5)], fill=canvas.SOFT, width=2)
        draw.text((min(max(x - width // 2, left), right - width), bottom + 8), text, fill=canvas.SOFT, font=face)
