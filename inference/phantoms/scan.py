"""Lay a drawn ECG page on a scanner: pixels of a slightly turned, unevenly lit, grainy sheet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

DOTS_PER_INCH = 150


def scan_sheet(pdf: bytes, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The first page of `pdf` as a flatbed scanner gives it, uint8 [rows, columns, 3].

    Turned by half a degree or so, darker towards one side, out of focus by a fraction of a pixel, with grain.
    """
    import pypdfium2

    document = pypdfium2.PdfDocument(pdf)
    try:
        page = document[0].render(scale=DOTS_PER_INCH / 72.0).to_pil().convert("RGB")
    finally:
        document.close()
    turned = page.rotate(float(rng.normal(0.0, 0.4)), Image.Resampling.BICUBIC, fillcolor=(250, 250, 248))
    seen = np.asarray(turned.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 0.7)))), dtype=np.float32)
    rows, columns = seen.shape[:2]
    falloff = 1.0 - float(rng.uniform(0.0, 0.06)) * np.linspace(0.0, 1.0, columns, dtype=np.float32)[None, :, None]
    grain = rng.normal(0.0, float(rng.uniform(1.0, 3.0)), (rows, columns, 1)).astype(np.float32)
    return np.clip(np.rint(seen * falloff + grain), 0, 255).astype(np.uint8)
