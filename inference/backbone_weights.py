"""Give a chest encoder its published weights, from a local safetensors file or from timm's hub, once, at import.

Position embeddings of another grid are resampled to 257 tokens here and nowhere else: what is trained, stored and
served has 257. Files that can execute (.pth, .bin and the like) are refused with the command that converts them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from inference.backbones import PATCH_TOKENS, Projected, let_torchvision_import

HUB = "hub"
"""In place of a file: timm's published weights, where there is a network."""

_PICKLES = frozenset({".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle"})
_CLASSIFIERS = ("head.", "fc.", "classifier.", "head.fc.")  # of ImageNet's thousand classes: not used here
_TRAINING_ONLY = ("mask_token",)  # of DINOv2's own training


class BackboneRefused(Exception):
    """Weights that do not belong to the backbone, or are of a kind that is not opened."""

    def __init__(self, source: str, detail: str, hint: str = "") -> None:
        super().__init__(source, detail, hint)
        self.source = source
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.source}: {self.detail}" + (f" ({self.hint})" if self.hint else "")


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What was imported, for the run's record."""

    source: str  # a file's name, or "hub:" and timm's name
    sha256: str  # of the file's bytes; of the hub's tensors
    tokens: int  # position embeddings as published; 0 where the backbone has none


def import_weights(encoder: nn.Module, backbone: str, source: str) -> Imported:
    """Load the weights of `backbone` into `encoder`, whose projection to 1024 stays random.

    Parameters
    ----------
    encoder
        As `chest_encoder(backbone)` gives it.
    backbone
        timm's name.
    source
        A safetensors file, or `HUB`.

    Raises
    ------
    BackboneRefused
        If the file is a pickle or no safetensors file, or its tensors are not those of the backbone.
    OSError
        If the file cannot be read.
    """
    bare = encoder.backbone if isinstance(encoder, Projected) else encoder
    if source == HUB:
        state, label = _from_hub(backbone), f"hub:{backbone}"
        digest = _digest(state)
    else:
        path = Path(source)
        label = path.name
        state, digest = _from_file(path)
    state = {name: tensor for name, tensor in state.items() if not name.startswith((*_CLASSIFIERS, *_TRAINING_ONLY))}
    tokens = 0
    if "pos_embed" in state:
        tokens = int(state["pos_embed"].shape[1])
        state["pos_embed"] = resampled(state["pos_embed"])
    expected = bare.state_dict()
    differing = sorted(set(state) ^ set(expected))
    if differing:
        missing = "missing" if differing[0] in expected else "unknown"
        raise BackboneRefused(
            label, f"is not a file of {backbone}: {len(differing)} tensors differ, first {differing[0]} ({missing})"
        )
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise BackboneRefused(
                label, f"{name} has shape {tuple(tensor.shape)}, not {tuple(expected[name].shape)} as in {backbone}"
            )
        if not torch.isfinite(tensor.float()).all():
            raise BackboneRefused(label, f"{name} holds values that are not finite")
    bare.load_state_dict({name: tensor.to(expected[name].dtype) for name, tensor in state.items()})
    return Imported(source=label, sha256=digest, tokens=tokens)


def resampled(position: Tensor) -> Tensor:
    """Position embeddings [1, 1 + n * n, width] at 257 tokens, bicubic with antialiasing; 257 come back as they are.

    Raises
    ------
    BackboneRefused
        If the patches are not a square.
    """
    if position.shape[1] == PATCH_TOKENS:
        return position
    side = round((position.shape[1] - 1) ** 0.5)
    if side * side + 1 != position.shape[1]:
        raise BackboneRefused("pos_embed", f"{position.shape[1]} tokens are no class token and a square")
    let_torchvision_import()
    from timm.layers.pos_embed import resample_abs_pos_embed

    return resample_abs_pos_embed(position.float(), new_size=[16, 16], old_size=[side, side], num_prefix_tokens=1)


def _from_file(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file, and the sha256 of the very bytes that they were read from."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    if path.suffix.lower() in _PICKLES:
        raise BackboneRefused(
            path.name,
            "is a pickle, which may hold executable code, and is not opened",
            'convert it where you trust it: python -c "import torch, safetensors.torch as s; '
            f"s.save_file(torch.load('{path.name}', weights_only=True), '{path.stem}.safetensors')\"",
        )
    data = path.read_bytes()
    try:
        return load(data), hashlib.sha256(data).hexdigest()
    except SafetensorError as error:
        raise BackboneRefused(path.name, "is not a safetensors file") from error


def _from_hub(backbone: str) -> dict[str, Tensor]:
    """timm's published weights. Its own loader, so that names and versions are its business."""
    let_torchvision_import()
    import timm

    try:
        return dict(timm.create_model(backbone, pretrained=True, num_classes=0).state_dict())
    except (OSError, RuntimeError, ValueError) as error:
        raise BackboneRefused(
            f"hub:{backbone}",
            f"cannot be had ({type(error).__name__})",
            "is there a network? else download the safetensors file elsewhere and name it",
        ) from error


def _digest(state: dict[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(state):
        total.update(name.encode() + b"\0")
        total.update(state[name].contiguous().numpy().tobytes())
    return total.hexdigest()
