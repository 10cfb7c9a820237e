"""Drift statistics equal their definitions, stay quiet without drift, and speak up with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from inference.drift import FEWEST_RESULTS, population_stability_index, share_shift, shift

RNG = np.random.default_rng(17)
REFERENCE = RNG.normal(36.0, 8.0, 800)


def test_the_stability_index_is_its_definition() -> None:
    # Two equal bins, 50:50 then and 80:20 now: (0.8 - 0.5) ln(0.8/0.5) + (0.2 - 0.5) ln(0.2/0.5).
    reference = np.array([1.0, 1.0, 2.0, 2.0])
    window = np.array([1.0, 1.0, 1.0, 1.0, 2.0])
    index, bins = population_stability_index(reference, window, bins=2)
    assert bins == 2
    assert index == pytest.approx(0.3 * math.log(1.6) - 0.3 * math.log(0.4))
    assert population_stability_index(REFERENCE, REFERENCE) == (pytest.approx(0.0), 10)


def test_kolmogorov_smirnov_is_the_largest_distance_of_the_distributions() -> None:
    window = RNG.normal(38.0, 8.0, 120)
    found = shift("x", REFERENCE, window)
    at = np.concatenate([REFERENCE, window])
    distance = max(abs(np.mean(value >= REFERENCE) - np.mean(window <= value)) for value in at)
    assert found.kolmogorov_smirnov == pytest.approx(distance)


def test_windows_without_drift_are_rarely_called_drifted() -> None:
    # Seeded. Two tests at 1 % each, the bins drawn from the reference itself: about three windows in a hundred.
    alarms = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        alarms += shift("x", rng.normal(36.0, 8.0, 600), rng.normal(36.0, 8.0, 150)).drifted
    assert alarms <= 20


@pytest.mark.parametrize(("mean", "sd"), [(40.0, 8.0), (36.0, 3.0)])
def test_a_shift_and_a_collapse_of_the_outputs_are_seen(mean: float, sd: float) -> None:
    assert shift("x", REFERENCE, np.random.default_rng(2).normal(mean, sd, 150)).drifted


def test_values_beyond_all_of_the_reference_keep_the_index_finite() -> None:
    found = shift("x", REFERENCE, np.full(60, 500.0))
    assert math.isfinite(found.population_stability_index)
    assert found.drifted


def test_an_expected_share_outside_its_exact_interval_is_drift() -> None:
    quiet, loud = share_shift("x", 3, 200, 0.01), share_shift("x", 20, 200, 0.01)
    assert (quiet.drifted, loud.drifted) == (False, True)
    # Clopper and Pearson: the interval's ends leave half a per cent in each tail.
    assert stats.binom.sf(19, 200, loud.low) == pytest.approx(0.005, rel=1e-6)
    assert stats.binom.cdf(20, 200, loud.high) == pytest.approx(0.005, rel=1e-6)


def test_few_or_broken_values_are_not_compared() -> None:
    with pytest.raises(ValueError, match="too few"):
        shift("x", REFERENCE, REFERENCE[: FEWEST_RESULTS - 1])
    with pytest.raises(ValueError, match="too few"):
        share_shift("x", 0, FEWEST_RESULTS - 1, 0.01)
    with pytest.raises(ValueError, match="finite"):
        shift("x", REFERENCE, np.append(REFERENCE[:60], np.nan))
