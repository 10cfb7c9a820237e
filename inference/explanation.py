"""What an estimate rests on: nine patches exactly, the twelve leads by ablation, on demand 64 places by occlusion.

A patch's share is exact: the estimate is the mean of nine. Ablation and occlusion replace a part of the input by that
of the average training patient and tell what changes; parts act together, so that these changes do not add up.
They say what the network looked at, never why a pressure is high. No torch here; an `Engine` computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.examinations import LEAD_IMAGES_SHAPE, Examination
from inference.manifest import LEAD_ORDER
from inference.radiograph import PATCH_SIDE, PICTURE_SIDE, patches

if TYPE_CHECKING:
    from inference.engine import Engine

CELLS = 8  # on a side, of the map by occlusion
CELL_SIDE = PICTURE_SIDE // CELLS
TYPICAL_SIDE = 128  # pixels of the average picture as kept: it holds nothing finer


@dataclass(frozen=True, kw_only=True)
class Typical:
    """The inputs of the training patients, averaged: what a part is replaced by. Kept in the package."""

    picture: NDArray[np.uint8]  # [128, 128], 0 (air) to 255
    lead_images: NDArray[np.uint8]  # [12, 48, 224, 3]

    def __post_init__(self) -> None:
        if self.picture.shape != (TYPICAL_SIDE, TYPICAL_SIDE) or self.picture.dtype != np.uint8:
            raise ValueError("the average picture must be uint8 [128, 128]")
        if self.lead_images.shape != LEAD_IMAGES_SHAPE or self.lead_images.dtype != np.uint8:
            raise ValueError("the average lead images must be uint8 [12, 48, 224, 3]")

    @classmethod
    def of(cls, examinations: Sequence[Examination], rows: Sequence[int]) -> Typical:
        """The average of the examinations at `rows`."""
        by = PICTURE_SIDE // TYPICAL_SIDE
        picture = np.zeros((TYPICAL_SIDE, TYPICAL_SIDE))
        leads = np.zeros(LEAD_IMAGES_SHAPE)
        for row in rows:
            fine = examinations[row].picture.astype(np.float32)
            picture += fine.reshape(TYPICAL_SIDE, by, TYPICAL_SIDE, by).mean(axis=(1, 3))
            leads += examinations[row].lead_images
        return cls(
            picture=np.rint(picture / len(rows) * 255.0).astype(np.uint8),
            lead_images=np.rint(leads / len(rows)).astype(np.uint8),
        )

    def to_tensors(self) -> dict[str, NDArray[np.generic]]:
        """As kept in calibration.safetensors."""
        return {"typical.picture": self.picture, "typical.lead_images": self.lead_images}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.generic]]) -> Typical:
        """Those of a package. Raises KeyError or ValueError if a tensor is missing or misshapen."""
        return cls(
            picture=np.asarray(tensors["typical.picture"], dtype=np.uint8),
            lead_images=np.asarray(tensors["typical.lead_images"], dtype=np.uint8),
        )

    def full_picture(self) -> NDArray[np.float32]:
        """The average picture at the network's size, float32 [512, 512] in 0..1."""
        fine = Image.fromarray(self.picture).resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BICUBIC)
        return np.asarray(fine, dtype=np.float32) / np.float32(255.0)


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What patches and leads contribute to one estimate. All in mmHg."""

    mpap_mmhg: float
    patch_mpap_mmhg: tuple[float, ...]  # nine, row by row
    patch_share_mmhg: tuple[float, ...]  # a ninth of each: they add up to the estimate
    lead_effect_mmhg: dict[str, float]  # the estimate, less that with this lead of the average patient
    ecg_effect_mmhg: float  # the same for the twelve leads together


def explain(
    engine: Engine, typical: Typical, embedding: NDArray[np.float32], lead_images: NDArray[np.uint8]
) -> Explanation:
    """Patches and leads of one examination, from the radiograph's kept embedding [9, 1024]: only the ECG is run again.

    Parameters
    ----------
    lead_images
        uint8 [12, 48, 224, 3].
    """
    changed = np.repeat(lead_images[None], len(LEAD_ORDER) + 2, axis=0)
    for lead in range(len(LEAD_ORDER)):
        changed[lead + 1, lead] = typical.lead_images[lead]
    changed[-1] = typical.lead_images
    values = engine.fuse(np.repeat(embedding[None], len(changed), axis=0), engine.embed_ecg(changed)).astype(np.float64)
    estimates = values.mean(axis=1)
    effects = estimates[0] - estimates[1:]
    return Explanation(
        mpap_mmhg=float(estimates[0]),
        patch_mpap_mmhg=tuple(float(value) for value in values[0]),
        patch_share_mmhg=tuple(float(value) / values.shape[1] for value in values[0]),
        lead_effect_mmhg={lead: float(effects[row]) for row, lead in enumerate(LEAD_ORDER)},
        ecg_effect_mmhg=float(effects[-1]),
    )


def occlude(
    engine: Engine,
    typical: Typical,
    picture: NDArray[np.float32],
    lead_images: NDArray[np.uint8],
    *,
    progress: Callable[[], None] = lambda: None,
) -> NDArray[np.float64]:
    """The estimate, less that with one place of the radiograph as in the average patient, mmHg [8, 8].

    A place lies in at most four of the nine patches, and only those are run again: sixteen examinations' worth of work
    instead of sixty-four's.

    Parameters
    ----------
    picture
        float32 [512, 512], 0..1.
    progress
        Called after each of the nine patches.
    """
    filling = typical.full_picture()
    whole = engine.embed_chest(picture)
    chest = np.repeat(whole[None], CELLS * CELLS, axis=0)
    corners = [(top, left) for top in engine.radiograph.patch_offsets for left in engine.radiograph.patch_offsets]
    for number, (top, left) in enumerate(corners):
        cells = [cell for cell in range(CELLS * CELLS) if _overlaps(cell, top, left)]
        occluded = []
        for cell in cells:
            row, column = divmod(cell, CELLS)
            place = (slice(row * CELL_SIDE, (row + 1) * CELL_SIDE), slice(column * CELL_SIDE, (column + 1) * CELL_SIDE))
            without = picture.copy()
            without[place] = filling[place]
            occluded.append(patches(without, engine.radiograph)[number])
        chest[cells, number] = engine.embed_patches(np.stack(occluded))
        progress()
    ecg = np.repeat(engine.embed_ecg(lead_images[None]), CELLS * CELLS + 1, axis=0)
    estimates = engine.fuse(np.concatenate([whole[None], chest]), ecg).astype(np.float64).mean(axis=1)
    return (estimates[0] - estimates[1:]).reshape(CELLS, CELLS)


def _overlaps(cell: int, top: int, left: int) -> bool:
    """Whether `cell` (row by row) shares a pixel with the patch whose corner is `top`, `left`."""
    row, column = divmod(cell, CELLS)
    return (
        top < (row + 1) * CELL_SIDE
        and row * CELL_SIDE < top + PATCH_SIDE
        and left < (column + 1) * CELL_SIDE
        and column * CELL_SIDE < left + PATCH_SIDE
    )
