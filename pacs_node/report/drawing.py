"""Letters, colours and lines for pictures: what ships with our dependencies, nothing of the system's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels; right and bottom are outside."""

_VIRIDIS: Final = (
    "440154 481567 482677 453781 404788 39568C 33638D 2D708E 287D8E 238A8D "
    "1F968B 20A387 29AF7F 3CBB75 55C667 73D055 95D840 B8DE29 DCE319 FDE725"
)
"""Twenty evenly spaced colours of viridis (Smith and van der Walt, CC0): perceptually uniform, and in order
also for colour-blind eyes and in grey."""


@lru_cache(maxsize=32)
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Bitstream Vera, which reportlab carries, `size` pixels high."""
    data = files("reportlab").joinpath("fonts", "VeraBd.ttf" if bold else "Vera.ttf").read_bytes()
    # The basic layout is the same everywhere; the other depends on libraries of the machine.
    return ImageFont.truetype(BytesIO(data), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=1)
def colour_map() -> NDArray[np.uint8]:
    """Viridis as [256, 3] RGB."""
    stops = np.array([list(bytes.fromhex(stop)) for stop in _VIRIDIS.split()], dtype=np.float64)
    at = np.linspace(0, len(stops) - 1, 256)
    return np.stack(
        [np.interp(at, np.arange(len(stops)), stops[:, channel]).round() for channel in range(3)], axis=1
    ).astype(np.uint8)


def drawable(text: str) -> str:
    """`text` in the letters that the font has; others become question marks."""
    return text.encode("latin-1", "replace").decode("latin-1")


def wrapped(text: str, limit_px: int, face: ImageFont.FreeTypeFont) -> list[str]:
    """`text` in lines no wider than `limit_px`; a word longer than a line is cut."""
    lines = [""]
    for word in drawable(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if face.getlength(longer) <= limit_px:
            lines[-1] = longer
            continue
        while face.getlength(word) > limit_px:
            keep = max(1, int(len(word) * limit_px / face.getlength(word)) - 1)
            lines.append(word[:keep])
            word = word[keep:]  # noqa: PLW2901
        lines.append(word)
    return [line for line in lines if line]


def shortened(text: str, limit_px: int, face: ImageFont.FreeTypeFont) -> str:
    """`text` on one line no wider than `limit_px`, with an ellipsis where it was cut."""
    text = drawable(text)
    if face.getlength(text) <= limit_px:
        return text
    while text and face.getlength(text + "...") > limit_px:
        text = text[:-1]
    return text.rstrip() + "..."


def smooth_lines(
    size: tuple[int, int], lines: Sequence[Sequence[tuple[float, float]]], width_px: float
) -> NDArray[np.uint8]:
    """Coverage [rows, columns], 0 to 255, of smooth polylines: drawn three times as large, then reduced.

    Parameters
    ----------
    size
        Columns and rows of the result.
    lines
        Points (x, y) of each line in the result's pixels.
    """
    fine = 3
    mask = Image.new("L", (size[0] * fine, size[1] * fine))
    draw = ImageDraw.Draw(mask)
    for line in lines:
        points = [(x * fine, y * fine) for x, y in line]
        draw.line(points, fill=255, width=max(1, round(width_px * fine)))
    return np.asarray(mask.reduce(fine))


def blended(
    under: NDArray[np.uint8], colour: Colour, coverage: NDArray[np.uint8], opacity: float = 1.0
) -> NDArray[np.uint8]:
    """`colour` laid over `under` [rows, columns, 3] where `coverage` [rows, columns] says."""
    # Pillow blends in whole numbers, several times faster than numpy in floats, and lets other threads run.
    image = Image.fromarray(under)
    strength = np.arange(256, dtype=np.float32) * opacity + 0.5
    image.paste(colour, mask=Image.fromarray(strength.astype(np.uint8)[coverage]))
    return np.asarray(image)
