"""Figures by sex, age, smoking, group of pulmonary hypertension, site and scanner; small groups are not shown.

Suppression keeps few patients from being over-read. It is no disclosure control: what is shown and the whole may give
a small group away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from inference.evaluation.accuracy import accuracy, accuracy_sums
from inference.evaluation.intervals import coverage
from inference.evaluation.resampling import FEWEST_PATIENTS, Array, Figure, Resampling, resampled
from inference.evaluation.table import GROUPS, Predictions

AGE_BANDS = ((0.0, 45.0, "under 45"), (45.0, 65.0, "45 to 64"), (65.0, 75.0, "65 to 74"), (75.0, np.inf, "75 or over"))
FIGURES = ("mean_absolute_error", "bias", "error_sd", "root_mean_square_error", "squared_correlation")


@dataclass(frozen=True, kw_only=True)
class Subgroup:
    """Figures of the examinations of one group; of a suppressed one, nothing but its name."""

    variable: str  # "sex", "age_band", "smoker", ...
    level: str
    suppressed: bool
    patients: int | None
    examinations: int | None
    figures: dict[str, Figure]


def subgroups(predictions: Predictions, resampling: Resampling) -> tuple[Subgroup, ...]:
    """Every group of every variable that the table records. Rows without a value belong to none.

    A patient whose value changes between visits (age, smoking) counts in each group.
    """
    found = []
    for variable, level, rows in _groups(predictions):
        patients = len(np.unique(predictions.patient[rows]))
        if patients < FEWEST_PATIENTS:
            found.append(
                Subgroup(variable=variable, level=level, suppressed=True, patients=None, examinations=None, figures={})
            )
            continue
        kept = predictions.rows(rows)
        sums, offset = accuracy_sums(kept.patient, kept.measured_mmhg, kept.predicted_mmhg)
        figures = resampled(sums, partial(_chosen, offset=offset), resampling)
        covered = coverage(kept, resampling)
        if covered is not None:
            figures["coverage_by_patient"] = covered.figures["coverage_by_patient"]
        found.append(
            Subgroup(
                variable=variable,
                level=level,
                suppressed=False,
                patients=patients,
                examinations=int(rows.sum()),
                figures=figures,
            )
        )
    return tuple(found)


def _chosen(sums: Array, offset: float) -> dict[str, Array]:
    found = accuracy(sums, offset)
    return {name: found[name] for name in FIGURES}


def _groups(predictions: Predictions) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    for low, high, name in AGE_BANDS:
        rows = (predictions.age_years >= low) & (predictions.age_years < high)
        if rows.any():
            yield "age_band", name, rows
    for variable in GROUPS:
        values = predictions.groups[variable]
        for level in np.unique(values[values != ""]):
            yield variable, str(level), values == level
