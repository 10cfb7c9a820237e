"""Ink of another colour than the traces': handwriting over a sheet, which a line would otherwise be led along.

Pure: arrays in, arrays out.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_PAPER_EVERY = 4  # pixels looked at for the paper's colour
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
    rows, columns = np.nonzero(mask)
    if rows.size == 0:
        return marks
    paper = np.median(rgb[::_PAPER_EVERY, ::_PAPER_EVERY].reshape(-1, 3), axis=0)
    kept = rgb[rows, columns] / np.maximum(paper, 1.0).astype(np.float32)
    darkest = np.maximum(1.0 - kept.min(axis=1), 1e-3)
    colour = 1.0 - np.clip(1.0 - kept.max(axis=1), 0.0, None) / darkest
    dark = darkness[rows, columns] >= sure
    if not dark.any():
        return marks
    limit = max(_LEAST_COLOUR, float(np.median(colour[dark])) + _MORE_COLOUR)
    own = np.zeros(mask.shape, dtype=np.uint8)
    plain = dark & (colour <= limit)
    own[rows[plain], columns[plain]] = 1
    coloured = colour > limit
    marks[rows[coloured], columns[coloured]] = True
    marks &= cv2.dilate(own, np.ones((3, 3), np.uint8)) == 0
    return marks
