"""Find the names of leads that a trace, a tick or a line runs into: wherever there is a V, the name around it.

Every name that tells holds a V. What is found here needs a layout to be believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ecg_ingest.ink import Ink
from ecg_ingest.printed_labels import (
    TELLING_NAMES,
    PrintedLabel,
    a_before,
    grain,
    page_fonts,
    sized,
    unspaced,
    without_overlaps,
)

_PIXELS_PER_MM = 4.5  # at which they are sought
_HEIGHTS_MM = (1.9, 2.2, 2.6, 3.0, 3.5, 4.1)
_FAMILIES = (  # fonts whose Vs are nearly one
    ("_a______.pfb+0", "Vera.ttf+0", "plotter 0.08+0.22", "_a______.pfb+0.45"),
    ("_ab_____.pfb+0", "VeraBd.ttf+0"),
    ("_er_____.pfb+0",),
    ("_eb_____.pfb+0",),
    ("com_____.pfb+0", "cob_____.pfb+0"),
)
_LEAST_TELLING, _SAME_HEIGHT = 2, 0.15  # free labels alike in height that say how the others are printed
_NEARLY = (0.93, 1.07)  # of a height, tried as well
_LEAST_DARK = 0.8  # of the trace: letters of a thinner pen are lighter
_LETTER_V = 0.55
_MOST_PLACES = 250
_PERHAPS = 0.5  # likeness of a name that is worth another size
_HIDDEN, _HIDDEN_MARGIN = 0.66, 0.04

_Found = tuple[float, int, int, tuple[int, int], str]  # likeness, left, top, height and width, font


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """What stands under traces."""

    labels: list[PrintedLabel]  # names that can be read
    perhaps: list[PrintedLabel]  # every name that a V may belong to, several at a place


def find_hidden_labels(ink: Ink, pixels_per_mm: float, free: Sequence[PrintedLabel] = ()) -> Hidden:
    """Names in the fonts and sizes of the labels that stand free, else in usual ones."""
    factor = min(1.0, _PIXELS_PER_MM / pixels_per_mm)
    dark = np.clip(ink.darkness / max(ink.level, 1e-3), _LEAST_DARK, 1.0) * ink.mask
    dark = cv2.resize(dark, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    dark = dark + grain(dark.shape)
    families, heights_mm = _usual_print(free, ink, pixels_per_mm)
    letters = [(fonts, height * pixels_per_mm * factor) for fonts in families for height in heights_mm]
    found: list[PrintedLabel] = []
    perhaps: list[PrintedLabel] = []
    for x, y, number in _places_of_v(dark, letters):
        fonts, height = letters[number]
        names = [_enlarged(label, 1.0 / factor) for label in _around_v(dark, x, y, fonts, height)]
        perhaps += [label for label in names if label.likeness >= _PERHAPS]
        found += [label for label in names[:1] if label.likeness >= _HIDDEN and label.margin >= _HIDDEN_MARGIN]
    return Hidden(labels=without_overlaps(found), perhaps=perhaps)


def _usual_print(
    free: Sequence[PrintedLabel], ink: Ink, pixels_per_mm: float
) -> tuple[Sequence[tuple[str, ...]], Sequence[float]]:
    """Families of fonts and heights (mm) in which labels are likely to be printed."""
    telling = [label for label in free if label.lead in TELLING_NAMES]
    if len(telling) < _LEAST_TELLING:
        return _FAMILIES, _HEIGHTS_MM
    height = float(np.median([label.height for label in telling])) / pixels_per_mm
    alike = [label for label in telling if abs(label.height / pixels_per_mm / height - 1.0) < _SAME_HEIGHT]
    if len(alike) < _LEAST_TELLING:
        return _FAMILIES, _HEIGHTS_MM
    return [(font,) for font in page_fonts(alike, ink)], [height]


def _places_of_v(
    dark: NDArray[np.float32], letters: Sequence[tuple[tuple[str, ...], float]]
) -> list[tuple[int, int, int]]:
    """Middles of what looks like a V, across and down, the likest first, and which font and height fits each best."""
    likest = np.full(dark.shape, -1.0, dtype=np.float32)
    which = np.zeros(dark.shape, dtype=np.uint8)
    spread, size = dark, (0, 0)
    drawn = [(number, sized("V", unspaced(fonts[0]), height)) for number, (fonts, height) in enumerate(letters)]
    for number, shape in sorted(drawn, key=lambda letter: letter[1].shape):  # those of one size share its spread
        if shape.shape[0] >= dark.shape[0] or shape.shape[1] >= dark.shape[1]:
            continue
        if shape.shape != size:
            size = shape.shape
            spread = _spread(dark, *shape.shape)
        scores = _likeness(dark, shape, spread)
        down, across = shape.shape[0] // 2, shape.shape[1] // 2
        here = (slice(down, down + scores.shape[0]), slice(across, across + scores.shape[1]))
        np.copyto(which[here], number, where=scores > likest[here])
        np.maximum(likest[here], scores, out=likest[here])
    peaks = (likest > _LETTER_V) & (likest >= cv2.dilate(likest, np.ones((5, 5), np.uint8)))
    ys, xs = np.nonzero(peaks)
    order = np.argsort(-likest[ys, xs], kind="stable")[:_MOST_PLACES]
    return [(int(xs[at]), int(ys[at]), int(which[ys[at], xs[at]])) for at in order]


def _likeness(
    dark: NDArray[np.float32], shape: NDArray[np.float32], spread: NDArray[np.float32]
) -> NDArray[np.float32]:
    """What `cv2.matchTemplate` calls TM_CCOEFF_NORMED, in half the time."""
    about_mean = shape - shape.mean()
    norm = float(np.linalg.norm(about_mean)) * float(np.sqrt(shape.size))
    scores = cv2.divide(cv2.matchTemplate(dark, about_mean, cv2.TM_CCORR), spread, scale=1.0 / norm)
    return np.asarray(scores, dtype=np.float32)


def _spread(dark: NDArray[np.float32], tall: int, wide: int) -> NDArray[np.float32]:
    """The standard deviation in every window of a size; blank paper has its grain."""
    height, width = dark.shape[0] - tall + 1, dark.shape[1] - wide + 1
    mean, square = (
        np.asarray(blurred(dark, cv2.CV_32F, (wide, tall), anchor=(0, 0))[:height, :width], dtype=np.float32)
        for blurred in (cv2.boxFilter, cv2.sqrBoxFilter)
    )
    square -= mean * mean
    np.sqrt(np.maximum(square, 1e-6, out=square), out=square)
    return square


def _around_v(dark: NDArray[np.float32], x: int, y: int, fonts: Sequence[str], height: float) -> list[PrintedLabel]:
    """The names whose V may stand here, the likest first; a margin is over every other name, below 0 but for one."""
    best: dict[str, _Found] = {}
    for font in fonts:
        _try(best, dark, x, y, font, height)
    if len(best) < 2:
        return []
    likest = max(best.values())
    if likest[0] < _PERHAPS:
        return []
    for factor in _NEARLY:
        _try(best, dark, x, y, likest[4], height * factor)
    ordered = sorted(best.items(), key=lambda item: -item[1][0])
    first, second = ordered[0][1][0], ordered[1][1][0]
    return [
        PrintedLabel(
            lead=name,
            free=False,
            left=float(left + 1),
            top=float(top + 1),
            right=float(left + wide - 1),
            bottom=float(top + tall - 1),
            likeness=score,
            margin=score - (second if rank == 0 else first),
            font=font,
        )
        for rank, (name, (score, left, top, (tall, wide), font)) in enumerate(ordered)
    ]


def _try(best: dict[str, _Found], dark: NDArray[np.float32], x: int, y: int, font: str, height: float) -> None:
    """Every name in one font and height about a V; what is likelier than before is kept in `best`."""
    for name in TELLING_NAMES[:9]:
        shape = sized(name, font, height)
        # V leads the chest leads' names and stands in the middle of the others: at most a letter away.
        centre = x + (0.5 * shape.shape[1] - 0.38 * height if name[0] == "V" else 0.0)
        left = round(centre - shape.shape[1] / 2.0 - 0.3 * height) - 2
        top = round(y - shape.shape[0] / 2.0) - 2
        right, bottom = left + shape.shape[1] + round(0.6 * height) + 4, top + shape.shape[0] + 4
        if left < 0 or top < 0 or right > dark.shape[1] or bottom > dark.shape[0]:
            continue
        scores = cv2.matchTemplate(dark[top:bottom, left:right], shape, cv2.TM_CCOEFF_NORMED)
        _, score, _, (dx, dy) = cv2.minMaxLoc(scores)
        if name[0] == "V" and score > best.get(name, (-1.0,))[0]:
            score -= a_before(dark, left + dx, top + dy + shape.shape[0], height, font)
        if score > best.get(name, (-1.0,))[0]:
            best[name] = (float(score), left + dx, top + dy, shape.shape[:2], font)


def _enlarged(label: PrintedLabel, factor: float) -> PrintedLabel:
    return replace(
        label,
        left=label.left * factor,
        top=label.top * factor,
        right=label.right * factor,
        bottom=label.bottom * factor,
    )
