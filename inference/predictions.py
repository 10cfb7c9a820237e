"""The table of predictions that `pulmolink model evaluate` reads: a row an examination, measured beside predicted."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.cohort import ATTRIBUTES
from inference.examinations import Examination

COLUMNS = (
    "examination",
    "patient",
    "mpap_mmhg",
    "predicted_mmhg",
    "lower_mmhg",
    "upper_mmhg",
    "acquired_at",
    *ATTRIBUTES,
    "model",
)


def write_predictions(
    path: Path,
    examinations: Sequence[Examination],
    predicted_mmhg: NDArray[np.float64],
    *,
    model: str,
    half_width_mmhg: float | None = None,
) -> None:
    """Write a row for each of `examinations`, in their order.

    Parameters
    ----------
    predicted_mmhg
        One value an examination.
    model
        Who predicted, for the table's last column.
    half_width_mmhg
        Half the 90 % interval; without it the bounds stay empty. The lower bound is never below zero.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for examination, value in zip(examinations, predicted_mmhg, strict=True):
            bounds: tuple[str, str] = ("", "")
            if half_width_mmhg is not None:
                bounds = (f"{max(0.0, value - half_width_mmhg):.3f}", f"{value + half_width_mmhg:.3f}")
            table.writerow(
                (
                    examination.name,
                    examination.patient_id,
                    f"{examination.mpap_mmhg:g}",
                    f"{value:.3f}",
                    *bounds,
                    examination.acquired_at,
                    *(examination.attributes.get(name, "") for name in ATTRIBUTES),
                    model,
                )
            )
