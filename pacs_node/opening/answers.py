"""What a child answered, as the value that a worker asked for; anything else is `AnswerMalformed`.

Shapes, types and ranges are checked here, because the child may have been taken over by its file.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.lead_images import LEADS, PIXELS_SHAPE, EcgRefused, LeadImages, RefusalReason
from pacs_node.opening.framing import Answer, AnswerMalformed, Kind, Outcome
from pacs_node.opening.plain import from_plain

if TYPE_CHECKING:  # an ECG needs nothing of radiographs
    from inference.radiograph import Radiograph

ARRAYS = {Kind.ECG: 2, Kind.RADIOGRAPH: 2, Kind.SHEET: 1}
"""Of an ECG: lead images and signals; of a radiograph: the network's picture and the one to look at; of a sheet: it."""

MAX_SHEET_SIDE = 65_535
"""Pixels of a sheet's picture in one direction, as a DICOM image has them at most (PS3.3 C.7.6.3, US)."""

E = TypeVar("E", bound=StrEnum)


def lead_images(answer: Answer) -> LeadImages:
    """What a child answered for an ECG. Raises EcgRefused, or AnswerMalformed if it is neither."""
    _refuse_ecg(answer)
    pixels, signals = answer.arrays
    if pixels.shape != PIXELS_SHAPE or pixels.dtype != np.uint8:
        raise AnswerMalformed("no twelve lead images")
    if signals.ndim != 2 or len(signals) != len(LEADS) or signals.dtype != np.float32 or np.isinf(signals).any():
        raise AnswerMalformed("no twelve signals")
    return from_plain(LeadImages, answer.fields, {"pixels": pixels, "signals_mv": signals})


def sheet(answer: Answer) -> NDArray[np.uint8] | None:
    """What a child drew of an ECG's sheet, [height, width, 3] RGB; None for signals without one.

    Raises EcgRefused, or AnswerMalformed if it is neither.
    """
    _refuse_ecg(answer)
    (pixels,) = answer.arrays
    if answer.fields or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise AnswerMalformed("no picture of a sheet")
    if not pixels.size:
        return None
    if max(pixels.shape) > MAX_SHEET_SIDE:
        raise AnswerMalformed("a sheet of no paper's shape")
    return pixels


def radiograph(answer: Answer) -> Radiograph:
    """What a child answered for a radiograph. Raises RadiographUnusable, or AnswerMalformed if it is neither."""
    from inference.radiograph import DISPLAY_SIDE, PICTURE_SIDE, Radiograph, RadiographUnusable, UnusableReason

    if answer.outcome is Outcome.REFUSED:
        refusal = from_plain(_Refusal, answer.fields)
        raise RadiographUnusable(_reason(UnusableReason, refusal), refusal.detail, refusal.hint)
    picture, display = answer.arrays
    if picture.shape != (PICTURE_SIDE, PICTURE_SIDE) or picture.dtype != np.float32:
        raise AnswerMalformed("no picture for the network")
    if not (np.isfinite(picture).all() and picture.min() >= 0.0 and picture.max() <= 1.0):
        raise AnswerMalformed("a picture beyond air and bone")
    if (
        display.ndim != 2
        or display.dtype != np.uint8
        or not 1 <= min(display.shape) <= max(display.shape) <= DISPLAY_SIDE
    ):
        raise AnswerMalformed("no picture to look at")
    return from_plain(Radiograph, answer.fields, {"picture": picture, "display": display})


def _refuse_ecg(answer: Answer) -> None:
    if answer.outcome is Outcome.REFUSED:
        refusal = from_plain(_Refusal, answer.fields)
        raise EcgRefused(_reason(RefusalReason, refusal), refusal.detail, refusal.hint)


@dataclass(frozen=True, kw_only=True)
class _Refusal:
    """What a reader says of a file that must not be used."""

    reason: str
    detail: str
    hint: str


def _reason(kind: type[E], refusal: _Refusal) -> E:
    if refusal.reason not in set(kind):
        raise AnswerMalformed("no reason of a refusal")
    return kind(refusal.reason)
