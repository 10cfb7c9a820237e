"""Make ten seconds of a schematic 12-lead ECG from the signs it shall show.

In: signs and a random generator; out: twelve leads as whole steps of the recorder. The limb leads are exact:
III = II - I, aVR = -(I + II)/2, aVL = I - II/2 and aVF = II - I/2 hold sample by sample. No DICOM here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.phantoms.signs import EcgSigns

Array = NDArray[np.float64]

SAMPLING_HZ = 500
SECONDS = 10
STEP_UV = 1.25  # one step of the recorder; leads I and II are even, so that halves are whole
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

_CHEST_P_MV = (0.6, 0.7, 0.7, 0.65, 0.6, 0.55)  # P of V1..V6 as a share of P in II


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The nuisances of one recording: heart rate, gain of the body, and what disturbs it."""

    beats_per_minute: float
    rate_variability: float  # standard deviation of the RR interval, seconds
    gain: float  # body build and electrode placement, 1 is ordinary
    muscle_uv: float  # standard deviation of muscle noise
    mains_uv: float
    mains_hz: float  # 50 or 60
    wander_uv: float  # amplitude of the breathing baseline


def draw_recording(rng: np.random.Generator) -> Recording:
    """The nuisances of one recording, at random."""
    return Recording(
        beats_per_minute=float(rng.uniform(56.0, 98.0)),
        rate_variability=float(rng.uniform(0.005, 0.04)),
        gain=float(np.clip(rng.normal(1.0, 0.08), 0.8, 1.25)),
        muscle_uv=float(rng.uniform(2.0, 12.0)),
        mains_uv=float(rng.uniform(0.0, 6.0)),
        mains_hz=float(rng.choice([50.0, 60.0])),
        wander_uv=float(rng.uniform(10.0, 60.0)),
    )


def draw_ecg(signs: EcgSigns, recording: Recording, rng: np.random.Generator) -> NDArray[np.int16]:
    """The recording as whole recorder steps of `STEP_UV`, int16 [12, 5000], in the order of `LEADS`."""
    time = np.arange(SECONDS * SAMPLING_HZ) / SAMPLING_HZ
    beats = _beats(recording, rng)
    independent = _heart(signs, recording, time, beats) * 1000.0  # [8, samples] microvolts: I, II, V1..V6
    independent += _disturbance(recording, time, rng)
    steps = np.rint(independent / STEP_UV).astype(np.int32)
    lead_i, lead_ii = 2 * (steps[0] // 2), 2 * (steps[1] // 2)
    limbs = [
        lead_i,
        lead_ii,
        lead_ii - lead_i,
        -(lead_i + lead_ii) // 2,
        lead_i - lead_ii // 2,
        lead_ii - lead_i // 2,
    ]
    return np.stack([*limbs, *steps[2:]]).astype(np.int16)


def _beats(recording: Recording, rng: np.random.Generator) -> Array:
    """Times of the R peaks, seconds, from before the start to after the end."""
    mean = 60.0 / recording.beats_per_minute
    count = int(SECONDS / mean) + 6
    intervals = mean + rng.normal(0.0, recording.rate_variability, count)
    return float(rng.uniform(-1.0, 0.0)) * mean - 1.5 * mean + np.cumsum(np.maximum(intervals, 0.35))


def _heart(signs: EcgSigns, recording: Recording, time: Array, beats: Array) -> Array:
    """The heart's own signal, millivolts [8, samples]."""
    rr = 60.0 / recording.beats_per_minute
    stretch = float(np.sqrt(rr))  # repolarisation is slower in a slow heart (Bazett)
    nearest = np.argmin(np.abs(time[:, None] - beats[None, :]), axis=1)
    since = {  # seconds from the R peak of the beat that a wave belongs to
        "here": time - beats[nearest],
        "next": time - beats[np.minimum(nearest + 1, len(beats) - 1)],
        "last": time - beats[np.maximum(nearest - 1, 0)],
    }

    def wave(centre: float, width: float) -> Array:
        return sum(np.exp(-0.5 * ((t - centre) / width) ** 2) for t in since.values())

    p = wave(-0.165, 0.022)
    q, r, s = wave(-0.026, 0.008), wave(0.0, 0.0105), wave(0.030, 0.011)
    t_wave = wave(0.27 * stretch, 0.045 * stretch) + 0.55 * wave(0.22 * stretch, 0.045 * stretch)
    t_wave /= float(np.max(t_wave))
    rows = [_limb(signs, lead_degrees, p, q, r, s, t_wave) for lead_degrees in (0.0, 60.0)]
    for k in range(6):
        septal = -0.04 * q if k >= 3 else 0.0 * q
        p_chest = signs.p_ii_mv * _CHEST_P_MV[k] * p
        if k == 0:  # V1: biphasic, its first half grows with the right atrium
            p_chest = 0.7 * signs.p_ii_mv * wave(-0.175, 0.014) - 0.04 * wave(-0.14, 0.014)
        rows.append(p_chest + septal + signs.r_mv[k] * r - signs.s_mv[k] * s + signs.t_mv[k] * t_wave)
    return np.stack(rows) * recording.gain


def _limb(signs: EcgSigns, lead_degrees: float, p: Array, q: Array, r: Array, s: Array, t_wave: Array) -> Array:
    """A limb lead as the projection of frontal vectors on the lead's direction (I at 0, II at 60 degrees)."""

    def onto(degrees: float) -> float:
        return float(np.cos(np.deg2rad(degrees - lead_degrees)))

    axis = signs.axis_degrees
    excess = max(0.0, axis - 60.0)
    return (
        signs.p_ii_mv * onto(62.0) / float(np.cos(np.deg2rad(2.0))) * p
        - 0.08 * onto(axis - 20.0) * q
        + 1.05 * onto(axis) * r
        - 0.22 * onto(axis - 75.0 - 0.2 * excess) * s
        + 0.26 * onto(48.0 - 0.55 * excess) * t_wave
    )


def _disturbance(recording: Recording, time: Array, rng: np.random.Generator) -> Array:
    """Wander, mains and muscle noise, microvolts [8, samples]."""
    breath = 2.0 * np.pi * (float(rng.uniform(0.18, 0.32)) * time + float(rng.uniform(0.0, 1.0)))
    mains = 2.0 * np.pi * (recording.mains_hz * time + float(rng.uniform(0.0, 1.0)))
    share = rng.uniform(0.3, 1.0, (8, 1))
    muscle = rng.normal(0.0, recording.muscle_uv, (8, len(time) + 4))
    muscle = (muscle[:, :-4] + muscle[:, 1:-3] + muscle[:, 2:-2] + muscle[:, 3:-1] + muscle[:, 4:]) / np.sqrt(5.0)
    return share * recording.wander_uv * np.sin(breath) + share * recording.mains_uv * np.sin(mains) + muscle
