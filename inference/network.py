"""The network at the paper's interface: chest encoder to 1024, ECG branch to 128, head 1152-592-1 or 1024-592-1.

In: normalised patches and lead images as tensors; out: mmHg. The encoders of the chest are in `backbones`. Weights
never come from a network here; `package` loads them from files.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inference.architecture import CHEST_EMBEDDING, ECG_EMBEDDING, HIDDEN, MICRO_ECG, Architecture
from inference.backbones import chest_encoder

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


class MicroEcgBranch(nn.Module):
    """A stand-in for `EcgBranch` of a hundredth of its work, for machines without a GPU.

    It takes the three colours together and halves the picture first; it keeps the height at which ink stands (six
    bands) where the paper's branch averages it away.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = ECG_CHANNELS // 3
        for maps, stride in ((24, (1, 2)), (32, (2, 2)), (32, (1, 2))):
            layers += [nn.Conv2d(channels, maps, 3, stride=stride, padding=1), nn.BatchNorm2d(maps), nn.ReLU()]
            channels = maps
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d((6, 1))
        self.project = nn.Linear(channels * 6, ECG_EMBEDDING)

    def forward(self, leads: Tensor) -> Tensor:
        """Embed `leads`."""
        if leads.shape[1] == ECG_CHANNELS:  # else they were averaged beforehand, as `averaging` does
            leads = nn.functional.avg_pool2d(leads.unflatten(1, (ECG_CHANNELS // 3, 3)).mean(dim=2), 2)
        return self.project(torch.flatten(self.pool(self.features(leads)), 1))


class Head(nn.Module):
    """Chest [B, 1024], and ECG [B, 128] where there is one, to mPAP [B]: 683,169 parameters, or 607,393 without."""

    def __init__(self, ecg_embedding: int = ECG_EMBEDDING) -> None:
        super().__init__()
        self.hidden = nn.Linear(CHEST_EMBEDDING + ecg_embedding, HIDDEN)
        self.output = nn.Linear(HIDDEN, 1)

    def forward(self, chest: Tensor, ecg: Tensor | None) -> Tensor:
        """As the paper writes it: concatenate, one hidden layer, one value."""
        joined = chest if ecg is None else torch.cat([chest, ecg], dim=1)
        return self.output(torch.relu(self.hidden(joined))).squeeze(1)

    def split(self, chest: Tensor, ecg: Tensor | None) -> Tensor:
        """The same to rounding, with the ECG's part of the first layer computed once for all patches.

        Parameters
        ----------
        chest
            [examinations, patches, 1024].
        ecg
            [examinations, 128], or None for a head without.

        Returns
        -------
        Tensor
            mmHg, [examinations, patches].
        """
        if ecg is None:
            return self.output(torch.relu(self.hidden(chest))).squeeze(2)
        weight = self.hidden.weight
        of_ecg = nn.functional.linear(ecg, weight[:, CHEST_EMBEDDING:], self.hidden.bias)
        of_chest = nn.functional.linear(chest, weight[:, :CHEST_EMBEDDING])
        return self.output(torch.relu(of_chest + of_ecg[:, None, :])).squeeze(2)


class FusedNetwork(nn.Module):
    """Radiograph patches and lead images to mPAP; `ecg` is None for a network of the radiograph alone."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.chest = chest_encoder(architecture.chest_backbone)
        self.ecg: nn.Module | None = None
        if architecture.fused:
            self.ecg = MicroEcgBranch() if architecture.ecg_branch == MICRO_ECG else EcgBranch()
        self.head = Head(architecture.ecg_embedding)

    def forward(self, patches: Tensor, leads: Tensor) -> Tensor:
        """One value a patch, mmHg [B], from patches [B, 3, 224, 224] and leads [B, 36, 48, 224]."""
        return self.head(self.chest(patches), None if self.ecg is None else self.ecg(leads))


def parameters(module: nn.Module) -> int:
    """How many numbers training would change."""
    return sum(p.numel() for p in module.parameters())
