"""Find the printed names of leads in a picture's ink by their shapes: no character recognition, no weights.

Finds words that stand free; `look_again` looks where a layout says that a label must be, even if the trace runs
through it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ecg_ingest.glyphs import MINUS_AVR, NAMES, shapes, vector
from ecg_ingest.ink import Ink

_LEAST_HEIGHT_MM, _MOST_HEIGHT_MM = 1.1, 6.5
_MOST_WIDTH_MM = 16.0
_GAPS = (0.45, 1.25)  # of the letters' height: between letters that touch no other word
_LEAST_LIKENESS = 0.72
_LEAST_MARGIN = 0.035  # to the next other name
_ASPECT_COST = 1.1
_MOST_PIECES = 1500
_MOST_ASPECT = 4.5  # width over height of a name, letters spaced

_A_LIKENESS, _A_COST = 0.45, 1.0
_GRAIN = 0.04
_AROUND = 6.0  # of a label's height: what a second look and the letter before a V need about a place

TELLING_NAMES = tuple(name for name in NAMES if name not in ("I", "II", "III"))
"""Names that no stroke of a trace, tick or grid line looks like. I, II and III are proved by their signals."""

NO_NAME = 0.45
"""Likeness to some name that anything on a sheet has."""


@dataclass(frozen=True, kw_only=True)
class PrintedLabel:
    """A lead's name where it stands, in pixels."""

    lead: str
    left: float
    top: float
    right: float
    bottom: float
    likeness: float  # 0 to 1
    margin: float  # to the next other name
    font: str
    free: bool = True  # nothing touches it
    sure: bool = True  # it is read; else it only says, with others, where names stand

    @property
    def centre(self) -> tuple[float, float]:
        """Across and down."""
        return (self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom."""
        return self.left, self.top, self.right, self.bottom

    @property
    def height(self) -> float:
        """In pixels."""
        return self.bottom - self.top


@dataclass(frozen=True, kw_only=True)
class _Piece:
    left: int
    top: int
    right: int
    bottom: int
    numbers: tuple[int, ...]  # connected components

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left


def find_printed_labels(ink: Ink, pixels_per_mm: float) -> list[PrintedLabel]:
    """Every free-standing word that looks like a lead's name and like nothing else."""
    if not ink.mask.any():
        return []
    numbers, stats = _connected(ink.mask)
    pieces = _pieces(stats, pixels_per_mm)
    if len(pieces) > _MOST_PIECES:
        return []  # a grid in pieces, not letters
    candidates = {candidate.numbers: candidate for candidate in _candidates(pieces, pixels_per_mm)}
    words = [word for word in candidates.values() if word.width <= _MOST_ASPECT * word.height]
    return without_overlaps(_named(words, ink, numbers))


def _connected(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The number of each pixel's piece, and of each piece its left, top, width, height and area.

    OpenCV's own counts take four times as long: they go through the paper as well.
    """
    count, found = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    numbers = np.asarray(found, dtype=np.int32)
    places = np.flatnonzero(mask)
    rows, columns = np.divmod(places.astype(np.int32), np.int32(mask.shape[1]))
    own = numbers.ravel()[places]
    left, top = np.full(count, mask.shape[1], dtype=np.int32), np.zeros(count, dtype=np.int32)
    right, bottom = np.zeros_like(left), np.zeros_like(left)
    np.minimum.at(left, own, columns)
    np.maximum.at(right, own, columns + 1)
    top[own[::-1]] = rows[::-1]  # in order from the top: what is written last stays
    bottom[own] = rows + 1
    stats = np.stack((left, top, right - left, bottom - top, np.bincount(own, minlength=count)), axis=1)
    return numbers, stats[1:].astype(np.int32)


def _pieces(stats: NDArray[np.int32], pixels_per_mm: float) -> list[_Piece]:
    pieces = []
    for number, (left, top, width, height, area) in enumerate(stats.tolist(), start=1):
        tall = height / pixels_per_mm
        if not 0.55 * _LEAST_HEIGHT_MM <= tall <= _MOST_HEIGHT_MM or width / pixels_per_mm > _MOST_WIDTH_MM:
            continue
        if area < 4:
            continue
        pieces.append(_Piece(left=left, top=top, right=left + width, bottom=top + height, numbers=(number,)))
    return pieces


def _candidates(pieces: list[_Piece], pixels_per_mm: float) -> list[_Piece]:
    """Chains of pieces side by side, whole, and without a tick before or after them."""
    found = []
    for gap in _GAPS:
        for chain in _chains(pieces, gap):
            found.append(_joined(chain))
            if len(chain) > 1 and chain[0].width < 0.4 * chain[0].height:
                found.append(_joined(chain[1:]))
            if len(chain) > 1 and chain[-1].width < 0.4 * chain[-1].height:
                found.append(_joined(chain[:-1]))
    return [
        word
        for word in found
        if _LEAST_HEIGHT_MM <= word.height / pixels_per_mm <= _MOST_HEIGHT_MM
        and word.width / pixels_per_mm <= _MOST_WIDTH_MM
    ]


class _Chain:
    """A word as it grows: its pieces, and the least rectangle that holds them."""

    def __init__(self) -> None:
        self.pieces: list[_Piece] = []
        self.tallest = 0
        self.top, self.bottom, self.right = 1 << 30, 0, 0

    def add(self, piece: _Piece) -> None:
        """Put a piece at its end."""
        self.pieces.append(piece)
        self.tallest = max(self.tallest, piece.height)
        self.top, self.bottom = min(self.top, piece.top), max(self.bottom, piece.bottom)
        self.right = max(self.right, piece.right)


def _chains(pieces: list[_Piece], gap: float) -> list[list[_Piece]]:
    """Pieces grouped into words: each starts to the right of the last, at the same height, within a gap."""
    chains: list[_Chain] = []
    open_chains: list[_Chain] = []
    for piece in sorted(pieces, key=lambda piece: piece.left):
        left, top, bottom, height = piece.left, piece.top, piece.bottom, piece.height
        best: _Chain | None = None
        still_open = []
        for chain in open_chains:
            tallest, away = chain.tallest, left - chain.right
            if away > 1.5 * gap * tallest + 20:
                continue
            still_open.append(chain)
            if chain.top >= bottom or chain.bottom <= top:
                continue
            high, low = (tallest, height) if tallest > height else (height, tallest)
            overlap = min(bottom, chain.bottom) - max(top, chain.top)
            if away <= gap * high and overlap > 0.55 * low and high < 2.4 * low:
                best = chain
        open_chains = still_open
        if best is None:
            best = _Chain()
            chains.append(best)
            open_chains.append(best)
        best.add(piece)
    return [chain.pieces for chain in chains if len(chain.pieces) <= 8]


def _joined(chain: list[_Piece]) -> _Piece:
    return _Piece(
        left=min(piece.left for piece in chain),
        top=min(piece.top for piece in chain),
        right=max(piece.right for piece in chain),
        bottom=max(piece.bottom for piece in chain),
        numbers=tuple(sorted(number for piece in chain for number in piece.numbers)),
    )


def _named(words: list[_Piece], ink: Ink, numbers: NDArray[np.int32]) -> list[PrintedLabel]:
    """The words that look like a lead's name and like nothing else."""
    if not words:
        return []
    pictures = []
    for word in words:
        place = (slice(word.top, word.bottom), slice(word.left, word.right))
        own = np.isin(numbers[place], word.numbers)
        pictures.append(np.clip(ink.darkness[place] * own / max(ink.level, 1e-3), 0.0, 1.0).astype(np.float32))
    found = []
    for word, (name, likeness, margin, font) in zip(words, likest(pictures), strict=True):
        if name in NAMES and likeness >= _LEAST_LIKENESS and margin >= _LEAST_MARGIN:
            found.append(
                PrintedLabel(
                    lead=name,
                    left=float(word.left),
                    top=float(word.top),
                    right=float(word.right),
                    bottom=float(word.bottom),
                    likeness=likeness,
                    margin=margin,
                    font=font,
                )
            )
    return found


def likest(pictures: Sequence[NDArray[np.float32]]) -> list[tuple[str, float, float, str]]:
    """For each picture the word that it looks like most, how much, by how much more than another, and the font."""
    known = shapes()
    aspects = np.array([picture.shape[1] / picture.shape[0] for picture in pictures])
    off = np.abs(np.log(known.aspects[None, :] / aspects[:, None]))
    scores = np.stack([vector(picture) for picture in pictures]) @ known.vectors.T
    scores = scores - _ASPECT_COST * np.maximum(off - 0.12, 0.0)
    of_names = np.maximum.reduceat(scores, known.first, axis=1)
    best = scores.argmax(axis=1)
    names = of_names.argmax(axis=1)
    result = []
    for index in range(len(pictures)):
        others = np.delete(of_names[index], names[index])
        likeness = float(scores[index, best[index]])
        word = known.words[int(best[index])]
        result.append((word.name, likeness, likeness - float(others.max()), word.font))
    return result


def without_overlaps(labels: list[PrintedLabel]) -> list[PrintedLabel]:
    """Of labels over one another the likest."""
    kept: list[PrintedLabel] = []
    for label in sorted(labels, key=lambda item: -item.likeness):
        if all(
            label.left >= other.right
            or label.right <= other.left
            or label.top >= other.bottom
            or label.bottom <= other.top
            for other in kept
        ):
            kept.append(label)
    return kept


def unspaced(font: str) -> str:
    """The font of a single letter."""
    return font.replace("+0.45", "+0")


def a_before(dark: NDArray[np.float32], left: float, bottom: float, height: float, font: str) -> float:
    """What to take off a chest lead's likeness because an a stands before its V: that is aVR, aVL or aVF."""
    letter = sized("a", unspaced(font), 0.75 * height)
    x0, x1 = max(0, round(left - 1.5 * height)), max(0, round(left + 0.25 * height))
    y0, y1 = max(0, round(bottom - 1.15 * height)), round(bottom + 0.2 * height)
    window = dark[y0:y1, x0:x1]
    if window.shape[0] < letter.shape[0] or window.shape[1] < letter.shape[1]:
        return 0.0
    likeness = float(cv2.matchTemplate(window, letter, cv2.TM_CCOEFF_NORMED).max())
    return _A_COST * max(0.0, likeness - _A_LIKENESS)


@functools.lru_cache(maxsize=2048)
def sized(name: str, font: str, height: float) -> NDArray[np.float32]:
    """A word's picture at a height in pixels, with a pixel of paper around it."""
    picture = shapes().by_name[name, font].picture
    tall = max(5, round(height))
    wide = max(2, round(height * picture.shape[1] / picture.shape[0]))
    return _on_paper(cv2.resize(picture, (wide, tall), interpolation=cv2.INTER_AREA), 1)


def _on_paper(shape: cv2.typing.MatLike, edge: int) -> NDArray[np.float32]:
    framed = cv2.copyMakeBorder(shape, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=0.0)
    return np.asarray(framed, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a second look at a place found: how much it looks like each name there, and where."""

    likeness: dict[str, float]
    centre: dict[str, tuple[float, float]]
    printed: dict[str, tuple[str, float]]  # the font, and the height in pixels

    def best(self) -> tuple[str, float, float]:
        """The likest name, its likeness and the margin to the next."""
        ordered = sorted(self.likeness.items(), key=lambda item: -item[1])
        return ordered[0][0], ordered[0][1], ordered[0][1] - ordered[1][1]


def page_fonts(labels: Sequence[PrintedLabel], ink: Ink, count: int = 2) -> list[str]:
    """The fonts that the labels found so far look most like, all together."""
    known = shapes()
    totals: dict[str, list[float]] = {}
    for label in labels:
        picture = _crop(ink, label.left, label.top, label.right, label.bottom)
        unit = vector(picture)
        aspect = picture.shape[1] / picture.shape[0]
        for index, word in enumerate(known.words):
            if word.name == label.lead:
                cost = _ASPECT_COST * abs(float(np.log(known.aspects[index] / aspect)))
                totals.setdefault(word.font, []).append(float(known.vectors[index] @ unit) - cost)
    most = max(len(scores) for scores in totals.values())
    ranked = sorted(
        (font for font, scores in totals.items() if len(scores) == most), key=lambda font: -float(np.mean(totals[font]))
    )
    return ranked[:count]


def look_again(
    ink: Ink, centre: tuple[float, float], reach: tuple[float, float], height: float, fonts: Sequence[str]
) -> Look | None:
    """Look for every name near a place, in the page's own fonts and size, though a trace may cross it.

    Parameters
    ----------
    centre, reach : tuple of float
        The place and how far a label's middle may lie from it, across and down, in pixels.
    height : float
        Of the page's labels, in pixels.
    fonts : sequence of str
        From `page_fonts`.
    """
    x0 = max(0, round(centre[0] - reach[0] - _AROUND * height))
    y0 = max(0, round(centre[1] - reach[1] - _AROUND * height))
    x1, y1 = round(centre[0] + reach[0] + _AROUND * height), round(centre[1] + reach[1] + _AROUND * height)
    dark = np.minimum(ink.darkness[y0 : max(y0, y1), x0 : max(x0, x1)] / max(ink.level, 1e-3), 1.0)
    middle = centre[0] - x0, centre[1] - y0
    likeness: dict[str, float] = {}
    at: dict[str, tuple[float, float]] = {}
    printed: dict[str, tuple[str, float]] = {}
    for word in shapes().words:
        if word.font not in fonts or word.name not in TELLING_NAMES:
            continue
        for factor in (0.92, 1.0, 1.08):
            tall = max(5, round(height * factor))
            wide = max(2, round(tall * word.aspect))
            shape = _on_paper(cv2.resize(word.picture, (wide, tall), interpolation=cv2.INTER_AREA), 2)
            left = round(middle[0] - reach[0] - shape.shape[1] / 2)
            top = round(middle[1] - reach[1] - shape.shape[0] / 2)
            right = round(middle[0] + reach[0] + shape.shape[1] / 2)
            bottom = round(middle[1] + reach[1] + shape.shape[0] / 2)
            left, top = max(0, left), max(0, top)
            window = dark[top:bottom, left:right]
            if window.shape[0] < shape.shape[0] or window.shape[1] < shape.shape[1]:
                continue
            window = window + _small_grain(window.shape)
            scores = cv2.matchTemplate(window.astype(np.float32), shape, cv2.TM_CCOEFF_NORMED)
            _, score, _, (x, y) = cv2.minMaxLoc(scores)
            if word.name[0] == "V" and score > likeness.get(word.name, -1.0):
                score -= a_before(dark, left + x + 2, top + y + 2 + tall, tall, word.font)
            if score > likeness.get(word.name, -1.0):
                likeness[word.name] = float(score)
                printed[word.name] = word.font, float(tall)
                at[word.name] = (x0 + left + x + shape.shape[1] / 2.0, y0 + top + y + shape.shape[0] / 2.0)
    if MINUS_AVR in likeness and "aVR" in likeness:  # a trace beside a name may be its minus
        likeness[MINUS_AVR] = min(likeness[MINUS_AVR], likeness["aVR"])
    return Look(likeness=likeness, centre=at, printed=printed) if len(likeness) > 1 else None


def grain(shape: tuple[int, int]) -> NDArray[np.float32]:
    """A little noise, always the same: perfectly blank paper correlates with everything."""
    return np.random.default_rng(1).normal(0.0, _GRAIN, shape).astype(np.float32)


_small_grain = functools.lru_cache(maxsize=64)(grain)  # of windows about a label; whole sheets' would take 300 MB


def _crop(ink: Ink, left: float, top: float, right: float, bottom: float) -> NDArray[np.float32]:
    part = ink.darkness[round(top) : round(bottom), round(left) : round(right)] / max(ink.level, 1e-3)
    return np.minimum(part, 1.0).astype(np.float32)
