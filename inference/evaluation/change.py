"""Whether predictions follow a patient: changes from each dated visit to the next, and correlation within patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.evaluation.accuracy import accuracy, accuracy_sums
from inference.evaluation.resampling import FEWEST_PATIENTS, Array, Figure, Resampling, patient_sums, resampled
from inference.evaluation.shares import with_doubt
from inference.evaluation.table import Predictions

NOTABLE_CHANGE_MMHG = 5.0  # a direction is judged only where the measured change is at least this large
FIGURES = (
    "mean_absolute_error",
    "bias",
    "error_sd",
    "slope",
    "squared_correlation",
    "lower_limit",
    "upper_limit",
    "baseline_mae",
)


@dataclass(frozen=True, kw_only=True)
class Change:
    """Changes between consecutive visits of a patient, mmHg: predicted against measured."""

    patients: int
    changes: int
    notable_changes: int  # of at least `NOTABLE_CHANGE_MMHG` as measured
    figures: dict[str, Figure]
    patient: NDArray[np.intp]  # [changes]
    measured_mmhg: Array  # [changes]
    predicted_mmhg: Array  # [changes]


def change(predictions: Predictions, resampling: Resampling) -> Change | None:
    """Change from visit to visit; None where fewer than `FEWEST_PATIENTS` patients have two dated visits.

    Besides `FIGURES` of the changes (`baseline_mae`: of predicting the mean change): `same_direction`, the share of
    notable changes whose sign was predicted, and `within_patient_correlation` (Bland and Altman, BMJ 1995;310:446),
    the correlation of predicted and measured about each patient's own means, over visits, dated or not.
    """
    patient, measured, predicted = _consecutive(predictions)
    if len(np.unique(patient)) < FEWEST_PATIENTS:
        return None
    sums, offset = accuracy_sums(patient, measured, predicted)
    found = resampled(sums, lambda s: {name: accuracy(s, offset)[name] for name in FIGURES}, resampling)
    notable = np.abs(measured) >= NOTABLE_CHANGE_MMHG
    right = notable & (np.sign(measured) == np.sign(predicted))
    directions = patient_sums(patient, np.stack([notable, right], axis=1).astype(np.float64))
    judged = {"same_direction": int(np.count_nonzero(directions[:, 0]))}
    found |= with_doubt(resampled(directions, _same_direction, resampling), judged, resampling.level)
    found |= resampled(_within_sums(predictions), _within_correlation, resampling)
    return Change(
        patients=int(patient.max()) + 1,
        changes=len(patient),
        notable_changes=int(notable.sum()),
        figures=found,
        patient=patient,
        measured_mmhg=measured,
        predicted_mmhg=predicted,
    )


def _consecutive(predictions: Predictions) -> tuple[NDArray[np.intp], Array, Array]:
    """Patient (numbered anew), measured and predicted change of each pair of visits that follow one another."""
    dated = ~np.isnat(predictions.acquired_at)
    kept = predictions.rows(dated)
    order = np.lexsort((kept.acquired_at, kept.patient))
    patient = kept.patient[order]
    follows = np.flatnonzero((patient[1:] == patient[:-1]) & (np.diff(kept.acquired_at[order]) > np.timedelta64(0)))
    measured = np.diff(kept.measured_mmhg[order])[follows]
    predicted = np.diff(kept.predicted_mmhg[order])[follows]
    _, numbers = np.unique(patient[follows], return_inverse=True)
    return numbers.astype(np.intp), measured, predicted


def _same_direction(sums: Array) -> dict[str, Array]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"same_direction": np.asarray(sums[..., 1] / sums[..., 0])}


def _within_sums(predictions: Predictions) -> Array:
    """Squares and products about each patient's means, for patients with several visits, [patients, 3]."""
    patient = predictions.patient
    visits = np.bincount(patient)

    def about_own_mean(values: Array) -> Array:
        return values - (np.bincount(patient, values) / visits)[patient]

    x, y = about_own_mean(predictions.measured_mmhg), about_own_mean(predictions.predicted_mmhg)
    sums = patient_sums(patient, np.stack([x * x, y * y, x * y], axis=1))
    return sums[visits > 1]


def _within_correlation(sums: Array) -> dict[str, Array]:
    with np.errstate(divide="ignore", invalid="ignore"):
        value = sums[..., 2] / np.sqrt(sums[..., 0] * sums[..., 1])
    return {"within_patient_correlation": np.asarray(value)}
