"""A DINOv2 encoder made ready to answer on a CPU: the same function, to rounding, in fewer and better multiplications.

Weights are packed once for oneDNN, with GELU and the residual sums inside the multiplications; LayerScale lies in the
weights; the last block computes the class token alone, since nothing else of it is used. Not for training.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention, softmax

from inference.backbones import PATCH_TOKENS, Projected
from inference.int8 import Int8Linear
from inference.recipe import Precision

DTYPES = {
    Precision.FP32: torch.float32,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
    Precision.INT8: torch.bfloat16,  # what is not a linear layer of its blocks
}
ROWS = 9 * PATCH_TOKENS
"""Rows for which weights are laid out: the tokens of one examination. Any other number gives the same, slower."""


def prepared(encoder: nn.Module, precision: Precision = Precision.FP32) -> nn.Module:
    """`encoder` ready to answer on this CPU; itself where there is nothing to prepare.

    A ViT is taken apart: its weights move into what is given back, so that memory never holds them twice.

    Parameters
    ----------
    encoder
        In evaluation mode, on the CPU, float32.
    precision
        In which a ViT multiplies; sums, norms and the way past the blocks stay in float32. In int8 it multiplies by
        its weights; attention and the last block are in bf16 then.
    """
    if isinstance(encoder, Projected) and _is_vit(encoder.backbone):
        encoder.backbone = PreparedVit(encoder.backbone, precision)
    return PreparedVit(encoder, precision) if _is_vit(encoder) else encoder


def _is_vit(module: nn.Module) -> bool:
    """Whether it is timm's ViT; where timm was never imported none is."""
    timm = sys.modules.get("timm.models.vision_transformer")
    return timm is not None and isinstance(module, timm.VisionTransformer)


class PreparedVit(nn.Module):
    """timm's DINOv2 ViT, patches [B, 3, 224, 224] to the class token after the final norm [B, features]."""

    def __init__(self, vit: Any, precision: Precision) -> None:
        super().__init__()
        if vit.global_pool != "token" or vit.num_prefix_tokens != 1 or not isinstance(vit.norm_pre, nn.Identity):
            raise TypeError("only a ViT with one class token, pooled by it, can be prepared")
        self.patch = vit.patch_embed.proj
        with torch.no_grad():
            self.first = (vit.cls_token + vit.pos_embed[:, :1]).clone()
            self.positions = vit.pos_embed[:, 1:].clone()
        blocks = list(vit.blocks)
        vit.blocks = nn.ModuleList()
        self.blocks: list[_Block] = []
        while blocks:
            last = len(blocks) == 1
            self.blocks.append(_Block(blocks.pop(0), precision, last=last))
        self.norm = vit.norm

    def forward(self, patches: Tensor) -> Tensor:
        """Embed `patches`."""
        tokens = self.patch(patches).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(tokens), -1, -1), tokens + self.positions], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0])


class _Block:
    """One transformer block; the last one of an encoder gives its class token alone."""

    def __init__(self, block: Any, precision: Precision, *, last: bool) -> None:
        self._last, self._dtype = last, DTYPES[precision]
        # The last block has little to multiply, and nothing after it evens its errors out.
        made = _in_int8 if precision is Precision.INT8 and not last else partial(_Linear, dtype=self._dtype)
        self._heads = block.attn.num_heads
        self._norm1, self._norm2 = block.norm1, block.norm2
        scale1, scale2 = (None if isinstance(s, nn.Identity) else s.gamma for s in (block.ls1, block.ls2))
        qkv, features = block.attn.qkv, block.attn.qkv.in_features
        of_query = torch.ones(3 * features)
        of_query[:features] = block.attn.scale
        if last:
            self._query = made(qkv.weight[:features], qkv.bias[:features], scale=of_query[:features], rows=9)
            self._qkv = made(qkv.weight[features:], qkv.bias[features:])
        else:
            self._qkv = made(qkv.weight, qkv.bias, scale=of_query)
        rows = 9 if last else ROWS
        block.attn.qkv = None
        self._project = made(block.attn.proj.weight, block.attn.proj.bias, scale=scale1, rows=rows)
        block.attn.proj = None
        self._widen = made(block.mlp.fc1.weight, block.mlp.fc1.bias, rows=rows)
        block.mlp.fc1 = None
        self._narrow = made(block.mlp.fc2.weight, block.mlp.fc2.bias, scale=scale2, rows=rows)
        block.mlp.fc2 = None

    def __call__(self, x: Tensor) -> Tensor:
        given = self._normed(x, self._norm1)
        attended = self._of_class_token(given) if self._last else self._of_all(given)
        x = self._project.onto(x[:, :1] if self._last else x, attended)
        return self._narrow.onto(x, self._widen(self._normed(x, self._norm2), then_gelu=True))

    def _of_all(self, given: Tensor) -> Tensor:
        batch, tokens, _ = given.shape
        query, key, value = self._qkv(given).view(batch, tokens, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        return _attended(query, key, value).transpose(1, 2).reshape(batch, tokens, -1)

    def _of_class_token(self, given: Tensor) -> Tensor:
        batch, tokens, _ = given.shape
        key, value = self._qkv(given).view(batch, tokens, 2, self._heads, -1).permute(2, 0, 3, 1, 4)
        query = self._query(given[:, :1].contiguous()).view(batch, 1, self._heads, -1).transpose(1, 2)
        return _attended(query, key, value).transpose(1, 2).reshape(batch, 1, -1)

    def _normed(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        return layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps).to(self._dtype)


class _Linear:
    """One linear layer, its weights scaled by `scale` row by row and packed for about `rows` rows of input.

    oneDNN's packed form is reached through the operators that torch's own compiler emits; they are not part of its
    public interface, so a torch without them multiplies as usual. Golden cases check either.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, *, dtype: torch.dtype, scale: Tensor | None = None, rows: int = ROWS
    ) -> None:
        with torch.no_grad():
            weight, bias = _scaled(weight, bias, scale)
            weight, self._bias = weight.detach().to(dtype).contiguous(), bias.detach().to(dtype).clone()
            self._packed = _has_packed()
            self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows) if self._packed else weight

    def __call__(self, x: Tensor, *, then_gelu: bool = False) -> Tensor:
        """`x` [..., in] to [..., out]."""
        if self._packed:
            kind, how = ("gelu", "none") if then_gelu else ("none", "")
            return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, kind, [], how)
        found = linear(x, self._weight, self._bias)
        return gelu(found) if then_gelu else found

    def onto(self, carried: Tensor, x: Tensor) -> Tensor:
        """`carried` and this layer of `x` together, in float32."""
        if self._packed and self._weight.dtype == torch.float32:
            return torch.ops.mkldnn._linear_pointwise.binary(x, carried.contiguous(), self._weight, self._bias, "add")
        return carried + self(x)


def _in_int8(weight: Tensor, bias: Tensor, *, scale: Tensor | None = None, rows: int = ROWS) -> Int8Linear:
    with torch.no_grad():
        return Int8Linear(*_scaled(weight, bias, scale), rows=rows)


def _scaled(weight: Tensor, bias: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    return (weight, bias) if scale is None else (weight * scale[:, None], bias * scale)


def _attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention [B, heads, tokens, features] of queries that are scaled already."""
    if query.dtype == torch.float32:
        return scaled_dot_product_attention(query, key, value, scale=1.0)
    # On CPUs torch's fused kernel takes twice as long in bf16 as the multiplications by themselves.
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    return torch.matmul(softmax(torch.matmul(query, key.transpose(-1, -2)), dim=-1), value)


def _has_packed() -> bool:
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )
