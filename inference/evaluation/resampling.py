"""Intervals by resampling patients: whole patients are drawn, so that visits of one patient stay together.

Every figure here is a function of sums over patients. A resample is then a row of weights (how often each patient was
drawn), and 2,000 of them one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
REPEATS = 2000
LEVEL = 0.95
FEWEST_PATIENTS = 10  # below, no figure is given: nobody should read much into so few
WEIGHTS_AT_ONCE = 4_000_000  # weights held at a time, 32 MB
DEFINED_SHARE = 0.95  # of resamples in which a figure must be defined to be given an interval
_NORMAL = NormalDist()


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure and its interval at `LEVEL`; NaN where it is not defined.

    `low` and `high` are bias-corrected and accelerated (Efron 1987) where `method` says "BCa", else percentiles.
    """

    value: float
    low: float
    high: float
    method: str
    percentile_low: float
    percentile_high: float


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How to resample. The same seed draws the same patients, so that two models are compared on the same ones."""

    seed: int = 1
    repeats: int = REPEATS
    level: float = LEVEL

    def weights(self, patients: int) -> Iterator[Array]:
        """How often each patient is drawn, in blocks [resamples, patients]."""
        rng = np.random.default_rng(self.seed)
        block = max(1, WEIGHTS_AT_ONCE // max(1, patients))
        for start in range(0, self.repeats, block):
            count = min(block, self.repeats - start)
            drawn = rng.integers(0, patients, (count, patients)) + patients * np.arange(count)[:, None]
            yield np.bincount(drawn.ravel(), minlength=count * patients).reshape(count, patients).astype(np.float64)


def resampled(
    sums: Array, figures: Callable[[Array], Mapping[str, Array]], resampling: Resampling
) -> dict[str, Figure]:
    """Figures of a cohort with BCa intervals over patients.

    Parameters
    ----------
    sums
        One row a patient, float [patients, k]: whatever adds up over patients.
    figures
        From sums [..., k] to figures [...] by name.
    resampling
        Seed, repeats and level.
    """
    values = {name: float(value) for name, value in figures(sums.sum(axis=0)).items()}
    drawn: dict[str, list[Array]] = {name: [] for name in values}
    for weights in resampling.weights(len(sums)):
        for name, block in figures(weights @ sums).items():
            drawn[name].append(block)
    left_out = figures(sums.sum(axis=0) - sums)
    return {
        name: interval(value, np.concatenate(drawn[name]), left_out[name], resampling.level)
        for name, value in values.items()
    }


def interval(value: float, drawn: Array, left_out: Array | None, level: float) -> Figure:
    """The figure with its interval from resampled values and, for BCa, the values with each patient left out.

    Efron, Better bootstrap confidence intervals, JASA 1987;82:171. Percentiles where `left_out` is None or says
    nothing.
    """
    usable = drawn[np.isfinite(drawn)]
    if not math.isfinite(value) or len(usable) < DEFINED_SHARE * len(drawn):
        nothing = math.nan
        return Figure(
            value=value, low=nothing, high=nothing, method="none", percentile_low=nothing, percentile_high=nothing
        )
    tails = ((1.0 - level) / 2.0, (1.0 + level) / 2.0)
    plain_low, plain_high = (float(edge) for edge in np.quantile(usable, tails))
    shares = None if left_out is None else _bca_shares(value, usable, left_out, tails)
    low, high = (plain_low, plain_high) if shares is None else (float(e) for e in np.quantile(usable, shares))
    return Figure(
        value=value,
        low=low,
        high=high,
        method="percentile" if shares is None else "BCa",
        percentile_low=plain_low,
        percentile_high=plain_high,
    )


def _bca_shares(value: float, drawn: Array, left_out: Array, tails: tuple[float, float]) -> tuple[float, float] | None:
    """Which quantiles of the resamples bound the interval; None where the correction is not defined."""
    spread = left_out.mean() - left_out
    scale = float(np.sum(spread**2))
    below = (np.count_nonzero(drawn < value) + 0.5 * np.count_nonzero(drawn == value)) / len(drawn)
    if not (math.isfinite(scale) and scale > 0.0 and 0.0 < below < 1.0):
        return None
    shift = _NORMAL.inv_cdf(below)
    acceleration = float(np.sum(spread**3)) / (6.0 * scale**1.5)

    def share(tail: float) -> float:
        z = shift + _NORMAL.inv_cdf(tail)
        return _NORMAL.cdf(shift + z / (1.0 - acceleration * z))

    return share(tails[0]), share(tails[1])


def patient_sums(patient: NDArray[np.intp], columns: Array) -> Array:
    """Sums over each patient's rows: [rows, k] to [patients, k]."""
    patients = int(patient.max()) + 1
    return np.stack([np.bincount(patient, column, patients) for column in columns.T], axis=1)
