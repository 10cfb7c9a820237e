"""Whether the interval that came with each prediction holds the measured value as often as it claims."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inference.evaluation.resampling import FEWEST_PATIENTS, Array, Figure, Resampling, patient_sums, resampled
from inference.evaluation.shares import with_doubt
from inference.evaluation.table import Predictions


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Coverage of the intervals over examinations, and with each patient counting once.

    `figures`: coverage, coverage_by_patient, mean_width_mmhg, share_above (measured above the upper bound) and
    share_below.
    """

    examinations: int
    patients: int
    figures: dict[str, Figure]


def coverage(predictions: Predictions, resampling: Resampling) -> Coverage | None:
    """Coverage where the table gives bounds; None where it gives none, or for fewer than `FEWEST_PATIENTS` patients.

    `coverage_by_patient` is the mean over patients of the share of a patient's examinations that were covered:
    patients are what conformal calibration exchanges, and one who comes often counts as one.
    """
    given = np.isfinite(predictions.lower_mmhg)
    if len(np.unique(predictions.patient[given])) < FEWEST_PATIENTS:
        return None
    kept = predictions.rows(given)
    above = kept.measured_mmhg > kept.upper_mmhg
    below = kept.measured_mmhg < kept.lower_mmhg
    width = kept.upper_mmhg - kept.lower_mmhg
    columns = np.stack([np.ones_like(width), ~(above | below), above, below, width], axis=1).astype(np.float64)
    sums = patient_sums(kept.patient, columns)
    sums = np.concatenate([sums, (sums[:, 1] / sums[:, 0])[:, None], np.ones((len(sums), 1))], axis=1)
    figures = resampled(sums, _coverage_figures, resampling)
    shares = dict.fromkeys(("coverage", "coverage_by_patient", "share_above", "share_below"), len(sums))
    figures = with_doubt(figures, shares, resampling.level)
    return Coverage(examinations=len(width), patients=len(sums), figures=figures)


def _coverage_figures(sums: Array) -> dict[str, Array]:
    n = sums[..., 0]
    return {
        "coverage": np.asarray(sums[..., 1] / n),
        "coverage_by_patient": np.asarray(sums[..., 5] / sums[..., 6]),
        "share_above": np.asarray(sums[..., 2] / n),
        "share_below": np.asarray(sums[..., 3] / n),
        "mean_width_mmhg": np.asarray(sums[..., 4] / n),
    }
