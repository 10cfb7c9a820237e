"""Two models on the same examinations: differences of their figures, by resampling the same patients for both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inference.evaluation.accuracy import accuracy, accuracy_sums
from inference.evaluation.errors import CohortTooSmall, EvaluationError
from inference.evaluation.resampling import FEWEST_PATIENTS, Array, Figure, Resampling, interval, resampled
from inference.evaluation.table import Predictions
from inference.evaluation.thresholds import THRESHOLDS, Ranking, row_weights

FIGURES = (
    "mean_absolute_error",
    "root_mean_square_error",
    "bias",
    "error_sd",
    "slope",
    "squared_correlation",
    "explained",
    "concordance",
)
SMALLER_IS_BETTER = ("mean_absolute_error", "root_mean_square_error", "error_sd")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Figures of two models and of their difference, second minus first."""

    first: str
    second: str
    patients: int
    examinations: int
    only_first: int  # examinations that the other did not predict; left out
    only_second: int
    resampling: Resampling
    of_first: dict[str, Figure]
    of_second: dict[str, Figure]
    difference: dict[str, Figure]
    mean_absolute_disagreement_mmhg: float  # between the two predictions
    share_nearer_second: float  # of examinations, the second model's prediction lies nearer; ties half


def compare(first: Predictions, second: Predictions, resampling: Resampling | None = None) -> Comparison:
    """Compare two models on the examinations that both predicted.

    Raises
    ------
    EvaluationError
        If a shared examination has another measured value or patient in the two.
    CohortTooSmall
        If fewer than `FEWEST_PATIENTS` patients are shared.
    """
    resampling = resampling or Resampling()
    _, a, b = np.intersect1d(first.examination, second.examination, assume_unique=True, return_indices=True)
    if len(a) == 0:
        raise CohortTooSmall("the two have no examination in common", "compare predictions of one cohort")
    one, two = first.rows(a), second.rows(b)
    if not np.array_equal(one.measured_mmhg, two.measured_mmhg):
        different = int(np.count_nonzero(one.measured_mmhg != two.measured_mmhg))
        raise EvaluationError(
            f"{different} of {len(a)} shared examinations have another measured pressure in the two tables",
            "compare predictions of one cohort",
        )
    if not _same_partition(one, two):
        raise EvaluationError("shared examinations belong to other patients in the two tables")
    if one.patients < FEWEST_PATIENTS:
        raise CohortTooSmall(f"{one.patients} shared patients are too few to compare", f"{FEWEST_PATIENTS} are needed")
    sums_one, offset = accuracy_sums(one.patient, one.measured_mmhg, one.predicted_mmhg)
    # The patients of both are in one order: the same weights draw the same patients.
    sums_two, _ = accuracy_sums(one.patient, two.measured_mmhg, two.predicted_mmhg)
    width = sums_one.shape[1]

    def chosen(sums: Array) -> dict[str, Array]:
        found = accuracy(sums, offset)
        return {name: found[name] for name in FIGURES} | {"absolute_bias": np.abs(found["bias"])}

    def differences(sums: Array) -> dict[str, Array]:
        of_first, of_second = chosen(sums[..., :width]), chosen(sums[..., width:])
        return {name: of_second[name] - of_first[name] for name in of_first}

    difference = resampled(np.concatenate([sums_one, sums_two], axis=1), differences, resampling)
    of_first, of_second = resampled(sums_one, chosen, resampling), resampled(sums_two, chosen, resampling)
    for name, figures in _areas(one, two, resampling).items():
        of_first[name], of_second[name], difference[name] = figures
    error_one = np.abs(one.predicted_mmhg - one.measured_mmhg)
    error_two = np.abs(two.predicted_mmhg - two.measured_mmhg)
    return Comparison(
        first=first.model,
        second=second.model,
        patients=one.patients,
        examinations=len(a),
        only_first=len(first.examination) - len(a),
        only_second=len(second.examination) - len(b),
        resampling=resampling,
        of_first=of_first,
        of_second=of_second,
        difference=difference,
        mean_absolute_disagreement_mmhg=float(np.mean(np.abs(one.predicted_mmhg - two.predicted_mmhg))),
        share_nearer_second=float(np.mean((error_two < error_one) + 0.5 * (error_two == error_one))),
    )


def _same_partition(one: Predictions, two: Predictions) -> bool:
    """Whether two numberings of patients group the examinations alike."""
    pairs = len(np.unique(np.stack([one.patient, two.patient]), axis=1).T)
    return pairs == one.patients == two.patients


def _areas(one: Predictions, two: Predictions, resampling: Resampling) -> dict[str, tuple[Figure, Figure, Figure]]:
    """AUROC of both and their difference at each threshold that has controls."""
    found = {}
    for threshold in THRESHOLDS:
        positive = threshold.above(one.measured_mmhg)
        sides = (len(np.unique(one.patient[rows])) for rows in (positive, ~positive))
        if min(sides) < FEWEST_PATIENTS:
            continue
        rankings = [Ranking(p.predicted_mmhg, positive) for p in (one, two)]
        whole = [float(r.areas(np.ones((1, len(positive))))[0][0]) for r in rankings]
        blocks = [[r.areas(w)[0] for r in rankings] for w in row_weights(one, resampling)]
        drawn = [np.concatenate([block[k] for block in blocks]) for k in range(2)]
        level = resampling.level
        found[f"auroc {threshold.name}"] = (
            interval(whole[0], drawn[0], None, level),
            interval(whole[1], drawn[1], None, level),
            interval(whole[1] - whole[0], drawn[1] - drawn[0], None, level),
        )
    return found
