"""The overlay picture: radiograph with the nine patch values, estimate with its interval, the twelve leads.

Pure: values in, pixels out. Nothing that identifies a patient is drawn; the DICOM header carries it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from inference.prediction import Geometry
from pacs_node.report import canvas, heatmap
from pacs_node.report.drawing import Box, blended, font, shortened
from pacs_node.report.ecg_strip import ecg_strip
from pacs_node.report.inputs import RESEARCH_ONLY, ReportInputs
from pacs_node.report.panel import draw_panel

WATERMARK: Final = "SYNTHETIC DEMO MODEL"
_OPPOSITE: Final = {"L": "R", "R": "L"}


def render_overlay(inputs: ReportInputs) -> NDArray[np.uint8]:
    """The picture as RGB [canvas.HEIGHT, canvas.WIDTH, 3], uint8. The same inputs give the same pixels."""
    pixels = np.full((canvas.HEIGHT, canvas.WIDTH, 3), canvas.BACKGROUND, np.uint8)
    radiograph = _place_radiograph(pixels, inputs)
    left, top, right, bottom = canvas.STRIP
    pixels[top:bottom, left:right] = ecg_strip(inputs.leads)
    left, top, right, bottom = canvas.SCALE_BAR
    pixels[top:bottom, left:right] = heatmap.scale_bar(right - left, bottom - top)
    if inputs.is_synthetic_demo:
        _mark_radiograph(pixels)
        _mark_strip(pixels)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    _draw_header(draw)
    _draw_patch_values(draw, inputs, radiograph)
    _draw_laterality(draw, inputs, radiograph)
    draw_panel(draw, inputs)
    _draw_footer(draw, inputs)
    return np.asarray(image)


def _place_radiograph(pixels: NDArray[np.uint8], inputs: ReportInputs) -> Box:
    """Put the tinted radiograph into its view, as large as fits; where it came to lie."""
    picture = heatmap.tinted(
        heatmap.fitted(inputs.display, canvas.VIEW_WIDTH, canvas.VIEW_HEIGHT),
        inputs.geometry,
        inputs.prediction.patch_mpap_mmhg,
    )
    rows, columns = picture.shape[:2]
    left = canvas.VIEW[0] + (canvas.VIEW_WIDTH - columns) // 2
    top = canvas.VIEW[1] + (canvas.VIEW_HEIGHT - rows) // 2
    pixels[canvas.VIEW[1] : canvas.VIEW[3], canvas.VIEW[0] : canvas.VIEW[2]] = canvas.BLACK
    pixels[top : top + rows, left : left + columns] = picture
    return left, top, left + columns, top + rows


def _draw_header(draw: ImageDraw.ImageDraw) -> None:
    draw.text(
        (canvas.MARGIN, 22),
        "Mean pulmonary artery pressure, estimated",
        fill=canvas.WHITE,
        font=font(30, bold=True),
    )
    face = font(24, bold=True)
    width = round(face.getlength(RESEARCH_ONLY))
    right = canvas.WIDTH - canvas.MARGIN
    draw.rounded_rectangle((right - width - 36, 16, right, 62), radius=6, fill=canvas.AMBER)
    draw.text((right - width - 18, 24), RESEARCH_ONLY, fill=canvas.BLACK, font=face)


def _draw_patch_values(draw: ImageDraw.ImageDraw, inputs: ReportInputs, radiograph: Box) -> None:
    """Each value at its patch's middle, with a tick so that the eye finds the place."""
    face = font(25, bold=True)
    for index, mmhg in enumerate(inputs.prediction.patch_mpap_mmhg):
        x, y = _on_picture(inputs.geometry, index, radiograph)
        text = f"{mmhg:.1f}"
        width = round(face.getlength(text))
        draw.rounded_rectangle((x - width // 2 - 9, y - 19, x + width // 2 + 9, y + 19), 6, fill=(16, 18, 22))
        draw.text((x - width // 2, y - 15), text, fill=canvas.WHITE, font=face)


def _on_picture(geometry: Geometry, index: int, radiograph: Box) -> tuple[int, int]:
    left, top, right, bottom = geometry.patch_box(index)
    x = radiograph[0] + (left + right) / 2 / geometry.columns * (radiograph[2] - radiograph[0])
    y = radiograph[1] + (top + bottom) / 2 / geometry.rows * (radiograph[3] - radiograph[1])
    # A patch may reach beyond the radiograph; its value must not leave the picture.
    return (
        round(min(max(x, radiograph[0] + 45), radiograph[2] - 45)),
        round(min(max(y, radiograph[1] + 30), radiograph[3] - 30)),
    )


def _draw_laterality(draw: ImageDraw.ImageDraw, inputs: ReportInputs, radiograph: Box) -> None:
    """L and R at the sides that Patient Orientation names. Without it, nothing: a side is never guessed."""
    orientation = inputs.radiograph_header.orientation
    if orientation is None or orientation[0][0] not in _OPPOSITE:
        return
    to_the_right = orientation[0][0]
    face = font(30, bold=True)
    y = radiograph[1] + 14
    for letter, x in ((_OPPOSITE[to_the_right], radiograph[0] + 16), (to_the_right, radiograph[2] - 38)):
        draw.text((x, y), letter, fill=canvas.WHITE, font=face, stroke_width=3, stroke_fill=canvas.BLACK)


def _draw_footer(draw: ImageDraw.ImageDraw, inputs: ReportInputs) -> None:
    model = inputs.prediction.model
    face = font(17)
    text = (
        f"pulmolink {inputs.device.software_version}   model {model.name} {model.version}   "
        f"sha256 {model.digest[:12]}   {RESEARCH_ONLY}"
    )
    draw.text(
        (canvas.MARGIN, canvas.HEIGHT - 32),
        shortened(text, canvas.WIDTH - 2 * canvas.MARGIN, face),
        fill=canvas.SOFT,
        font=face,
    )


def _mark_radiograph(pixels: NDArray[np.uint8]) -> None:
    """Lay the warning across the radiograph: light letters with a dark edge, seen on any ground."""
    left, top, right, bottom = canvas.VIEW
    area = pixels[top:bottom, left:right]
    letters, edges = _watermark(right - left, bottom - top, size_px=72, degrees=44)
    area[:] = blended(blended(area, canvas.BLACK, edges, 0.45), canvas.WHITE, letters, 0.45)


def _mark_strip(pixels: NDArray[np.uint8]) -> None:
    """Lay the warning across the paper, pale enough that the traces stay readable."""
    left, top, right, bottom = canvas.STRIP
    area = pixels[top:bottom, left:right]
    letters, _ = _watermark(right - left, bottom - top, size_px=100, degrees=7)
    area[:] = blended(area, canvas.BLACK, letters, 0.16)


@lru_cache(maxsize=4)
def _watermark(width: int, height: int, size_px: int, degrees: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Coverage [height, width] of the turned warning's letters and of their edges."""
    face = font(size_px, bold=True)
    layers = []
    for edge in (False, True):
        tile = Image.new("L", (round(face.getlength(WATERMARK)) + 40, round(size_px * 1.6)))
        draw = ImageDraw.Draw(tile)
        at = (20, round(size_px * 0.2))
        draw.text(at, WATERMARK, fill=255, font=face, stroke_width=4 if edge else 0)
        if edge:
            draw.text(at, WATERMARK, fill=0, font=face)
        turned = tile.rotate(degrees, resample=Image.Resampling.BICUBIC, expand=True)
        whole = Image.new("L", (width, height))
        whole.paste(turned, ((width - turned.width) // 2, (height - turned.height) // 2))
        layers.append(np.asarray(whole))
    return layers[0], layers[1]
