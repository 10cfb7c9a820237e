"""The six rows of the paper's Table 1 on one cohort: three chest encoders, each alone and with the ECG.

In: examinations and a split; out: a row of figures each on the test patients. Every row sees the same patients in the
same order by the same recipe. With the stand-ins of `--micro` the figures say whether the way works and fusion helps;
they say nothing of the paper's networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.architecture import (
    ECG_CONVOLUTION,
    MICRO_ECG,
    MICRO_RESNET,
    MICRO_VGG,
    MICRO_VIT,
    RESNET34,
    VGG16,
    VIT_BASE,
    VIT_LARGE,
    VIT_SMALL,
    Architecture,
)
from inference.averaging import COARSER
from inference.checkpoint import Epoch
from inference.csv_file import NotCsv, no_number, read_rows, uneven
from inference.devices import CPU, Workers
from inference.evaluation.accuracy import accuracy, accuracy_sums
from inference.examinations import Examination
from inference.manifest import EcgPreprocessing
from inference.network import FusedNetwork
from inference.radiograph import RadiographPreprocessing
from inference.recipe import Recipe, Schedule
from inference.split import Split
from inference.training import grid_estimates, train

ROWS = ("vgg16", "vgg16+ecg", "resnet34", "resnet34+ecg", "dinov2", "dinov2+ecg")
DINOV2 = {"large": VIT_LARGE, "base": VIT_BASE, "small": VIT_SMALL}
"""What may stand in the DINOv2 rows; the paper's is the large one."""
_BACKBONES = {"vgg16": (VGG16, MICRO_VGG), "resnet34": (RESNET34, MICRO_RESNET), "dinov2": (VIT_LARGE, MICRO_VIT)}

MICRO_RECIPE = Recipe(
    epochs=3,
    learning_rate=2e-3,
    crops_an_examination=2,
    schedule=Schedule.ONE_CYCLE,
    crop_step=COARSER,
    threads=1,
)
"""The paper's recipe with a rate for random weights, so that a row takes seconds."""


HELD_OF_THE_PAPER: Mapping[str, Mapping[str, float]] = {
    "dinov2+ecg": {"loa_width": 39.6, "explained": 0.22},
    "vgg16+ecg": {"explained": 0.27},
}
"""What of Yoon et al. Table 1 was checked: a width it prints, and 1 - SSE/SST recomputed from what it prints. Its other
cells are not held by this program; a reader who has the paper names them in a file."""
PUBLISHED_COLUMNS = ("mae", "sd", "slope", "r2", "rmse", "bias", "loa_low", "loa_high", "loa_width", "explained")


def read_published(path: Path) -> dict[str, dict[str, float]]:
    """Printed figures by row, from a CSV file with the column name and any of `PUBLISHED_COLUMNS`.

    Raises
    ------
    ValueError
        If a row or column is unknown or a figure is no number.
    OSError
        If the file cannot be read.
    """
    try:
        columns, rows = read_rows(path, len(ROWS))
    except NotCsv as error:
        raise ValueError(f"{path.name} {error.detail} ({error.hint})") from error
    if "name" not in columns or len(set(columns)) != len(columns) or set(columns) - {"name", *PUBLISHED_COLUMNS}:
        raise ValueError(f"{path.name} needs the column name and any of {', '.join(PUBLISHED_COLUMNS)}, no others")
    found: dict[str, dict[str, float]] = {}
    for number, cells in rows:
        where = f"{path.name}, row {number}"
        if len(cells) != len(columns):
            raise ValueError(f"{where} {uneven(len(cells), len(columns))}")
        line = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
        name = line.pop("name")
        if name not in ROWS or name in found:
            raise ValueError(
                f"{where}: {name!r} {'stands twice' if name in found else 'is none of ' + ', '.join(ROWS)}"
            )
        found[name] = {figure: _printed(value, f"{where}: {figure}") for figure, value in line.items() if value}
    return found


def _printed(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{where} {no_number(text)}") from None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row, on the test patients. Errors are estimated minus measured, mmHg."""

    name: str
    examinations: int
    mae: float
    sd: float  # of the absolute error
    slope: float  # estimated on measured
    r2: float  # the squared correlation, which the paper prints as R2
    rmse: float
    bias: float
    loa: tuple[float, float]  # 95 % limits of agreement, each examination by itself
    explained: float  # 1 - SSE/SST
    chosen_epoch: int


def architecture_of(name: str, *, micro: bool, dinov2: str = "large") -> Architecture:
    """The network of a row; `dinov2` is one of `DINOV2`, and means nothing to the stand-ins."""
    backbone = _BACKBONES[name.removesuffix("+ecg")][int(micro)]
    if backbone == VIT_LARGE:
        backbone = DINOV2[dinov2]
    if not name.endswith("+ecg"):
        return Architecture.image_only(backbone)
    return Architecture(chest_backbone=backbone, ecg_branch=MICRO_ECG if micro else ECG_CONVOLUTION)


def measure_row(
    name: str,
    examinations: Sequence[Examination],
    split: Split,
    recipe: Recipe,
    *,
    architecture: Architecture,
    radiograph: RadiographPreprocessing,
    ecg: EcgPreprocessing,
    workers: Workers = CPU,
    prepare: Callable[[FusedNetwork], None] = lambda _network: None,
    progress: Callable[[Epoch], None] = lambda _epoch: None,
) -> tuple[Row, NDArray[np.float64]]:
    """Train one row and judge it on the test patients.

    Returns
    -------
    The row, and the estimates of the test examinations in mmHg, in the order of `split.test`.

    Raises
    ------
    ValueError
        If a part of the split is empty.
    """
    if len(split.test) < 3:
        raise ValueError("too few patients to judge")
    trained = train(
        architecture,
        examinations,
        split,
        recipe,
        radiograph=radiograph,
        ecg=ecg,
        workers=workers,
        prepare=prepare,
        progress=progress,
    )
    estimated = grid_estimates(trained.network, examinations, split.test, radiograph=radiograph, ecg=ecg)
    return judged(name, examinations, split.test, estimated, trained.chosen_epoch), estimated


def judged(
    name: str,
    examinations: Sequence[Examination],
    rows: Sequence[int],
    estimated: NDArray[np.float64],
    chosen_epoch: int,
) -> Row:
    """The figures of `estimated` against what was measured."""
    measured = np.array([examinations[k].mpap_mmhg for k in rows])
    _, patient = np.unique([examinations[k].patient_id for k in rows], return_inverse=True)
    sums, offset = accuracy_sums(patient.astype(np.intp), measured, estimated)
    found = {figure: float(value) for figure, value in accuracy(sums.sum(axis=0), offset).items()}
    return Row(
        name=name,
        examinations=len(rows),
        mae=found["mean_absolute_error"],
        sd=found["absolute_error_sd"],
        slope=found["slope"],
        # Estimates that do not vary tell nothing: their correlation is undefined and counts as none.
        r2=0.0 if np.isnan(found["squared_correlation"]) else found["squared_correlation"],
        rmse=found["root_mean_square_error"],
        bias=found["bias"],
        loa=(found["lower_limit"], found["upper_limit"]),
        explained=found["explained"],
        chosen_epoch=chosen_epoch,
    )
