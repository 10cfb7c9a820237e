"""What a person wants to see of an ECG when its result is doubted: the verdict and the sheet itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from ecg_ingest.lead_images import LeadImages

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why an ECG is not used."""

    reason: StrEnum  # a reader's RefusalReason, or that of whoever opened the file for it
    detail: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Either `images` or `refusal`; `sheet` is None for signals, and where no picture of the file can be shown."""

    images: LeadImages | None
    refusal: Refusal | None
    sheet: NDArray[np.uint8] | None  # [height, width, 3] RGB

    def __post_init__(self) -> None:
        if (self.images is None) == (self.refusal is None):
            raise ValueError("an ECG is either read or refused")
