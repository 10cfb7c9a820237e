"""Intervals and probabilities come from residuals of held-out patients; unusual embeddings are called so."""

from __future__ import annotations

import numpy as np
import pytest

from inference.calibration import (
    Calibration,
    conformal_quantile,
    fit_reference,
    minimum_patients,
)

RNG = np.random.default_rng(11)
REFERENCE_CHEST = fit_reference(
    RNG.standard_normal((80, 1024)).astype(np.float32), RNG.standard_normal((120, 1024)).astype(np.float32)
)
REFERENCE_ECG = fit_reference(
    RNG.standard_normal((300, 128)).astype(np.float32), RNG.standard_normal((120, 128)).astype(np.float32)
)


def calibration(residuals: np.ndarray) -> Calibration:
    return Calibration(residuals_mmhg=residuals.astype(np.float32), chest=REFERENCE_CHEST, ecg=REFERENCE_ECG)


def test_the_quantile_is_the_conformal_rank() -> None:
    scores = np.arange(1.0, 20.0)  # 19 scores: ceil(20 * 0.9) = the 18th
    assert conformal_quantile(scores, 0.90) == 18.0


def test_too_few_patients_for_the_level_are_refused() -> None:
    assert minimum_patients(0.90) == 9
    assert minimum_patients(0.99) == 99
    with pytest.raises(ValueError, match="too few"):
        conformal_quantile(np.arange(8.0), 0.90)
    with pytest.raises(ValueError, match="too few"):
        calibration(np.arange(8.0))


def test_the_interval_covers_nine_new_patients_in_ten() -> None:
    # Seeded: 300 cohorts of 100 calibration and 100 new patients, heavy-tailed errors.
    rng = np.random.default_rng(4)
    covered = []
    for _ in range(300):
        errors = rng.standard_t(4, 200) * 5.0
        half = calibration(errors[:100]).half_width_mmhg()
        covered.append(np.mean(np.abs(errors[100:]) <= half))
    assert 0.895 <= float(np.mean(covered)) <= 0.92


def test_probabilities_rise_with_the_estimate_and_never_reach_certainty() -> None:
    model = calibration(np.linspace(-10, 10, 41))
    estimates = [0.0, 15.0, 20.0, 25.0, 60.0]
    found = [model.probability_above(value, 20.0, inclusive=False) for value in estimates]
    assert found == sorted(found)
    assert 0.0 < found[0] < 0.05
    assert 0.95 < found[-1] < 1.0


def test_at_least_25_counts_the_threshold_itself_and_above_20_does_not() -> None:
    model = calibration(np.zeros(19))
    assert model.probability_above(25.0, 25.0, inclusive=True) > 0.9
    assert model.probability_above(20.0, 20.0, inclusive=False) < 0.1


def test_the_interval_does_not_go_below_zero() -> None:
    assert calibration(np.linspace(-10, 10, 41)).interval(2.0)[0] == 0.0


def test_calibration_survives_storage() -> None:
    model = calibration(np.linspace(-7, 9, 30))
    again = Calibration.from_tensors(model.to_tensors())
    probe = np.random.default_rng(2).standard_normal(128).astype(np.float32)
    assert again.interval(30.0) == model.interval(30.0)
    assert again.ecg.distance(probe) == model.ecg.distance(probe)


def test_a_far_or_broken_embedding_is_unusual_and_a_usual_one_is_not() -> None:
    rng = np.random.default_rng(8)
    usual = [REFERENCE_ECG.is_unusual(rng.standard_normal(128).astype(np.float32)) for _ in range(500)]
    assert np.mean(usual) < 0.05
    assert REFERENCE_ECG.is_unusual(np.full(128, 5.0, dtype=np.float32))
    assert REFERENCE_ECG.is_unusual(np.full(128, np.nan, dtype=np.float32))
