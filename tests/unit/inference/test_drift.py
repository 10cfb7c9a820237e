"""Drift statistics equal their definitions, stay quiet without drift, and speak up with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from inference.drift import (
    FEWEST_RESULTS,
    category_shift,
    level_of,
    population_stability_index,
    share_shift,
    shift,
)
from inference.drift_reference import MOST_VISITS, Directions, DriftReference, thinned

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


def test_more_beyond_a_limit_than_it_lets_expect_is_drift() -> None:
    quiet, loud = (share_shift("x", count, 200, reference=799, share=0.99) for count in (3, 20))
    assert (quiet.drifted, loud.drifted) == (False, True)
    assert quiet.expected == pytest.approx(0.01)
    # Clopper and Pearson: the interval's ends leave half a per cent in each tail.
    assert stats.binom.sf(19, 200, loud.low) == pytest.approx(0.005, rel=1e-6)
    assert stats.binom.cdf(20, 200, loud.high) == pytest.approx(0.005, rel=1e-6)


def test_a_limit_of_few_patients_expects_what_it_is_and_not_one_in_a_hundred() -> None:
    # The largest of nineteen: one new patient in twenty lies beyond it.
    found = share_shift("x", 15, 300, reference=19, share=0.99)
    assert found.expected == pytest.approx(0.05)
    assert not found.drifted
    # Exact for one new patient: P(beyond the largest of n) = 1/(n + 1).
    one = stats.betabinom(1, 1, 19)
    assert one.pmf(1) == pytest.approx(0.05)


def test_windows_without_drift_are_rarely_beyond_a_limit_that_was_itself_drawn() -> None:
    # Seeded. A limit from 99 patients: its own error makes the true share anything from .01 to 5 per cent.
    alarms, naive = 0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        happened = int(np.count_nonzero(rng.normal(size=400) > rng.normal(size=99).max()))
        found = share_shift("x", happened, 400, reference=99, share=0.99)
        alarms += found.drifted
        naive += not found.low <= 0.01 <= found.high
    assert alarms <= 5
    assert naive >= 10  # what the share alone would have said


def test_a_reference_that_is_thinned_holds_all_of_the_table() -> None:
    kept = thinned(np.arange(10_000, dtype=np.float32))
    assert len(kept) == MOST_VISITS
    assert (kept[0], kept[-1]) == (0, 9_999)
    assert np.diff(kept).max() <= 6


def test_frequencies_of_a_tag_are_compared_by_their_definition() -> None:
    reference, window = {"A": 300, "B": 300}, {"A": 80, "B": 20}
    found = category_shift("maker", reference, window)
    assert found.population_stability_index == pytest.approx(0.3 * math.log(1.6) - 0.3 * math.log(0.4))
    assert found.p_value == pytest.approx(stats.chi2_contingency([[300, 80], [300, 20]], correction=False).pvalue)
    assert (found.drifted, found.new) == (True, ())


def test_a_new_machine_is_named_and_one_film_of_it_is_no_drift() -> None:
    reference = {"A": 400, "B": 100}
    single = category_shift("maker", reference, {"A": 80, "B": 19, "C": 1})
    assert (single.new, single.drifted) == (("C",), False)
    many = category_shift("maker", reference, {"A": 40, "B": 10, "C": 50})
    assert (many.new, many.drifted) == (("C",), True)


def test_tags_without_drift_are_rarely_called_drifted() -> None:
    # Seeded. Index and test at 1 % each, of the same table: they alarm together.
    alarms = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        sides = [dict(zip("ABCDE", rng.multinomial(n, [0.5, 0.3, 0.15, 0.04, 0.01]), strict=True)) for n in (600, 150)]
        alarms += category_shift("maker", *sides).drifted
    assert alarms <= 16


def test_many_comparisons_share_one_level() -> None:
    rng = np.random.default_rng(8)
    alarms = 0
    for _ in range(200):
        level = level_of(16)
        alarms += any(shift("x", rng.normal(size=300), rng.normal(size=100), level=level).drifted for _ in range(16))
    assert alarms <= 12


def test_components_are_the_training_patients_own_directions() -> None:
    rng = np.random.default_rng(2)
    spread = np.array([8.0, 4.0, 2.0, *[0.1] * 17])
    usual, held_out = (rng.normal(3.0, spread, (n, 20)).astype(np.float32) for n in (500, 200))
    found = Directions.fit(usual, held_out)
    assert found.basis.shape == (8, 20)
    assert np.allclose(found.basis @ found.basis.T, np.eye(8), atol=1e-5)
    assert abs(found.basis[0, 0]) > 0.99
    assert found.held_out[:, :3].std(axis=0) == pytest.approx(1.0, abs=0.15)
    assert found.components(held_out[7]) == pytest.approx(found.held_out[7], abs=1e-3)
    kept = DriftReference(chest=found, ecg=found, predicted_mmhg=np.arange(200, dtype=np.float32))
    again = DriftReference.from_tensors(kept.to_tensors())
    assert again is not None
    assert np.array_equal(again.ecg.held_out, found.held_out)
    assert DriftReference.from_tensors({}) is None
    spoilt = kept.to_tensors() | {"drift.chest.spread": found.spread[:3]}
    with pytest.raises(ValueError, match="misshapen"):
        DriftReference.from_tensors(spoilt)


def test_few_or_broken_values_are_not_compared() -> None:
    with pytest.raises(ValueError, match="too few"):
        shift("x", REFERENCE, REFERENCE[: FEWEST_RESULTS - 1])
    with pytest.raises(ValueError, match="too few"):
        share_shift("x", 0, FEWEST_RESULTS - 1, reference=99, share=0.99)
    with pytest.raises(ValueError, match="finite"):
        shift("x", REFERENCE, np.append(REFERENCE[:60], np.nan))
