"""Agreement figures are what their names say, checked against numpy and a published interval."""

from __future__ import annotations

import numpy as np
import pytest

from inference.agreement import agreement, bootstrap_intervals
from inference.evaluation.shares import wilson_interval

RNG = np.random.default_rng(6)
MEASURED = RNG.normal(35.0, 11.0, 120)
ESTIMATED = 10.0 + 0.6 * MEASURED + RNG.normal(0.0, 6.0, 120)

EACH = np.arange(120)


def test_the_figures_agree_with_numpy() -> None:
    result = agreement(MEASURED, ESTIMATED)
    error = ESTIMATED - MEASURED
    assert result.examinations == 120
    assert result.correlation == pytest.approx(np.corrcoef(MEASURED, ESTIMATED)[0, 1])
    assert result.slope == pytest.approx(np.polyfit(MEASURED, ESTIMATED, 1)[0])
    assert result.bias == pytest.approx(error.mean())
    assert result.error_sd == pytest.approx(error.std(ddof=1))
    assert result.explained == pytest.approx(1 - (error**2).mean() / MEASURED.var())


def test_explained_variance_is_not_the_squared_correlation() -> None:
    # The paper's "R2" is the latter; a shrunken or shifted estimate tells them apart.
    result = agreement(MEASURED, ESTIMATED + 10.0)
    assert result.explained < result.correlation**2 - 0.3


def test_bootstrap_intervals_are_seeded_and_hold_the_figure() -> None:
    first = bootstrap_intervals(MEASURED, ESTIMATED, EACH, seed=1, repeats=300)
    assert first == bootstrap_intervals(MEASURED, ESTIMATED, EACH, seed=1, repeats=300)
    low, high = first["correlation"]
    assert low < agreement(MEASURED, ESTIMATED).correlation < high


def test_the_wilson_interval_matches_a_published_example() -> None:
    # Newcombe 1998 (Stat Med 17:857), 81 of 263: 0.2553 to 0.3662.
    low, high = wilson_interval(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_measurements_that_do_not_vary_are_refused() -> None:
    with pytest.raises(ValueError, match="do not vary"):
        agreement(np.full(5, 30.0), np.arange(5.0))


def test_bootstrap_intervals_are_those_of_resampling_patients_one_by_one() -> None:
    rng = np.random.default_rng(5)
    drawn = []
    for _ in range(2000):
        rows = rng.integers(0, len(MEASURED), len(MEASURED))
        drawn.append(agreement(MEASURED[rows], ESTIMATED[rows]).slope)
    expected = tuple(np.percentile(drawn, (2.5, 97.5)))
    assert bootstrap_intervals(MEASURED, ESTIMATED, EACH, seed=1)["slope"] == pytest.approx(expected, abs=0.01)


def test_visits_of_one_patient_are_drawn_together() -> None:
    # Every patient three times over: as informative as once, not three times.
    thrice, own = (np.repeat(values, 3) for values in (MEASURED, ESTIMATED))
    once = bootstrap_intervals(MEASURED, ESTIMATED, EACH, seed=1)["bias"]
    again = bootstrap_intervals(thrice, own, np.repeat(EACH, 3), seed=1)["bias"]
    assert again == pytest.approx(once)
