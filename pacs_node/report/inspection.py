"""What was found in an ECG file: as JSON for programs, and as one picture for the person who doubts a result.

The picture holds the sheet as it is, a named box around every lead, and below it the twelve pictures that the
network is given. It may show whoever is named on the sheet: it is written only where a person asks for it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ecg_ingest.inspection import Inspection, Refusal
from ecg_ingest.lead_images import LEADS, EcgSource, LeadBox, LeadImages
from pacs_node.report import canvas, ecg_strip
from pacs_node.report.drawing import Colour, blended, font, wrapped

NOTICE: Final = "research use only"
MARGIN: Final = 28
LEAD_WIDTH: Final = 448  # twice the 224 x 48 of a lead image
LEAD_HEIGHT: Final = 96
GAP: Final = 16
WIDTH: Final = 4 * LEAD_WIDTH + 3 * GAP + 2 * MARGIN
MOST_SHEET_HEIGHT: Final = 1500

_GREEN: Final[Colour] = (74, 201, 126)
_RED: Final[Colour] = (240, 90, 80)
_BOX_COLOURS: Final[tuple[Colour, ...]] = ((0, 92, 230), (200, 0, 120), (0, 130, 60), (190, 75, 0), (110, 40, 200))
"""Dark and saturated: seen on paper, on every colour of grid. In turn, five of them differ from their neighbours
beside and below in every layout (leads stand 1 and 3, 4 or 6 apart)."""
_MOST_FINDINGS: Final = 12
_LINE: Final = 30


def as_json(inspection: Inspection) -> dict[str, Any]:
    """The fields of `ecg inspect --json`.

    Boxes are [left, top, right, bottom] in pixels of the file's own picture or, for a PDF, of its page drawn at
    `dots_per_inch`; null for signals, which have no page.
    """
    images, refusal, sheet = inspection.images, inspection.refusal, inspection.sheet
    boxes = {box.lead: box for box in images.boxes} if images else {}
    return {
        "accepted": images is not None,
        "reason": refusal.reason.value if refusal else None,
        "layout": images.page_layout if images else "",
        "leads": {lead: _json_box(boxes.get(lead), sheet) for lead in LEADS} if images else {},
        "seconds_per_lead": round(seconds_per_lead(images), 2) if images else None,
        "px_per_mm": round(images.pixels_per_mm, 3) if images and images.pixels_per_mm else None,
        "quality": [
            {"code": finding.code, "lead": finding.lead or None, "detail": finding.detail} for finding in images.quality
        ]
        if images
        else [],
        "detail": refusal.detail if refusal else None,
        "hint": refusal.hint or None if refusal else None,
        "source": images.source.value if images else None,
        "order": images.page_order or None if images else None,
        "derived_leads": list(images.derived_leads) if images else [],
        "page_size": [sheet.shape[1], sheet.shape[0]] if sheet is not None and boxes else None,
        "dots_per_inch": round(images.page_dots_per_inch, 2) if images and images.page_dots_per_inch else None,
        "notice": NOTICE,
    }


def seconds_per_lead(images: LeadImages) -> float:
    """Of a column of the sheet; of the whole recording where there is no sheet."""
    return images.page_seconds_per_lead or images.seconds_recorded


def _json_box(box: LeadBox | None, sheet: NDArray[np.uint8] | None) -> dict[str, Any]:
    """A box as far as it lies on the picture: of bent paper laid flat, rows may reach beyond its edge."""
    if box is None or sheet is None:
        return {"page": None, "box": None}
    height, width = sheet.shape[:2]
    across, down = (
        [min(max(edge, 0.0), float(size)) for edge in edges]
        for edges, size in (
            ((box.left, box.right), width),
            ((box.top, box.bottom), height),
        )
    )
    return {"page": box.page, "box": [round(edge, 1) for edge in (across[0], down[0], across[1], down[1])]}


def draw_inspection(inspection: Inspection) -> NDArray[np.uint8]:
    """The picture as RGB [height, `WIDTH`, 3]."""
    header = _header(inspection)
    parts = [header, *([body] if (body := _sheet(inspection)) is not None else [])]
    if inspection.images is not None:
        parts += [_lead_images(inspection.images), *_findings(inspection.images)]
    parts.append(_footer())
    page = np.full((sum(part.shape[0] for part in parts), WIDTH, 3), canvas.BACKGROUND, np.uint8)
    top = 0
    for part in parts:
        page[top : top + part.shape[0]] = part
        top += part.shape[0]
    return page


def _blank(height: int) -> Image.Image:
    return Image.new("RGB", (WIDTH, height), canvas.BACKGROUND)


def _header(inspection: Inspection) -> NDArray[np.uint8]:
    images, refusal = inspection.images, inspection.refusal
    face = font(25)
    lines = wrapped(_facts(images) if images else _why(refusal), WIDTH - 2 * MARGIN, face)
    page = _blank(78 + 36 * len(lines) + 10)
    draw = ImageDraw.Draw(page)
    word, colour = ("ACCEPTED", _GREEN) if images else ("REFUSED", _RED)
    draw.text((MARGIN, 20), word, fill=colour, font=font(40, bold=True))
    start = MARGIN + round(font(40, bold=True).getlength(word)) + 22
    told = "12-lead ECG" if images else refusal.reason.value if refusal else ""
    draw.text((start, 28), told, fill=canvas.WHITE, font=font(31, bold=True))
    for number, line in enumerate(lines):
        draw.text((MARGIN, 76 + 36 * number), line, fill=canvas.SOFT, font=face)
    return np.asarray(page)


def _facts(images: LeadImages) -> str:
    """What was found in one line: source, layout, seconds, scale."""
    if images.source is EcgSource.WAVEFORM:
        facts = ["signals, drawn again below", f"{images.seconds_recorded:.1f} s", f"{images.sampling_hz:g} Hz"]
    else:
        facts = [
            {EcgSource.VECTOR_PDF: "vector PDF", EcgSource.RASTER: "picture"}[images.source],
            f"layout {images.page_layout}, {images.page_order} order",
            f"{images.page_seconds_per_lead:.3g} s a lead",
            f"{images.pixels_per_mm:.2f} pixels a millimetre",
        ]
    if images.derived_leads:
        facts.append(f"computed: {', '.join(images.derived_leads)}")
    return "   \u00b7   ".join(facts)


def _why(refusal: Refusal | None) -> str:
    if refusal is None:
        return ""
    return f"{refusal.detail}." + (f"  What to do: {refusal.hint}." if refusal.hint else "")


def _sheet(inspection: Inspection) -> NDArray[np.uint8] | None:
    """The sheet with its boxes, as large as fits; signals drawn as a sheet of ours."""
    images = inspection.images
    boxes: tuple[LeadBox, ...] = ()
    if inspection.sheet is not None:
        pixels = inspection.sheet
        boxes = images.boxes if images else ()
    elif images is not None:
        pixels = ecg_strip.ecg_strip(images)
    else:
        return None
    height, width = pixels.shape[:2]
    scale = min((WIDTH - 2 * MARGIN) / width, MOST_SHEET_HEIGHT / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    sheet = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
    sheet = _boxed(sheet, boxes, scale)
    page = np.full((size[1] + 2 * GAP, WIDTH, 3), canvas.BACKGROUND, np.uint8)
    left = (WIDTH - size[0]) // 2
    page[GAP : GAP + size[1], left : left + size[0]] = sheet
    return page


def _boxed(sheet: NDArray[np.uint8], boxes: tuple[LeadBox, ...], scale: float) -> NDArray[np.uint8]:
    """A coloured frame and a name for each lead; the paper under it stays readable."""
    for number, box in enumerate(boxes):
        colour = _BOX_COLOURS[number % len(_BOX_COLOURS)]
        edges = [round(edge * scale) for edge in (box.left, box.top, box.right, box.bottom)]
        left, top = max(0, edges[0]), max(0, edges[1])
        right, bottom = min(sheet.shape[1], edges[2]), min(sheet.shape[0], edges[3])
        tint = np.zeros(sheet.shape[:2], np.uint8)
        tint[top:bottom, left:right] = 255
        sheet = blended(sheet, colour, tint, opacity=0.07)
        drawn = Image.fromarray(sheet)
        draw = ImageDraw.Draw(drawn)
        draw.rectangle((left + 1, top + 1, right - 2, bottom - 2), outline=colour, width=3)
        face = font(21, bold=True)
        wide = round(face.getlength(box.lead)) + 14
        tag = (right - wide - 2, top + 1, right - 2, top + 29)  # the sheet's own names stand on the left
        draw.rectangle(tag, fill=colour)
        draw.text((tag[0] + 7, tag[1] + 1), box.lead, fill=canvas.WHITE, font=face)
        sheet = np.asarray(drawn)
    return sheet


def _lead_images(images: LeadImages) -> NDArray[np.uint8]:
    """The twelve pictures as the network sees them, in the order of the paper: columns I-III, aVR-aVF, V1-V6."""
    pitch = LEAD_HEIGHT + 40
    page = _blank(46 + 3 * pitch)
    draw = ImageDraw.Draw(page)
    style = images.style
    title = (
        f"The twelve pictures that the network is given: {style.seconds_per_lead:g} s across, "
        f"{style.millivolts_full_height:g} mV from edge to edge"
    )
    draw.text((MARGIN, 8), title, fill=canvas.SOFT, font=font(22))
    for index, lead in enumerate(LEADS):
        left = MARGIN + (index // 3) * (LEAD_WIDTH + GAP)
        top = 46 + (index % 3) * pitch
        name = f"{lead} (computed)" if lead in images.derived_leads else lead
        draw.text((left, top), name, fill=canvas.WHITE, font=font(20, bold=True))
        picture = Image.fromarray(images.pixels[index])
        page.paste(picture.resize((LEAD_WIDTH, LEAD_HEIGHT), Image.Resampling.NEAREST), (left, top + 28))
    return np.asarray(page)


def _findings(images: LeadImages) -> list[NDArray[np.uint8]]:
    """What a reader should weigh, alike findings of several leads on one line; nothing where nothing was found."""
    lines = finding_lines(images)
    if not lines:
        return []
    face = font(22)
    shown = [row for line in lines[:_MOST_FINDINGS] for row in wrapped(line, WIDTH - 2 * MARGIN, face)]
    if len(lines) > _MOST_FINDINGS:
        shown.append(f"and {len(lines) - _MOST_FINDINGS} more")
    page = _blank(40 + _LINE * len(shown) + 8)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 6), "Quality", fill=canvas.SOFT, font=font(22))
    for number, line in enumerate(shown):
        draw.text((MARGIN, 38 + _LINE * number), line, fill=canvas.AMBER, font=face)
    return [np.asarray(page)]


def finding_lines(images: LeadImages) -> list[str]:
    """One line a kind of finding: "clipped: V2 (3.4 mV ...), V3 (...)"."""
    by_code: dict[str, list[str]] = {}
    for finding in images.quality:
        by_code.setdefault(finding.code, []).append(
            f"{finding.lead} ({finding.detail})" if finding.lead else finding.detail
        )
    return [f"{code.replace('_', ' ')}: {', '.join(details)}" for code, details in by_code.items()]


def _footer() -> NDArray[np.uint8]:
    page = _blank(44)
    text = "pulmolink ecg inspect  -  research use only"
    ImageDraw.Draw(page).text((MARGIN, 10), text, fill=canvas.SOFT, font=font(18))
    return np.asarray(page)
