"""Chest encoders: one normalised patch [B, 3, 224, 224] to 1024 numbers, with random weights.

DINOv2 ViT-L/14, B/14 and S/14, ResNet34 and VGG16 come from timm; the stand-ins let the way run on any machine.
What the paper leaves open: how the 768, 384, 512 or 4096 numbers of the others become "a 1024-dimensional
embedding". Here by one linear layer, trained with the rest; ViT-L/14 has 1024 by itself and gets none.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from inference.architecture import (
    CHEST_EMBEDDING,
    MICRO,
    MICRO_RESNET,
    MICRO_VGG,
    MICRO_VIT,
    RESNET34,
    VGG16,
    VIT_BASE,
    VIT_LARGE,
    VIT_SMALL,
)
from inference.averaging import COARSER

PATCH_TOKENS = 257  # 16 x 16 patches of 14 in 224, and the class token


def chest_encoder(backbone: str) -> nn.Module:
    """The encoder named `backbone`, patches [B, 3, 224, 224] to [B, 1024], with random weights.

    Raises
    ------
    KeyError
        If no encoder has that name; `Architecture` checks names before they come here.
    """
    return _BACKBONES[backbone]()


class Projected(nn.Module):
    """A backbone whose own number of features is brought to 1024 by one linear layer."""

    def __init__(self, backbone: nn.Module, features: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.project = nn.Linear(features, CHEST_EMBEDDING)

    def forward(self, patches: Tensor) -> Tensor:
        """Embed `patches`."""
        return self.project(self.backbone(patches))


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


class Coarser(nn.Module):
    """Averages 4 x 4 pixels of patches of 224; patches of 56 were cut from pictures averaged before, and pass."""

    def forward(self, patches: Tensor) -> Tensor:
        """Patches [B, 3, 56, 56]."""
        return patches if patches.shape[-1] == 224 // COARSER else nn.functional.avg_pool2d(patches, COARSER)


class MicroVgg(nn.Module):
    """A stand-in for VGG16: convolution, ReLU, pooling, thrice; BatchNorm lets it learn from random weights."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [Coarser()]
        channels = 3
        for maps in (16, 32, 64):
            layers += [
                nn.Conv2d(channels, maps, 3, padding=1, bias=False),
                nn.BatchNorm2d(maps),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
            channels = maps
        self.features = nn.Sequential(*layers)

    def forward(self, patches: Tensor) -> Tensor:
        """Features [B, 64 * 9]: the means of a grid of three by three."""
        return torch.flatten(nn.functional.adaptive_avg_pool2d(self.features(patches), 3), 1)


class MicroResNet(nn.Module):
    """A stand-in for ResNet34: a stem and three residual blocks; 64 features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Coarser(), nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.blocks = nn.Sequential(_Block(16, 16, 1), _Block(16, 32, 2), _Block(32, 64, 2))

    def forward(self, patches: Tensor) -> Tensor:
        """Features [B, 64 * 9]."""
        return torch.flatten(nn.functional.adaptive_avg_pool2d(self.blocks(self.stem(patches)), 3), 1)


class _Block(nn.Module):
    """Two convolutions and the way past them."""

    def __init__(self, given: int, maps: int, stride: int) -> None:
        super().__init__()
        self.work = nn.Sequential(
            nn.Conv2d(given, maps, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(maps),
            nn.ReLU(),
            nn.Conv2d(maps, maps, 3, padding=1, bias=False),
            nn.BatchNorm2d(maps),
        )
        self.past: nn.Module = nn.Identity()
        if given != maps or stride != 1:
            self.past = nn.Sequential(nn.Conv2d(given, maps, 1, stride=stride, bias=False), nn.BatchNorm2d(maps))

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(self.work(maps) + self.past(maps))


def _vit(name: str, features: int) -> nn.Module:
    """A DINOv2 ViT/14 at 224: the class token after the final norm; position embeddings for 257 tokens."""
    let_torchvision_import()
    import timm

    vit = timm.create_model(name, pretrained=False, num_classes=0, img_size=224, global_pool="token")
    return vit if features == CHEST_EMBEDDING else Projected(vit, features)


def _timm(name: str, features: int) -> nn.Module:
    """A convolutional backbone as timm pools it: ResNet34 to 512, VGG16 through its two wide layers to 4096."""
    let_torchvision_import()
    import timm

    return Projected(timm.create_model(name, pretrained=False, num_classes=0), features)


def _micro_vit() -> nn.Module:
    """A stand-in for DINOv2: 64 tokens of 28 x 28 pixels, two blocks, the class token; 64 features."""
    let_torchvision_import()
    from timm.models.vision_transformer import VisionTransformer

    vit = VisionTransformer(
        img_size=224 // COARSER,
        patch_size=7,
        embed_dim=64,
        depth=2,
        num_heads=2,
        num_classes=0,
        global_pool="token",
    )
    return Projected(nn.Sequential(Coarser(), vit), 64)


def let_torchvision_import() -> None:
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
    VIT_LARGE: lambda: _vit(VIT_LARGE, 1024),
    VIT_BASE: lambda: _vit(VIT_BASE, 768),
    VIT_SMALL: lambda: _vit(VIT_SMALL, 384),
    RESNET34: lambda: _timm(RESNET34, 512),
    VGG16: lambda: _timm(VGG16, 4096),
    MICRO: MicroConv,
    MICRO_VIT: _micro_vit,
    MICRO_RESNET: lambda: Projected(MicroResNet(), 64 * 9),
    MICRO_VGG: lambda: Projected(MicroVgg(), 64 * 9),
}
