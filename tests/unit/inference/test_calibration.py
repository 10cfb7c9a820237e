"""Intervals and probabilities come from residuals of held-out patients; unusual embeddings are called so."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from mapie.regression import SplitConformalRegressor
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LinearRegression

from inference.calibration import (
    Calibration,
    fit_reference,
    grouped_conformal_quantile,
    minimum_patients,
    usual_limit,
)
from inference.phantoms.pressure import (
    Difficulty,
    first_pressure,
    next_pressure,
    shown_by_chest,
    shown_by_ecg,
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
    assert grouped_conformal_quantile(scores, np.arange(19), 0.90) == 18.0


def test_too_few_patients_for_the_level_are_refused() -> None:
    assert minimum_patients(0.90) == 9
    assert minimum_patients(0.99) == 99
    with pytest.raises(ValueError, match="too few"):
        grouped_conformal_quantile(np.arange(8.0), np.arange(8), 0.90)
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


def test_with_one_visit_a_patient_grouping_changes_nothing() -> None:
    scores = np.abs(RNG.standard_normal(57))
    assert grouped_conformal_quantile(scores, RNG.permutation(57), 0.90) == np.sort(scores)[53 - 1]  # ceil(58 * .9)
    residuals = RNG.standard_normal(57).astype(np.float32)
    grouped = dataclasses.replace(calibration(residuals), patient=np.arange(57, dtype=np.int32))
    assert grouped.interval(30.0) == calibration(residuals).interval(30.0)
    assert grouped.probability_above(30.0, 30.5, inclusive=False) == pytest.approx(
        calibration(residuals).probability_above(30.0, 30.5, inclusive=False)
    )


def test_with_one_visit_a_patient_the_interval_is_mapies() -> None:
    rng = np.random.default_rng(21)
    x, y = rng.normal(size=(140, 1)), rng.normal(35.0, 11.0, 140)
    line = LinearRegression().fit(x[:60], y[:60])
    mapie = SplitConformalRegressor(line, confidence_level=0.90, prefit=True).conformalize(x[60:], y[60:])
    _, bounds = mapie.predict_interval(x[:5])
    ours = calibration(y[60:] - line.predict(x[60:]))
    assert (bounds[:, 1, 0] - bounds[:, 0, 0]) / 2 == pytest.approx(ours.half_width_mmhg(), rel=1e-6)


def test_a_patient_who_came_often_weighs_as_much_as_any_other() -> None:
    # Nineteen patients with residuals 1 to 19; one of them, far off, came fifty times more.
    residuals = np.concatenate([np.arange(1.0, 20.0), np.full(50, 19.0)]).astype(np.float32)
    patient = np.concatenate([np.arange(19), np.full(50, 18)]).astype(np.int32)
    assert calibration(residuals).half_width_mmhg() == 19.0
    assert dataclasses.replace(calibration(residuals), patient=patient).half_width_mmhg() == 18.0


def test_visits_of_eight_patients_are_too_few_however_many() -> None:
    with pytest.raises(ValueError, match="too few patients"):
        dataclasses.replace(calibration(np.linspace(-9, 9, 80)), patient=np.repeat(np.arange(8), 10).astype(np.int32))


def test_the_interval_covers_nine_new_patients_in_ten_over_twenty_phantom_cohorts() -> None:
    """Seeded. Patients of the difficulty `paper`, one to four visits each, told by the oracle's regression."""
    by_patient, seen = [], 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        patient, visits = _phantom_visits(500, rng)
        design = np.column_stack([np.ones(len(visits)), visits[:, 1:]])
        part = np.array([0] * 150 + [1] * 100 + [2] * 250)[patient]
        weights, *_ = np.linalg.lstsq(design[part == 0], visits[part == 0, 0], rcond=None)
        estimated = design @ weights
        model = Calibration(
            residuals_mmhg=(visits[:, 0] - estimated)[part == 1].astype(np.float32),
            patient=patient[part == 1].astype(np.int32),
            chest=REFERENCE_CHEST,
            ecg=REFERENCE_ECG,
        )
        bounds = np.array([model.interval(value) for value in estimated[part == 2]])
        covered = (visits[part == 2, 0] >= bounds[:, 0]) & (visits[part == 2, 0] <= bounds[:, 1])
        own = patient[part == 2] - 250
        by_patient.append(float(np.mean(np.bincount(own, covered) / np.bincount(own))))
        seen += len(covered)
    assert seen > 20 * 250
    assert 0.87 <= float(np.mean(by_patient)) <= 0.93
    assert min(by_patient) > 0.80


def _phantom_visits(patients: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Patient, and truth and what radiograph and ECG show [visits, 3], mmHg: phantoms without the pictures."""
    rows, owners = [], []
    for patient in range(patients):
        before = None
        for _ in range(int(rng.integers(1, 5))):
            truth = (
                first_pressure(Difficulty.PAPER, rng)
                if before is None
                else next_pressure(Difficulty.PAPER, before, rng)
            )
            chest = shown_by_chest(Difficulty.PAPER, truth, rng)
            rows.append((truth, chest, shown_by_ecg(Difficulty.PAPER, truth, before, rng)))
            owners.append(patient)
            before = truth
    return np.array(owners), np.array(rows)


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
    model = dataclasses.replace(
        calibration(np.linspace(-7, 9, 30)), patient=np.repeat(np.arange(10), 3).astype(np.int32)
    )
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


def test_the_distance_is_mahalanobis_with_the_covariance_of_ledoit_and_wolf() -> None:
    rng = np.random.default_rng(14)
    usual = (rng.standard_normal((60, 12)) * np.linspace(0.5, 4.0, 12)).astype(np.float32)
    fitted = LedoitWolf().fit(usual.astype(np.float64))
    assert 0.0 < fitted.shrinkage_ < 1.0
    reference = fit_reference(usual, usual)
    probes = rng.standard_normal((5, 12)).astype(np.float32) * 3.0
    assert [reference.distance(probe) for probe in probes] == pytest.approx(fitted.mahalanobis(probes), rel=1e-4)


def test_fewer_patients_than_dimensions_are_shrunk_as_far_as_scikit_learn_shrinks_them() -> None:
    rng = np.random.default_rng(18)
    usual = (rng.standard_normal((30, 90)) * np.linspace(0.5, 4.0, 90)).astype(np.float32)
    fitted = LedoitWolf().fit(usual.astype(np.float64))
    probe = rng.standard_normal((1, 90)).astype(np.float32)
    assert fit_reference(usual, usual).distance(probe[0]) == pytest.approx(fitted.mahalanobis(probe)[0], rel=1e-4)


def test_directions_that_are_not_kept_one_by_one_share_their_mean_variance() -> None:
    rng = np.random.default_rng(15)
    usual = (rng.standard_normal((400, 20)) * np.r_[5.0, 4.0, np.full(18, 0.5)]).astype(np.float32)
    whole, short = fit_reference(usual, usual), fit_reference(usual, usual, components=2)
    assert short.basis.shape == (2, 20)
    probe = rng.standard_normal(20).astype(np.float32)
    assert short.distance(probe) == pytest.approx(whole.distance(probe), rel=0.2)


def test_one_new_patient_in_a_hundred_is_called_unusual() -> None:
    # Seeded: forty cohorts of 300 training, 199 held-out and 200 new patients.
    rng = np.random.default_rng(17)
    called = []
    for _ in range(40):
        drawn = rng.standard_t(5, (699, 16)).astype(np.float32)
        reference = fit_reference(drawn[:300], drawn[300:499])
        called += [reference.is_unusual(row) for row in drawn[499:]]
    assert 0.005 <= float(np.mean(called)) <= 0.015


def test_one_who_came_often_does_not_move_the_limit_of_the_usual() -> None:
    # Ninety-eight patients are too few for one in a hundred, however often they came: their largest.
    assert usual_limit(np.repeat(np.arange(1.0, 99.0), 20), np.repeat(np.arange(98), 20)) == 98.0
    # One of two hundred, unlike the others, came forty times: still one of two hundred.
    often = np.concatenate([np.arange(199.0), np.full(40, 500.0)])
    assert usual_limit(often) == 500.0
    assert usual_limit(often, np.concatenate([np.arange(199), np.full(40, 199)])) == 198.0


@pytest.mark.parametrize("limit", [np.inf, np.nan, 0.0, -1.0])
def test_a_limit_behind_which_nothing_is_unusual_is_refused(limit: float) -> None:
    tensors = calibration(np.linspace(-7, 9, 30)).to_tensors()
    with pytest.raises(ValueError, match="chest reference is not finite"):
        Calibration.from_tensors({**tensors, "chest.limit": np.array([limit])})
    with pytest.raises(LookupError):
        Calibration.from_tensors({**tensors, "chest.limit": np.zeros(0)})
