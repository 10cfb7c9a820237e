"""Who trains, who chooses the epoch, who judges: whole patients, drawn by a seed, and written down."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PAPER_SHARES = (0.70, 0.10, 0.0, 0.20)  # Yoon et al. 2.3: training, validation, test
DEMO_SHARES = (0.60, 0.05, 0.20, 0.15)
PARTS = ("train", "validation", "calibration", "test")


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which examinations serve what, as indices. No patient stands in two."""

    train: tuple[int, ...]
    validation: tuple[int, ...]  # chooses the epoch
    calibration: tuple[int, ...]  # residuals of the interval, limits of the usual; may be empty
    test: tuple[int, ...]  # figures in the manifest

    @property
    def calibrating(self) -> tuple[int, ...]:
        """Who calibrates: the validation patients where none were set apart, as in the paper's split."""
        return self.calibration or self.validation


def split_by_patient(
    patient_ids: Sequence[str], *, seed: int, shares: tuple[float, float, float, float] = PAPER_SHARES
) -> Split:
    """Training, validation, calibration and test in `shares`, whole patients each, drawn by `seed`."""
    patients = sorted(set(patient_ids))
    order = np.random.default_rng(seed).permutation(len(patients))
    edges = np.rint(np.cumsum(shares) * len(patients)).astype(int)
    part_of = {
        patients[patient]: int(np.searchsorted(edges, place, side="right")) for place, patient in enumerate(order)
    }
    return _split([PARTS[min(part_of[patient_id], 3)] for patient_id in patient_ids])


def split_as_told(parts: Sequence[str]) -> Split:
    """The split that a table itself gives, one of `PARTS` an examination.

    Raises
    ------
    ValueError
        If a part has another name.
    """
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"{part!r} is none of {', '.join(PARTS)}")
    return _split(parts)


def write_split(path: Path, examinations: Sequence[str], patient_ids: Sequence[str], split: Split) -> None:
    """Write a row an examination: which, whose, and in which part."""
    part_of = {row: part for part in PARTS for row in getattr(split, part)}
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("examination", "patient", "part"))
        table.writerows(
            (examination, patient, part_of[row])
            for row, (examination, patient) in enumerate(zip(examinations, patient_ids, strict=True))
        )


def read_split(path: Path) -> Split:
    """The split that `write_split` left at `path`, row by row. Raises ValueError if it is another file, OSError."""
    return split_as_told([part for _, part in _written(path)])


def read_parts(path: Path) -> dict[str, str]:
    """The part of each patient, from a file that `write_split` wrote.

    Raises
    ------
    ValueError
        If it is another file, a part has another name, or a patient stands in two.
    OSError
        If it cannot be read.
    """
    written = _written(path)
    split_as_told([part for _, part in written])
    parts = dict(written)
    if set(parts.items()) != set(written):
        raise ValueError(f"{path.name}: a patient stands in two parts")
    return parts


def _written(path: Path) -> list[tuple[str, str]]:
    """Patient and part of each row."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [(row["patient"], row["part"]) for row in csv.DictReader(file, strict=True)]
    except (UnicodeDecodeError, csv.Error, KeyError) as error:
        raise ValueError(f"{path.name} is not the split.csv of a training ({type(error).__name__})") from error


def _split(parts: Sequence[str]) -> Split:
    return Split(**{part: tuple(row for row, told in enumerate(parts) if told == part) for part in PARTS})
