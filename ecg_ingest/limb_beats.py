"""Whether limb leads that were recorded one after another are what they are called, by the shape of their beats.

On a sheet of 3x4, I + III = II holds for I and III exchanged too, and aVR + aVL + aVF = 0 for any order of the three:
within a column no equation tells. Between columns one does, of the usual beats: all six follow from two of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.beats import BEFORE_SECONDS as BEAT_BEFORE_SECONDS
from ecg_ingest.beats import beat_samples, usual_beat
from ecg_ingest.lead_images import LEADS
from ecg_ingest.recording import Recording

LIMB = LEADS[:6]
BEFORE_SECONDS, AFTER_SECONDS = 0.05, 0.06  # of the steepest moment: the QRS alone, which no heart rate changes
LEAST_OF_STEEPEST = 0.35  # of the summed squares of a beat's steps
LAG_SECONDS = 0.04
"""By how much the steepest moment of a beat may differ between leads of two columns."""

_IN_TERMS_OF_I_AND_II = np.array([[1, 0], [0, 1], [-1, 1], [-0.5, -0.5], [1, -0.5], [-0.5, 1]], dtype=np.float64)
_LEAST_OVERLAP_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How well the beats of the limb leads follow from two of them: as they are called, and at best otherwise."""

    residual: float  # 0 to 1: the root of the share of their energy that does not
    best: float  # of the best other naming
    naming: str  # which that is: "I and III exchanged", "aVR upside down"


def fit_beats(recording: Recording) -> Fit | None:
    """Compare the usual beats of limb leads recorded at two times; None where they were not, or show no beat."""
    groups = _recorded_together(recording)
    if len(groups) != 2:
        return None
    beats: dict[str, NDArray[np.float64]] = {}
    for group in groups:
        together = _only_together(recording, group)
        places = _steepest(together, group, beat_samples(together, group))
        for lead in group:
            beat = usual_beat(together, lead, places)
            if beat is None:
                return None
            beats[lead] = beat
    lag = round(LAG_SECONDS * recording.sampling_hz)
    begin = round((BEAT_BEFORE_SECONDS - BEFORE_SECONDS) * recording.sampling_hz)
    length = round((BEFORE_SECONDS + AFTER_SECONDS) * recording.sampling_hz)
    products = []
    for shift in range(-lag, lag + 1):
        rows = np.stack([beats[lead][begin + shift * (lead in groups[1]) :][:length] for lead in LIMB])
        rows -= rows.mean(axis=1, keepdims=True)
        products.append(rows @ rows.T)
    return _fitted(np.stack(products))


def _only_together(recording: Recording, leads: Sequence[str]) -> Recording:
    """The samples that all of these leads have: a rhythm strip shows one of them for longer."""
    rows = [LEADS.index(lead) for lead in leads]
    signals = recording.signals_mv.copy()
    signals[:, ~np.isfinite(signals[rows]).all(axis=0)] = np.nan
    return replace(recording, signals_mv=signals)


def _steepest(recording: Recording, leads: Sequence[str], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The beats that are nearly as steep as the steepest: a tall T wave may have been taken for one."""
    steps = np.nan_to_num(np.diff(recording.signals_mv[[LEADS.index(lead) for lead in leads]], axis=1)) ** 2
    total = np.concatenate(([0.0], np.cumsum(steps.sum(axis=0))))
    before, after = (round(seconds * recording.sampling_hz) for seconds in (BEFORE_SECONDS, AFTER_SECONDS))
    energy = total[np.minimum(places + after, total.size - 1)] - total[np.maximum(places - before, 0)]
    kept: NDArray[np.int64] = places[energy >= LEAST_OF_STEEPEST * energy.max(initial=0.0)]
    return kept


def _recorded_together(recording: Recording) -> list[tuple[str, ...]]:
    """Limb leads in groups of those whose samples exist at the same time, in the order of `LIMB`."""
    present = {lead: np.isfinite(recording.lead(lead)) for lead in LIMB}
    needed = _LEAST_OVERLAP_SECONDS * recording.sampling_hz
    groups: list[list[str]] = []
    for lead in LIMB:
        for group in groups:
            same_clock = recording.clocks[LEADS.index(lead)] == recording.clocks[LEADS.index(group[0])]
            if same_clock and np.count_nonzero(present[lead] & present[group[0]]) >= needed:
                group.append(lead)
                break
        else:
            groups.append([lead])
    return [tuple(group) for group in groups]


def _fitted(products: NDArray[np.float64]) -> Fit:
    """From the leads' scalar products at each shift, [shifts, 6, 6], to the fit of each naming at its best shift."""
    basis, _ = np.linalg.qr(_IN_TERMS_OF_I_AND_II)
    beyond = np.eye(6) - basis @ basis.T
    energy = np.trace(products, axis1=1, axis2=2)

    def residual(order: Sequence[int], signs: NDArray[np.float64]) -> float:
        renamed = products[:, list(order)][:, :, list(order)] * np.outer(signs, signs)
        left = np.einsum("ij,sij->s", beyond, renamed)
        return float(np.sqrt(np.maximum(left / np.maximum(energy, 1e-12), 0.0).min()))

    upright, usual = np.ones(6), tuple(range(6))
    best, naming = np.inf, ""
    for one, other in itertools.combinations(range(6), 2):
        order = list(usual)
        order[one], order[other] = other, one
        if (found := residual(order, upright)) < best:
            best, naming = found, f"{LIMB[one]} and {LIMB[other]} exchanged"
    for turned in range(6):
        signs = upright.copy()
        signs[turned] = -1.0
        if (found := residual(usual, signs)) < best:
            best, naming = found, f"{LIMB[turned]} upside down"
    for other_order in itertools.permutations(range(6)):
        moved = [at for at in usual if other_order[at] != at]
        if len(moved) == 3 and (found := residual(other_order, upright)) < best:
            best, naming = found, f"{', '.join(LIMB[at] for at in moved)} in another order"
    return Fit(residual=residual(usual, upright), best=best, naming=naming)
