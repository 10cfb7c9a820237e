"""How estimates agree with measurements, by patient: pure functions of two arrays of mmHg."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.evaluation.accuracy import accuracy, accuracy_sums
from inference.evaluation.resampling import Resampling, resampled

Array = NDArray[np.float64]
FEWEST_MEASURED = 3
"""Examinations that agreement is told of."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement over examinations. Errors are estimated minus measured, mmHg."""

    examinations: int
    mean_absolute_error: float
    bias: float
    error_sd: float
    correlation: float  # Pearson
    slope: float  # of estimated on measured, as the paper prints it
    explained: float  # 1 - SSE/SST; not the squared correlation that the paper calls R2


def agreement(measured: Array, estimated: Array) -> Agreement:
    """Agreement of one estimate an examination, float [examinations] each.

    Raises
    ------
    ValueError
        If the arrays differ in length, are shorter than three, or the measurements do not vary.
    """
    if measured.shape != estimated.shape or measured.ndim != 1 or len(measured) < FEWEST_MEASURED:
        raise ValueError("two arrays of the same length, at least three, are needed")
    total = float(np.sum((measured - measured.mean()) ** 2))
    if total == 0.0:
        raise ValueError("measurements that do not vary show no agreement")
    error = estimated - measured
    covariance = float(np.sum((measured - measured.mean()) * (estimated - estimated.mean())))
    spread = float(np.sum((estimated - estimated.mean()) ** 2))
    return Agreement(
        examinations=len(measured),
        mean_absolute_error=float(np.mean(np.abs(error))),
        bias=float(error.mean()),
        error_sd=float(error.std(ddof=1)),
        correlation=covariance / float(np.sqrt(total * spread)) if spread > 0 else 0.0,
        slope=covariance / total,
        explained=1.0 - float(np.sum(error**2)) / total,
    )


def bootstrap_intervals(
    measured: Array,
    estimated: Array,
    patient: NDArray[np.integer],
    *,
    seed: int,
    repeats: int = 2000,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of each figure of `Agreement`, resampling patients, numbered from 0.

    Draws without variation do not count.
    """
    sums, offset = accuracy_sums(patient.astype(np.intp), measured, estimated)
    found = resampled(sums, lambda s: _chosen(accuracy(s, offset)), Resampling(seed=seed, repeats=repeats, level=level))
    return {name: (figure.percentile_low, figure.percentile_high) for name, figure in found.items()}


def _chosen(figures: dict[str, Array]) -> dict[str, Array]:
    return {name: figures[name] for name in _FIGURES}


_FIGURES = ("mean_absolute_error", "bias", "error_sd", "correlation", "slope", "explained")
