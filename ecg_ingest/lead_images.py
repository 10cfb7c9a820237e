"""The result of reading an ECG: twelve lead images and what was found on the way; or `EcgRefused`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The order of the leads everywhere in pulmolink."""


class EcgSource(StrEnum):
    """What the ECG was read from."""

    WAVEFORM = "waveform"  # DICOM waveform samples
    VECTOR_PDF = "vector-pdf"  # paths of a PDF page


class RefusalReason(StrEnum):
    """Why an ECG is not used. A closed set: statistics and reports key on it."""

    NOT_AN_ECG = "not_an_ecg"
    DAMAGED = "damaged"
    ENCRYPTED = "encrypted"
    EMPTY = "empty"
    LEADS_MISSING = "leads_missing"
    LEADS_AMBIGUOUS = "leads_ambiguous"
    LEAD_ALGEBRA = "lead_algebra"
    LAYOUT_UNKNOWN = "layout_unknown"
    NO_SCALE = "no_scale"
    NON_STANDARD_SCALE = "non_standard_scale"
    TOO_SHORT = "too_short"
    BAD_SAMPLING = "bad_sampling"
    BAD_UNITS = "bad_units"
    FLAT_LEAD = "flat_lead"
    SEVERAL_PAGES = "several_pages"
    TOO_LARGE = "too_large"
    UNSUPPORTED_FORM = "unsupported_form"


class EcgRefused(Exception):
    """An ECG that must not be used. `reason` is for programs, `detail` for a person; neither names a patient."""

    def __init__(self, reason: RefusalReason, detail: str, hint: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail
        self.hint = hint


@dataclass(frozen=True, kw_only=True)
class QualityFinding:
    """Something about the recording that a reader should know. `lead` is "" when it concerns all leads."""

    code: str  # such as "noisy", "clipped", "lead_reversal_suspected", "rendered_short"
    lead: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class RenderStyle:
    """How a lead image looks. Part of a model package's preprocessing; recorded with every result."""

    layout: str = "3x4"  # which seconds of the recording each lead shows: columns in time order
    seconds_per_lead: float = 2.5
    millivolts_full_height: float = 3.0  # from the bottom to the top edge
    paper_mm_per_second: float = 25.0
    paper_mm_per_millivolt: float = 10.0
    grid: bool = True


@dataclass(frozen=True, kw_only=True)
class LeadImages:
    """Twelve lead images in the order of `LEADS`, and the signals behind them where they are known."""

    pixels: NDArray[np.uint8]  # [12, 48, 224, 3] RGB
    source: EcgSource
    style: RenderStyle
    page_layout: str  # as found: "" for a waveform, "3x4+1", "6x2", ...
    seconds_recorded: float
    derived_leads: tuple[str, ...]  # computed from other leads
    quality: tuple[QualityFinding, ...]
    sampling_hz: float
    signals_mv: NDArray[np.float32]  # [12, samples], NaN where the page shows nothing
