"""Agreement figures equal published worked examples and independent libraries."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from inference.agreement import agreement
from inference.evaluation.accuracy import accuracy, accuracy_sums
from inference.evaluation.change import change
from inference.evaluation.limits import approximate_limits, exact_limits, repeated_limits
from inference.evaluation.resampling import Resampling, interval, resampled
from tests.unit.inference.evaluation_examples import (
    CARDIAC_IC,
    CARDIAC_PATIENT,
    CARDIAC_RV,
    PEFR_LARGE,
    PEFR_MINI,
    cohort,
)

COHORT = cohort()
X, Y, PATIENT = COHORT.measured_mmhg, COHORT.predicted_mmhg, COHORT.patient


def figures(measured: np.ndarray, predicted: np.ndarray, patient: np.ndarray | None = None) -> dict[str, float]:
    sums, offset = accuracy_sums(np.arange(len(measured)) if patient is None else patient, measured, predicted)
    return {name: float(value) for name, value in accuracy(sums.sum(axis=0), offset).items()}


class TestPublishedExamples:
    def test_bland_and_altman_1986_peak_flow(self) -> None:
        # Lancet 1986;1:307: mean -2.1, SD 38.8; limits (2 SD) -79.7 and 75.5; intervals -22.1 to 17.8, -114.3 to
        # -45.1 and 40.9 to 110.1. The paper rounded before it multiplied, hence the tolerance.
        found = approximate_limits(PEFR_LARGE - PEFR_MINI, spread=2.0)
        assert (round(found.bias.value, 1), round(found.sd, 1)) == (-2.1, 38.8)
        printed = {
            found.lower.value: -79.7,
            found.upper.value: 75.5,
            found.bias.low: -22.1,
            found.bias.high: 17.8,
            found.lower.low: -114.3,
            found.lower.high: -45.1,
            found.upper.low: 40.9,
            found.upper.high: 110.1,
        }
        for value, expected in printed.items():
            assert value == pytest.approx(expected, abs=0.2)

    def test_bland_and_altman_2007_where_the_true_value_varies(self) -> None:
        # J Biopharm Stat 2007;17:571: mean 0.60, SD of a difference 0.99, limits -1.34 and 2.54.
        found = figures(CARDIAC_IC, CARDIAC_RV, CARDIAC_PATIENT)
        assert found["bias"] == pytest.approx(0.602, abs=0.001)
        assert found["repeated_sd"] == pytest.approx(0.99, abs=0.005)
        assert found["repeated_lower_limit"] == pytest.approx(-1.34, abs=0.005)
        assert found["repeated_upper_limit"] == pytest.approx(2.54, abs=0.005)

    def test_zou_2013_with_mover_intervals(self) -> None:
        # Stat Methods Med Res 2013;22:630, the first four patients; the values that SimplyAgree's tests hold.
        found = repeated_limits((CARDIAC_RV - CARDIAC_IC)[:20], CARDIAC_PATIENT[:20])
        assert found.bias.value == pytest.approx(0.7255, abs=0.0005)
        assert (found.lower.value, found.upper.value) == pytest.approx((-2.14, 3.59), abs=0.005)
        assert (found.lower.low, found.lower.high) == pytest.approx((-9.83, -0.33), abs=0.01)
        assert (found.upper.low, found.upper.high) == pytest.approx((1.77, 11.27), abs=0.011)


class TestAgainstOtherLibraries:
    def test_errors_as_scikit_learn_has_them(self) -> None:
        found = figures(X, Y)
        assert found["mean_absolute_error"] == pytest.approx(mean_absolute_error(X, Y))
        assert found["root_mean_square_error"] == pytest.approx(root_mean_squared_error(X, Y))
        assert found["explained"] == pytest.approx(r2_score(X, Y))
        assert found["absolute_error_sd"] == pytest.approx(np.abs(Y - X).std(ddof=1))

    def test_regressions_as_statsmodels_has_them(self) -> None:
        found = figures(X, Y)
        line = sm.OLS(Y, sm.add_constant(X)).fit()
        assert (found["intercept"], found["slope"]) == pytest.approx(tuple(line.params))
        assert found["squared_correlation"] == pytest.approx(line.rsquared)
        for name, response, regressor in (
            ("calibration_slope", X, Y),
            ("proportional_bias_on_mean", Y - X, (X + Y) / 2),
            ("proportional_bias_on_measured", Y - X, X),
        ):
            assert found[name] == pytest.approx(sm.OLS(response, sm.add_constant(regressor)).fit().params[1]), name

    def test_the_repeated_visits_sd_is_that_of_a_one_way_analysis_of_variance(self) -> None:
        d = CARDIAC_RV - CARDIAC_IC
        groups = [d[k == CARDIAC_PATIENT] for k in range(12)]
        table = sm.stats.anova_lm(
            sm.OLS.from_formula("d ~ C(p)", pd.DataFrame({"d": d, "p": CARDIAC_PATIENT})).fit(), typ=1
        )
        between, within = table["mean_sq"].iloc[0], table["mean_sq"].iloc[1]
        visits = (60 - sum(len(g) ** 2 for g in groups) / 60) / 11
        expected = np.sqrt(within + (between - within) / visits)
        assert figures(CARDIAC_IC, CARDIAC_RV, CARDIAC_PATIENT)["repeated_sd"] == pytest.approx(expected)

    def test_concordance_is_one_less_the_share_of_disagreement_left_from_chance(self) -> None:
        # Lin 1989, equation 2: 1 - E(d^2) / E(d^2 if both were independent), over all pairs of patients.
        chance = np.mean((X[:, None] - Y[None, :]) ** 2)
        assert figures(X, Y)["concordance"] == pytest.approx(1 - np.mean((X - Y) ** 2) / chance)

    def test_correlation_within_patients_is_that_of_an_analysis_of_covariance(self) -> None:
        found = change(COHORT, Resampling(repeats=200))
        assert found is not None
        fit = sm.OLS.from_formula("y ~ x + C(p)", pd.DataFrame({"x": X, "y": Y, "p": PATIENT})).fit()
        table = sm.stats.anova_lm(fit, typ=2)
        of_x, rest = table.loc["x", "sum_sq"], table.loc["Residual", "sum_sq"]
        expected = np.sqrt(of_x / (of_x + rest))
        assert found.figures["within_patient_correlation"].value == pytest.approx(expected)

    def test_bca_intervals_as_scipy_has_them(self) -> None:
        sample = np.random.default_rng(12).lognormal(0.0, 0.8, 60)
        ours = resampled(
            np.stack([np.ones(60), sample], axis=1),
            lambda s: {"mean": s[..., 1] / s[..., 0]},
            Resampling(repeats=8000),
        )["mean"]
        theirs = stats.bootstrap((sample,), np.mean, n_resamples=8000, method="BCa", rng=5).confidence_interval
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=0.03)
        # Skewed data: the corrected interval lies to the right of the plain one.
        assert ours.low > ours.percentile_low
        assert ours.high > ours.percentile_high


class TestWhatTheFiguresMean:
    def test_figures_of_the_packages_agree_with_those_of_the_report(self) -> None:
        whole, found = agreement(X, Y), figures(X, Y)
        for name in ("mean_absolute_error", "bias", "error_sd", "correlation", "slope", "explained"):
            assert found[name] == pytest.approx(getattr(whole, name)), name

    def test_a_shift_leaves_the_squared_correlation_and_lowers_what_is_explained(self) -> None:
        before, after = figures(X, Y), figures(X, Y + 10.0)
        assert after["squared_correlation"] == pytest.approx(before["squared_correlation"])
        assert after["explained"] < before["explained"] - 0.3
        assert after["concordance"] < before["concordance"]

    def test_predicting_the_mean_spares_nothing(self) -> None:
        found = figures(X, np.full_like(X, X.mean()))
        assert found["skill"] == pytest.approx(0.0, abs=1e-12)
        assert found["mean_absolute_error"] == pytest.approx(found["baseline_mae"])
        assert np.isnan(found["correlation"])

    def test_repeated_limits_of_patients_seen_once_are_not_defined(self) -> None:
        assert np.isnan(figures(X, Y)["repeated_sd"])
        with pytest.raises(ValueError, match="two visits"):
            repeated_limits(Y - X, np.arange(len(X)))


class TestIntervals:
    def test_exact_limits_cover_the_true_limit_as_often_as_they_say(self) -> None:
        # Seeded: 4,000 samples of 12 normal differences; the true upper limit is 1.96.
        draws = np.random.default_rng(8).normal(size=(4000, 12))
        covered = 0
        for sample in draws:
            upper = exact_limits(sample).upper
            covered += upper.low <= 1.959964 <= upper.high
        assert 0.943 <= covered / 4000 <= 0.957

    def test_resampling_patients_is_wider_than_resampling_visits_that_go_together(self) -> None:
        rng = np.random.default_rng(2)
        patient = np.repeat(np.arange(60), 5)
        measured = rng.normal(35.0, 10.0, 300)
        predicted = measured + rng.normal(0.0, 6.0, 60)[patient] + rng.normal(0.0, 1.0, 300)
        widths = []
        for groups in (patient, np.arange(300)):
            sums, offset = accuracy_sums(groups, measured, predicted)
            bias = resampled(sums, lambda s, o=offset: {"bias": accuracy(s, o)["bias"]}, Resampling())["bias"]
            widths.append(bias.high - bias.low)
        assert widths[0] > 1.8 * widths[1]

    def test_the_same_seed_gives_the_same_interval_and_another_a_slightly_different_one(self) -> None:
        sums, offset = accuracy_sums(PATIENT, X, Y)

        def low(seed: int) -> float:
            found = resampled(sums, lambda s: accuracy(s, offset), Resampling(seed=seed, repeats=400))
            return found["mean_absolute_error"].low

        assert low(1) == low(1)
        assert low(1) != low(2)
        assert low(1) == pytest.approx(low(2), rel=0.1)

    def test_blocks_of_weights_do_not_change_what_is_drawn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = np.concatenate(list(Resampling(repeats=50).weights(30)))
        monkeypatch.setattr("inference.evaluation.resampling.WEIGHTS_AT_ONCE", 210)
        parts = list(Resampling(repeats=50).weights(30))
        assert len(parts) == 8
        assert np.array_equal(np.concatenate(parts), whole)
        assert (whole.sum(axis=1) == 30).all()

    def test_a_figure_that_most_resamples_do_not_define_has_no_interval(self) -> None:
        found = interval(1.0, np.array([1.0, np.nan, np.nan, 1.2]), None, 0.95)
        assert found.method == "none"
        assert np.isnan(found.low)
