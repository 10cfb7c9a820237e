"""How paper lies in a picture: its tilt and how many pixels a millimetre are, from the printed grid.

Pure: a picture in, numbers out. Says what it saw and how clearly; what to believe is the caller's business.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_TILT_DEGREES = 12.0
LEAST_PIXELS_PER_MM = 2.2
MOST_PIXELS_PER_MM = 32.0

_TILT_SIDE = 1100  # pixels: lines 5 mm apart stay apart, and a hundred trial rotations stay quick
_LEAST_WIDTH_MM = 150.0
_MOST_WIDTH_MM = 480.0
_STRONG_MM = 5.0  # heavy lines
_OFF_ZERO = 0.02  # degrees: turning by exactly nothing blurs nothing and would always look sharpest
_INK_AT_LEAST, _INK_SHARE = 0.12, 0.4  # how much darker than around it ink is, and of the darkest
_COARSER = 0.25  # of a picture's size: enough for what surrounds a pixel
_HARMONICS = 25  # of the heavy lines
_TINT_LIMIT = 0.35  # darkness beyond which something is ink, not grid


@dataclass(frozen=True, kw_only=True)
class GridScale:
    """One reading of the grid: pixels a millimetre across and down, and the share of its pattern explained."""

    across: float
    down: float
    score: float

    @property
    def mean(self) -> float:
        """Pixels a millimetre."""
        return (self.across + self.down) / 2.0


def tint(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How much darker each pixel is than its surroundings in its darkest channel, ink cut off.

    A coloured grid is dark in at least one channel; the trace must not outweigh it.
    """
    lowest = darkest_channel(rgb).astype(np.float32)
    around = _surroundings(lowest)
    dark = around - lowest
    dark /= np.maximum(around, 16.0)
    np.clip(dark, -_TINT_LIMIT, _TINT_LIMIT, out=dark)
    usual = float(np.percentile(np.abs(dark[::2, ::2]), 90.0)) + 1e-3
    return np.asarray(np.clip(dark, -2.0 * usual, 2.0 * usual, out=dark), dtype=np.float32)


def darkest_channel(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The least of red, green and blue."""
    red, green, blue = cv2.split(rgb)
    return np.asarray(cv2.min(cv2.min(red, green), blue), dtype=np.uint8)


def brightest_channel(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The greatest of red, green and blue."""
    red, green, blue = cv2.split(rgb)
    return np.asarray(cv2.max(cv2.max(red, green), blue), dtype=np.uint8)


def _surroundings(channel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each pixel's usual brightness over a sixtieth of the picture, from a smaller copy."""
    height, width = channel.shape
    small = cv2.resize(channel, None, fx=_COARSER, fy=_COARSER, interpolation=cv2.INTER_AREA)
    side = max(9, round(max(channel.shape) / 60)) | 1
    blurred = cv2.GaussianBlur(small, (0, 0), side / 2.0 * _COARSER)
    return np.asarray(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def without_ink(pattern: NDArray[np.float32], rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A pattern from `tint` that is nothing where the trace and letters lie: beats repeat like faint grids do.

    Ink is dark in every channel, a coloured grid in some; a grey one is lighter than ink.
    """
    brightest = brightest_channel(rgb).astype(np.float32)
    around = _surroundings(brightest)
    dark = (around - brightest) / np.maximum(around, 16.0)
    limit = max(_INK_AT_LEAST, _INK_SHARE * float(np.quantile(dark[::2, ::2], 0.997)))
    ink = cv2.dilate((dark > limit).astype(np.uint8), np.ones((3, 3), np.uint8))
    return np.where(ink > 0, np.float32(0.0), pattern)


def tilt_degrees(pattern: NDArray[np.float32]) -> float:
    """By how much the picture must be turned counter-clockwise to make its lines level, within 12 degrees.

    The tilt at which sums along rows and columns vary most from one to the next: roughly from the middle of
    the picture, where lines are short and forgive a degree, then exactly from all of it.
    """
    factor = min(1.0, _TILT_SIDE / max(pattern.shape))
    small = cv2.resize(pattern, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else pattern
    small = np.asarray(cv2.GaussianBlur(small, (0, 0), 0.8), dtype=np.float32)
    height, width = small.shape
    middle = np.ascontiguousarray(small[height // 5 : height - height // 5, width // 5 : width - width // 5])
    best = _OFF_ZERO
    for part, step, reach in ((middle, 1.0, MAX_TILT_DEGREES), (middle, 0.25, 1.0), (small, 0.05, 0.25)):
        trials = best + np.arange(-reach, reach + step / 2.0, step)
        scores = [_sharpness(part, float(angle)) for angle in trials]
        best = float(trials[int(np.argmax(scores))])
    return best


def _sharpness(pattern: NDArray[np.float32], angle: float) -> float:
    height, width = pattern.shape
    inside = _turned_part(pattern, angle, width // 12, height // 12)
    rows, columns = (cv2.reduce(inside, axis, cv2.REDUCE_AVG).ravel() for axis in (1, 0))
    return float(np.var(np.diff(rows)) + np.var(np.diff(columns)))


def turn(pattern: NDArray[np.float32], angle: float) -> NDArray[np.float32]:
    """The pattern turned counter-clockwise by `angle` degrees about its middle, same size."""
    return _turned_part(pattern, angle, 0, 0)


def _turned_part(pattern: NDArray[np.float32], angle: float, across: int, down: int) -> NDArray[np.float32]:
    """The turned pattern without its margins."""
    height, width = pattern.shape
    matrix = cv2.getRotationMatrix2D((width / 2.0, height / 2.0), angle, 1.0)
    matrix[:, 2] -= across, down
    size = width - 2 * across, height - 2 * down
    return np.asarray(cv2.warpAffine(pattern, matrix, size, flags=cv2.INTER_LINEAR), dtype=np.float32)


def grid_scales(pattern: NDArray[np.float32]) -> list[GridScale]:
    """Every plausible reading of the grid of an untilted pattern, the clearest first.

    Lines repeat each millimetre, heavier ones each five; a sheet may carry one kind only. Each reading
    is tried against both axes' spectra: the power at multiples of one line a 5 mm, over what is
    expected there by chance.
    """
    powers = [_spectrum(pattern.mean(axis=0)), _spectrum(pattern.mean(axis=1))]
    spectra = [(frequencies, np.concatenate(([0.0], np.cumsum(power)))) for frequencies, power in powers]
    width = max(pattern.shape)
    candidates: set[float] = set()
    for frequencies, power in powers:
        for peak in _peaks(frequencies, power):
            for per_mm in (1.0, 0.2, 0.4, 0.6, 0.8, 2.0):
                pixels = per_mm / peak
                if (
                    LEAST_PIXELS_PER_MM <= pixels <= MOST_PIXELS_PER_MM
                    and _LEAST_WIDTH_MM <= width / pixels <= _MOST_WIDTH_MM
                ):
                    candidates.add(round(pixels, 3))
    found: list[GridScale] = []
    for pixels in candidates:
        (across, one), (down, other) = (_refined(pixels, spectrum) for spectrum in spectra)
        if one <= 0.0 or other <= 0.0 or abs(across / down - 1.0) > 0.06:
            continue
        found.append(GridScale(across=across, down=down, score=(one * other) ** 0.5))
    # A grid of twice the size explains all that the right one does: of near equals the finer is meant.
    found.sort(key=lambda scale: -scale.score * scale.mean**-0.3)
    kept: list[GridScale] = []
    for scale in found:
        if all(abs(scale.mean / other.mean - 1.0) > 0.03 for other in kept):
            kept.append(scale)
    return kept


_Spectrum = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Frequencies, and the power of all lower ones together."""


def _spectrum(profile: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies (cycles a pixel) and their share of the power; what varies over 60 pixels is left out."""
    values = profile.astype(np.float64)
    values = values - cv2.GaussianBlur(values.reshape(1, -1), (0, 0), 25.0).ravel()
    values = np.clip(values, -3.0 * values.std(), 3.0 * values.std()) * np.hanning(values.size)
    size = 8 * 2 ** int(np.ceil(np.log2(values.size)))
    power = np.abs(np.fft.rfft(values, size)) ** 2
    frequencies = np.fft.rfftfreq(size).astype(np.float64)
    power[frequencies < 1.0 / 90.0] = 0.0
    return frequencies, power / max(float(power.sum()), 1e-12)


def _peaks(frequencies: NDArray[np.float64], power: NDArray[np.float64]) -> list[float]:
    """The strongest lines of a spectrum, apart from one another."""
    rest = power.copy()
    apart = max(1, round(0.004 / float(frequencies[1])))
    found = []
    for _ in range(6):
        at = int(np.argmax(rest))
        if rest[at] <= 0.05 * power.max():
            break
        found.append(float(frequencies[at]))
        rest[max(0, at - apart) : at + apart + 1] = 0.0
    return found


def _refined(pixels: float, spectrum: _Spectrum) -> tuple[float, float]:
    """The scale near `pixels` that explains a spectrum best, and how much better than chance."""
    best, score = pixels, 0.0
    for reach, count in ((0.03, 61), (0.001, 21)):
        trials = best * (1.0 + np.linspace(-reach, reach, count))
        scores = _explained(trials, spectrum)
        at = int(np.argmax(scores))
        best, score = float(trials[at]), float(scores[at])
    return best, score


def _explained(pixels: NDArray[np.float64], spectrum: _Spectrum) -> NDArray[np.float64]:
    """For each number of pixels a millimetre the share of the power at such a grid's lines, less the chance share."""
    frequencies, total = spectrum
    step = float(frequencies[1])
    base = 1.0 / (_STRONG_MM * pixels)[:, None]
    harmonics = np.arange(1, _HARMONICS + 1)[None, :] * base
    reach = 1.0 / 1200.0
    low = np.clip((harmonics - reach) / step, 0, total.size - 2).astype(np.int64)
    high = np.minimum(((harmonics + reach) / step).astype(np.int64) + 1, total.size - 1)
    counted = np.arange(1, _HARMONICS + 1)[None, :] <= np.floor(0.5 / base)
    share = np.where(counted, total[high] - total[low], 0.0).sum(axis=1)
    covered = np.where(counted, (high - low) * step, 0.0).sum(axis=1)
    explained: NDArray[np.float64] = share - covered / 0.5
    return explained
