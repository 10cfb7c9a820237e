"""The whole evaluation of one model: from its predictions to every figure, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field

from inference.evaluation.accuracy import accuracy, accuracy_sums
from inference.evaluation.change import Change, change
from inference.evaluation.errors import CohortTooSmall, RefusedRow
from inference.evaluation.intervals import Coverage, coverage
from inference.evaluation.limits import Limits, exact_limits, repeated_limits
from inference.evaluation.resampling import FEWEST_PATIENTS, Figure, Resampling, resampled
from inference.evaluation.subgroups import Subgroup, subgroups
from inference.evaluation.table import Predictions
from inference.evaluation.thresholds import Discrimination, NoControls, thresholds


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Whom the figures are about."""

    patients: int
    examinations: int
    patients_seen_more_than_once: int
    measured_mean_mmhg: float
    measured_sd_mmhg: float
    measured_lowest_mmhg: float
    measured_highest_mmhg: float
    rows_refused: int
    refused: tuple[RefusedRow, ...] = field(default=())


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Every figure of one model on one cohort."""

    model: str
    cohort: Cohort
    resampling: Resampling
    figures: dict[str, Figure]  # by the names of `accuracy`
    limits: Limits  # as if every examination were a patient, exact intervals
    repeated: Limits | None  # visits within patients; None where nobody was seen twice
    change: Change | None
    coverage: Coverage | None
    subgroups: tuple[Subgroup, ...]
    thresholds: tuple[Discrimination | NoControls, ...]


def evaluate(
    predictions: Predictions, resampling: Resampling | None = None, *, refused: tuple[RefusedRow, ...] = ()
) -> Evaluation:
    """Every figure of `predictions`.

    Parameters
    ----------
    predictions
        Of one model.
    resampling
        Seed, repeats and level of the intervals; 2,000 resamples of patients unless said otherwise.
    refused
        Rows that the table lost on the way here, for the record.

    Raises
    ------
    CohortTooSmall
        If there are fewer than `FEWEST_PATIENTS` patients, or the measured values do not vary.
    """
    if predictions.patients < FEWEST_PATIENTS:
        raise CohortTooSmall(
            f"{predictions.patients} patients are too few to evaluate", f"{FEWEST_PATIENTS} are needed"
        )
    measured = predictions.measured_mmhg
    if measured.max() == measured.min():
        raise CohortTooSmall("every patient has the same measured pressure", "agreement needs some that differ")
    resampling = resampling or Resampling()
    sums, offset = accuracy_sums(predictions.patient, measured, predictions.predicted_mmhg)
    errors = predictions.predicted_mmhg - measured
    seen_again = int((sums[:, 0] > 1).sum())
    return Evaluation(
        model=predictions.model,
        cohort=Cohort(
            patients=predictions.patients,
            examinations=len(measured),
            patients_seen_more_than_once=seen_again,
            measured_mean_mmhg=float(measured.mean()),
            measured_sd_mmhg=float(measured.std(ddof=1)),
            measured_lowest_mmhg=float(measured.min()),
            measured_highest_mmhg=float(measured.max()),
            rows_refused=len({(row.counted, row.line) for row in refused}),
            refused=refused,
        ),
        resampling=resampling,
        figures=resampled(sums, lambda s: accuracy(s, offset), resampling),
        limits=exact_limits(errors),
        repeated=repeated_limits(errors, predictions.patient) if seen_again else None,
        change=change(predictions, resampling),
        coverage=coverage(predictions, resampling),
        subgroups=subgroups(predictions, resampling),
        thresholds=thresholds(predictions, resampling),
    )
