"""The result of reading an ECG: twelve lead images and what was found on the way; or `EcgRefused`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the receiver and the command line name these types without paying for numpy
    import numpy as np
    from numpy.typing import NDArray

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The order of the leads everywhere in pulmolink."""


LAYOUT_COLUMNS: dict[str, dict[str, int]] = {
    layout: {lead: index // rows for index, lead in enumerate(LEADS)}
    for layout, rows in (("3x4", 3), ("6x2", 6), ("12x1", 12))
}
"""Which column of a sheet a lead stands in; columns follow one another in time."""

PIXELS_SHAPE = (12, 48, 224, 3)
"""Leads, height, width, RGB (Yoon et al. 2.2)."""


class EcgSource(StrEnum):
    """What the ECG was read from."""

    WAVEFORM = "waveform"  # samples: a DICOM waveform or an HL7 aECG
    VECTOR_PDF = "vector-pdf"  # paths of a PDF page
    RASTER = "raster"  # pixels of a scan, a photograph or a rendered page


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
    TOO_SMALL = "too_small"  # too few pixels a millimetre
    WARPED = "warped"  # tilted or bent beyond what can be undone
    LABELS_INSUFFICIENT = "labels_insufficient"  # too few lead names can be read
    LABELS_CONTRADICT = "labels_contradict"  # a lead's name stands where another's belongs
    LAYOUT_AMBIGUOUS = "layout_ambiguous"  # the labels fit two layouts
    ROWS_DO_NOT_MATCH = "rows_do_not_match"  # as many lines as rows of labels were not found
    TRACES_OVERLAP = "traces_overlap"  # two leads' lines cannot be told apart


class EcgRefused(Exception):
    """An ECG that must not be used. `reason` is for programs, `detail` for people; neither identifies anyone."""

    def __init__(self, reason: RefusalReason, detail: str, hint: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail
        self.hint = hint

    def __reduce__(self) -> tuple[type[EcgRefused], tuple[RefusalReason, str, str]]:
        """Pickle by the three fields: untrusted files are opened in a child process that sends this back."""
        return (EcgRefused, (self.reason, self.detail, self.hint))


@dataclass(frozen=True, kw_only=True)
class QualityFinding:
    """Something about the recording that a reader should know. `lead` is "" when it concerns all leads."""

    code: str  # such as "noisy", "clipped", "lead_reversal_suspected", "rendered_short"
    lead: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class LeadBox:
    """Where a lead stands on a page, in pixels of the picture that was given (y grows downwards).

    For a PDF: of the page as `page.draw_page` draws it, at `LeadImages.page_dots_per_inch`.
    """

    lead: str
    page: int
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, kw_only=True)
class RenderStyle:
    """How a lead image looks. Part of a model package's preprocessing; recorded with every result.

    Raises
    ------
    ValueError
        For a layout that is not in `LAYOUT_COLUMNS`, or a number that is not positive and finite.
    """

    layout: str = "3x4"  # which seconds of the recording each lead shows: columns in time order
    seconds_per_lead: float = 2.5
    millivolts_full_height: float = 3.0  # from the bottom to the top edge
    paper_mm_per_second: float = 25.0
    paper_mm_per_millivolt: float = 10.0
    grid: bool = True

    def __post_init__(self) -> None:
        if self.layout not in LAYOUT_COLUMNS:
            raise ValueError(f"layout {self.layout!r} is not one of {', '.join(LAYOUT_COLUMNS)}")
        for name in (
            "seconds_per_lead",
            "millivolts_full_height",
            "paper_mm_per_second",
            "paper_mm_per_millivolt",
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} must be a number, not {type(value).__name__}")
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, not {value}")
        if not isinstance(self.grid, bool):
            raise ValueError(f"grid must be true or false, not {self.grid!r}")

    def window_start(self, lead: str) -> float:
        """The second of the recording at which this style starts to show `lead`."""
        return LAYOUT_COLUMNS[self.layout][lead] * self.seconds_per_lead


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
    boxes: tuple[LeadBox, ...] = ()  # in the order of `LEADS`; empty for a waveform
    page_order: str = ""  # "standard" or "cabrera"; "" where a page was not looked at
    page_seconds_per_lead: float = 0.0  # of a column of the page; 0 for a waveform
    pixels_per_mm: float = 0.0  # of the boxes; 0 for a waveform
    page_dots_per_inch: float = 0.0  # at which a PDF's page is drawn for the boxes; 0 for other files

    def __post_init__(self) -> None:
        if self.pixels.shape != PIXELS_SHAPE or self.pixels.dtype != "uint8":
            raise ValueError(f"{self.pixels.shape} {self.pixels.dtype} pixels, not {PIXELS_SHAPE}")
        if self.signals_mv.ndim != 2 or self.signals_mv.shape[0] != len(LEADS):
            raise ValueError(f"signals are {self.signals_mv.shape}, not one row a lead")
