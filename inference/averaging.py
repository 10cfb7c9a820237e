"""What the stand-in encoders do first, done once beforehand: averaging. No torch here, for processes that only draw."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.examinations import Examination

COARSER = 4
"""Pixels averaged on a side: a phantom's signs are centimetres wide."""


def for_stand_ins(examination: Examination) -> Examination:
    """The examination with what every stand-in would do first already done, once instead of at each step."""
    return replace(
        examination,
        picture=averaged(examination.picture, COARSER),
        lead_images=averaged_leads(examination.lead_images),
    )


def averaged(picture: NDArray[np.floating], by: int) -> NDArray[np.float16]:
    """`picture` [512, 512] with each `by` x `by` pixels averaged, as `backbones.Coarser` averages its patches."""
    rows, columns = picture.shape[0] // by, picture.shape[1] // by
    means = picture.astype(np.float32).reshape(rows, by, columns, by).mean(axis=(1, 3))
    return means.astype(np.float16)


def averaged_leads(lead_images: NDArray[np.uint8]) -> NDArray[Any]:
    """Lead images with colours and each 2 x 2 pixels averaged, float16 [12, 24, 112], as `MicroEcgBranch` begins."""
    return lead_images.reshape(12, 24, 2, 112, 2, 3).mean(axis=(2, 4, 5), dtype=np.float32).astype(np.float16)
