"""Whether a window of results still looks like those a model was made with: pure statistics of arrays. No torch here.

Drift of what goes in or comes out needs no catheter, and proves nothing about accuracy: a window may drift because
other patients come. It says where to look. Results are taken as independent: many visits of few patients look like
drift sooner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
BINS = 10
FEWEST_RESULTS = 50  # on either side; below, bins of a tenth hold a handful
LEVEL = 0.99  # of each test: a window is looked at many times


@dataclass(frozen=True, kw_only=True)
class Shift:
    """How far the values of a window lie from those of the reference.

    A population stability index has no scale of its own: by chance alone it is about (bins - 1)(1/n + 1/m). `limit`
    is what chance exceeds in one window of a hundred.
    """

    name: str
    reference: int
    window: int
    reference_mean: float
    window_mean: float
    population_stability_index: float
    limit: float
    kolmogorov_smirnov: float
    p_value: float

    @property
    def drifted(self) -> bool:
        """Whether either statistic is beyond what chance gives once in a hundred windows."""
        return self.population_stability_index > self.limit or self.p_value < 1.0 - LEVEL


@dataclass(frozen=True, kw_only=True)
class ShareShift:
    """How often something happens in a window, against the share expected, with an exact 99 % interval."""

    name: str
    happened: int
    window: int
    expected: float
    low: float
    high: float

    @property
    def drifted(self) -> bool:
        """Whether the share that was expected lies outside the interval."""
        return not self.low <= self.expected <= self.high


def shift(name: str, reference: Array, window: Array) -> Shift:
    """Compare the values of a window with those of the reference.

    Raises
    ------
    ValueError
        If either has fewer than `FEWEST_RESULTS` values, or one that is not finite.
    """
    from scipy import stats

    for values in (reference, window):
        if len(values) < FEWEST_RESULTS:
            raise ValueError(
                f"{len(values)} results are too few to compare, {FEWEST_RESULTS} are needed on either side"
            )
        if not np.isfinite(values).all():
            raise ValueError("values must be finite")
    index, bins = population_stability_index(reference, window)
    noise = 1.0 / len(reference) + 1.0 / len(window)
    test = stats.ks_2samp(reference, window)
    return Shift(
        name=name,
        reference=len(reference),
        window=len(window),
        reference_mean=float(reference.mean()),
        window_mean=float(window.mean()),
        population_stability_index=index,
        limit=float(stats.chi2.ppf(LEVEL, max(1, bins - 1))) * noise,
        kolmogorov_smirnov=float(test.statistic),
        p_value=float(test.pvalue),
    )


def population_stability_index(reference: Array, window: Array, *, bins: int = BINS) -> tuple[float, int]:
    """The index over bins that hold equal shares of the reference, and how many bins that made (ties merge some).

    Sum of (window - reference) ln(window / reference) over the bins' shares (Siddiqi, Credit Risk Scorecards, 2006);
    its distribution by chance: Yurdakul and Naranjo, J Risk Model Validation 2020;14:89. A bin that is empty on one
    side counts as half a value there, so that the index stays finite.
    """
    edges = np.unique(np.quantile(reference, np.linspace(0.0, 1.0, bins + 1)[1:-1]))

    def shares(values: Array) -> Array:
        counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1).astype(np.float64)
        counts[counts == 0.0] = 0.5
        return counts / counts.sum()

    expected, found = shares(reference), shares(window)
    return float(np.sum((found - expected) * np.log(found / expected))), len(edges) + 1


def share_shift(name: str, happened: int, window: int, expected: float) -> ShareShift:
    """Compare how often something happened with an expected share (Clopper and Pearson, Biometrika 1934;26:404).

    Raises
    ------
    ValueError
        If the window holds fewer than `FEWEST_RESULTS` results.
    """
    from scipy import stats

    if window < FEWEST_RESULTS:
        raise ValueError(f"{window} results are too few to compare, {FEWEST_RESULTS} are needed")
    bounds = stats.binomtest(happened, window).proportion_ci(confidence_level=LEVEL, method="exact")
    return ShareShift(
        name=name,
        happened=happened,
        window=window,
        expected=expected,
        low=float(bounds.low),
        high=float(bounds.high),
    )
