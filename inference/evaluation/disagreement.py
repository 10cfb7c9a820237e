"""Two models on the same examinations without a measurement: how far apart they are, and which side of a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inference.evaluation.errors import CohortTooSmall
from inference.evaluation.limits import Limits, exact_limits, repeated_limits
from inference.evaluation.resampling import FEWEST_PATIENTS, Array
from inference.evaluation.thresholds import THRESHOLDS


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """Examinations that the two put on different sides of a threshold."""

    threshold: str
    only_first_above: int
    only_second_above: int


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """How two models differ, second minus first, mmHg. Who is right it cannot say."""

    examinations: int
    patients: int
    mean_first_mmhg: float
    mean_second_mmhg: float
    limits: Limits  # of the differences; repeated visits where a patient came again
    repeated: bool
    mean_absolute_mmhg: float
    largest_mmhg: float
    correlation: float | None  # None where one of the two never varies
    crossings: tuple[Crossing, ...]


def disagreement(first: Array, second: Array, patients: Sequence[object]) -> Disagreement:
    """Compare two estimates an examination, float [examinations]; `patients` says whose each is.

    Raises
    ------
    CohortTooSmall
        For fewer than `FEWEST_PATIENTS` patients.
    """
    numbers: dict[object, int] = {}
    patient = np.array([numbers.setdefault(one, len(numbers)) for one in patients], dtype=np.intp)
    if len(numbers) < FEWEST_PATIENTS:
        raise CohortTooSmall(
            f"{len(numbers)} patients with estimates of both are too few", f"{FEWEST_PATIENTS} are needed"
        )
    difference = second - first
    repeated = len(numbers) < len(patient)
    varies = bool(first.std() > 0 and second.std() > 0)
    return Disagreement(
        examinations=len(first),
        patients=len(numbers),
        mean_first_mmhg=float(first.mean()),
        mean_second_mmhg=float(second.mean()),
        limits=repeated_limits(difference, patient) if repeated else exact_limits(difference),
        repeated=repeated,
        mean_absolute_mmhg=float(np.abs(difference).mean()),
        largest_mmhg=float(np.abs(difference).max()),
        correlation=float(np.corrcoef(first, second)[0, 1]) if varies else None,
        crossings=tuple(
            Crossing(
                threshold=threshold.name,
                only_first_above=int(np.count_nonzero(threshold.above(first) & ~threshold.above(second))),
                only_second_above=int(np.count_nonzero(threshold.above(second) & ~threshold.above(first))),
            )
            for threshold in THRESHOLDS
        ),
    )
