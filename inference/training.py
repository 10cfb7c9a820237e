"""Train a fused network on examinations held in memory, by the paper's recipe in spirit (Yoon et al. 2.3).

In: pictures, lead images and measured mPAP; out: weights, chosen by validation patients, and what happened in each
epoch. Random 224 crops of the 512 picture, mean squared error, Adam, split by patient, no flips. Where examinations
come from is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from inference.architecture import CHEST_EMBEDDING, ECG_EMBEDDING, Architecture
from inference.engine import Engine, lead_tensor
from inference.manifest import EcgPreprocessing
from inference.network import FusedNetwork
from inference.radiograph import RadiographPreprocessing


@dataclass(frozen=True, kw_only=True)
class Examination:
    """A radiograph and an ECG of one patient with the measured pressure."""

    patient_id: str
    picture: NDArray[np.float16]  # [512, 512], 0..1, as `read_radiograph` gives it
    lead_images: NDArray[np.uint8]  # [12, 48, 224, 3]
    mpap_mmhg: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train. The paper: Adam 5e-5, 20 epochs, from pretrained weights; the defaults suit random ones."""

    epochs: int = 20
    examinations_a_step: int = 16
    crops_an_examination: int = 6  # random crops of one picture share one pass of its ECG
    learning_rate: float = 1e-3
    ecg_withheld: float = 0.5  # share of a step's examinations whose ECG embedding is zero
    seed: int = 1
    threads: int = 2  # of torch; part of the recipe because sums depend on it in their last bits


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which examinations serve what, as indices. No patient stands in two."""

    train: tuple[int, ...]
    validation: tuple[int, ...]  # chooses the epoch
    calibration: tuple[int, ...]  # residuals of the interval, limits of the usual
    test: tuple[int, ...]  # figures in the manifest


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What an epoch ended with."""

    number: int
    loss: float  # mean squared error over crops, in units of the training patients' variance
    validation_mae_mmhg: float


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained network that answers in mmHg, and its history."""

    network: FusedNetwork
    history: tuple[Epoch, ...]
    chosen_epoch: int


SHARES = (0.60, 0.05, 0.20, 0.15)


def split_by_patient(patient_ids: Sequence[str], *, seed: int) -> Split:
    """Training, validation, calibration and test in `SHARES`, whole patients each, drawn by `seed`."""
    patients = sorted(set(patient_ids))
    order = np.random.default_rng(seed).permutation(len(patients))
    edges = np.rint(np.cumsum(SHARES) * len(patients)).astype(int)
    part_of = {
        patients[patient]: int(np.searchsorted(edges, place, side="right")) for place, patient in enumerate(order)
    }
    parts: list[list[int]] = [[], [], [], []]
    for index, patient_id in enumerate(patient_ids):
        parts[min(part_of[patient_id], 3)].append(index)
    return Split(
        train=tuple(parts[0]),
        validation=tuple(parts[1]),
        calibration=tuple(parts[2]),
        test=tuple(parts[3]),
    )


def train(
    architecture: Architecture,
    examinations: Sequence[Examination],
    split: Split,
    recipe: Recipe,
    *,
    radiograph: RadiographPreprocessing,
    ecg: EcgPreprocessing,
    progress: Callable[[Epoch], None] = lambda _epoch: None,
) -> Trained:
    """Train from random weights.

    The same arguments, library versions and kind of processor give the same weights. The epoch with the smallest
    validation error is kept.

    Raises
    ------
    ValueError
        If training or validation holds no patient.
    """
    if not split.train or not split.validation:
        raise ValueError("too few patients to train and validate")
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    torch.use_deterministic_algorithms(True)
    network = FusedNetwork(architecture).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    measured = np.array([examinations[k].mpap_mmhg for k in split.train])
    mean, spread = float(measured.mean()), float(measured.std())
    draw = _Draw(examinations, recipe, radiograph, ecg)
    steps = -(-len(split.train) // recipe.examinations_a_step)
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=recipe.learning_rate, total_steps=steps * recipe.epochs, pct_start=0.15
    )
    history: list[Epoch] = []
    best, best_state = np.inf, network.state_dict()
    for number in range(1, recipe.epochs + 1):
        network.train()
        losses = []
        for rows in draw.batches(split.train):
            crops, leads, target = draw.batch(rows)
            chest = network.chest(crops).view(len(rows), recipe.crops_an_examination, CHEST_EMBEDDING)
            # An ECG teaches faster than a radiograph; withheld at times, it does not silence the radiograph.
            withheld = torch.zeros(len(rows) - len(leads), ECG_EMBEDDING)
            value = network.head.split(chest, torch.cat([network.ecg(leads), withheld]))
            loss = nn.functional.mse_loss(value, ((target - mean) / spread)[:, None].expand_as(value))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        engine = Engine(network, radiograph, ecg)
        estimated = estimate(engine, examinations, split.validation) * spread + mean
        truth = np.array([examinations[k].mpap_mmhg for k in split.validation])
        error = float(np.mean(np.abs(estimated - truth)))
        history.append(Epoch(number=number, loss=float(np.mean(losses)), validation_mae_mmhg=error))
        progress(history[-1])
        if error < best:
            best, best_state = error, {k: v.detach().clone() for k, v in network.state_dict().items()}
    network.load_state_dict(best_state)
    with torch.no_grad():
        # Standardised targets train well; folded back, the network answers in mmHg.
        network.head.output.weight.mul_(spread)
        network.head.output.bias.mul_(spread).add_(mean)
    chosen = min(history, key=lambda epoch: epoch.validation_mae_mmhg).number
    return Trained(network=network.eval(), history=tuple(history), chosen_epoch=chosen)


def embeddings(
    engine: Engine, examinations: Sequence[Examination], rows: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Chest [n, 9, 1024] and ECG [n, 128] embeddings of the examinations at `rows`."""
    chest = np.stack([engine.embed_chest(examinations[k].picture.astype(np.float32)) for k in rows])
    ecg = np.concatenate([engine.embed_ecg(examinations[k].lead_images[None]) for k in rows])
    return chest, ecg


def estimate(engine: Engine, examinations: Sequence[Examination], rows: Sequence[int]) -> NDArray[np.float64]:
    """One value an examination, the mean of its nine patches, as the network gives it."""
    chest, ecg = embeddings(engine, examinations, rows)
    return engine.fuse(chest, ecg).mean(axis=1).astype(np.float64)


class _Draw:
    """Draws batches: examinations in a new order each epoch, and random crops of each."""

    def __init__(
        self,
        examinations: Sequence[Examination],
        recipe: Recipe,
        radiograph: RadiographPreprocessing,
        ecg: EcgPreprocessing,
    ) -> None:
        self._examinations = examinations
        self._recipe = recipe
        self._radiograph = radiograph
        self._ecg = ecg
        self._rng = np.random.default_rng(recipe.seed)
        self._mean = np.asarray(radiograph.mean, dtype=np.float32).reshape(1, 3, 1, 1)
        self._std = np.asarray(radiograph.std, dtype=np.float32).reshape(1, 3, 1, 1)

    def batches(self, rows: Sequence[int]) -> list[NDArray[np.int64]]:
        order = self._rng.permutation(np.asarray(rows, dtype=np.int64))
        size = self._recipe.examinations_a_step
        batches = [order[k : k + size] for k in range(0, len(order), size)]
        # BatchNorm has nothing to say of a single examination.
        return [batch for batch in batches if len(batch) > 1]

    def batch(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Crops [n * crops, 3, 224, 224], leads of the first examinations [kept, 36, 48, 224] and mmHg [n]."""
        side, patch = self._radiograph.side, self._radiograph.patch_side
        chosen = [self._examinations[int(k)] for k in rows]
        crops = []
        for examination in chosen:
            for _ in range(self._recipe.crops_an_examination):
                top, left = (int(v) for v in self._rng.integers(0, side - patch + 1, 2))
                crops.append(examination.picture[top : top + patch, left : left + patch])
        grey = np.stack(crops).astype(np.float32)[:, None]
        patches = torch.from_numpy((grey - self._mean) / self._std)
        kept = max(1, len(chosen) - round(len(chosen) * self._recipe.ecg_withheld))
        leads = lead_tensor(np.stack([examination.lead_images for examination in chosen[:kept]]), self._ecg)
        target = torch.tensor([examination.mpap_mmhg for examination in chosen], dtype=torch.float32)
        return patches.contiguous(memory_format=torch.channels_last), leads, target
