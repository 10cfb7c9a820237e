"""How paper is bent in a picture, from its grid: every pixel's place on the sheet in millimetres.

The grid is a carrier wave. Its local frequency gives a smooth map of the sheet, its phase corrects the map.
Pure: a pattern in, a map out, and how well the grid agrees with it; what to believe is the caller's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ecg_ingest.paper_grid import GridScale

_SIDE = 1100  # pixels: at which the grid is looked at
_LEAST_PERIOD = 3.0  # pixels from line to line
_PERIODS = 9.0  # in a window
_WINDOWS = (11, 7)  # across and down (the longer side first)
_FREQUENCY_RANGE = (0.72, 1.38)  # of the expected one
_ANGLE = 0.32  # radians that lines may lean beyond the sheet's tilt
_CLEAR = 4.0  # peak over the window's usual power at that frequency
_LEAST_CLEAR = 0.35  # share of windows whose grid is clear
_BLUR_PERIODS = 1.3
_COARSE_PERIOD = 4.0  # pixels: enough for a wave that was slowed down to nearly nothing
_MESH = 8  # pixels
_RIDGE = 1e-5
_FLAT_MM = 0.5  # root mean square by which a flat sheet's grid may differ from straight lines
_MESH_MM = 3.0
_STRIP = 128  # rows of pixels that are redrawn at once
_MOST_STRETCH = 1.5  # of the size that the picture would have flat
_WEAK = 0.25  # of the usual strength of the grid: a place where it is not seen


@dataclass(frozen=True, kw_only=True)
class Bend:
    """A smooth map from a picture to the sheet on it, [x, y] pixels to millimetres."""

    across: NDArray[np.float64]  # polynomial coefficients
    down: NDArray[np.float64]
    degree: int
    centre: tuple[float, float]
    size: float  # pixels that are 1 in the polynomials
    residual_mm: float  # root mean square between the grid and the map
    straight_mm: float  # the same for the best straight grid

    @property
    def is_flat(self) -> bool:
        """Whether straight lines say it as well."""
        return self.straight_mm <= _FLAT_MM

    def millimetres(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places in the picture [n, 2] to places on the sheet [n, 2]."""
        terms = _terms(self._unit(places), self.degree)
        return np.stack((terms @ self.across, terms @ self.down), axis=1)

    def pixels(self, places: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places on the sheet [n, 2] to the picture [n, 2], by Newton's method from `start`."""
        found = start.copy()
        for _ in range(12):
            unit = self._unit(found)
            missing = places - self.millimetres(found)
            dx, dy = _slopes(unit, self.degree)
            a, b = dx @ self.across / self.size, dy @ self.across / self.size
            c, d = dx @ self.down / self.size, dy @ self.down / self.size
            determinant = a * d - b * c
            determinant = np.where(np.abs(determinant) < 1e-6, 1e-6, determinant)
            step = np.stack(((d * missing[:, 0] - b * missing[:, 1]), (a * missing[:, 1] - c * missing[:, 0])), axis=1)
            step /= determinant[:, None]
            found += np.clip(step, -0.2 * self.size, 0.2 * self.size)
            if float(np.abs(step).max()) < 0.01:
                break
        return found

    def _unit(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        return (places - np.array(self.centre)) / self.size


def find_bend(pattern: NDArray[np.float32], tilt: float, scale: GridScale) -> Bend | None:
    """The map under which the grid's lines are straight and evenly spaced; None where the grid is too faint.

    Parameters
    ----------
    pattern : float32 array [height, width]
        From `paper_grid.tint`.
    tilt : float
        Degrees, from `paper_grid.tilt_degrees`.
    scale : GridScale
        A reading of the grid, in pixels of the pattern.
    """
    height, width = pattern.shape
    factor = min(1.0, _SIDE / max(height, width))
    small = cv2.resize(pattern, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1.0 else pattern
    small = small - np.float32(small.mean())
    best: Bend | None = None
    for every in (5.0, 1.0):
        period = every * scale.mean * factor
        if period < _LEAST_PERIOD:
            continue
        bend = _bend(small, np.deg2rad(tilt), period, every, factor)
        if bend is not None and (best is None or bend.residual_mm < best.residual_mm):
            best = bend
        if best is not None:
            break
    return best


class _Window(NamedTuple):
    """What one part of the picture says of one set of lines."""

    place: tuple[float, float]
    wave: tuple[float, float]  # cycles a pixel, across and down
    weight: float


def _bend(pattern: NDArray[np.float32], tilt: float, period: float, every: float, factor: float) -> Bend | None:
    height, width = pattern.shape
    centre = (width / 2.0, height / 2.0)
    size = max(height, width) / 2.0
    upright, level = _windows(pattern, tilt, period)
    counts = []
    for windows in (upright, level):
        clear = [window for window in windows if window.weight > 0.0]
        if len(clear) < _LEAST_CLEAR * len(windows) or len(clear) < 8:
            return None
        counts.append(_from_waves(clear, centre, size))
    straight = [_by_phase(pattern, count, 3, 1, centre, size, period) for count in counts]
    straight_mm = max(residual for _, residual in straight) * every
    degree, maps = 1, straight
    if straight_mm > _FLAT_MM:
        degree, maps = 5, [_by_phase(pattern, count, 3, 5, centre, size, period) for count in counts]
    (across, one), (down, other) = maps
    return Bend(
        across=across * every,
        down=down * every,
        degree=degree,
        centre=(centre[0] / factor, centre[1] / factor),
        size=size / factor,
        residual_mm=float(np.hypot(one, other) / np.sqrt(2.0) * every),
        straight_mm=float(straight_mm),
    )


def _windows(pattern: NDArray[np.float32], tilt: float, period: float) -> tuple[list[_Window], list[_Window]]:
    """The local frequency of upright and of level lines, over the picture."""
    height, width = pattern.shape
    side = int(np.clip(round(_PERIODS * period), 48, min(height, width)))
    side -= side % 2
    many, few = _WINDOWS
    columns, rows = (many, few) if width >= height else (few, many)
    taper = np.outer(np.hanning(side), np.hanning(side)).astype(np.float32)
    padded = 256 if side <= 200 else 512
    fy = np.fft.fftfreq(padded).astype(np.float64)[:, None]
    fx = np.fft.rfftfreq(padded).astype(np.float64)[None, :]
    upright: list[_Window] = []
    level: list[_Window] = []
    for top in np.linspace(0, height - side, rows).astype(int).tolist():
        for left in np.linspace(0, width - side, columns).astype(int).tolist():
            part = pattern[top : top + side, left : left + side]
            power = np.abs(np.fft.rfft2(part * taper, (padded, padded))) ** 2
            place = (left + side / 2.0, top + side / 2.0)
            for found, towards in ((upright, -tilt), (level, np.pi / 2.0 - tilt)):
                found.append(_window(power, fx, fy, place, 1.0 / period, towards))
    return upright, level


def _window(
    power: NDArray[np.float32],
    fx: NDArray[np.float64],
    fy: NDArray[np.float64],
    place: tuple[float, float],
    frequency: float,
    towards: float,
) -> _Window:
    """The strongest wave near a frequency and a direction."""
    cosine, sine = np.cos(towards), np.sin(towards)
    along, beside = fx * cosine + fy * sine, fy * cosine - fx * sine
    radius = np.hypot(fx, fy)
    ring = (radius > _FREQUENCY_RANGE[0] * frequency) & (radius < _FREQUENCY_RANGE[1] * frequency)
    near = ring & (np.abs(beside) < np.tan(_ANGLE) * np.abs(along))
    if not near.any():
        return _Window(place, (0.0, 0.0), 0.0)
    masked = np.where(near, power, 0.0)
    row, column = np.unravel_index(int(np.argmax(masked)), power.shape)
    peak = float(power[row, column])
    usual = float(np.mean(power[ring])) + 1e-12
    inside = 0 < column < power.shape[1] - 1
    x = fx[0, column] + (_between(power[row, column - 1 : column + 2]) * fx[0, 1] if inside else 0.0)
    above, below = power[(row - 1) % power.shape[0], column], power[(row + 1) % power.shape[0], column]
    y = fy[row, 0] + _between(np.array([above, peak, below])) * fx[0, 1]
    sign = 1.0 if x * cosine + y * sine > 0 else -1.0  # lines are counted to the right and downwards
    return _Window(place, (float(x) * sign, float(y) * sign), peak / usual if peak > _CLEAR * usual else 0.0)


def _between(values: NDArray[np.floating]) -> float:
    """Where between three values the peak lies, -0.5 to 0.5."""
    left, middle, right = (float(np.log(max(float(value), 1e-12))) for value in values)
    curve = left - 2.0 * middle + right
    return float(np.clip(0.5 * (left - right) / curve, -0.5, 0.5)) if curve < 0.0 else 0.0


def _exponents(degree: int) -> list[tuple[int, int]]:
    return [(i, total - i) for total in range(degree + 1) for i in range(total, -1, -1)]


def _terms(unit: NDArray[np.float64], degree: int) -> NDArray[np.float64]:
    x, y = unit[:, 0], unit[:, 1]
    return np.stack([x**i * y**j for i, j in _exponents(degree)], axis=1)


def _slopes(unit: NDArray[np.float64], degree: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The terms' derivatives across and down."""
    x, y = unit[:, 0], unit[:, 1]
    across = [i * x ** max(i - 1, 0) * y**j for i, j in _exponents(degree)]
    down = [j * x**i * y ** max(j - 1, 0) for i, j in _exponents(degree)]
    return np.stack(across, axis=1), np.stack(down, axis=1)


def _solved(
    terms: NDArray[np.float64], values: NDArray[np.float64], weights: NDArray[np.float64], degree: int
) -> NDArray[np.float64]:
    """Weighted least squares that outliers do not pull, terms of high degree held small."""
    steep = np.array([max(0, i + j - 2) for i, j in _exponents(degree)], dtype=np.float64)
    hold = _RIDGE * steep**2 * weights.sum()
    kept = weights.copy()
    solved: NDArray[np.float64] = np.zeros(terms.shape[1])
    for _ in range(6):
        normal = terms.T @ (terms * kept[:, None]) + np.diag(hold + 1e-9)
        solved = np.asarray(np.linalg.solve(normal, terms.T @ (values * kept)), dtype=np.float64)
        off = np.abs(values - terms @ solved)
        limit = 2.0 * float(np.median(off)) + 1e-6
        kept = weights / (1.0 + (off / limit) ** 2)
    return solved


def _from_waves(windows: list[_Window], centre: tuple[float, float], size: float) -> NDArray[np.float64]:
    """Coefficients (degree 3) of the count of lines whose slope the windows measured."""
    unit = (np.array([window.place for window in windows]) - np.array(centre)) / size
    across, down = _slopes(unit, 3)
    waves = np.array([window.wave for window in windows]) * size
    weights = np.sqrt(np.array([window.weight for window in windows]))
    return _solved(np.vstack((across, down)), waves.T.ravel(), np.tile(weights, 2), 3)


def _by_phase(
    pattern: NDArray[np.float32],
    coefficients: NDArray[np.float64],
    degree: int,
    target: int,
    centre: tuple[float, float],
    size: float,
    period: float,
) -> tuple[NDArray[np.float64], float]:
    """Correct a count of lines by the phase of the lines themselves; in cycles, with the remaining error."""
    height, width = pattern.shape
    step = max(4, round(period))
    coarser = max(1, round(period / _COARSE_PERIOD))
    xs, ys = np.meshgrid(np.arange(0, width, step), np.arange(0, height, step))
    unit = (np.stack((xs.ravel(), ys.ravel()), axis=1) - np.array(centre)) / size
    terms = _terms(unit, target)
    across, down = (((axis + 0.5) / coarser - 0.5).astype(np.float32) for axis in (xs, ys))
    fitted, worked = coefficients, degree
    residual = np.inf
    for _ in range(3 if target > 1 else 1):
        angle = _on_pixels(fitted, worked, pattern.shape, centre, size)
        smooth = np.zeros(xs.shape, dtype=np.complex128)
        for part, factor in ((np.cos(angle), 1.0), (np.sin(angle), -1j)):
            product = cv2.resize(pattern * part, None, fx=1.0 / coarser, fy=1.0 / coarser, interpolation=cv2.INTER_AREA)
            blurred = cv2.GaussianBlur(product, (0, 0), _BLUR_PERIODS * period / coarser)
            smooth += factor * cv2.remap(blurred, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        phase, weight = _unwrapped(smooth)
        wanted = _evaluated(fitted, worked, unit[:, 0], unit[:, 1]) + phase.ravel()
        seen = weight.ravel()
        fitted, worked = _solved(terms, wanted, seen, target), target
        off = np.abs(wanted - terms @ fitted)[seen > 0]
        residual = 1.48 * float(np.median(off)) if off.size else np.inf
    return fitted, residual


def _on_pixels(
    coefficients: NDArray[np.float64], degree: int, shape: tuple[int, int], centre: tuple[float, float], size: float
) -> NDArray[np.float32]:
    """A count of lines as an angle in every pixel, interpolated between every eighth."""
    height, width = shape
    across = np.arange(-_MESH, width + 2 * _MESH, _MESH) + (_MESH - 1) / 2.0
    down = np.arange(-_MESH, height + 2 * _MESH, _MESH) + (_MESH - 1) / 2.0
    x, y = np.meshgrid((across - centre[0]) / size, (down - centre[1]) / size)
    count = _evaluated(coefficients, degree, x, y)
    angle = (2.0 * np.pi * count).astype(np.float32)
    large = cv2.resize(angle, (across.size * _MESH, down.size * _MESH), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large[_MESH : _MESH + height, _MESH : _MESH + width], dtype=np.float32)


def _evaluated(
    coefficients: NDArray[np.float64], degree: int, x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A polynomial by Horner's scheme in y, its coefficients polynomials in x."""
    known = dict(zip(_exponents(degree), coefficients.tolist(), strict=True))
    total = np.zeros(np.broadcast(x, y).shape)
    for j in range(degree, -1, -1):
        inner = np.zeros_like(x)
        for i in range(degree - j, -1, -1):
            inner = inner * x + known[i, j]
        total = total * y + inner
    return total


def _unwrapped(wave: NDArray[np.complex128]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Phase in cycles without jumps from its strongest row outwards, and how far each place can be believed."""
    strength = np.abs(wave)
    usual = float(np.quantile(strength, 0.7)) + 1e-12
    weight = np.where(strength > _WEAK * usual, np.minimum(strength / usual, 1.0), 0.0)
    phase = np.angle(wave) / (2.0 * np.pi)
    # A smoothed wave bridges places where the grid is hidden.
    bridged = cv2.GaussianBlur(wave.real.astype(np.float32), (0, 0), 1.2) + 1j * cv2.GaussianBlur(
        wave.imag.astype(np.float32), (0, 0), 1.2
    )
    rough = np.angle(bridged) / (2.0 * np.pi)
    rows = weight.sum(axis=1)
    start = int(np.argmax(cv2.GaussianBlur(rows.reshape(-1, 1), (0, 0), 2.0).ravel()))
    unrolled = np.unwrap(rough, period=1.0, axis=1)
    middle = rough.shape[1] // 2
    for direction in (range(start + 1, rough.shape[0]), range(start - 1, -1, -1)):
        for row in direction:
            before = row - 1 if row > start else row + 1
            both = np.minimum(weight[row], weight[before]) + 1e-9
            jump = np.average(unrolled[row] - unrolled[before], weights=both)
            unrolled[row] -= np.round(jump)
    unrolled -= np.round(np.median(unrolled[start, max(0, middle - 3) : middle + 4]))
    phase = unrolled + (phase - rough - np.round(phase - rough))
    return phase, weight


class Straightened(NamedTuple):
    """A picture redrawn as if its sheet had been flat, and where its places were."""

    rgb: NDArray[np.uint8]
    bend: Bend
    left_mm: float  # of its first pixel on the sheet
    top_mm: float
    pixels_per_mm: float

    def places(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places in the redrawn picture [n, 2] to the picture that was given."""
        millimetres = points / self.pixels_per_mm + np.array([self.left_mm, self.top_mm])
        return self.bend.pixels(millimetres, _first_guess(self.bend, millimetres))


def straighten(rgb: NDArray[np.uint8], bend: Bend, pixels_per_mm: float) -> Straightened | None:
    """Redraw a picture flat; None where the map folds within it."""
    height, width = rgb.shape[:2]
    along = np.linspace(0.0, 1.0, 25)
    frame = np.concatenate(
        [np.stack((along * width, np.full(25, y)), axis=1) for y in (0.0, height)]
        + [np.stack((np.full(25, x), along * height), axis=1) for x in (0.0, width)]
    )
    on_sheet = bend.millimetres(frame)
    (left, top), (right, bottom) = on_sheet.min(axis=0).tolist(), on_sheet.max(axis=0).tolist()
    if not (
        right - left < _MOST_STRETCH * width / pixels_per_mm and bottom - top < _MOST_STRETCH * height / pixels_per_mm
    ):
        return None
    every = _MESH_MM * pixels_per_mm
    size = (round((right - left) * pixels_per_mm), round((bottom - top) * pixels_per_mm))
    columns, rows = int(size[0] / every) + 3, int(size[1] / every) + 3
    across, down = np.meshgrid((np.arange(columns) - 1) * every, (np.arange(rows) - 1) * every)
    straight = Straightened(rgb=rgb, bend=bend, left_mm=left, top_mm=top, pixels_per_mm=pixels_per_mm)
    places = straight.places(np.stack((across.ravel(), down.ravel()), axis=1)).reshape(rows, columns, 2)
    inside = np.asarray(np.all((places > 0) & (places < np.array([width, height])), axis=2))
    steps_across, steps_down = np.diff(places[:, :, 0], axis=1), np.diff(places[:, :, 1], axis=0)
    if (steps_across[inside[:, 1:]] <= 0).any() or (steps_down[inside[1:]] <= 0).any():
        return None
    mesh = places.astype(np.float32)
    edge = np.concatenate((rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]))
    beyond = [float(value) for value in np.median(edge, axis=0)]
    flat = np.empty((size[1], size[0], 3), dtype=np.uint8)
    for first in range(0, size[1], _STRIP):  # the maps of a whole sheet at once take a hundred megabytes and more
        strip = flat[first : first + _STRIP]
        xs, ys = np.meshgrid(
            np.arange(size[0], dtype=np.float32), np.arange(first, first + len(strip), dtype=np.float32)
        )
        at = (xs / np.float32(every) + 1.0, ys / np.float32(every) + 1.0)
        source = [
            cv2.remap(mesh[:, :, axis], *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for axis in (0, 1)
        ]
        strip[:] = cv2.remap(
            rgb,
            source[0] - 0.5,
            source[1] - 0.5,
            cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=beyond,
        )
    return straight._replace(rgb=flat)


def _first_guess(bend: Bend, millimetres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the places would be if the map were what it is at the picture's centre."""
    centre = np.array([bend.centre])
    dx, dy = _slopes(np.zeros((1, 2)), bend.degree)
    slope = (
        np.array(
            [
                [float(dx[0] @ bend.across), float(dy[0] @ bend.across)],
                [float(dx[0] @ bend.down), float(dy[0] @ bend.down)],
            ]
        )
        / bend.size
    )
    guess: NDArray[np.float64] = centre + (millimetres - bend.millimetres(centre)) @ np.linalg.inv(slope).T
    return guess
