"""Whether a window of results still looks like those a model was made with: pure statistics of arrays. No torch here.

Drift of what goes in or comes out needs no catheter, and proves nothing about accuracy: a window may drift because
other patients come. It says where to look. Results are taken as independent: many visits of few patients look like
drift sooner.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
BINS = 10
FEWEST_RESULTS = 50  # on either side; below, bins of a tenth hold a handful
LEVEL = 0.99  # of each test: a window is looked at many times
MOST_VALUES = 50  # of one tag that are told apart
OTHER_VALUES = "(other)"
FEWEST_EXPECTED = 1.0  # of a value in the smaller side, for the chi-squared test


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
    level: float

    @property
    def drifted(self) -> bool:
        """Whether either statistic is beyond what chance gives in the share 1 - `level` of windows."""
        return self.population_stability_index > self.limit or self.p_value < 1.0 - self.level


@dataclass(frozen=True, kw_only=True)
class CategoryShift:
    """As `Shift`, of values that have no order: a chi-squared test in place of Kolmogorov and Smirnov's."""

    name: str
    reference: int
    window: int
    population_stability_index: float
    limit: float
    p_value: float
    new: tuple[str, ...]  # values of the window that the reference never had
    level: float

    @property
    def drifted(self) -> bool:
        """As of `Shift`. A new value by itself is none: it may be a single film."""
        return self.population_stability_index > self.limit or self.p_value < 1.0 - self.level


@dataclass(frozen=True, kw_only=True)
class ShareShift:
    """How often a window lies beyond a limit, against what is expected of that limit.

    The limit was itself estimated, from `reference` patients: of 99 its own error is as large as the share. `p_value`
    counts with it; `low` and `high` are the window's share alone, with an exact 99 % interval.
    """

    name: str
    happened: int
    window: int
    reference: int
    expected: float
    low: float
    high: float
    p_value: float

    @property
    def drifted(self) -> bool:
        """Whether so many, or so few, lie beyond the limit in fewer than one window of a hundred without drift."""
        return self.p_value < 1.0 - LEVEL


def level_of(comparisons: int) -> float:
    """The level of each of several tests that together alarm by chance once in a hundred windows (Bonferroni)."""
    return 1.0 - (1.0 - LEVEL) / max(1, comparisons)


def shift(name: str, reference: Array, window: Array, *, level: float = LEVEL) -> Shift:
    """Compare the values of a window with those of the reference.

    Raises
    ------
    ValueError
        If either has fewer than `FEWEST_RESULTS` values, or one that is not finite.
    """
    from scipy import stats

    for side, values in (("reference", reference), ("window", window)):
        if len(values) < FEWEST_RESULTS:
            raise ValueError(
                f"the {side} has {len(values)} results, too few to compare: {FEWEST_RESULTS} are needed on either side"
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
        limit=float(stats.chi2.ppf(level, max(1, bins - 1))) * noise,
        kolmogorov_smirnov=float(test.statistic),
        p_value=float(test.pvalue),
        level=level,
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


def category_shift(
    name: str, reference: Mapping[str, int], window: Mapping[str, int], *, level: float = LEVEL
) -> CategoryShift:
    """Compare how often each value occurs in a window with the reference.

    Values that are rare on both sides count together: the test is one of frequencies, not of single films.

    Raises
    ------
    ValueError
        If either has fewer than `FEWEST_RESULTS` values.
    """
    from scipy import stats

    totals = sum(reference.values()), sum(window.values())
    if min(totals) < FEWEST_RESULTS:
        raise ValueError(f"{min(totals)} results are too few to compare, {FEWEST_RESULTS} are needed on either side")
    merged: dict[str, list[float]] = {}
    for value in sorted(set(reference) | set(window)):
        counts = (reference.get(value, 0), window.get(value, 0))
        expected = min(totals) * sum(counts) / sum(totals)  # in the smaller of the two, without drift
        row = merged.setdefault(value if expected >= FEWEST_EXPECTED else OTHER_VALUES, [0.0, 0.0])
        row[0] += counts[0]
        row[1] += counts[1]
    table = np.array(list(merged.values()))
    shares = np.where(table == 0.0, 0.5, table)
    shares = shares / shares.sum(axis=0)
    degrees = max(1, len(table) - 1)
    noise = 1.0 / totals[0] + 1.0 / totals[1]
    return CategoryShift(
        name=name,
        reference=totals[0],
        window=totals[1],
        population_stability_index=float(np.sum((shares[:, 1] - shares[:, 0]) * np.log(shares[:, 1] / shares[:, 0]))),
        limit=float(stats.chi2.ppf(level, degrees)) * noise,
        p_value=float(stats.chi2_contingency(table, correction=False).pvalue) if len(table) > 1 else 1.0,
        new=tuple(sorted(set(window) - set(reference) - {OTHER_VALUES})) if OTHER_VALUES not in reference else (),
        level=level,
    )


def share_shift(name: str, happened: int, window: int, *, reference: int, share: float) -> ShareShift:
    """Compare how many of a window lie beyond a limit with what comes without drift.

    The limit is the conformal quantile of level `share` of `reference` patients, their largest value where they are
    too few. Of `window` new ones, the number beyond the k-th smallest of n is beta-binomial with n + 1 - k and k
    (Wilks, Ann Math Stat 1941;12:91, on tolerance limits). The interval of the share itself is that of Clopper and
    Pearson (Biometrika 1934;26:404).

    Raises
    ------
    ValueError
        If the window holds fewer than `FEWEST_RESULTS` results.
    """
    from scipy import stats

    if window < FEWEST_RESULTS:
        raise ValueError(f"{window} results are too few to compare, {FEWEST_RESULTS} are needed")
    bounds = stats.binomtest(happened, window).proportion_ci(confidence_level=LEVEL, method="exact")
    rank = min(reference, math.ceil((reference + 1) * share - 1e-9))
    chance = stats.betabinom(window, reference + 1 - rank, rank)
    return ShareShift(
        name=name,
        happened=happened,
        window=window,
        reference=reference,
        expected=(reference + 1 - rank) / (reference + 1),
        low=float(bounds.low),
        high=float(bounds.high),
        p_value=min(1.0, 2.0 * float(min(chance.cdf(happened), chance.sf(happened - 1)))),
    )
