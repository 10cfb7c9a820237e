"""What a reader should know of a radiograph's picture before believing an estimate: contrast, clipping, size.

Findings, never refusals: a poor picture is still answered, and says so. Whether it shows a chest from the front is told
by `view`, which needs a model's average picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.prediction import Finding

LOW_CONTRAST_STD = 0.10  # of the 0..1 picture; real and phantom radiographs measure 0.2 to 0.35
CLIPPED_SHARE = 0.45  # of pixels at either end of the scale
COARSE_SIDE = 512  # pixels; fewer are enlarged to fill the picture


def picture_findings(picture: NDArray[np.float32], shape: tuple[int, ...]) -> list[Finding]:
    """Warnings about `picture`, float [512, 512] in 0..1 with air low, made of a radiograph of `shape`."""
    found = []
    if min(shape) < COARSE_SIDE:
        found.append(_warning("low_resolution", f"{shape[0]} x {shape[1]} pixels were enlarged"))
    spread = float(picture.std())
    if spread < LOW_CONTRAST_STD:
        found.append(_warning("low_contrast", f"standard deviation {spread:.3f} of full scale"))
    dark, bright = float(np.mean(picture <= 0.002)), float(np.mean(picture >= 0.998))
    if max(dark, bright) > CLIPPED_SHARE:
        found.append(_warning("clipped", f"{dark:.0%} at the dark and {bright:.0%} at the bright end"))
    return found


def _warning(code: str, detail: str) -> Finding:
    return Finding(subject="radiograph", code=code, severity="warning", detail=detail)
