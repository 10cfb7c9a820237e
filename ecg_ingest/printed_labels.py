"""Find the printed names of leads in a picture's ink by their shapes: no character recognition, no weights.

Finds words that stand free; `confirm` looks again where a layout says that a label must be, even if the
trace runs through it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ecg_ingest.glyphs import NAMES, shapes, vector
from ecg_ingest.ink import Ink

_LEAST_HEIGHT_MM, _MOST_HEIGHT_MM = 1.1, 6.5
_MOST_WIDTH_MM = 16.0
_GAPS = (0.45, 1.25)  # of the letters' height: between letters that touch no other word
_LEAST_LIKENESS = 0.72
_LEAST_MARGIN = 0.035  # to the next other name
_ASPECT_COST = 1.1
_MOST_PIECES = 1500
_MOST_ASPECT = 4.5  # width over height of a name, letters spaced

_HIDDEN_PIXELS_PER_MM = 4.5  # at which labels under a trace are sought
_HIDDEN_HEIGHTS_MM = (1.9, 2.2, 2.6, 3.0, 3.5, 4.1)
_HIDDEN_FONTS = (
    "_a______.pfb+0",
    "_ab_____.pfb+0",
    "_er_____.pfb+0",
    "_eb_____.pfb+0",
    "plotter 0.08+0.22",
    "_a______.pfb+0.45",
)
_LEAST_TELLING, _SAME_HEIGHT = 2, 0.15  # free labels alike in height that say how the others are printed
_LETTER_V = 0.62
_MOST_PLACES = 250
_HIDDEN, _HIDDEN_MARGIN = 0.7, 0.05
_A_LIKENESS, _A_COST = 0.45, 1.0
_GRAIN = 0.04
_AROUND = 6.0  # of a label's height: what a second look and the letter before a V need about a place

TELLING_NAMES = tuple(name for name in NAMES if name not in ("I", "II", "III"))
"""Names that no stroke of a trace, tick or grid line looks like. I, II and III are proved by their signals."""


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

    @property
    def centre(self) -> tuple[float, float]:
        """Across and down."""
        return (self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0

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
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(ink.mask.astype(np.uint8), connectivity=8)
    pieces = _pieces(np.asarray(stats[1:count], dtype=np.int32), pixels_per_mm)
    if len(pieces) > _MOST_PIECES:
        return []  # a grid in pieces, not letters
    candidates = {candidate.numbers: candidate for candidate in _candidates(pieces, pixels_per_mm)}
    words = [word for word in candidates.values() if word.width <= _MOST_ASPECT * word.height]
    return _without_overlaps(_named(words, ink, np.asarray(numbers, dtype=np.int32)))


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


def _chains(pieces: list[_Piece], gap: float) -> list[list[_Piece]]:
    """Pieces grouped into words: each starts to the right of the last, at the same height, within a gap."""
    ordered = sorted(pieces, key=lambda piece: piece.left)
    chains: list[list[_Piece]] = []
    open_chains: list[list[_Piece]] = []
    for piece in ordered:
        best: list[_Piece] | None = None
        still_open = []
        for chain in open_chains:
            height = max(item.height for item in chain)
            right = max(item.right for item in chain)
            if piece.left - right > 1.5 * gap * height + 20:
                continue
            still_open.append(chain)
            overlap = min(piece.bottom, max(i.bottom for i in chain)) - max(piece.top, min(i.top for i in chain))
            near = piece.left - right <= gap * max(height, piece.height)
            if (
                near
                and overlap > 0.55 * min(height, piece.height)
                and max(height, piece.height) < 2.4 * min(height, piece.height)
            ):
                best = chain
        open_chains = still_open
        if best is None:
            best = []
            chains.append(best)
            open_chains.append(best)
        best.append(piece)
    return [chain for chain in chains if len(chain) <= 8]


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


def _without_overlaps(labels: list[PrintedLabel]) -> list[PrintedLabel]:
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


def find_hidden_labels(ink: Ink, pixels_per_mm: float, free: Sequence[PrintedLabel] = ()) -> list[PrintedLabel]:
    """Labels that a trace, a tick or a line runs into: wherever there is a V, the name around it.

    Every name that tells holds a V. Sought in the fonts and sizes of the labels that stand free, else in a few
    usual ones; what is found here needs a layout to be believed.
    """
    factor = min(1.0, _HIDDEN_PIXELS_PER_MM / pixels_per_mm)
    dark = np.minimum(ink.darkness * ink.mask / max(ink.level, 1e-3), 1.0).astype(np.float32)
    dark = cv2.resize(dark, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    scale = pixels_per_mm * factor
    dark = dark + _grain(dark.shape)
    places: list[tuple[float, float, float, str, float]] = []  # likeness, middle of the V, font, height
    fonts, heights_mm = _usual_print(free, ink, pixels_per_mm)
    for font in fonts:
        letter = shapes().by_name["V", _unspaced(font)]
        for millimetres in heights_mm:
            size = millimetres * scale
            shape = _sized(letter.picture, size)
            if shape.shape[0] >= dark.shape[0] or shape.shape[1] >= dark.shape[1]:
                continue
            scores = cv2.matchTemplate(dark, shape, cv2.TM_CCOEFF_NORMED)
            peaks = (scores > _LETTER_V) & (scores >= cv2.dilate(scores, np.ones((5, 5), np.uint8)))
            for y, x in np.argwhere(peaks).tolist():
                middle = (x + shape.shape[1] / 2.0, y + shape.shape[0] / 2.0)
                places.append((float(scores[y, x]), *middle, font, size))
    places.sort(key=lambda place: -place[0])
    found = []
    for _, across, down, font, height in places[:_MOST_PLACES]:
        label = _around_v(dark, across, down, font, height)
        if label is not None:
            found.append(label)
    return _without_overlaps([_enlarged(label, 1.0 / factor) for label in found])


def _usual_print(free: Sequence[PrintedLabel], ink: Ink, pixels_per_mm: float) -> tuple[Sequence[str], Sequence[float]]:
    """Fonts and heights (mm) in which labels are likely to be printed."""
    telling = [label for label in free if label.lead in TELLING_NAMES]
    if len(telling) < _LEAST_TELLING:
        return _HIDDEN_FONTS, _HIDDEN_HEIGHTS_MM
    height = float(np.median([label.height for label in telling])) / pixels_per_mm
    alike = [label for label in telling if abs(label.height / pixels_per_mm / height - 1.0) < _SAME_HEIGHT]
    if len(alike) < _LEAST_TELLING:
        return _HIDDEN_FONTS, _HIDDEN_HEIGHTS_MM
    return page_fonts(alike, ink), tuple(height * factor for factor in (0.93, 1.0, 1.07))


def _unspaced(font: str) -> str:
    """The font of a single letter."""
    return font.replace("+0.45", "+0")


def _around_v(dark: NDArray[np.float32], x: float, y: float, font: str, height: float) -> PrintedLabel | None:
    """The name whose V stands here."""
    best: dict[str, tuple[float, float, float]] = {}
    sizes = {}
    for name in TELLING_NAMES[:9]:
        shape = _sized(shapes().by_name[name, font].picture, height)
        sizes[name] = shape.shape
        # V leads the chest leads' names and stands in the middle of the others: at most a letter away.
        centre = x + (0.5 * shape.shape[1] - 0.38 * height if name[0] == "V" else 0.0)
        left = round(centre - shape.shape[1] / 2.0 - 0.3 * height) - 2
        top = round(y - shape.shape[0] / 2.0) - 2
        right, bottom = left + shape.shape[1] + round(0.6 * height) + 4, top + shape.shape[0] + 4
        if left < 0 or top < 0 or right > dark.shape[1] or bottom > dark.shape[0]:
            continue
        scores = cv2.matchTemplate(dark[top:bottom, left:right], shape, cv2.TM_CCOEFF_NORMED)
        _, score, _, (dx, dy) = cv2.minMaxLoc(scores)
        if name[0] == "V":
            score -= _a_before(dark, left + dx, top + dy + shape.shape[0], height, font)
        best[name] = (score, left + dx, top + dy)
    if len(best) < 2:
        return None
    ordered = sorted(best.items(), key=lambda item: -item[1][0])
    name, (score, left, top) = ordered[0]
    margin = score - ordered[1][1][0]
    if score < _HIDDEN or margin < _HIDDEN_MARGIN:
        return None
    tall, wide = sizes[name]
    return PrintedLabel(
        lead=name,
        free=False,
        left=float(left + 1),
        top=float(top + 1),
        right=float(left + wide - 1),
        bottom=float(top + tall - 1),
        likeness=score,
        margin=margin,
        font=font,
    )


def _a_before(dark: NDArray[np.float32], left: float, bottom: float, height: float, font: str) -> float:
    """What to take off a chest lead's likeness because an a stands before its V: that is aVR, aVL or aVF."""
    letter = _sized(shapes().by_name["a", _unspaced(font)].picture, 0.75 * height)
    x0, x1 = max(0, round(left - 1.5 * height)), max(0, round(left + 0.25 * height))
    y0, y1 = max(0, round(bottom - 1.15 * height)), round(bottom + 0.2 * height)
    window = dark[y0:y1, x0:x1]
    if window.shape[0] < letter.shape[0] or window.shape[1] < letter.shape[1]:
        return 0.0
    likeness = float(cv2.matchTemplate(window, letter, cv2.TM_CCOEFF_NORMED).max())
    return _A_COST * max(0.0, likeness - _A_LIKENESS)


def _sized(picture: NDArray[np.float32], height: float) -> NDArray[np.float32]:
    """A word's picture at a height in pixels, with a pixel of paper around it."""
    tall = max(5, round(height))
    wide = max(2, round(height * picture.shape[1] / picture.shape[0]))
    return np.pad(cv2.resize(picture, (wide, tall), interpolation=cv2.INTER_AREA), 1).astype(np.float32)


def _enlarged(label: PrintedLabel, factor: float) -> PrintedLabel:
    return replace(
        label,
        left=label.left * factor,
        top=label.top * factor,
        right=label.right * factor,
        bottom=label.bottom * factor,
    )


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a second look at a place found: how much it looks like each name there, and where."""

    likeness: dict[str, float]
    centre: dict[str, tuple[float, float]]

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
    for word in shapes().words:
        if word.font not in fonts or word.name not in TELLING_NAMES:
            continue
        for factor in (0.92, 1.0, 1.08):
            tall = max(5, round(height * factor))
            wide = max(2, round(tall * word.aspect))
            shape = np.pad(cv2.resize(word.picture, (wide, tall), interpolation=cv2.INTER_AREA), 2)
            left = round(middle[0] - reach[0] - shape.shape[1] / 2)
            top = round(middle[1] - reach[1] - shape.shape[0] / 2)
            right = round(middle[0] + reach[0] + shape.shape[1] / 2)
            bottom = round(middle[1] + reach[1] + shape.shape[0] / 2)
            left, top = max(0, left), max(0, top)
            window = dark[top:bottom, left:right]
            if window.shape[0] < shape.shape[0] or window.shape[1] < shape.shape[1]:
                continue
            window = window + _grain(window.shape)
            scores = cv2.matchTemplate(window.astype(np.float32), shape.astype(np.float32), cv2.TM_CCOEFF_NORMED)
            _, score, _, (x, y) = cv2.minMaxLoc(scores)
            if word.name[0] == "V" and score > likeness.get(word.name, -1.0):
                score -= _a_before(dark, left + x + 2, top + y + 2 + tall, tall, word.font)
            if score > likeness.get(word.name, -1.0):
                likeness[word.name] = float(score)
                at[word.name] = (x0 + left + x + shape.shape[1] / 2.0, y0 + top + y + shape.shape[0] / 2.0)
    return Look(likeness=likeness, centre=at) if len(likeness) > 1 else None


@functools.cache
def _grain(shape: tuple[int, int]) -> NDArray[np.float32]:
    """A little noise, always the same: perfectly blank paper correlates with everything."""
    return np.random.default_rng(1).normal(0.0, _GRAIN, shape).astype(np.float32)


def _crop(ink: Ink, left: float, top: float, right: float, bottom: float) -> NDArray[np.float32]:
    part = ink.darkness[round(top) : round(bottom), round(left) : round(right)] / max(ink.level, 1e-3)
    return np.minimum(part, 1.0).astype(np.float32)
