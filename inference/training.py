"""Train a network on labelled examinations (Yoon et al. 2.3), on a CPU, a GPU or several, and go on after a kill.

In: examinations, split, architecture and recipe; out: weights chosen by the validation patients' grid error, and what
happened in each epoch. Where examinations come from is the caller's business.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from inference import checkpoint
from inference.architecture import CHEST_EMBEDDING, ECG_EMBEDDING, Architecture
from inference.batches import Batches, grid, lead_input, normalised
from inference.checkpoint import Epoch, Progress
from inference.devices import CPU, Workers, autocast, precision_on
from inference.examinations import Examination
from inference.manifest import EcgPreprocessing
from inference.network import FusedNetwork
from inference.radiograph import RadiographPreprocessing
from inference.recipe import Precision, Recipe, Target
from inference.split import Split

GRID_EXAMINATIONS = 8  # examinations whose nine patches share a batch when estimating
CHECKPOINT_SECONDS = 300.0  # besides one at the end of each epoch


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained network that answers in mmHg, and its history."""

    network: FusedNetwork
    history: tuple[Epoch, ...]
    chosen_epoch: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step that was just done."""

    epoch: int
    number: int  # of the epoch, from 1
    of: int
    loss: float


def train(
    architecture: Architecture,
    examinations: Sequence[Examination],
    split: Split,
    recipe: Recipe,
    *,
    radiograph: RadiographPreprocessing,
    ecg: EcgPreprocessing,
    folder: Path | None = None,
    workers: Workers = CPU,
    prepare: Callable[[FusedNetwork], None] = lambda _network: None,
    progress: Callable[[Epoch], None] = lambda _epoch: None,
    on_step: Callable[[Step], None] = lambda _step: None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Trained:
    """Train; the epoch with the smallest validation error of the nine-patch grid is kept.

    On a CPU the same arguments, library versions and kind of processor give the same weights, and so does a training
    that was killed at any line and called again with the same `folder`.

    Parameters
    ----------
    folder
        Where checkpoints are kept, and looked for; None keeps none.
    workers
        The device, or one of several.
    prepare
        Gives the network its published weights; not called when a checkpoint is found.
    progress, on_step
        Called after each epoch and each step.
    checkpoint_seconds
        A checkpoint is written at the end of each epoch, and within one when the last is older than this.

    Raises
    ------
    ValueError
        If training or validation holds no patient, a step would be too small for the processes that share it, or the
        precision is not the device's.
    Diverged
        If an epoch ends with a network whose estimates are not finite.
    RunDiffers
        If the checkpoint in `folder` is of another training.
    """
    if len(split.train) < 2 or not split.validation:
        raise ValueError("too few patients to train and validate")
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    torch.use_deterministic_algorithms(workers.device.type == "cpu")
    run = _Run(architecture, examinations, split, recipe, radiograph, ecg, folder, workers)
    if not run.taken_up:
        prepare(run.network)
    while run.state.epoch <= recipe.epochs:
        run.learn(on_step, checkpoint_seconds)
        progress(run.judge())
    return run.ended()


class Diverged(ValueError):
    """A training whose network answers with numbers no longer. The checkpoint of the epoch before stands."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"the training diverged in epoch {epoch}: its estimates are not finite; lower the rate")


class _Run:
    """A training under way: network, optimiser and how far it is."""

    def __init__(
        self,
        architecture: Architecture,
        examinations: Sequence[Examination],
        split: Split,
        recipe: Recipe,
        radiograph: RadiographPreprocessing,
        ecg: EcgPreprocessing,
        folder: Path | None,
        workers: Workers,
    ) -> None:
        self._examinations, self._split, self._recipe, self._workers = examinations, split, recipe, workers
        self._radiograph, self._ecg, self._folder = radiograph, ecg, folder
        self._precision = precision_on(workers.device, recipe.precision)
        self.network = FusedNetwork(architecture).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.to(workers.device)
        self._optimiser = torch.optim.Adam(
            self.network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self._mean, self._spread = _scale(examinations, split, recipe)
        self._key = _key(architecture, recipe, split, examinations)
        found = None if folder is None else checkpoint.load(folder, self._key, self.network, self._optimiser)
        self.taken_up = found is not None
        self.state, self._best = (Progress(), _copy(self.network)) if found is None else found
        fp16 = self._precision is Precision.FP16
        self._scaler = torch.amp.GradScaler(workers.device.type, enabled=fp16)
        if fp16 and self.taken_up:
            told = {"scale": self.state.scale, "_growth_tracker": self.state.scale_steps}
            self._scaler.load_state_dict({**self._scaler.state_dict(), **told})
        self._batches = Batches(examinations, recipe, radiograph, ecg, fused=architecture.fused, parts=workers.count)
        if not self._batches.of_epoch(split.train, 1):
            raise ValueError(
                f"{len(split.train)} training examinations, {recipe.examinations_a_step} a step, make no step for "
                f"{workers.count} processes: they need more than {workers.count} a step"
            )
        self._forward = workers.wrap(_Values(self.network, recipe.crops_an_examination))
        self._kept_at = time.monotonic()

    def learn(self, on_step: Callable[[Step], None], checkpoint_seconds: float) -> None:
        """Do what is left of the epoch's steps."""
        state, workers = self.state, self._workers
        self.network.train()
        rows = self._batches.of_epoch(self._split.train, state.epoch)
        mine = [batch[workers.rank :: workers.count] for batch in rows[state.step :]]
        for grey, leads, measured in _ahead(self._batches, mine, state.epoch):
            done = (state.epoch - 1) * len(rows) + state.step
            loss = self._step(grey, leads, measured, self._recipe.rate(done, self._recipe.epochs * len(rows)))
            state.step += 1
            state.losses += loss
            on_step(Step(epoch=state.epoch, number=state.step, of=len(rows), loss=loss))
            if time.monotonic() - self._kept_at > checkpoint_seconds:
                self._keep()

    def _step(self, grey: Tensor, leads: Tensor, measured: Tensor, rate: float) -> float:
        device = self._workers.device
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        wanted = ((measured.to(device) - self._mean) / self._spread)[:, None]
        with autocast(device, self._precision):
            value = self._forward(normalised(grey.to(device), self._radiograph), leads.to(device))
        loss = nn.functional.mse_loss(value.float(), wanted.expand_as(value))
        self._optimiser.zero_grad()
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimiser)
        self._scaler.update()
        return loss.item()

    def judge(self) -> Epoch:
        """End the epoch: the validation patients' error, the best weights, a checkpoint."""
        state, rows = self.state, self._split.validation
        told = grid_estimates(
            self.network,
            self._examinations,
            rows[self._workers.rank :: self._workers.count],
            radiograph=self._radiograph,
            ecg=self._ecg,
            precision=self._precision,
        )
        truth = np.array([self._examinations[k].mpap_mmhg for k in rows])
        error = float(np.mean(np.abs(self._workers.gather(told) * self._spread + self._mean - truth)))
        if not np.isfinite(error):
            raise Diverged(state.epoch)
        ended = Epoch(number=state.epoch, loss=state.losses / max(1, state.step), validation_mae_mmhg=error)
        if error < state.best_mae_mmhg:
            state.best_mae_mmhg, self._best = error, _copy(self.network)
        state.history = (*state.history, ended)
        state.epoch, state.step, state.losses = state.epoch + 1, 0, 0.0
        self._keep()
        return ended

    def _keep(self) -> None:
        self._kept_at = time.monotonic()
        if self._folder is not None and self._workers.is_first:
            scaler = self._scaler.state_dict()  # empty where nothing is scaled
            self.state.scale, self.state.scale_steps = scaler.get("scale", 1.0), scaler.get("_growth_tracker", 0)
            checkpoint.save(self._folder, self._key, self.state, self.network, self._optimiser, self._best)

    def ended(self) -> Trained:
        """The best weights, answering in mmHg."""
        self.network.load_state_dict(self._best)
        return _answering_in_mmhg(self.network, self.state, self._mean, self._spread)


def finished(
    architecture: Architecture, examinations: Sequence[Examination], split: Split, recipe: Recipe, *, folder: Path
) -> Trained:
    """What the training that ended in `folder` gave, on the CPU.

    Raises
    ------
    ValueError
        If there is no checkpoint, or epochs are left.
    RunDiffers
        If it is of another training.
    """
    network = FusedNetwork(architecture)
    optimiser = torch.optim.Adam(network.parameters())
    found = checkpoint.load(folder, _key(architecture, recipe, split, examinations), network, optimiser)
    if found is None or found[0].epoch <= recipe.epochs:
        raise ValueError("the training is not finished")
    network.load_state_dict(found[1])
    return _answering_in_mmhg(network, found[0], *_scale(examinations, split, recipe))


def _scale(examinations: Sequence[Examination], split: Split, recipe: Recipe) -> tuple[float, float]:
    """Mean and spread in mmHg that the target is standardised by."""
    if recipe.target is not Target.STANDARDISED:
        return 0.0, 1.0
    measured = np.array([examinations[k].mpap_mmhg for k in split.train])
    return float(measured.mean()), float(measured.std()) or 1.0


def _answering_in_mmhg(network: FusedNetwork, state: Progress, mean: float, spread: float) -> Trained:
    with torch.no_grad():
        # Standardised targets train well; folded back, the network answers in mmHg.
        network.head.output.weight.mul_(spread)
        network.head.output.bias.mul_(spread).add_(mean)
    chosen = min(state.history, key=lambda epoch: epoch.validation_mae_mmhg).number
    return Trained(network=network.eval(), history=state.history, chosen_epoch=chosen)


def grid_estimates(
    network: FusedNetwork,
    examinations: Sequence[Examination],
    rows: Sequence[int],
    *,
    radiograph: RadiographPreprocessing,
    ecg: EcgPreprocessing,
    precision: Precision = Precision.FP32,
) -> NDArray[np.float64]:
    """One value an examination, the mean of its nine patches, as the network gives it, on the network's device."""
    network.eval()
    device = next(network.parameters()).device
    values: list[NDArray[np.float64]] = []
    with torch.inference_mode(), autocast(device, precision):
        for start in range(0, len(rows), GRID_EXAMINATIONS):
            chosen = [examinations[k] for k in rows[start : start + GRID_EXAMINATIONS]]
            grey = torch.from_numpy(np.concatenate([grid(one.picture, radiograph) for one in chosen])).to(device)
            chest = network.chest(normalised(grey, radiograph)).view(len(chosen), -1, CHEST_EMBEDDING)
            embedding = None
            if network.ecg is not None:
                embedding = network.ecg(lead_input(chosen, ecg).to(device))
            values.append(network.head.split(chest, embedding).float().mean(dim=1).cpu().numpy().astype(np.float64))
    return np.concatenate(values) if values else np.zeros(0)


class _Values(nn.Module):
    """What a training step computes, as one module, so that several GPUs can share it."""

    def __init__(self, network: FusedNetwork, crops: int) -> None:
        super().__init__()
        self.network = network
        self.crops = crops

    def forward(self, patches: Tensor, leads: Tensor) -> Tensor:
        """Values [examinations, crops]."""
        chest = self.network.chest(patches).view(-1, self.crops, CHEST_EMBEDDING)
        if self.network.ecg is None:
            return self.network.head.split(chest, None)
        embedding = self.network.ecg(leads)
        # An ECG teaches faster than a radiograph; withheld at times, it does not silence the radiograph.
        withheld = embedding.new_zeros(len(chest) - len(leads), ECG_EMBEDDING)
        return self.network.head.split(chest, torch.cat([embedding, withheld]))


def _ahead(batches: Batches, rows: Sequence[NDArray[np.int64]], epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The batches one after the other, each drawn while the one before is computed."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        following = [pool.submit(batches.draw, rows[0], epoch)] if rows else []
        for number in range(len(rows)):
            ready = following.pop().result()
            if number + 1 < len(rows):
                following.append(pool.submit(batches.draw, rows[number + 1], epoch))
            yield ready


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _key(architecture: Architecture, recipe: Recipe, split: Split, examinations: Sequence[Examination]) -> str:
    """What a training is, so that no checkpoint is taken up by another."""
    labels = [(one.patient_id, one.mpap_mmhg) for one in examinations]
    said = json.dumps([architecture.to_json(), asdict(recipe), asdict(split), labels], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()
