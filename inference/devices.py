"""Where a training runs: the CPU, one GPU, or the GPUs that `torchrun` started a process each for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed, nn

from inference.int8 import has_int8
from inference.recipe import Precision


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The processes of one training. Each sees every `count`-th examination of a step, from `rank`."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module`, its gradients averaged over the processes where there are several."""
        if self.count == 1:
            return module
        if self.device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
            return nn.parallel.DistributedDataParallel(module, device_ids=[self.device.index])
        return nn.parallel.DistributedDataParallel(module)

    def gather(self, mine: NDArray[np.float64]) -> NDArray[np.float64]:
        """The values of all processes in the order of the whole, of which each held every `count`-th."""
        if self.count == 1:
            return mine
        parts: list[Any] = [None] * self.count
        distributed.all_gather_object(parts, mine)
        whole = np.zeros(sum(map(len, parts)))
        for rank, part in enumerate(parts):
            whole[rank :: self.count] = part
        return whole


CPU = Workers(device=torch.device("cpu"))
"""One process without a GPU."""


@contextlib.contextmanager
def workers_of(device: str) -> Iterator[Workers]:
    """The workers of this process: those of `torchrun` if it started us, else one.

    Parameters
    ----------
    device
        "cpu", "cuda" or "auto".

    Raises
    ------
    ValueError
        If a GPU is asked for and there is none.
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError("there is no GPU that torch can use here")
    if not distributed.is_torchelastic_launched():
        yield Workers(device=torch.device(kind, 0) if kind == "cuda" else torch.device("cpu"))
        return
    distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        local = distributed.get_node_local_rank(fallback_rank=0)
        if kind == "cuda":
            torch.cuda.set_device(local)
        yield Workers(
            device=torch.device(kind, local) if kind == "cuda" else torch.device("cpu"),
            rank=distributed.get_rank(),
            count=distributed.get_world_size(),
        )
    finally:
        distributed.destroy_process_group()


def answering_device(device: str) -> torch.device:
    """Where a package answers, set to give the same bits for the same input.

    Parameters
    ----------
    device
        "cpu" or "cuda".

    Raises
    ------
    ValueError
        If a GPU is asked for and there is none.
    """
    if device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError("there is no GPU that torch can use here")
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False  # a convolution's inputs would lose 13 of their 23 bits
    return torch.device("cuda", 0)


def precision_on(device: torch.device, asked: Precision) -> Precision:
    """The precision to use.

    Raises
    ------
    ValueError
        If `asked` is one that the device lacks. On a CPU without matrix units bf16 and fp16 are 44 to 500 times
        slower than fp32, so they are not taken there.
    """
    if asked is Precision.INT8:
        raise ValueError("nothing trains in int8; `model lower` makes a package that answers in it")
    has_bf16 = device.type == "cuda" and multiplies_fast(device, Precision.BF16)
    if asked is Precision.AUTO:
        if device.type != "cuda":
            return Precision.FP32
        return Precision.BF16 if has_bf16 else Precision.FP16
    if device.type != "cuda" and asked is not Precision.FP32:
        raise ValueError(f"{asked.value} is for GPUs; a CPU trains in fp32")
    if asked is Precision.BF16 and not has_bf16:
        raise ValueError("this GPU has no bf16; use fp16 or fp32")
    return asked


def multiplies_fast(device: torch.device, precision: Precision) -> bool:
    """Whether `device` has instructions of its own for `precision`. Emulated, bf16 takes 44 to 500 times as long."""
    if precision is Precision.FP32:
        return True
    if device.type == "cuda":
        if precision is Precision.BF16:
            return torch.cuda.is_bf16_supported(including_emulation=False)
        return precision is Precision.FP16
    if precision is Precision.INT8 and not (has_int8() and _processor_has("_is_vnni_supported")):
        return False
    return precision in {Precision.BF16, Precision.INT8} and _processor_has(
        "_is_avx512_bf16_supported", "_is_amx_tile_supported"
    )


def _processor_has(*features: str) -> bool:
    """Whether torch finds one of the features on this processor; a torch that cannot tell finds none."""
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in features)


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[Any]:
    """Multiplications in `precision`."""
    if precision is Precision.FP32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision is Precision.BF16 else torch.float16)
