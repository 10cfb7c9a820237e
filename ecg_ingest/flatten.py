"""A picture of a sheet laid flat: upright, level, at one number of pixels a millimetre, with the way back.

Quarter turns, tilt and scale in one affine map; every place found on the flat sheet can be told in pixels
of the picture that was given.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ecg_ingest.paper_grid import GridScale, grid_scales, tilt_degrees, tint, turn, without_ink
from ecg_ingest.unbend import Bend, Straightened, find_bend, straighten

BASE_SIDE = 2600  # pixels: a sheet 300 mm wide keeps 8 a millimetre
LEAST_WORK, MOST_WORK = 5.0, 8.0  # pixels a millimetre of the flat sheet
_GRID_SIDE = 1600  # pixels: 5 a millimetre show every line of a grid
_CLEAR_GRID = 0.5  # share of the pattern that a flat sheet's grid explains
_BENDS_TRIED = 3
_MOST_RESIDUAL_MM, _LESS = 0.7, 0.6  # what may be left of a bend, and against straight lines

_Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Flat:
    """A level sheet."""

    width: int
    height: int
    pixels_per_mm: float  # across and down alike
    to_picture: _Matrix  # [3, 3] from its pixels to the given picture's
    source_pixels_per_mm: float  # of the given picture
    straightened: Straightened | None = None  # what `to_picture` leads to, where the paper was bent
    doubtful: bool = False  # whether the labels must prove that time runs evenly
    base_to_picture: _Matrix = field(default_factory=lambda: np.eye(3))  # from there on

    def box(self, left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
        """The upright rectangle in the given picture that holds a rectangle of the flat sheet best.

        Turned by a tilt, a rectangle's corners would span more than it covers: its mid-sides do not.
        """
        middle_x, middle_y = (left + right) / 2.0, (top + bottom) / 2.0
        sides = np.array([[left, middle_y, 1.0], [right, middle_y, 1.0], [middle_x, top, 1.0], [middle_x, bottom, 1.0]])
        places = (self.to_picture @ sides.T)[:2]
        if self.straightened is not None:
            bent = self.straightened.places(places.T)
            places = (self.base_to_picture @ np.vstack((bent.T, np.ones(4))))[:2]
        (x0, y0), (x1, y1) = places.min(axis=1).tolist(), places.max(axis=1).tolist()
        return x0, y0, x1, y1


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A picture with its tilt and the possible readings of its grid."""

    rgb: NDArray[np.uint8]
    to_picture: _Matrix
    tilt: float
    scales: tuple[GridScale, ...]
    straightened: Straightened | None = None
    doubtful: bool = False
    base_to_picture: _Matrix = field(default_factory=lambda: np.eye(3))


def read_paper(picture: NDArray[np.uint8], *, as_it_lies: bool = False) -> Paper:
    """Make a picture of workable size, and look for its grid on a smaller copy.

    Parameters
    ----------
    picture : uint8 array [height, width, 3]
        RGB.
    as_it_lies : bool
        Take the paper for flat, though its grid may not seem so: a faint grid, or one in grain, misleads.
    """
    base = _reduced(picture, BASE_SIDE)
    back = _scaled(picture.shape[1] / base.shape[1], picture.shape[0] / base.shape[0])
    small = _reduced(base, _GRID_SIDE)
    enlarged = base.shape[1] / small.shape[1], base.shape[0] / small.shape[0]
    pattern = tint(small)
    tilt = tilt_degrees(pattern)
    scales = tuple(
        GridScale(across=scale.across * enlarged[0], down=scale.down * enlarged[1], score=scale.score)
        for scale in grid_scales(turn(pattern, tilt))
    )
    paper = Paper(rgb=base, to_picture=back, tilt=tilt, scales=scales, doubtful=as_it_lies)
    return paper if as_it_lies else _unbent(paper)


def _reduced(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    factor = min(1.0, side / max(picture.shape))
    if factor == 1.0:
        return picture
    return np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _unbent(paper: Paper) -> Paper:
    """The paper redrawn flat where its grid shows that it is bent, and can be believed; else in doubt unless flat."""
    if not paper.scales or paper.scales[0].score > _CLEAR_GRID:
        return paper
    pattern = without_ink(tint(paper.rgb), paper.rgb)
    best: tuple[Bend, GridScale] | None = None
    for scale in paper.scales[:_BENDS_TRIED]:
        bend = find_bend(pattern, paper.tilt, scale)
        if bend is not None and bend.is_flat:  # by a grid other than the likeliest it may be chance
            return paper if scale is paper.scales[0] else replace(paper, doubtful=True)
        if bend is None or bend.residual_mm > min(_MOST_RESIDUAL_MM, _LESS * bend.straight_mm):
            continue
        if best is None or bend.residual_mm < _LESS * best[0].residual_mm:
            best = bend, scale
    if best is None:
        return replace(paper, doubtful=True)
    bend, scale = best
    straight = straighten(paper.rgb, bend, scale.mean)
    if straight is None:
        return replace(paper, doubtful=True)
    return Paper(
        rgb=straight.rgb,
        to_picture=np.eye(3),
        tilt=0.0,
        scales=(GridScale(across=scale.mean, down=scale.mean, score=1.0),),
        straightened=straight,
        doubtful=True,
        base_to_picture=paper.to_picture,
    )


def lay_flat(paper: Paper, scale: GridScale) -> tuple[NDArray[np.uint8], Flat]:
    """The sheet level and square, at 5 to 8 pixels a millimetre: its pixels, and the way back."""
    work = float(np.clip(scale.mean, LEAST_WORK, MOST_WORK))
    height, width = paper.rgb.shape[:2]
    level = np.vstack((cv2.getRotationMatrix2D((width / 2.0, height / 2.0), paper.tilt, 1.0), [0.0, 0.0, 1.0]))
    corners = level @ np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]], dtype=np.float64)
    left, top = corners[:2].min(axis=1)
    right, bottom = corners[:2].max(axis=1)
    stretch = _scaled(work / scale.across, work / scale.down)
    forward = stretch @ np.array([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]]) @ level
    size = (max(1, round((right - left) * work / scale.across)), max(1, round((bottom - top) * work / scale.down)))
    shrinking = work < 0.9 * scale.mean
    source = cv2.GaussianBlur(paper.rgb, (0, 0), 0.35 * scale.mean / work) if shrinking else paper.rgb
    edge = np.concatenate((paper.rgb[0], paper.rgb[-1], paper.rgb[:, 0], paper.rgb[:, -1]))
    pixels = cv2.warpAffine(
        source,
        forward[:2],
        size,
        flags=cv2.INTER_LINEAR if shrinking else cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=[float(value) for value in np.median(edge, axis=0)],
    )
    back = paper.to_picture @ np.linalg.inv(forward)
    enlarged = float(np.sqrt(abs(np.linalg.det((paper.base_to_picture @ back)[:2, :2]))))
    flat = Flat(
        width=size[0],
        height=size[1],
        pixels_per_mm=work,
        to_picture=back,
        source_pixels_per_mm=work * enlarged,
        straightened=paper.straightened,
        doubtful=paper.doubtful,
        base_to_picture=paper.base_to_picture,
    )
    return np.asarray(pixels, dtype=np.uint8), flat


def turned(flat: Flat, quarter_turns: int) -> Flat:
    """The same sheet turned clockwise by quarter turns."""
    if quarter_turns % 4 == 0:
        return flat
    sideways = quarter_turns % 2 == 1
    return replace(
        flat,
        width=flat.height if sideways else flat.width,
        height=flat.width if sideways else flat.height,
        to_picture=flat.to_picture @ _unturned(quarter_turns, flat.height, flat.width),
    )


def _scaled(across: float, down: float) -> _Matrix:
    return np.diag([across, down, 1.0])


def _unturned(quarter_turns: int, height: int, width: int) -> _Matrix:
    """From pixels of a picture turned clockwise to those of the picture itself (`height`, `width` its own)."""
    matrices = {
        0: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        1: [[0, 1, 0], [-1, 0, height], [0, 0, 1]],
        2: [[-1, 0, width], [0, -1, height], [0, 0, 1]],
        3: [[0, -1, width], [1, 0, 0], [0, 0, 1]],
    }
    return np.array(matrices[quarter_turns % 4], dtype=np.float64)
