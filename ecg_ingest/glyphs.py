"""How the names of leads look in print: small pictures of every label in several fonts, to compare shapes with.

Made when first needed, from fonts that ship with reportlab, Pillow and OpenCV, and from a plotter's strokes.
No learned weights and no font of the machine: the same on every machine.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ecg_ingest.lead_images import LEADS

HEIGHT, WIDTH = 24, 40  # of a shape: every word is stretched to this
MINUS_AVR = "-aVR"  # Cabrera order prints aVR upside down
NAMES = (*LEADS, MINUS_AVR)
OTHER_WORDS = (
    *("V7", "V8", "V9", "V0", "VI", "IV", "aV", "AC", "HR", "PR", "QT", "mm", "mV", "Hz", "ms", "11", "1", "l", "25"),
    *("10", "V", "F", "L", "R", "E", "H", "N", "M", "T", "P", "X", "Y", "Z", "4", "7", "(", "[", "/", "+", "am", "pm"),
    *(
        "a",
        "ID",
        "ST",
        "bpm",
        "axis",
        "max",
        "Sex",
        "Age",
        "Dr",
        "in",
        "II.",
        "Ix",
        "VE",
        "VR",
        "VL",
        "VF",
        "sec",
        "QRS",
    ),
)
"""What a header may hold: a shape nearer to one of these is no label."""

_POINTS = 64
_SPACED = (0.0, 0.45)  # of the letters' height, between letters
_FONT_FILES = ("Vera.ttf", "VeraBd.ttf", "_a______.pfb", "_ab_____.pfb", "_er_____.pfb", "_eb_____.pfb")
_FIXED_FILES = ("com_____.pfb", "cob_____.pfb")

_STROKES: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {  # a plotter's letters in a unit square, y down
    "I": (((0.0, 0.0), (0.0, 1.0)),),
    "a": (((0.5, 0.4), (0.5, 1.0)), ((0.5, 0.55), (0.35, 0.4), (0.1, 0.4), (0.0, 0.6), (0.0, 0.8), (0.1, 1.0), (0.35, 1.0), (0.5, 0.85))),  # noqa: E501
    "V": (((0.0, 0.0), (0.35, 1.0), (0.7, 0.0)),),
    "R": (((0.0, 1.0), (0.0, 0.0), (0.4, 0.0), (0.6, 0.1), (0.6, 0.4), (0.4, 0.5), (0.0, 0.5)), ((0.35, 0.5), (0.6, 1.0))),  # noqa: E501
    "L": (((0.0, 0.0), (0.0, 1.0), (0.55, 1.0)),),
    "F": (((0.0, 1.0), (0.0, 0.0), (0.55, 0.0)), ((0.0, 0.48), (0.4, 0.48))),
    "1": (((0.05, 0.2), (0.3, 0.0), (0.3, 1.0)),),
    "2": (((0.0, 0.2), (0.1, 0.03), (0.3, 0.0), (0.5, 0.05), (0.58, 0.25), (0.5, 0.45), (0.0, 1.0), (0.6, 1.0)),),
    "3": (((0.0, 0.0), (0.58, 0.0), (0.25, 0.4), (0.45, 0.42), (0.6, 0.6), (0.58, 0.85), (0.4, 1.0), (0.15, 1.0), (0.0, 0.88)),),  # noqa: E501
    "4": (((0.45, 1.0), (0.45, 0.0), (0.0, 0.68), (0.62, 0.68)),),
    "5": (((0.55, 0.0), (0.08, 0.0), (0.03, 0.42), (0.3, 0.36), (0.55, 0.5), (0.6, 0.7), (0.5, 0.93), (0.25, 1.0), (0.0, 0.9)),),  # noqa: E501
    "6": (((0.52, 0.1), (0.3, 0.0), (0.1, 0.1), (0.0, 0.45), (0.02, 0.8), (0.2, 1.0), (0.42, 1.0), (0.58, 0.8), (0.52, 0.52), (0.3, 0.42), (0.05, 0.58)),),  # noqa: E501
    "-": (((0.0, 0.55), (0.4, 0.55)),),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Word:
    """One word in one font: its picture (1 ink, 0 paper, cropped to the ink) and the name of the font."""

    name: str
    font: str
    picture: NDArray[np.float32]

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.picture.shape[1] / self.picture.shape[0]


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """All words, as unit vectors to multiply with."""

    words: tuple[Word, ...]
    vectors: NDArray[np.float32]  # [words, HEIGHT * WIDTH]
    aspects: NDArray[np.float64]  # [words]
    names: tuple[str, ...]  # different ones, in the order of `words`
    first: NDArray[np.int64]  # [names] number of each name's first word; its others follow
    by_name: dict[tuple[str, str], Word]  # name and font


@functools.cache
def shapes() -> Shapes:
    """Labels and other words in every font."""
    words = tuple(_words())
    return Shapes(
        words=words,
        vectors=np.stack([vector(word.picture) for word in words]),
        aspects=np.array([word.aspect for word in words]),
        names=tuple(dict.fromkeys(word.name for word in words)),
        first=np.array([n for n, word in enumerate(words) if n == 0 or words[n - 1].name != word.name]),
        by_name={(word.name, word.font): word for word in words},
    )


def vector(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """A word's picture, cropped to its ink, as a unit vector about its mean."""
    interpolation = cv2.INTER_AREA if picture.shape[0] > HEIGHT else cv2.INTER_LINEAR
    values = cv2.resize(picture, (WIDTH, HEIGHT), interpolation=interpolation)
    values = cv2.GaussianBlur(values, (0, 0), 0.8).ravel()
    values = values - 0.5 * values.mean()  # a solid bar has no variance: keep half of the mean
    unit: NDArray[np.float32] = values / max(float(np.linalg.norm(values)), 1e-6)
    return unit


def _words() -> list[Word]:
    words = []
    folder = _font_folder()
    fonts: list[tuple[str, ImageFont.FreeTypeFont | ImageFont.ImageFont]] = [
        (name, ImageFont.truetype(str(folder / name), _POINTS)) for name in (*_FONT_FILES, *_FIXED_FILES)
    ]
    fonts.append(("Pillow", ImageFont.load_default(_POINTS)))
    for name in (*NAMES, *OTHER_WORDS):
        for font_name, font in fonts:
            spacings = _SPACED if name in NAMES and len(name) > 1 and font_name not in _FIXED_FILES else (0.0,)
            for spacing in spacings:
                words.append(Word(name=name, font=f"{font_name}+{spacing:g}", picture=_printed(name, font, spacing)))
        if set(name) <= set(_STROKES):
            for thick in (0.08, 0.16):
                for spacing in (0.22, 0.55):
                    words.append(
                        Word(name=name, font=f"plotter {thick:g}+{spacing:g}", picture=_drawn(name, thick, spacing))
                    )
    return words


def _font_folder() -> Path:
    import reportlab

    return Path(reportlab.__file__).parent / "fonts"


def _printed(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, spacing: float) -> NDArray[np.float32]:
    canvas = Image.new("L", (_POINTS * (len(name) + 3) * 2, _POINTS * 2), 0)
    draw = ImageDraw.Draw(canvas)
    if spacing == 0.0:
        draw.text((_POINTS, _POINTS // 3), name, fill=255, font=font)
    else:
        x = float(_POINTS)
        for letter in name:
            draw.text((x, _POINTS // 3), letter, fill=255, font=font)
            x += font.getlength(letter) + spacing * 0.7 * _POINTS
    return cropped(np.asarray(canvas, dtype=np.float32) / 255.0)


def _drawn(name: str, thick: float, spacing: float) -> NDArray[np.float32]:
    size = 96
    canvas = np.zeros((size * 2, size * (len(name) + 2) * 2), dtype=np.uint8)
    x = float(size)
    for letter in name:
        strokes = _STROKES[letter]
        for stroke in strokes:
            points = np.array([(x + px * size, size / 2 + py * size) for px, py in stroke])
            cv2.polylines(canvas, [np.rint(points).astype(np.int32)], False, 255, round(thick * size), cv2.LINE_AA)
        x += (max(px for stroke in strokes for px, _ in stroke) + spacing) * size
    return cropped(canvas.astype(np.float32) / 255.0)


def cropped(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """The part that holds ink."""
    rows = np.flatnonzero((picture > 0.3).any(axis=1))
    columns = np.flatnonzero((picture > 0.3).any(axis=0))
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
