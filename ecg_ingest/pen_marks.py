"""Ink of another colour than the traces': handwriting over a sheet, which a line would otherwise be led along.

A stamp is paler than ink, and what is dark under one is a trace: that stays.

Pure: arrays in, arrays out.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_PAPER_EVERY = 4  # pixels looked at for the paper's colour
_LEAST_PIECE, _AROUND = 6, 4  # pixels: of a mark, and about it
_PALE_COLOUR, _STAMPED = 0.22, 0.3  # between the channels of a stamp on paper; share of what is about a piece
_LEAST_COLOUR, _MORE_COLOUR = 0.35, 0.22  # at all; than the traces have


def pen_marks(
    rgb: NDArray[np.uint8], darkness: NDArray[np.float32], mask: NDArray[np.bool_], sure: float
) -> NDArray[np.bool_]:
    """Which pixels of ink are clearly more coloured than most ink, and beside none that is not.

    Colour is by how much of what the darkest channel loses the brightest keeps: 0 for black and grey.

    Parameters
    ----------
    rgb : uint8 array [height, width, 3]
        The sheet.
    darkness : float32 array [height, width]
        Of its brightest channel.
    mask : bool array [height, width]
        Where there is ink.
    sure : float
        The darkness of what surely is ink.
    """
    marks = np.zeros_like(mask)
    inked = np.flatnonzero(mask)
    if inked.size == 0:
        return marks
    paper = _usual_colour(rgb)
    kept = (channel / np.float32(max(usual, 1.0)) for channel, usual in zip(_channels(rgb, inked), paper, strict=True))
    red, green, blue = kept
    darkest = np.maximum(1.0 - np.minimum(np.minimum(red, green), blue), 1e-3)
    colour = 1.0 - np.clip(1.0 - np.maximum(np.maximum(red, green), blue), 0.0, None) / darkest
    dark = darkness.ravel()[inked] >= sure
    if not dark.any():
        return marks
    limit = max(_LEAST_COLOUR, float(np.median(colour[dark])) + _MORE_COLOUR)
    coloured = colour > limit
    if not coloured.any():
        return marks
    marks.ravel()[inked[coloured]] = True
    own = np.zeros(mask.shape, dtype=np.uint8)
    own.ravel()[inked[dark & ~coloured]] = 1
    marks &= cv2.dilate(own, np.ones((3, 3), np.uint8)) == 0
    if marks.any():
        _keep_under_stamps(marks, rgb, mask, paper)
    return marks


def _channels(rgb: NDArray[np.uint8], places: NDArray[np.intp]) -> list[NDArray[np.uint8]]:
    """Red, green and blue of some pixels."""
    some = rgb.reshape(-1, 3)[places]
    return [np.ascontiguousarray(some[:, channel]) for channel in range(3)]


def _usual_colour(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The paper's: the median of each channel."""
    some = np.ascontiguousarray(rgb[::_PAPER_EVERY, ::_PAPER_EVERY]).reshape(-1, 3)
    middle = [(some.shape[0] - 1) // 2, some.shape[0] // 2]
    medians = []
    for channel in range(3):
        total = np.cumsum(np.bincount(some[:, channel], minlength=256))
        medians.append(float(np.searchsorted(total, middle, side="right").mean()))
    return np.array(medians)


def _keep_under_stamps(
    marks: NDArray[np.bool_], rgb: NDArray[np.uint8], mask: NDArray[np.bool_], paper: NDArray[np.float64]
) -> None:
    """Take from the marks what lies amid a pale colour that is no ink by itself: a trace under a stamp."""
    _, numbers, stats, _ = cv2.connectedComponentsWithStats(marks.astype(np.uint8), connectivity=8)
    for number in np.flatnonzero(stats[:, cv2.CC_STAT_AREA] >= _LEAST_PIECE)[1:].tolist():
        left, top, wide, tall = stats[number, :4].tolist()
        around = (
            slice(max(0, top - _AROUND), top + tall + _AROUND),
            slice(max(0, left - _AROUND), left + wide + _AROUND),
        )
        piece = numbers[around] == number
        near = cv2.dilate(piece.astype(np.uint8), np.ones((2 * _AROUND + 1, 2 * _AROUND + 1), np.uint8)) > 0
        near &= cv2.dilate(mask[around].astype(np.uint8), np.ones((3, 3), np.uint8)) == 0
        kept = rgb[around][near] / np.maximum(paper, 1.0)
        pale = kept.max(axis=1) - kept.min(axis=1) > _PALE_COLOUR if kept.size else np.zeros(0)
        if pale.size and float(pale.mean()) > _STAMPED:
            marks[around][piece] = False
