"""What a training step sees: which examinations, which crops. Fixed by seed, epoch and examination alone.

So no state has to be kept to go on after a kill, and several GPUs see what one would.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.engine import lead_tensor
from inference.examinations import Examination
from inference.manifest import EcgPreprocessing
from inference.radiograph import RadiographPreprocessing
from inference.recipe import Recipe

Rows = NDArray[np.int64]


class Batches:
    """Draws the batches of a training from its examinations."""

    def __init__(
        self,
        examinations: Sequence[Examination],
        recipe: Recipe,
        radiograph: RadiographPreprocessing,
        ecg: EcgPreprocessing,
        *,
        fused: bool = True,
        parts: int = 1,
    ) -> None:
        self._fused = fused
        self._examinations = examinations
        self._recipe = recipe
        self._radiograph = radiograph
        self._ecg = ecg
        self._parts = parts

    def of_epoch(self, rows: Sequence[int], epoch: int) -> list[Rows]:
        """The rows of each step of `epoch`, in a new order each epoch."""
        rng = np.random.default_rng([self._recipe.seed, epoch])
        order = rng.permutation(np.asarray(rows, dtype=np.int64))
        size = self._recipe.examinations_a_step
        batches = [order[k : k + size] for k in range(0, len(order), size)]
        # Equal parts for all GPUs; and BatchNorm has nothing to say of a single examination.
        whole = [batch[: len(batch) - len(batch) % self._parts] for batch in batches]
        return [batch for batch in whole if len(batch) > self._parts]

    def draw(self, rows: Rows, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Grey crops [n * crops, 1, 224, 224], leads of the first examinations [kept, 36, 48, 224] and mmHg [n]."""
        recipe = self._recipe
        chosen = [self._examinations[int(row)] for row in rows]
        coarser = coarseness(chosen[0].picture, self._radiograph)
        if recipe.crop_step % coarser:
            raise ValueError(f"crops of pictures averaged by {coarser} begin at multiples of it")
        side, patch = self._radiograph.side // coarser, self._radiograph.patch_side // coarser
        step = recipe.crop_step // coarser
        crops = np.empty((len(rows) * recipe.crops_an_examination, 1, patch, patch), dtype=np.float32)
        for k, (row, examination) in enumerate(zip(rows, chosen, strict=True)):
            rng = np.random.default_rng([recipe.seed, epoch, int(row)])
            corners = step * rng.integers(0, (side - patch) // step + 1, (recipe.crops_an_examination, 2))
            for c, (top, left) in enumerate(corners):
                crops[k * recipe.crops_an_examination + c, 0] = examination.picture[
                    top : top + patch, left : left + patch
                ]
        kept = max(1, len(chosen) - round(len(chosen) * recipe.ecg_withheld)) if self._fused else 0
        leads = lead_input(chosen[:kept], self._ecg) if kept else torch.empty(0)
        measured = torch.tensor([examination.mpap_mmhg for examination in chosen], dtype=torch.float32)
        return torch.from_numpy(crops), leads, measured


def normalised(grey: Tensor, radiograph: RadiographPreprocessing) -> Tensor:
    """Grey [n, 1, h, w] in 0..1 as three normalised channels, channels last, where `grey` lies."""
    mean = torch.tensor(radiograph.mean, device=grey.device).view(1, 3, 1, 1)
    std = torch.tensor(radiograph.std, device=grey.device).view(1, 3, 1, 1)
    return ((grey - mean) / std).contiguous(memory_format=torch.channels_last)


def grid(picture: NDArray[np.floating], radiograph: RadiographPreprocessing) -> NDArray[np.float32]:
    """The nine grey patches of the test-time grid [9, 1, 224, 224], row by row; [9, 1, 56, 56] of an averaged one."""
    coarser = coarseness(picture, radiograph)
    side, offsets = radiograph.patch_side // coarser, [offset // coarser for offset in radiograph.patch_offsets]
    return np.stack(
        [picture[None, top : top + side, left : left + side].astype(np.float32) for top in offsets for left in offsets]
    )


def coarseness(picture: NDArray[np.floating], radiograph: RadiographPreprocessing) -> int:
    """By how much `picture` was averaged beforehand: 1, or 4 for encoders that would begin by doing so themselves."""
    return radiograph.side // picture.shape[0]


def lead_input(examinations: Sequence[Examination], ecg: EcgPreprocessing) -> Tensor:
    """The ECG branch's input [n, 36, 48, 224], or [n, 12, 24, 112] of leads averaged beforehand."""
    leads = np.stack([examination.lead_images for examination in examinations])
    if leads.ndim == 5:
        return lead_tensor(leads, ecg)
    return torch.from_numpy(leads.astype(np.float32)).div_(255.0).sub_(ecg.mean).div_(ecg.std)
