"""What an estimate rests on, as one picture for the person who doubts it: patches, leads, and places where asked for.

Nothing that identifies a patient is drawn. The picture is no report: it is written only where a person asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ecg_ingest.lead_images import LEADS
from inference.explanation import CELLS, Explanation
from inference.prediction import PATCH_OFFSETS, Geometry, Prediction
from pacs_node.report import canvas, heatmap
from pacs_node.report.drawing import Box, Colour, font, shortened, wrapped
from pacs_node.report.inputs import RESEARCH_ONLY, SYNTHETIC_DEMO

MARGIN: Final = 28
LEAD_WIDTH: Final = 336  # one and a half times the 224 x 48 of a lead image
LEAD_HEIGHT: Final = 72
GAP: Final = 20
WIDTH: Final = 4 * LEAD_WIDTH + 3 * GAP + 2 * MARGIN
VIEW_SIDE: Final = (WIDTH - 2 * MARGIN - GAP) // 2
LEAD_ROW: Final = LEAD_HEIGHT + 74

RAISES: Final[Colour] = (255, 150, 60)
LOWERS: Final[Colour] = (86, 166, 255)
"""Orange and blue: told apart by colour-blind eyes, and neither is the green and violet of the patch map."""

_LEAST_SCALE_MMHG: Final = 2.0  # effects below are drawn small, whatever the largest is


@dataclass(frozen=True, kw_only=True)
class Explained:
    """One examination with what explains its estimate."""

    prediction: Prediction
    explanation: Explanation
    occlusion_mmhg: NDArray[np.float64] | None  # [8, 8]; None where nobody asked for it
    display: NDArray[np.uint8]  # [rows, columns] grey, the whole radiograph
    geometry: Geometry
    lead_images: NDArray[np.uint8]  # [12, 48, 224, 3]


def draw_explanation(explained: Explained) -> NDArray[np.uint8]:
    """The picture as RGB [height, `WIDTH`, 3]."""
    parts = [_header(explained), _views(explained), _leads(explained), _footer(explained)]
    return np.concatenate(parts)


def _blank(height: int) -> Image.Image:
    return Image.new("RGB", (WIDTH, height), canvas.BACKGROUND)


def _header(explained: Explained) -> NDArray[np.uint8]:
    estimate = explained.prediction
    warnings = [
        f"{'Radiograph' if finding.subject == 'radiograph' else 'ECG'}: {finding.code.replace('_', ' ')}: "
        f"{finding.detail}"
        for finding in estimate.findings
        if finding.severity != "note"
    ]
    lines = [line for warning in warnings for line in wrapped(warning, WIDTH - 2 * MARGIN, font(20))]
    page = _blank(112 + 28 * len(lines))
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 18), "What the estimate rests on", fill=canvas.WHITE, font=font(32, bold=True))
    face = font(22, bold=True)
    width = round(face.getlength(RESEARCH_ONLY))
    draw.rounded_rectangle((WIDTH - MARGIN - width - 32, 16, WIDTH - MARGIN, 58), radius=6, fill=canvas.AMBER)
    draw.text((WIDTH - MARGIN - width - 16, 23), RESEARCH_ONLY, fill=canvas.BLACK, font=face)
    told = (
        f"mPAP {estimate.mpap_mmhg:.1f} mmHg, {estimate.interval_level * 100:g} % interval "
        f"{estimate.interval_low_mmhg:.1f} to {estimate.interval_high_mmhg:.1f}"
    )
    draw.text((MARGIN, 66), told, fill=canvas.WHITE, font=font(26))
    for number, line in enumerate(lines):
        draw.text((MARGIN, 104 + 28 * number), line, fill=canvas.AMBER, font=font(20))
    return np.asarray(page)


def _views(explained: Explained) -> NDArray[np.uint8]:
    """The patch map; beside it the map by occlusion, or how to get one."""
    grey = heatmap.fitted(explained.display, VIEW_SIDE, VIEW_SIDE)
    page = _blank(VIEW_SIDE + 74)
    left = _placed(page, MARGIN, heatmap.tinted(grey, explained.geometry, explained.prediction.patch_mpap_mmhg))
    draw = ImageDraw.Draw(page)
    _titled(draw, MARGIN, "Patches: each one's own estimate, mmHg. Their mean is the estimate, exactly.")
    _patch_values(draw, explained, left)
    at = MARGIN + VIEW_SIDE + GAP
    if explained.occlusion_mmhg is None:
        text = "Places: not computed. `--occlusion` adds them: sixteen times the work of an estimate."
        for number, line in enumerate(wrapped(text, VIEW_SIDE, font(20))):
            draw.text((at, 74 + 28 * number), line, fill=canvas.SOFT, font=font(20))
        return np.asarray(page)
    right = _placed(page, at, np.repeat(grey[..., None], 3, axis=2))
    _titled(draw, at, "Places: what this place adds, against that of the average training patient, mmHg")
    return _occluded(np.asarray(page), explained, right)


def _titled(draw: ImageDraw.ImageDraw, left: int, text: str) -> None:
    for number, line in enumerate(wrapped(text, VIEW_SIDE, font(20))[:2]):
        draw.text((left, 2 + 25 * number), line, fill=canvas.SOFT, font=font(20))


def _placed(page: Image.Image, left: int, picture: NDArray[np.uint8]) -> Box:
    rows, columns = picture.shape[:2]
    corner = left + (VIEW_SIDE - columns) // 2, 60 + (VIEW_SIDE - rows) // 2
    page.paste(Image.fromarray(picture), corner)
    return corner[0], corner[1], corner[0] + columns, corner[1] + rows


def _patch_values(draw: ImageDraw.ImageDraw, explained: Explained, view: Box) -> None:
    for index, mmhg in enumerate(explained.prediction.patch_mpap_mmhg):
        middle = (PATCH_OFFSETS[index % 3] + 112.0, PATCH_OFFSETS[index // 3] + 112.0)
        _value(draw, _on_view(explained.geometry, *middle, view), f"{mmhg:.1f}", 22)


def _value(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int) -> None:
    """`text` around `at`, on a ground of its own."""
    face = font(size, bold=True)
    half, high = face.getlength(text) / 2, size * 0.66
    draw.rounded_rectangle((at[0] - half - 6, at[1] - high, at[0] + half + 6, at[1] + high), 5, fill=(16, 18, 22))
    draw.text((at[0] - half, at[1] - size * 0.6), text, fill=canvas.WHITE, font=face)


def _on_view(geometry: Geometry, x: float, y: float, view: Box) -> tuple[float, float]:
    """Where x, y of the network's 512 x 512 picture lie in `view`, kept inside it."""
    across = (geometry.left + x * geometry.scale_x) / geometry.columns
    down = (geometry.top + y * geometry.scale_y) / geometry.rows
    return (
        view[0] + min(max(across, 0.0), 1.0) * (view[2] - view[0]),
        view[1] + min(max(down, 0.0), 1.0) * (view[3] - view[1]),
    )


def _occluded(pixels: NDArray[np.uint8], explained: Explained, view: Box) -> NDArray[np.uint8]:
    """The 8 x 8 effects over the radiograph: the stronger, the less of it shines through; numbers where they matter."""
    effects = explained.occlusion_mmhg
    if effects is None:
        return pixels
    scale = max(_LEAST_SCALE_MMHG, float(np.abs(effects).max()))
    side = 512.0 / CELLS
    image = Image.fromarray(pixels)
    tint = Image.new("RGBA", image.size, (0, 0, 0, 0))
    shade = ImageDraw.Draw(tint)
    for row in range(CELLS):
        for column in range(CELLS):
            effect = float(effects[row, column])
            corner = _on_view(explained.geometry, column * side, row * side, view)
            opposite = _on_view(explained.geometry, (column + 1) * side, (row + 1) * side, view)
            strength = round(190 * min(1.0, abs(effect) / scale))
            shade.rectangle((*corner, opposite[0] - 1, opposite[1] - 1), fill=(*_colour(effect), strength))
    image.paste(tint, mask=tint)
    draw = ImageDraw.Draw(image)
    for row in range(CELLS):
        for column in range(CELLS):
            effect = float(effects[row, column])
            if abs(effect) >= 0.2 * scale:
                middle = _on_view(explained.geometry, (column + 0.5) * side, (row + 0.5) * side, view)
                _value(draw, middle, f"{effect:+.1f}", 16)
    return np.asarray(image)


def _colour(effect: float) -> Colour:
    return RAISES if effect > 0 else LOWERS


def _leads(explained: Explained) -> NDArray[np.uint8]:
    """The twelve pictures that the network was given, each with a bar: what this lead adds to the estimate."""
    effects = explained.explanation.lead_effect_mmhg
    scale = max(_LEAST_SCALE_MMHG, *(abs(effect) for effect in effects.values()))
    page = _blank(76 + 3 * LEAD_ROW)
    draw = ImageDraw.Draw(page)
    lines = (
        "Leads: what this lead adds, against that of the average training patient, mmHg",
        f"All twelve together: {explained.explanation.ecg_effect_mmhg:+.1f}. "
        "Leads act together, so that their effects do not add up to it.",
    )
    for number, line in enumerate(lines):
        draw.text((MARGIN, 8 + 26 * number), line, fill=canvas.SOFT, font=font(20))
    for index, lead in enumerate(LEADS):
        left, top = MARGIN + (index // 3) * (LEAD_WIDTH + GAP), 76 + (index % 3) * LEAD_ROW
        draw.text((left, top), lead, fill=canvas.WHITE, font=font(20, bold=True))
        told = f"{effects[lead]:+.1f}"
        face = font(20, bold=True)
        draw.text((left + LEAD_WIDTH - face.getlength(told), top), told, fill=_colour(effects[lead]), font=face)
        picture = Image.fromarray(explained.lead_images[index])
        page.paste(picture.resize((LEAD_WIDTH, LEAD_HEIGHT), Image.Resampling.LANCZOS), (left, top + 28))
        bar, middle = top + LEAD_HEIGHT + 34, left + LEAD_WIDTH // 2
        draw.rectangle((left, bar, left + LEAD_WIDTH - 1, bar + 10), fill=canvas.TRACK)
        reach = round(effects[lead] / scale * (LEAD_WIDTH // 2))
        draw.rectangle(
            (min(middle, middle + reach), bar, max(middle, middle + reach), bar + 10), fill=_colour(effects[lead])
        )
        draw.line([(middle, bar - 4), (middle, bar + 14)], fill=canvas.WHITE, width=2)
    return np.asarray(page)


def _footer(explained: Explained) -> NDArray[np.uint8]:
    model = explained.prediction.model
    page = _blank(100)
    draw = ImageDraw.Draw(page)
    colours = "Orange raises the estimate, blue lowers it: what the network looked at, not why a pressure is high."
    draw.text((MARGIN, 4), colours, canvas.SOFT, font(19))
    if model.kind == "synthetic-demo":
        draw.text((MARGIN, 34), SYNTHETIC_DEMO, canvas.AMBER, font(19, bold=True))
    text = f"pulmolink model explain   {model.name} {model.version}   sha256 {model.digest[:12]}   {RESEARCH_ONLY}"
    draw.text((MARGIN, 66), shortened(text, WIDTH - 2 * MARGIN, font(17)), canvas.SOFT, font(17))
    return np.asarray(page)
