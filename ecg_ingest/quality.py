"""What to know of a recording before believing a number from it: noise, mains, wander, rails, height, pacing, length.

Findings, never refusals. Each rule states its measure; on 144 leads of twelve PTB-XL records noise
was at most .030 mV, mains .0014 mV, and the baseline moved by at most .49 mV in 95 % of them.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.lead_images import LEADS, QualityFinding
from ecg_ingest.recording import Recording, longest_run, runs
from ecg_ingest.reversal import reversed_electrodes

NOISE_MILLIVOLTS = 0.05  # robust standard deviation of what a 25 ms mean leaves over
MAINS_MILLIVOLTS = 0.025  # amplitude of a steady 50 or 60 Hz sine
WANDER_MILLIVOLTS = 0.6  # range of the medians of successive seconds
RAIL_SECONDS, RAIL_RUNS = 0.008, 2  # how long and how often a lead stays at its own extreme, to the digit
RAIL_STEP_MILLIVOLTS = 0.05  # by how much it came there in one sample: tops of waves are reached slowly
HIGHEST_MILLIVOLTS = 8.0  # usual height of a second; left ventricular hypertrophy reaches about 6
LOWEST_MILLIVOLTS = 0.3  # of the tallest lead: no heart is so quiet at 10 mm/mV
SPIKE_MILLIVOLTS = 0.15
SPIKE_SECONDS, QRS_SECONDS = 0.004, 0.012  # within these a pacing spike, and a QRS, rises and falls
SPIKE_LEADS = 3  # at once
SPIKE_NOISES = 5.0  # times the lead's noise
LEAST_SPIKES, FEWEST_A_MINUTE = 3, 20.0
USUAL_SECONDS = 9.0  # a resting ECG lasts ten

_MAINS_HZ = (50.0, 60.0)
_LEAST_SECONDS = 2.4


def inspect(recording: Recording, *, from_pixels: bool = False) -> tuple[QualityFinding, ...]:
    """All findings about the signals, lead by lead in the order of `LEADS`, then about the whole.

    Parameters
    ----------
    from_pixels
        The signals were followed through a picture: a wave's top is then as flat as a pixel, and is no rail.
    """
    findings: list[QualityFinding] = []
    for lead in LEADS:
        samples = recording.lead(lead)
        start, end = longest_run(samples)
        if (end - start) / recording.sampling_hz >= _LEAST_SECONDS:
            findings.extend(_of_lead(lead, samples[start:end], recording.sampling_hz))
            if not from_pixels and runs_at_rail(samples[start:end], recording.sampling_hz) >= RAIL_RUNS:
                findings.append(QualityFinding(code="saturated", lead=lead, detail="cut off at the recorder's limit"))
    findings.extend(reversed_electrodes(recording))
    findings.extend(_height(recording))
    findings.extend(_pacing(recording))
    if recording.seconds < USUAL_SECONDS:
        findings.append(QualityFinding(code="short", lead="", detail=f"only {recording.seconds:.1f} s were recorded"))
    return tuple(findings)


def _of_lead(lead: str, samples: NDArray[np.float64], sampling_hz: float) -> list[QualityFinding]:
    found = []
    mains, frequency = mains_amplitude(samples, sampling_hz)
    if mains > MAINS_MILLIVOLTS:
        found.append(QualityFinding(code="mains", lead=lead, detail=f"{mains:.3f} mV at {frequency:g} Hz"))
        samples = samples - _sine(samples, sampling_hz, frequency)  # or it would be called noise as well
    noise = noise_level(samples, sampling_hz)
    if noise > NOISE_MILLIVOLTS:
        found.append(QualityFinding(code="noisy", lead=lead, detail=f"noise of {noise:.3f} mV"))
    wander = baseline_range(samples, sampling_hz)
    if wander > WANDER_MILLIVOLTS:
        found.append(QualityFinding(code="wander", lead=lead, detail=f"the baseline moves by {wander:.2f} mV"))
    return found


def noise_level(samples: NDArray[np.float64], sampling_hz: float) -> float:
    """Robust standard deviation (mV) of the signal less its 25 ms running mean: a QRS hardly counts."""
    width = max(3, round(0.025 * sampling_hz) | 1)
    if samples.size < 4 * width:
        return 0.0
    mean = np.convolve(samples, np.full(width, 1.0 / width), mode="valid")
    rest = samples[width // 2 : width // 2 + mean.size] - mean
    return 1.4826 * float(np.median(np.abs(rest - np.median(rest))))


def mains_amplitude(samples: NDArray[np.float64], sampling_hz: float) -> tuple[float, float]:
    """Amplitude (mV) and frequency of the stronger of 50 and 60 Hz, less what the neighbouring bands hold."""
    best = (0.0, 0.0)
    centred = samples - np.mean(samples)
    for frequency in _MAINS_HZ:
        if frequency + 6.0 > sampling_hz / 2.0:
            continue
        at = np.abs(_mains_waves(samples.size, sampling_hz, frequency) @ centred)
        amplitude = float(at[0] - at[1:].max())
        if amplitude > best[0]:
            best = (amplitude, frequency)
    return best


@functools.lru_cache(maxsize=8)  # the leads of a recording are alike long
def _mains_waves(size: int, sampling_hz: float, frequency: float) -> NDArray[np.complex128]:
    """What gives the amplitude of a frequency and of its neighbours in `size` centred samples, [5, size]."""
    window = np.hanning(size)
    hertz = frequency + np.array([0.0, -5.0, -3.0, 3.0, 5.0])
    waves: NDArray[np.complex128] = np.exp(-2j * math.pi * hertz[:, None] * np.arange(size) / sampling_hz)
    return waves * (2.0 * window / window.sum())


def _sine(samples: NDArray[np.float64], sampling_hz: float, frequency: float) -> NDArray[np.float64]:
    """The steady sine of this frequency that fits the samples best."""
    phase = 2.0 * math.pi * frequency * np.arange(samples.size) / sampling_hz
    centred = samples - np.mean(samples)
    sine, cosine = np.sin(phase), np.cos(phase)
    fitted: NDArray[np.float64] = 2.0 * (np.mean(centred * sine) * sine + np.mean(centred * cosine) * cosine)
    return fitted


def baseline_range(samples: NDArray[np.float64], sampling_hz: float) -> float:
    """Range (mV) of the medians of successive seconds."""
    second = round(sampling_hz)
    blocks = samples.size // second
    if blocks < 2:
        return 0.0
    medians = np.median(samples[: blocks * second].reshape(blocks, second), axis=1)
    return float(np.ptp(medians))


def runs_at_rail(samples: NDArray[np.float64], sampling_hz: float) -> int:
    """How often a lead stays at its highest, or lowest, value after reaching it in one step; the larger of both."""
    least = max(2, round(RAIL_SECONDS * sampling_hz))
    counts = []
    for extreme in (samples.max(), samples.min()):
        at_rail = np.concatenate(([False], np.abs(samples - extreme) < 1e-6, [False]))
        edges = np.flatnonzero(at_rail[1:] != at_rail[:-1])
        steps = np.abs(np.diff(samples, prepend=samples[0], append=samples[-1]))
        counts.append(
            sum(
                end - start >= least and max(steps[start], steps[end]) >= RAIL_STEP_MILLIVOLTS
                for start, end in zip(edges[::2], edges[1::2], strict=True)
            )
        )
    return max(counts)


def _height(recording: Recording) -> list[QualityFinding]:
    """Leads that are too high, or an ECG that is too low, for 10 mm/mV: gain or unit may be wrong."""
    heights = {lead: usual_height(recording.lead(lead), recording.sampling_hz) for lead in LEADS}
    found = [
        QualityFinding(code="implausible_amplitude", lead=lead, detail=f"usually {height:.1f} mV high")
        for lead, height in heights.items()
        if height > HIGHEST_MILLIVOLTS
    ]
    tallest = max(heights.values())
    if 0.0 < tallest < LOWEST_MILLIVOLTS:
        found.append(
            QualityFinding(
                code="implausible_amplitude", lead="", detail=f"the tallest lead is usually {tallest:.2f} mV high"
            )
        )
    return found


def usual_height(samples: NDArray[np.float64], sampling_hz: float) -> float:
    """Median peak-to-peak height (mV) of the whole seconds of a lead; 0 where there is none."""
    second = round(sampling_hz)
    heights = []
    for start, end in runs(samples):
        blocks = (end - start) // second
        heights += list(np.ptp(samples[start : start + blocks * second].reshape(blocks, second), axis=1))
    return float(np.median(heights)) if heights else 0.0


def _pacing(recording: Recording) -> list[QualityFinding]:
    count = pacing_spikes(recording)
    rate = 60.0 * count / recording.seconds if recording.seconds else 0.0
    if count < LEAST_SPIKES or rate < FEWEST_A_MINUTE:
        return []
    return [QualityFinding(code="pacing_spikes", lead="", detail=f"{rate:.0f} pacing spikes a minute")]


def pacing_spikes(recording: Recording) -> int:
    """Spikes that stand in several leads at once and rise and fall within `SPIKE_SECONDS`; a QRS is wider.

    0 below 250 samples a second, which cannot show one.
    """
    near, far = (round(seconds * recording.sampling_hz) for seconds in (SPIKE_SECONDS, QRS_SECONDS))
    if near < 1 or far <= near:
        return 0
    signals = recording.signals_mv
    if signals.shape[1] <= 2 * far:
        return 0
    inside = slice(far, signals.shape[1] - far)
    narrow, wide = (_rise_and_fall(signals, reach)[:, inside] for reach in (near, far))
    # Of a spike, all its height is gone after 4 ms; of an R wave a third.
    spikes = (narrow > SPIKE_MILLIVOLTS) & (narrow > 0.75 * wide)
    for row in np.flatnonzero(spikes.any(axis=1)):
        spikes[row] &= narrow[row] > SPIKE_NOISES * _noise_of(signals[row], recording.sampling_hz)
    # An artefact of one limb's electrode stands in several limb leads and in no chest lead.
    limb_only = np.isfinite(signals[6:, inside]).any(axis=0) & ~spikes[6:].any(axis=0)
    # A column of a sheet shows three leads, and in one of them the spike may be small.
    needed = np.minimum(SPIKE_LEADS, np.isfinite(signals[:, inside]).sum(axis=0) - 1).clip(min=2)
    together = np.flatnonzero((spikes.sum(axis=0) >= needed) & ~limb_only)
    apart = round(0.1 * recording.sampling_hz)
    return int(together.size > 0) + int(np.count_nonzero(np.diff(together) > apart))


def _noise_of(samples: NDArray[np.float64], sampling_hz: float) -> float:
    start, end = longest_run(samples)
    return noise_level(samples[start:end], sampling_hz)


def _rise_and_fall(signals: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """By how much each sample stands out, up or down, from both samples `reach` away; 0 where one is not known."""
    before = signals - np.roll(signals, reach, axis=1)
    after = signals - np.roll(signals, -reach, axis=1)
    same_side = np.sign(before) == np.sign(after)
    return np.nan_to_num(np.where(same_side, np.minimum(np.abs(before), np.abs(after)), 0.0))
