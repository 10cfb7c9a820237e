"""How a network is trained, as a value that is recorded with it. No torch here.

The defaults are the paper's (Yoon et al. 2.3): Adam at 5e-5, 20 epochs, mean squared error, one random crop of 224
from the picture of 512, both branches at once, no flips, the epoch chosen by validation. What the paper leaves open
is a field with a default and is marked so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Schedule(StrEnum):
    """How the learning rate goes over the steps. The paper names one rate and no schedule."""

    CONSTANT = "constant"
    ONE_CYCLE = "one-cycle"  # up over the first 15 %, then down by a cosine


class Target(StrEnum):
    """What the loss is taken of; the network always answers in mmHg in the end. The paper does not say."""

    STANDARDISED = "standardised"  # by mean and spread of the training patients
    MMHG = "mmhg"


class Precision(StrEnum):
    """Of the multiplications; weights, sums and losses stay fp32."""

    AUTO = "auto"  # bf16 on a GPU that has it, else fp16 on a GPU, fp32 on a CPU
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"  # of a chest encoder that answers on a CPU; nothing trains in it


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training."""

    epochs: int = 20
    learning_rate: float = 5e-5
    crops_an_examination: int = 1  # random crops of one picture share one pass of its ECG
    examinations_a_step: int = 16  # open in the paper
    weight_decay: float = 0.0  # open in the paper
    schedule: Schedule = Schedule.CONSTANT  # open in the paper
    target: Target = Target.STANDARDISED  # open in the paper
    ecg_withheld: float = 0.0  # share of a step's examinations whose ECG embedding is zero; not the paper's
    crop_step: int = 1  # pixels; crops begin at multiples of it
    precision: Precision = Precision.AUTO  # open in the paper
    seed: int = 1
    threads: int = 2  # of torch; part of the recipe because sums depend on it in their last bits

    def __post_init__(self) -> None:
        for name in ("epochs", "crops_an_examination", "examinations_a_step", "crop_step", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if not (self.learning_rate > 0 and self.weight_decay >= 0 and 0.0 <= self.ecg_withheld < 1.0):
            raise ValueError("learning_rate must be above 0, weight_decay not below, ecg_withheld from 0 to below 1")

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step `step` (from 0) of `steps`."""
        if self.schedule is Schedule.CONSTANT:
            return self.learning_rate
        rising = max(1, round(0.15 * steps))
        if step < rising:
            return self.learning_rate * (0.04 + 0.96 * 0.5 * (1.0 - math.cos(math.pi * step / rising)))
        falling = (step - rising) / max(1, steps - 1 - rising)
        return self.learning_rate * (1e-3 + (1.0 - 1e-3) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, falling))))


DEMO = Recipe(
    epochs=16,
    learning_rate=1e-3,
    crops_an_examination=6,
    schedule=Schedule.ONE_CYCLE,
    ecg_withheld=0.5,
)
"""Of the shipped synthetic-demo package: from random weights, on phantoms, in minutes."""
