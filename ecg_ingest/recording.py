"""Twelve signals on one time axis, as read from samples or from paper, before they become pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.lead_images import LEADS, QualityFinding

SHORTFALL_SECONDS = 0.05
"""How much of a lead's seconds may be missing at its end: sheets drop the last sample or two of a column."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What a source holds of the twelve leads.

    `clocks` says which leads may be compared sample by sample: leads with the same number were recorded
    on one time axis. Groups of a waveform whose offsets are unknown have different clocks.
    """

    signals_mv: NDArray[np.float64]  # [12, samples], NaN where a lead has no samples
    sampling_hz: float
    clocks: tuple[int, ...]  # one number a lead
    derived_leads: tuple[str, ...]
    findings: tuple[QualityFinding, ...]

    def __post_init__(self) -> None:
        if self.signals_mv.ndim != 2 or self.signals_mv.shape[0] != len(LEADS) or len(self.clocks) != len(LEADS):
            raise ValueError("a recording has twelve rows and twelve clocks")

    @property
    def seconds(self) -> float:
        """From the first to the last sample of any lead."""
        filled = np.flatnonzero(np.isfinite(self.signals_mv).any(axis=0))
        return float(filled[-1] - filled[0] + 1) / self.sampling_hz if filled.size else 0.0

    def lead(self, name: str) -> NDArray[np.float64]:
        """One lead's samples in mV, NaN where there are none."""
        return self.signals_mv[LEADS.index(name)]

    @property
    def missing(self) -> tuple[str, ...]:
        """Leads without a single sample."""
        return tuple(lead for lead, row in zip(LEADS, self.signals_mv, strict=True) if not np.isfinite(row).any())


def longest_run(samples: NDArray[np.float64]) -> tuple[int, int]:
    """Start and end (exclusive) of the longest stretch without NaN; (0, 0) if there is none."""
    best = (0, 0)
    for start, end in runs(samples):
        if end - start > best[1] - best[0]:
            best = (start, end)
    return best


def runs(samples: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Every stretch without NaN as (start, end exclusive), in order."""
    finite = np.concatenate(([False], np.isfinite(samples), [False]))
    edges = np.flatnonzero(finite[1:] != finite[:-1])
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]
