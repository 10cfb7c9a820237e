"""What to know of a recording before believing a number from it: noise, mains, wander, reversed arms.

Findings, never refusals. Each rule states its measure; on 144 leads of twelve PTB-XL records noise
was at most .030 mV, mains .0014 mV, and the baseline moved by at most .49 mV in 95 % of them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.lead_images import LEADS, QualityFinding
from ecg_ingest.recording import Recording, longest_run

NOISE_MILLIVOLTS = 0.05  # robust standard deviation of what a 25 ms mean leaves over
MAINS_MILLIVOLTS = 0.025  # amplitude of a steady 50 or 60 Hz sine
WANDER_MILLIVOLTS = 0.6  # range of the medians of successive seconds
REVERSED_CORRELATION = -0.75  # of lead I with V6

_MAINS_HZ = (50.0, 60.0)
_LEAST_SECONDS = 2.4


def inspect(recording: Recording) -> tuple[QualityFinding, ...]:
    """All findings about the signals, lead by lead in the order of `LEADS`, then about the whole."""
    findings: list[QualityFinding] = []
    for lead in LEADS:
        samples = recording.lead(lead)
        start, end = longest_run(samples)
        if (end - start) / recording.sampling_hz >= _LEAST_SECONDS:
            findings.extend(_of_lead(lead, samples[start:end], recording.sampling_hz))
    findings.extend(_reversed_arms(recording))
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
    window = np.hanning(samples.size)
    centred = (samples - np.mean(samples)) * window
    times = np.arange(samples.size) / sampling_hz
    for frequency in _MAINS_HZ:
        if frequency + 6.0 > sampling_hz / 2.0:
            continue
        at = [
            2.0 * abs(complex(np.sum(centred * np.exp(-2j * math.pi * hertz * times)))) / float(window.sum())
            for hertz in (frequency, frequency - 5.0, frequency - 3.0, frequency + 3.0, frequency + 5.0)
        ]
        amplitude = at[0] - max(at[1:])
        if amplitude > best[0]:
            best = (amplitude, frequency)
    return best


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


def _reversed_arms(recording: Recording) -> list[QualityFinding]:
    """Lead I upside down against V6, P wave and T wave with it: arm electrodes exchanged, or dextrocardia.

    A right axis alone does not do this: V6 then has a deep S wave too. Only where both leads were
    recorded at once.
    """
    if recording.clocks[LEADS.index("I")] != recording.clocks[LEADS.index("V6")]:
        return []
    one, six = recording.lead("I"), recording.lead("V6")
    both = np.isfinite(one) & np.isfinite(six)
    if both.sum() < _LEAST_SECONDS * recording.sampling_hz:
        return []
    a, b = one[both] - np.median(one[both]), six[both] - np.median(six[both])
    scale = math.sqrt(float(np.mean(a * a)) * float(np.mean(b * b)))
    if scale == 0.0 or float(np.mean(a * b)) / scale > REVERSED_CORRELATION:
        return []
    return [
        QualityFinding(
            code="lead_reversal_suspected",
            lead="",
            detail="lead I is the mirror of V6: arm electrodes exchanged, or dextrocardia",
        )
    ]
