"""A linear layer that multiplies 8-bit integers: weights by row, inputs by the range that they have when they come.

Reached through oneDNN's operators that torch's own compiler emits; they are not part of its public interface, so a
torch without them has no int8 here (`has_int8`). What a model loses by it the golden cases say.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = 255
"""Steps of an input's range; inputs are unsigned, weights signed, as the processors' own instruction takes them."""
CHUNK = 512
"""Rows that are quantised at a time."""


def has_int8() -> bool:
    """Whether this torch offers the operators; says nothing of the processor."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.onednn, name) for name in ("qlinear_prepack", "qlinear_pointwise")
    )


class Int8Linear:
    """One linear layer [out, in], packed for about `rows` rows of input, which come in bf16 or float32."""

    def __init__(self, weight: Tensor, bias: Tensor, *, rows: int) -> None:
        with torch.no_grad():
            weight = weight.detach().float()
            self._scales = weight.abs().amax(dim=1).clamp_(min=torch.finfo(torch.float32).tiny) / 127
            quantised = torch.round(weight / self._scales[:, None]).to(torch.int8)
            self._weight = torch.ops.onednn.qlinear_prepack(quantised, [rows, weight.shape[1]])
            self._zeros = torch.zeros(len(weight), dtype=torch.int64)
            self._bias = bias.detach().float().clone()

    def __call__(self, x: Tensor, *, then_gelu: bool = False) -> Tensor:
        """`x` [..., in] to bf16 [..., out]."""
        return self._multiplied(x, torch.bfloat16, then_gelu=then_gelu)

    def onto(self, carried: Tensor, x: Tensor) -> Tensor:
        """`carried` and this layer of `x` together, in float32."""
        return self._multiplied(x, torch.float32).add_(carried)

    def _multiplied(self, x: Tensor, dtype: torch.dtype, *, then_gelu: bool = False) -> Tensor:
        levels, step, zero = _levels(x)
        kind, how = ("gelu", "none") if then_gelu else ("none", "")
        return torch.ops.onednn.qlinear_pointwise(
            levels, step, zero, self._weight, self._scales, self._zeros, self._bias, 1.0, 0, dtype, kind, [], how
        )


def _levels(x: Tensor) -> tuple[Tensor, float, int]:
    """`x` as uint8 of the same shape, the step between levels, and the level of nothing."""
    least, most = (float(end) for end in torch.aminmax(x))
    least, most = min(least, 0.0), max(most, 0.0)  # nothing is to stay exactly nothing
    step = (most - least) / LEVELS or 1.0
    zero = round(-least / step)
    given, levels = x.reshape(-1, x.shape[-1]), torch.empty(x.shape, dtype=torch.uint8)
    half = torch.tensor(zero + 0.5)  # integers are cut, not rounded
    # Few rows at a time: what passes through the processor's cache takes a sixth of the time of the whole at once.
    for part, into in zip(given.split(CHUNK), levels.view(-1, x.shape[-1]).split(CHUNK), strict=True):
        into.copy_(torch.add(half, part.float(), alpha=1.0 / step).clamp_(0, LEVELS))
    return levels, step, zero
