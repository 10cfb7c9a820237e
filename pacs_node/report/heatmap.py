"""The nine patch values as a translucent map over the radiograph: exact at patch centres, smooth between."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.prediction import PATCH_OFFSETS, Geometry
from pacs_node.report.drawing import colour_map

SCALE_MMHG = (10.0, 50.0)
"""Ends of the colour scale. Fixed, so that pictures compare and small differences do not look large."""

OPACITY = 0.5
PATCH_CENTRES = tuple(offset + 112 for offset in PATCH_OFFSETS)
"""Middle of each patch along one side of the network's 512 pixel picture."""


def tinted(grey: NDArray[np.uint8], geometry: Geometry, patch_mpap_mmhg: tuple[float, ...]) -> NDArray[np.uint8]:
    """The radiograph as RGB with the map laid over the part that the network saw.

    Parameters
    ----------
    grey
        [rows, columns], the whole radiograph at any size.
    patch_mpap_mmhg
        Nine values, row by row.
    """
    rows, columns = grey.shape
    x = _network_position(columns, geometry.columns, geometry.left, geometry.scale_x)
    y = _network_position(rows, geometry.rows, geometry.top, geometry.scale_y)
    levels = _smooth(np.array(patch_mpap_mmhg, np.float32).reshape(3, 3), y, x)
    picture = np.repeat(grey[..., None], 3, axis=2)
    seen = _inside(y), _inside(x)
    entry = _colour_index(levels[seen]).astype(np.intp) * 256 + grey[seen]
    picture[seen] = _tints().take(entry, axis=0)
    return picture


def _inside(at: NDArray[np.float32]) -> slice:
    """Which of the rising positions `at` lie in the network's picture."""
    return slice(int(np.searchsorted(at, 0.0)), int(np.searchsorted(at, 512.0, side="right")))


@lru_cache(maxsize=1)
def _tints() -> NDArray[np.uint8]:
    """Every grey under every colour of the map, [colour * 256 + grey, 3]: looked up, a picture costs a tenth."""
    light = np.arange(256, dtype=np.float32)[None, :, None]
    # The map takes on the radiograph's light and shade, so that anatomy stays visible under it.
    shaded = colour_map()[:, None, :] * (0.35 + light * np.float32(0.65 / 255))
    return np.asarray(light + (shaded - light) * np.float32(OPACITY) + 0.5, dtype=np.uint8).reshape(-1, 3)


def scale_bar(width: int, height: int) -> NDArray[np.uint8]:
    """The colour scale [height, width, 3] from its lower to its upper end."""
    return np.repeat(colour_map()[np.linspace(0, 255, width).round().astype(int)][None], height, axis=0)


def fitted(grey: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """`grey` as large as fits into `width` x `height`, its sides in their true proportion."""
    rows, columns = grey.shape
    scale = min(width / columns, height / rows)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.LANCZOS))


def _network_position(pixels: int, source_pixels: int, start: float, scale: float) -> NDArray[np.float32]:
    """Where the middle of each of `pixels` lies in the network's picture, 0..512 inside it."""
    source = (np.arange(pixels, dtype=np.float64) + 0.5) * source_pixels / pixels
    return np.asarray((source - start) / scale, dtype=np.float32)


def _smooth(values: NDArray[np.float32], y: NDArray[np.float32], x: NDArray[np.float32]) -> NDArray[np.float32]:
    """`values` [3, 3] over the grid y, x: exact at patch centres, no overshoot, level beyond them."""
    return np.asarray(_weights(y) @ values @ _weights(x).T, dtype=np.float32)


def _weights(at: NDArray[np.float32]) -> NDArray[np.float32]:
    """Share of each of the three centres at each position [n, 3]; a smooth step between neighbours."""
    first, middle, last = PATCH_CENTRES
    to_middle = _step((at - first) / (middle - first))
    to_last = _step((at - middle) / (last - middle))
    return np.stack([1 - to_middle, to_middle - to_last, to_last], axis=1)


def _step(position: NDArray[Any]) -> NDArray[np.float32]:
    t = np.clip(position, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def _colour_index(mmhg: NDArray[np.float32]) -> NDArray[np.uint8]:
    low, high = SCALE_MMHG
    return np.asarray(np.clip((mmhg - low) / (high - low), 0, 1) * 255 + 0.5, dtype=np.uint8)
