"""Heart beats in a recording: where they are, and each lead's usual beat, also of leads recorded one after another.

Pure. For comparing the shape of leads, not for measuring intervals.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.lead_images import LEADS
from ecg_ingest.recording import Recording

BEFORE_SECONDS, AFTER_SECONDS = 0.22, 0.38  # of a beat about its steepest moment: P wave, QRS, T wave
_REFRACTORY_SECONDS = 0.3
_SMOOTHED_SECONDS = 0.06
_LEAST_OF_STEEPEST = 0.35  # how steep a beat's moment is, of the steepest's usual


def beat_samples(recording: Recording, leads: Sequence[str]) -> NDArray[np.int64]:
    """Samples at which beats are steepest, over those of `leads` that were recorded there.

    The sum of squares of I, II and III is that of aVR, aVL and aVF, whichever is called what: both columns of a sheet
    find the same moment of a beat.
    """
    rows = recording.signals_mv[[LEADS.index(lead) for lead in leads]]
    steps = np.diff(rows, axis=1) ** 2
    known = np.isfinite(steps)
    steepness = np.sqrt(np.where(known, steps, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1))
    width = max(1, round(_SMOOTHED_SECONDS * recording.sampling_hz))
    steepness = np.convolve(steepness, np.full(width, 1.0 / width), mode="same")
    second = max(1, round(recording.sampling_hz))
    blocks = [steepness[at : at + second].max() for at in range(0, steepness.size - second // 2, second)]
    high = [block for block in blocks if block > 0.0]
    if not high:
        return np.zeros(0, dtype=np.int64)
    threshold = _LEAST_OF_STEEPEST * float(np.median(high))
    apart = round(_REFRACTORY_SECONDS * recording.sampling_hz)
    found: list[int] = []
    for at in np.argsort(-steepness, kind="stable"):
        if steepness[at] < threshold:
            break
        if all(abs(int(at) - other) >= apart for other in found):
            found.append(int(at))
    return np.array(sorted(found), dtype=np.int64)


def usual_beat(recording: Recording, lead: str, beats: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """The median of a lead's whole beats about their own baselines, in mV; None where none is whole."""
    before, after = (round(seconds * recording.sampling_hz) for seconds in (BEFORE_SECONDS, AFTER_SECONDS))
    samples = recording.lead(lead)
    parts = [samples[at - before : at + after] for at in beats if at >= before and at + after <= samples.size]
    whole = [part - np.median(part) for part in parts if np.isfinite(part).all()]
    if not whole:
        return None
    beat: NDArray[np.float64] = np.median(whole, axis=0)
    return beat


def likeness(one: NDArray[np.float64], other: NDArray[np.float64], lag: int) -> float:
    """The correlation of two beats, of largest amount within `lag` samples of one another; 0 for a flat one."""
    best = 0.0
    size = min(one.size, other.size)
    for shift in range(-lag, lag + 1):
        a, b = one[max(0, shift) : size + min(0, shift)], other[max(0, -shift) : size - max(0, shift)]
        a, b = a - np.mean(a), b - np.mean(b)
        scale = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
        if scale > 0.0 and abs(value := float(np.sum(a * b)) / scale) > abs(best):
            best = value
    return best
