"""Subgroups, thresholds, coverage, change and comparison say what the cohort supports, and no more."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from inference.evaluation.change import change
from inference.evaluation.comparison import compare
from inference.evaluation.errors import CohortTooSmall, EvaluationError
from inference.evaluation.evaluate import evaluate
from inference.evaluation.intervals import coverage
from inference.evaluation.plots import comparison_forest
from inference.evaluation.resampling import Resampling
from inference.evaluation.subgroups import subgroups
from inference.evaluation.thresholds import (
    THRESHOLDS,
    Discrimination,
    NoControls,
    Ranking,
    Threshold,
    discrimination,
)
from tests.unit.inference.evaluation_examples import cohort

QUICK = Resampling(repeats=300)
COHORT = cohort()
HIGH = Threshold(name=">= 40 mmHg", mmhg=40.0, inclusive=True, probability="probability_above_20", source="of a test")


class TestSubgroups:
    def test_a_group_of_fewer_than_ten_patients_shows_nothing_but_its_name(self) -> None:
        found = {(g.variable, g.level): g for g in subgroups(COHORT, QUICK)}
        current = found["smoker", "current"]
        few = len(np.unique(COHORT.patient[COHORT.groups["smoker"] == "current"]))
        assert 0 < few < 10
        assert current.suppressed
        assert (current.patients, current.examinations, current.figures) == (None, None, {})
        assert not found["smoker", "never"].suppressed

    def test_ten_patients_are_enough_and_nine_are_not(self) -> None:
        for patients, hidden in ((10, False), (9, True)):
            groups = {**COHORT.groups, "scanner": np.where(COHORT.patient < patients, "S", "")}
            marked = dataclasses.replace(COHORT, groups=groups)
            (scanner,) = [g for g in subgroups(marked, QUICK) if g.variable == "scanner"]
            assert scanner.suppressed is hidden

    def test_a_groups_figures_are_those_of_its_rows(self) -> None:
        rows = COHORT.groups["sex"] == "F"
        (female,) = [g for g in subgroups(COHORT, QUICK) if g.level == "F"]
        errors = (COHORT.predicted_mmhg - COHORT.measured_mmhg)[rows]
        assert female.examinations == rows.sum()
        assert female.patients == len(np.unique(COHORT.patient[rows]))
        assert female.figures["bias"].value == pytest.approx(errors.mean())
        assert female.figures["mean_absolute_error"].value == pytest.approx(np.abs(errors).mean())

    def test_every_age_is_in_one_band(self) -> None:
        bands = [g for g in subgroups(COHORT, QUICK) if g.variable == "age_band" and not g.suppressed]
        assert sum(g.examinations or 0 for g in bands) <= len(COHORT.patient)
        assert {g.level for g in bands} <= {"under 45", "45 to 64", "65 to 74", "75 or over"}


class TestThresholds:
    def test_areas_as_scikit_learn_has_them_ties_included(self) -> None:
        rng = np.random.default_rng(4)
        score, positive = rng.integers(0, 12, 300).astype(float), rng.random(300) < 0.4
        weights = rng.integers(0, 4, (3, 300)).astype(float)
        area, precision = Ranking(score, positive).areas(weights)
        for k in range(3):
            assert area[k] == pytest.approx(roc_auc_score(positive, score, sample_weight=weights[k]))
            assert precision[k] == pytest.approx(average_precision_score(positive, score, sample_weight=weights[k]))

    def test_the_threshold_itself_counts_at_25_and_not_at_20(self) -> None:
        above_20, at_least_25 = THRESHOLDS
        assert above_20.above(np.array([20.0, 20.1])).tolist() == [False, True]
        assert at_least_25.above(np.array([24.9, 25.0])).tolist() == [False, True]

    def test_sensitivity_and_specificity_cut_the_prediction_at_the_threshold(self) -> None:
        found = discrimination(COHORT, THRESHOLDS[1], QUICK)
        assert isinstance(found, Discrimination)
        positive, called = COHORT.measured_mmhg >= 25, COHORT.predicted_mmhg >= 25
        assert found.figures["sensitivity"].value == pytest.approx(called[positive].mean())
        assert found.figures["specificity"].value == pytest.approx((~called[~positive]).mean())
        assert found.figures["positive_predictive_value"].value == pytest.approx(positive[called].mean())

    def test_a_cohort_without_controls_is_not_assessed_and_says_why(self) -> None:
        found = evaluate(cohort(40, lowest=27.0), QUICK).thresholds
        assert all(isinstance(item, NoControls) for item in found)
        assert "no mPAP > 20 mmHg: the cohort has no controls" in found[0].reason  # type: ignore[union-attr]

    def test_a_cohort_without_cases_says_so(self) -> None:
        low = dataclasses.replace(COHORT, measured_mmhg=np.minimum(COHORT.measured_mmhg, 25.0))
        found = discrimination(low, HIGH, QUICK)
        assert isinstance(found, NoControls)
        assert "mPAP >= 40 mmHg: the cohort has no cases" in found.reason

    def test_a_sensitivity_of_all_patients_is_not_certain(self) -> None:
        certain = dataclasses.replace(COHORT, predicted_mmhg=np.where(COHORT.measured_mmhg >= 25, 60.0, 10.0))
        found = discrimination(certain, THRESHOLDS[1], QUICK)
        assert isinstance(found, Discrimination)
        specificity = found.figures["specificity"]
        assert (specificity.value, specificity.high, specificity.method) == (1.0, 1.0, "Wilson")
        of = found.patients_below
        assert specificity.low == pytest.approx(of / (of + 1.959964**2))  # Wilson's bound of all

    def test_calibration_as_statsmodels_and_scikit_learn_have_it(self) -> None:
        threshold = THRESHOLDS[1]
        found = discrimination(COHORT, threshold, QUICK)
        assert isinstance(found, Discrimination)
        assert found.calibration is not None
        p = COHORT.probabilities[threshold.probability]
        outcome = threshold.above(COHORT.measured_mmhg).astype(float)
        logit = np.log(p / (1 - p))
        slope = sm.GLM(outcome, sm.add_constant(logit), family=sm.families.Binomial()).fit().params[1]
        shift = sm.GLM(outcome, np.ones_like(logit), family=sm.families.Binomial(), offset=logit).fit().params[0]
        assert np.abs(logit).max() < 12.0
        assert found.calibration.figures["slope"].value == pytest.approx(slope, rel=1e-5)
        assert found.calibration.figures["intercept"].value == pytest.approx(shift, rel=1e-5)
        assert found.calibration.figures["brier"].value == pytest.approx(brier_score_loss(outcome, p))
        assert sum(b.examinations for b in found.calibration.bins) <= len(p)
        assert [b.predicted for b in found.calibration.bins] == sorted(b.predicted for b in found.calibration.bins)

    def test_without_probabilities_there_is_no_calibration(self) -> None:
        empty = {name: np.full_like(values, np.nan) for name, values in COHORT.probabilities.items()}
        found = discrimination(dataclasses.replace(COHORT, probabilities=empty), THRESHOLDS[0], QUICK)
        assert isinstance(found, Discrimination)
        assert found.calibration is None


class TestCoverage:
    def test_a_patient_who_comes_often_counts_once(self) -> None:
        # One patient with four visits never covered, eleven patients with one visit covered.
        patient = np.array([0, 0, 0, 0, *range(1, 12)])
        measured = np.linspace(20.0, 50.0, 15)
        half = np.where(patient == 0, -1.0, 5.0)
        one = cohort(15, visits=1)
        table = dataclasses.replace(
            one,
            patient=patient,
            measured_mmhg=measured,
            predicted_mmhg=measured,
            lower_mmhg=np.where(patient == 0, measured + 1.0, measured - half),
            upper_mmhg=measured + 5.0,
        )
        found = coverage(table, QUICK)
        assert found is not None
        assert found.figures["coverage"].value == pytest.approx(11 / 15)
        assert found.figures["coverage_by_patient"].value == pytest.approx(11 / 12)
        assert found.figures["share_below"].value == pytest.approx(4 / 15)

    def test_fifteen_patients_of_fifteen_are_not_covered_for_certain(self) -> None:
        found = coverage(cohort(15, visits=1, half_width=200.0), QUICK)
        assert found is not None
        for name in ("coverage", "coverage_by_patient"):
            figure = found.figures[name]
            assert (figure.value, figure.method) == (1.0, "Wilson")
            assert (figure.low, figure.high) == pytest.approx((15 / (15 + 1.959964**2), 1.0))
        assert found.figures["share_above"].high == pytest.approx(1 - found.figures["coverage"].low)

    def test_without_bounds_there_is_no_coverage(self) -> None:
        assert coverage(cohort(half_width=None), QUICK) is None


class TestChange:
    def test_changes_follow_the_dates_and_not_the_rows(self) -> None:
        order = np.random.default_rng(1).permutation(len(COHORT.patient))
        straight, shuffled = change(COHORT, QUICK), change(COHORT.rows(order), QUICK)
        assert straight is not None
        assert shuffled is not None
        assert sorted(straight.measured_mmhg) == sorted(shuffled.measured_mmhg)
        assert straight.figures["slope"].value == pytest.approx(shuffled.figures["slope"].value)

    def test_patients_seen_once_or_without_dates_have_no_change(self) -> None:
        assert change(cohort(visits=1), QUICK) is None
        undated = dataclasses.replace(COHORT, acquired_at=np.full_like(COHORT.acquired_at, "NaT"))
        assert change(undated, QUICK) is None

    def test_a_model_that_knows_patients_but_not_their_course_is_found_out(self) -> None:
        own_mean = np.bincount(COHORT.patient, COHORT.measured_mmhg) / np.bincount(COHORT.patient)
        noise = np.random.default_rng(3).normal(0.0, 0.5, len(COHORT.patient))
        blind = dataclasses.replace(COHORT, predicted_mmhg=own_mean[COHORT.patient] + noise)
        found = evaluate(blind, QUICK)
        assert found.figures["correlation"].value > 0.8
        assert found.change is not None
        assert abs(found.change.figures["within_patient_correlation"].value) < 0.2
        assert found.change.figures["slope"].value < 0.05


class TestComparison:
    def test_the_differences_interval_is_narrower_than_the_two_apart(self) -> None:
        worse = dataclasses.replace(
            COHORT,
            model="worse",
            predicted_mmhg=COHORT.predicted_mmhg + np.random.default_rng(9).normal(0.0, 5.0, len(COHORT.patient)),
        )
        found = compare(COHORT, worse, Resampling(repeats=500))
        item, one, two = (of["mean_absolute_error"] for of in (found.difference, found.of_first, found.of_second))
        assert item.value == pytest.approx(two.value - one.value)
        assert item.low > 0.0
        assert item.high - item.low < 0.7 * ((one.high - one.low) + (two.high - two.low))

    def test_a_model_against_itself_differs_in_nothing(self) -> None:
        found = compare(COHORT, COHORT, QUICK)
        assert all(figure.value == 0.0 for figure in found.difference.values())
        assert found.share_nearer_second == 0.5

    def test_order_of_rows_does_not_matter_and_unshared_examinations_are_counted(self) -> None:
        order = np.random.default_rng(1).permutation(len(COHORT.patient))[5:]
        other = cohort(model="other", noise=3.0)
        found = compare(COHORT, other.rows(order), QUICK)
        again = compare(COHORT, other.rows(np.sort(order)), QUICK)
        assert found.only_first == 5
        assert found.difference["bias"].value == pytest.approx(again.difference["bias"].value)
        assert found.difference["mean_absolute_error"].high < 0.0

    def test_tables_of_two_cohorts_are_not_compared(self) -> None:
        with pytest.raises(EvaluationError, match="another measured pressure"):
            compare(COHORT, dataclasses.replace(COHORT, measured_mmhg=COHORT.measured_mmhg + 1.0))
        other = dataclasses.replace(COHORT, examination=np.char.add(COHORT.examination, "x"))
        with pytest.raises(CohortTooSmall, match="no examination in common"):
            compare(COHORT, other)
        mixed = dataclasses.replace(COHORT, patient=np.arange(len(COHORT.patient)))
        with pytest.raises(EvaluationError, match="other patients"):
            compare(COHORT, mixed)

    def test_a_model_that_always_says_the_same_is_compared_and_drawn(self) -> None:
        """Guards: a figure with limits that are no number, and no comparison with the simplest of all models."""
        same = dataclasses.replace(COHORT, model="mean", predicted_mmhg=np.full_like(COHORT.predicted_mmhg, 36.0))
        found = compare(same, COHORT, QUICK)
        assert np.isnan(found.difference["squared_correlation"].value)
        assert found.of_first["concordance"].value == pytest.approx(0.0, abs=1e-12)
        assert comparison_forest(found, "research use only").png


class TestTooFew:
    def test_nine_patients_are_not_evaluated(self) -> None:
        with pytest.raises(CohortTooSmall, match="9 patients"):
            evaluate(cohort(9), QUICK)

    def test_measurements_that_do_not_vary_are_not_evaluated(self) -> None:
        with pytest.raises(CohortTooSmall, match="same measured"):
            evaluate(dataclasses.replace(COHORT, measured_mmhg=np.full_like(COHORT.measured_mmhg, 30.0)), QUICK)

    def test_changes_and_coverage_of_nine_patients_are_not_given(self) -> None:
        nine = COHORT.patient < 9
        few = dataclasses.replace(
            COHORT,
            acquired_at=np.where(nine, COHORT.acquired_at, np.datetime64("NaT", "us")),
            lower_mmhg=np.where(nine, COHORT.lower_mmhg, np.nan),
        )
        found = evaluate(few, QUICK)
        assert found.change is None
        assert found.coverage is None
