"""Phantom examinations as arrays, for learning by the thousand: what `patients` makes, without the DICOM around it.

The radiograph is drawn at half size, about as large as the network's picture; scaling and signals are as a reader
would give them. Making the lead images is the ECG reader's business.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.phantoms.chest import draw_build, draw_chest
from inference.phantoms.ecg import SAMPLING_HZ, STEP_UV, draw_ecg, draw_recording
from inference.phantoms.patients import Described, describe, plan_visit
from inference.phantoms.pressure import Difficulty, Shown
from inference.phantoms.signs import chest_signs, ecg_signs
from inference.radiograph import RadiographPreprocessing

__all__ = ["SAMPLING_HZ", "DrawnExamination", "draw_examination"]


@dataclass(frozen=True, kw_only=True)
class DrawnExamination:
    """A pair of one phantom patient."""

    patient_id: str
    picture: NDArray[np.float16]  # [512, 512], 0 (air) to 1
    signals_mv: NDArray[np.float64]  # [12, 5000] at `SAMPLING_HZ`, in the order of `ecg.LEADS`
    shown: Shown
    described: Described


def draw_examination(
    index: int, seed: int, difficulty: Difficulty, preprocessing: RadiographPreprocessing, *, visit: int = 0
) -> DrawnExamination:
    """Phantom patient `index` of cohort `seed` at one visit. The same arguments give the same arrays."""
    plan = plan_visit(index, seed, difficulty, visit=visit)
    signs = chest_signs(plan.shown.chest_mmhg, plan.chest_rng)
    build = draw_build(plan.chest_rng, female=plan.person.sex == "F").at_half_size()
    pixels = draw_chest(signs, build, plan.chest_rng).astype(np.float32)
    heart = ecg_signs(plan.shown.ecg_mmhg, plan.ecg_rng)
    steps = draw_ecg(heart, draw_recording(plan.ecg_rng), plan.ecg_rng)
    return DrawnExamination(
        patient_id=plan.person.patient_id,
        picture=scaled(pixels, preprocessing).astype(np.float16),
        signals_mv=steps.astype(np.float64) * (STEP_UV / 1000.0),
        shown=plan.shown,
        described=describe(index, seed, plan.person, plan.radiograph_at, plan.radiograph_at + plan.gap),
    )


def scaled(pixels: NDArray[np.float32], preprocessing: RadiographPreprocessing) -> NDArray[np.float32]:
    """As `read_radiograph` scales a picture without a window of its own."""
    low, high = np.percentile(pixels[::4, ::4], [preprocessing.low_percentile, preprocessing.high_percentile])
    shown = np.clip((pixels - low) / (high - low), 0.0, 1.0).astype(np.float32)
    side = preprocessing.side
    return np.clip(np.asarray(Image.fromarray(shown).resize((side, side), Image.Resampling.BILINEAR)), 0.0, 1.0)
