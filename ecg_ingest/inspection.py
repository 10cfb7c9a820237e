"""Read an ECG and keep what a person wants to see when the result is doubted: the verdict and the sheet itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecg_ingest.lead_images import EcgRefused, LeadImages, RefusalReason, RenderStyle

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why an ECG is not used."""

    reason: RefusalReason
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


def look_at(data: bytes, *, style: RenderStyle) -> Inspection:
    """Read `data` as `read` does and show its sheet. Raises for no bytes whatever; the result can be pickled."""
    from ecg_ingest.read import read

    images, refusal = None, None
    try:
        images = read(data, style=style)
    except EcgRefused as refused:
        refusal = Refusal(reason=refused.reason, detail=refused.detail, hint=refused.hint)
    return Inspection(images=images, refusal=refusal, sheet=_sheet(data, images))


def _sheet(data: bytes, images: LeadImages | None) -> NDArray[np.uint8] | None:
    from ecg_ingest.sheet_picture import sheet_picture

    try:
        return sheet_picture(data, images.boxes[0].page if images is not None and images.boxes else 0)
    except EcgRefused:
        return None  # the refusal of the file itself says more
