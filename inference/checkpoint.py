"""A training's whole state in one safetensors file, so that it goes on after a kill as if nothing had happened.

Weights, Adam's moments, the best weights so far and the random generators as tensors; the rest as JSON in the
file's own metadata. Written beside, synced and renamed; nothing executable is ever read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from inference.durable import settle

FILE = "checkpoint.safetensors"


class RunDiffers(Exception):
    """A folder holds another training than the one asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.hint = "name another folder, or give the recipe, cohort, weights and seed that it was begun with"

    def __str__(self) -> str:
        return f"{self.args[0]} holds another training"


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What an epoch ended with."""

    number: int
    loss: float  # mean squared error over crops, in units of the target
    validation_mae_mmhg: float


@dataclass(kw_only=True)
class Progress:
    """How far a training is. `epoch` counts from 1 and is the one under way; `step` the steps of it already done."""

    epoch: int = 1
    step: int = 0
    losses: float = 0.0  # sum over the steps done of this epoch
    history: tuple[Epoch, ...] = ()
    best_mae_mmhg: float = float("inf")
    scale: float = 1.0  # of the losses, with fp16
    scale_steps: int = 0  # done since the scale last changed


def save(
    folder: Path,
    key: str,
    progress: Progress,
    network: nn.Module,
    optimiser: torch.optim.Adam,
    best: Mapping[str, Tensor],
) -> None:
    """Replace the checkpoint in `folder`; a crash leaves the former one."""
    from safetensors.torch import save_file

    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for number, parameter in enumerate(network.parameters()):
        for name, tensor in optimiser.state.get(parameter, {}).items():
            tensors[f"adam.{number}.{name}"] = tensor
    tensors["random.cpu"] = torch.get_rng_state()
    state = {"key": key, **asdict(progress)}
    draft = folder / (FILE + ".new")
    save_file(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
        draft,
        metadata={"state": json.dumps(state)},
    )
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    settle(draft, folder / FILE)


def epochs_done(folder: Path) -> int:
    """How many epochs the checkpoint in `folder` has behind it; 0 without one."""
    from safetensors import safe_open

    if not (folder / FILE).is_file():
        return 0
    with safe_open(folder / FILE, framework="pt") as file:
        return int(json.loads(file.metadata()["state"])["epoch"]) - 1


def load(
    folder: Path, key: str, network: nn.Module, optimiser: torch.optim.Adam
) -> tuple[Progress, dict[str, Tensor]] | None:
    """Put `network`, `optimiser` and torch's generator into the state of the checkpoint in `folder`.

    Returns
    -------
    Progress and the best weights so far, or None if there is no checkpoint.

    Raises
    ------
    RunDiffers
        If the checkpoint was made by another recipe, architecture, cohort or split.
    """
    from safetensors import safe_open

    if not (folder / FILE).is_file():
        return None
    with safe_open(folder / FILE, framework="pt") as file:
        state = json.loads(file.metadata()["state"])
        if state.pop("key") != key:
            raise RunDiffers(folder)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    network.load_state_dict(_under(tensors, "network."))
    for number, parameter in enumerate(network.parameters()):
        moments = _under(tensors, f"adam.{number}.")
        if moments:
            optimiser.state[parameter] = {
                name: tensor if name == "step" else torch.empty_like(parameter).copy_(tensor)
                for name, tensor in moments.items()
            }
    torch.set_rng_state(tensors["random.cpu"])
    state["history"] = tuple(Epoch(**epoch) for epoch in state["history"])
    return Progress(**state), _under(tensors, "best.")


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
