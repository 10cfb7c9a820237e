"""Hearts to draw: real recordings where the samples are at hand, and made ones without end.

A made heart is a moving dipole (P, Q, R, S and T as bells in time, each with its own direction) seen from the
directions of eight leads; the other four follow exactly. Seeded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.lead_images import LEADS

HZ = 500.0
SECONDS = 10.0
Heart = dict[str, NDArray[np.float64]]  # mV at 500 Hz

_DIRECTIONS = {  # of the leads: to the left, to the feet, to the front
    "I": (1.0, 0.0, 0.0),
    "II": (0.5, 0.87, 0.0),
    "V1": (-0.5, 0.1, 1.0),
    "V2": (0.1, 0.1, 1.25),
    "V3": (0.5, 0.15, 1.2),
    "V4": (0.9, 0.25, 0.95),
    "V5": (1.1, 0.25, 0.45),
    "V6": (1.0, 0.2, 0.0),
}
_BELLS = {  # seconds from the R wave, width, usual direction, size in mV
    "P": (-0.17, 0.028, (0.6, 0.8, 0.1), 0.13),
    "Q": (-0.032, 0.010, (-0.8, 0.1, 0.6), 0.25),
    "R": (0.0, 0.013, (0.75, 0.7, -0.35), 1.15),
    "S": (0.030, 0.012, (-0.3, -0.5, -0.8), 0.40),
    "T": (0.28, 0.055, (0.7, 0.5, 0.35), 0.30),
}


def real_hearts(samples: Path) -> list[Heart]:
    """The recordings among the samples, ten seconds each; none where the folder is absent."""
    hearts = []
    for path in sorted((samples / "ecg_signal").glob("*_hr.csv")):
        table = np.genfromtxt(path, delimiter=",", names=True)
        by_name = {name.upper(): name for name in table.dtype.names}
        hearts.append({lead: np.asarray(table[by_name[lead.upper()]], dtype=np.float64) for lead in LEADS})
    return hearts


def made_heart(seed: int) -> Heart:
    """Ten seconds of a heart that nobody has."""
    chance = np.random.default_rng(seed)
    times = np.arange(round(SECONDS * HZ)) / HZ
    usual = chance.uniform(0.46, 1.3)
    beats = np.cumsum(usual * (1.0 + chance.normal(0.0, chance.choice([0.01, 0.03, 0.12]), 40))) - usual
    wide = chance.uniform(0.85, 1.6)
    dipole = np.zeros((3, times.size))
    for name, (after, width, direction, size) in _BELLS.items():
        turned = np.array(direction) + chance.normal(0.0, 0.25, 3)
        turned *= size * chance.uniform(0.6, 1.5) * (-1.0 if name == "T" and chance.random() < 0.12 else 1.0)
        late = after * (min(1.0, usual) ** 0.5 if name == "T" else 1.0) * (wide if name in "QS" else 1.0)
        spread = width * (wide if name in "QRS" else 1.0)
        bell = np.exp(-(((times[:, None] - beats[None, :] - late) / spread) ** 2) / 2.0).sum(axis=1)
        dipole += turned[:, None] * bell
    heart = {lead: np.array(towards) @ dipole for lead, towards in _DIRECTIONS.items()}
    for lead, clean in heart.items():
        wander = chance.uniform(0.0, 0.08) * np.sin(2 * np.pi * (chance.uniform(0.1, 0.35) * times + chance.random()))
        heart[lead] = clean + wander + chance.normal(0.0, chance.uniform(0.002, 0.012), times.size)
    return completed(heart)


def completed(heart: Heart) -> Heart:
    """All twelve leads in their order, the four that follow computed from I and II."""
    one, two = heart["I"], heart["II"]
    whole = heart | {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    return {lead: whole[lead] for lead in LEADS}
