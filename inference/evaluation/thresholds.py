"""How well the prediction tells patients above a threshold from those below: ROC, precision-recall, calibration.

Only where the cohort has controls: at least `FEWEST_PATIENTS` patients with a measured value on either side of the
threshold. A cohort of patients who were catheterised because hypertension was suspected has few, and whom it has were
not drawn from a population: predictive values hold for the cohort alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.evaluation.resampling import (
    FEWEST_PATIENTS,
    Array,
    Figure,
    Resampling,
    interval,
    patient_sums,
    resampled,
)
from inference.evaluation.shares import with_doubt
from inference.evaluation.table import Predictions

BINS = 10
LARGEST_LOGIT = 12.0


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A definition of pulmonary hypertension by mPAP."""

    name: str
    mmhg: float
    inclusive: bool
    probability: str  # the column of the table that claims to be its probability
    source: str

    def above(self, values: Array) -> NDArray[np.bool_]:
        """Which values meet the definition."""
        return values >= self.mmhg if self.inclusive else values > self.mmhg


THRESHOLDS = (
    Threshold(
        name="> 20 mmHg",
        mmhg=20.0,
        inclusive=False,
        probability="probability_above_20",
        source="ESC/ERS guidelines 2022 (Humbert et al., Eur Heart J 2022;43:3618)",
    ),
    Threshold(
        name=">= 25 mmHg",
        mmhg=25.0,
        inclusive=True,
        probability="probability_at_least_25",
        source="ESC/ERS guidelines 2015 (Galie et al., Eur Heart J 2016;37:67)",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Examinations of similar predicted probability."""

    predicted: float  # mean probability
    observed: float  # share that met the definition
    patients: int
    examinations: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Probabilities against what happened. `figures`: brier, mean_predicted, mean_observed, slope, intercept.

    Slope and intercept are those of a logistic regression of the outcome on the logit of the probability (Cox,
    Biometrika 1958;45:562): 1 and 0 where probabilities are right. `intercept` is taken with the slope held at 1.
    """

    figures: dict[str, Figure]
    bins: tuple[Bin, ...]


@dataclass(frozen=True, kw_only=True)
class Discrimination:
    """How well predicted mPAP ranks examinations above and below a threshold.

    `figures`: auroc and average_precision over all cuts; sensitivity, specificity, positive and negative predictive
    value when the prediction is cut at the threshold itself.
    """

    threshold: Threshold
    patients_above: int
    patients_below: int
    prevalence: float  # of examinations
    figures: dict[str, Figure]
    calibration: Calibration | None


@dataclass(frozen=True, kw_only=True)
class NoControls:
    """Why a threshold was not assessed."""

    threshold: Threshold
    reason: str


def thresholds(predictions: Predictions, resampling: Resampling) -> tuple[Discrimination | NoControls, ...]:
    """Each of `THRESHOLDS`, or why not."""
    return tuple(discrimination(predictions, threshold, resampling) for threshold in THRESHOLDS)


def discrimination(
    predictions: Predictions, threshold: Threshold, resampling: Resampling
) -> Discrimination | NoControls:
    """Discrimination at one threshold, if patients lie on either side of it."""
    positive = threshold.above(predictions.measured_mmhg)
    above = len(np.unique(predictions.patient[positive]))
    below = len(np.unique(predictions.patient[~positive]))
    if min(above, below) < FEWEST_PATIENTS:
        side = f"mPAP {threshold.name}" if above < FEWEST_PATIENTS else f"no mPAP {threshold.name}"
        lacks = "cases" if above < FEWEST_PATIENTS else "controls"
        reason = f"fewer than {FEWEST_PATIENTS} patients were measured to have {side}: the cohort has no {lacks}"
        return NoControls(threshold=threshold, reason=reason)
    called = threshold.above(predictions.predicted_mmhg)
    cells = np.stack([positive & called, positive & ~called, ~positive & called, ~positive & ~called], axis=1)
    sums = patient_sums(predictions.patient, cells.astype(np.float64))
    figures = with_doubt(resampled(sums, _table_figures, resampling), _patients_of_table(sums), resampling.level)
    ranking = Ranking(predictions.predicted_mmhg, positive)
    whole = ranking.areas(np.ones((1, len(positive))))
    drawn = [ranking.areas(rows) for rows in row_weights(predictions, resampling)]
    for k, name in enumerate(("auroc", "average_precision")):
        figures[name] = interval(float(whole[k][0]), np.concatenate([d[k] for d in drawn]), None, resampling.level)
    return Discrimination(
        threshold=threshold,
        patients_above=above,
        patients_below=below,
        prevalence=float(positive.mean()),
        figures=figures,
        calibration=_calibration(predictions, threshold, resampling),
    )


class Ranking:
    """Examinations in the order of their score, for areas under curves with any weights."""

    def __init__(self, score: Array, positive: NDArray[np.bool_]) -> None:
        self._order = np.argsort(-score, kind="stable")
        ordered = score[self._order]
        self._ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # last row of each tied group
        self._positive = positive[self._order].astype(np.float64)

    def curve(self, weights: Array) -> tuple[Array, Array]:
        """True and false positives [resamples, cuts] when everything down to a cut is called positive."""
        w = weights[:, self._order]
        true = np.cumsum(w * self._positive, axis=1)[:, self._ends]
        false = np.cumsum(w * (1.0 - self._positive), axis=1)[:, self._ends]
        return true, false

    def areas(self, weights: Array) -> tuple[Array, Array]:
        """AUROC (ties count half) and average precision of each row of `weights` [resamples, examinations].

        Hanley and McNeil, Radiology 1982;143:29; average precision is the step-wise sum over recall.
        """
        true, false = (np.pad(counts, ((0, 0), (1, 0))) for counts in self.curve(weights))
        all_true, all_false = true[:, -1], false[:, -1]
        with np.errstate(divide="ignore", invalid="ignore"):
            area = np.sum(np.diff(false) * (true[:, 1:] + true[:, :-1]) / 2.0, axis=1) / (all_true * all_false)
            precision = np.where(true[:, 1:] + false[:, 1:] > 0, true[:, 1:] / (true[:, 1:] + false[:, 1:]), 0.0)
            average = np.sum(np.diff(true) * precision, axis=1) / all_true
        return area, average


def row_weights(predictions: Predictions, resampling: Resampling) -> Iterator[Array]:
    """Weights of resampled patients spread over their examinations, in blocks [resamples, examinations]."""
    for weights in resampling.weights(predictions.patients):
        step = max(1, 4_000_000 // len(predictions.patient))
        for start in range(0, len(weights), step):
            yield weights[start : start + step][:, predictions.patient]


def _table_figures(cells: Array) -> dict[str, Array]:
    hit, missed, false, right = np.moveaxis(cells, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "sensitivity": np.asarray(hit / (hit + missed)),
            "specificity": np.asarray(right / (right + false)),
            "positive_predictive_value": np.asarray(hit / (hit + false)),
            "negative_predictive_value": np.asarray(right / (right + missed)),
        }


def _patients_of_table(sums: Array) -> dict[str, int]:
    """How many patients each of `_table_figures` is made of, from their sums [patients, 4]."""
    hit, missed, false, right = sums.T > 0
    return {
        "sensitivity": int(np.count_nonzero(hit | missed)),
        "specificity": int(np.count_nonzero(false | right)),
        "positive_predictive_value": int(np.count_nonzero(hit | false)),
        "negative_predictive_value": int(np.count_nonzero(right | missed)),
    }


def _calibration(predictions: Predictions, threshold: Threshold, resampling: Resampling) -> Calibration | None:
    given = np.isfinite(predictions.probabilities[threshold.probability])
    kept = predictions.rows(given) if given.any() else None
    if kept is None or kept.patients < FEWEST_PATIENTS:
        return None
    probability = kept.probabilities[threshold.probability]
    outcome = threshold.above(kept.measured_mmhg).astype(np.float64)
    columns = np.stack([np.ones_like(outcome), (probability - outcome) ** 2, probability, outcome], axis=1)
    figures = resampled(patient_sums(kept.patient, columns), _calibration_means, resampling)
    logit = np.clip(
        np.log(np.maximum(probability, 1e-300)) - np.log(np.maximum(1.0 - probability, 1e-300)),
        -LARGEST_LOGIT,
        LARGEST_LOGIT,
    )
    ones = np.ones((1, len(outcome)))
    whole = np.array([_slopes(logit, outcome, ones)[0], _intercepts(logit, outcome, ones)[0]])
    blocks = [(_slopes(logit, outcome, w), _intercepts(logit, outcome, w)) for w in row_weights(kept, resampling)]
    for k, name in enumerate(("slope", "intercept")):
        drawn = np.concatenate([block[k] for block in blocks])
        figures[name] = interval(float(whole[k]), drawn, None, resampling.level)
    return Calibration(figures=figures, bins=_bins(kept.patient, probability, outcome))


def _calibration_means(sums: Array) -> dict[str, Array]:
    n = sums[..., 0]
    names = ("brier", "mean_predicted", "mean_observed")
    return {name: np.asarray(sums[..., k] / n) for k, name in enumerate(names, start=1)}


def _slopes(logit: Array, outcome: Array, weights: Array, *, steps: int = 30) -> Array:
    """Slope of a logistic regression of the outcome on the logit, for each row of weights, by Newton's method."""
    # From a flat start Newton's first step is a linear fit; from a steep one it may leave for infinity.
    a, b = np.zeros(len(weights)), np.zeros(len(weights))
    with np.errstate(all="ignore"):
        for _ in range(steps):
            fitted = _expit(a[:, None] + b[:, None] * logit)
            residual, curve = weights * (outcome - fitted), weights * fitted * (1.0 - fitted)
            g0, g1 = residual.sum(axis=1), residual @ logit
            h00, h01, h11 = curve.sum(axis=1), curve @ logit, curve @ (logit * logit)
            determinant = h00 * h11 - h01 * h01
            da, db = (h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant
            a, b = a + da, b + db
            if np.nanmax(np.abs(db), initial=0.0) < 1e-8:
                break
    # Separated outcomes have no finite slope; steps that did not settle say so.
    return np.where(np.abs(db) < 1e-6, b, np.nan)


def _intercepts(logit: Array, outcome: Array, weights: Array, *, steps: int = 30) -> Array:
    """Intercept of a logistic regression of the outcome with the logit as an offset, for each row of weights."""
    a = np.zeros(len(weights))
    with np.errstate(all="ignore"):
        for _ in range(steps):
            fitted = _expit(a[:, None] + logit)
            step = (weights * (outcome - fitted)).sum(axis=1) / (weights * fitted * (1.0 - fitted)).sum(axis=1)
            a = a + step
            if np.nanmax(np.abs(step), initial=0.0) < 1e-8:
                break
    return np.where(np.abs(step) < 1e-6, a, np.nan)


def _expit(values: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)))


def _bins(patient: NDArray[np.intp], probability: Array, outcome: Array) -> tuple[Bin, ...]:
    """At most `BINS` bins of equal numbers of examinations; those with too few patients are left out."""
    found = []
    for rows in np.array_split(np.argsort(probability, kind="stable"), min(BINS, math.ceil(len(outcome) / 20))):
        patients = len(np.unique(patient[rows]))
        if patients >= FEWEST_PATIENTS:
            found.append(
                Bin(
                    predicted=float(probability[rows].mean()),
                    observed=float(outcome[rows].mean()),
                    patients=patients,
                    examinations=len(rows),
                )
            )
    return tuple(found)
