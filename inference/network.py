"""The fused network at the paper's interface: chest encoder to 1024, ECG branch to 128, head 1152-592-1.

In: normalised patches and lead images as tensors; out: mmHg. The chest encoder is DINOv2 ViT-L/14, or a micro
stand-in named as such. Weights never come from a network here; `package` loads them from files.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from inference.architecture import CHEST_EMBEDDING, ECG_EMBEDDING, HIDDEN, Architecture

ECG_CHANNELS = 36  # twelve leads, three colours each (Yoon et al. 2.2)
ECG_MAPS = (64, 128, 256)


class EcgBranch(nn.Module):
    """Twelve lead images, float [B, 36, 48, 224], to [B, 128]: 423,616 parameters (Yoon et al. 2.2)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = ECG_CHANNELS
        for maps in ECG_MAPS:
            layers += [nn.Conv2d(channels, maps, 3, padding=1), nn.BatchNorm2d(maps), nn.ReLU(), nn.MaxPool2d(2)]
            channels = maps
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.project = nn.Linear(channels, ECG_EMBEDDING)

    def forward(self, leads: Tensor) -> Tensor:
        """Embed `leads`."""
        return self.project(torch.flatten(self.pool(self.features(leads)), 1))


class FusedHead(nn.Module):
    """Chest [B, 1024] and ECG [B, 128] to mPAP in mmHg [B]: 683,169 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(CHEST_EMBEDDING + ECG_EMBEDDING, HIDDEN)
        self.output = nn.Linear(HIDDEN, 1)

    def forward(self, chest: Tensor, ecg: Tensor) -> Tensor:
        """As the paper writes it: concatenate, one hidden layer, one value."""
        return self.output(torch.relu(self.hidden(torch.cat([chest, ecg], dim=1)))).squeeze(1)

    def split(self, chest: Tensor, ecg: Tensor) -> Tensor:
        """The same to rounding, with the ECG's part of the first layer computed once for all patches.

        Parameters
        ----------
        chest
            [examinations, patches, 1024].
        ecg
            [examinations, 128].

        Returns
        -------
        Tensor
            mmHg, [examinations, patches].
        """
        weight = self.hidden.weight
        of_ecg = nn.functional.linear(ecg, weight[:, CHEST_EMBEDDING:], self.hidden.bias)
        of_chest = nn.functional.linear(chest, weight[:, :CHEST_EMBEDDING])
        return self.output(torch.relu(of_chest + of_ecg[:, None, :])).squeeze(2)


class FusedNetwork(nn.Module):
    """Radiograph patches and lead images to mPAP."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.chest = chest_encoder(architecture.chest_backbone)
        self.ecg = EcgBranch()
        self.head = FusedHead()

    def forward(self, patches: Tensor, leads: Tensor) -> Tensor:
        """One value a patch, mmHg [B], from patches [B, 3, 224, 224] and leads [B, 36, 48, 224]."""
        return self.head(self.chest(patches), self.ecg(leads))


def chest_encoder(backbone: str) -> nn.Module:
    """The encoder named `backbone`, patches [B, 3, 224, 224] to [B, 1024], with random weights.

    Raises
    ------
    KeyError
        If no encoder has that name; `Architecture` checks names before they come here.
    """
    return _BACKBONES[backbone]()


def parameters(module: nn.Module) -> int:
    """How many numbers training would change."""
    return sum(p.numel() for p in module.parameters())


class MicroConv(nn.Module):
    """A stand-in of about 0.4 million parameters, so that the way runs on any machine. It is not the paper's."""

    MAPS = (16, 32, 64, 96, 160)

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for maps in self.MAPS:
            layers += [
                nn.Conv2d(channels, maps, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(maps),
                nn.ReLU(),
            ]
            channels = maps
        self.features = nn.Sequential(*layers)
        self.project = nn.Linear(channels, CHEST_EMBEDDING)

    def forward(self, patches: Tensor) -> Tensor:
        """Embed `patches`."""
        return self.project(self.features(patches).mean(dim=(2, 3)))


def _vit_large() -> nn.Module:
    """DINOv2 ViT-L/14 at 224: the CLS token after the final norm; position embeddings for 257 tokens."""
    _let_torchvision_import()
    import timm

    return timm.create_model(
        "vit_large_patch14_dinov2.lvd142m", pretrained=False, num_classes=0, img_size=224, global_pool="token"
    )


def _let_torchvision_import() -> None:
    """Declare two operators that torchvision's PyPI wheel registers at import and a CPU-only torch lacks.

    timm imports torchvision, whose own C++ library does not load beside a CPU build of torch; nothing here
    calls the operators.
    """
    schemas = {
        "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    }
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name, schema in schemas.items():
            if not hasattr(torch.ops.torchvision, name):
                torch.library.define(f"torchvision::{name}", schema)


_BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "vit_large_patch14_dinov2.lvd142m": _vit_large,
    "micro-conv-stand-in": MicroConv,
}
