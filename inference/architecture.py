"""Which network a package holds, as data. No torch here: a command may ask without loading it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

CHEST_EMBEDDING = 1024
ECG_EMBEDDING = 128
HIDDEN = 592

VIT_LARGE = "vit_large_patch14_dinov2.lvd142m"  # the paper's, through timm
VIT_BASE = "vit_base_patch14_dinov2.lvd142m"
VIT_SMALL = "vit_small_patch14_dinov2.lvd142m"
RESNET34 = "resnet34.tv_in1k"  # the paper's comparison
VGG16 = "vgg16.tv_in1k"  # the paper's comparison
MICRO = "micro-conv-stand-in"  # of the shipped demo package
MICRO_VIT = "micro-vit-stand-in"
MICRO_RESNET = "micro-resnet-stand-in"
MICRO_VGG = "micro-vgg-stand-in"
BACKBONES = (VIT_LARGE, VIT_BASE, VIT_SMALL, RESNET34, VGG16, MICRO, MICRO_VIT, MICRO_RESNET, MICRO_VGG)

ECG_CONVOLUTION = "ecg-convolution"  # the paper's
MICRO_ECG = "micro-ecg-stand-in"
NO_ECG = "none"  # the image-only rows of the paper's Table 1
ECG_BRANCHES = (ECG_CONVOLUTION, MICRO_ECG, NO_ECG)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network at the paper's interface, fused or of the radiograph alone. Chest backbone and ECG branch vary."""

    chest_backbone: str
    chest_embedding: int = CHEST_EMBEDDING
    ecg_embedding: int = ECG_EMBEDDING  # 0 without an ECG
    hidden: int = HIDDEN
    ecg_branch: str = ECG_CONVOLUTION

    def __post_init__(self) -> None:
        if self.chest_backbone not in BACKBONES:
            raise ValueError(f"unknown chest backbone {self.chest_backbone!r}; known: {', '.join(BACKBONES)}")
        if self.ecg_branch not in ECG_BRANCHES:
            raise ValueError(f"unknown ECG branch {self.ecg_branch!r}; known: {', '.join(ECG_BRANCHES)}")
        expected = (CHEST_EMBEDDING, ECG_EMBEDDING if self.fused else 0, HIDDEN)
        if (self.chest_embedding, self.ecg_embedding, self.hidden) != expected:
            raise ValueError(f"only {expected[0]} + {expected[1]} to {HIDDEN} is implemented")

    @classmethod
    def image_only(cls, chest_backbone: str) -> Architecture:
        """The radiograph alone: 1024-592-1."""
        return cls(chest_backbone=chest_backbone, ecg_embedding=0, ecg_branch=NO_ECG)

    @property
    def fused(self) -> bool:
        """Whether an ECG takes part."""
        return self.ecg_branch != NO_ECG

    @property
    def name(self) -> str:
        """In one line, for people."""
        if not self.fused:
            return f"{self.chest_backbone} {self.chest_embedding}, head {self.chest_embedding}-{self.hidden}-1"
        branch = "ECG convolution" if self.ecg_branch == ECG_CONVOLUTION else self.ecg_branch
        return (
            f"{self.chest_backbone} {self.chest_embedding} + {branch} {self.ecg_embedding}, "
            f"head {self.chest_embedding + self.ecg_embedding}-{self.hidden}-1"
        )

    def to_json(self) -> dict[str, object]:
        """As it stands in a manifest; the paper's ECG branch goes unnamed, as before there was a choice."""
        body = asdict(self)
        if self.ecg_branch == ECG_CONVOLUTION:
            del body["ecg_branch"]
        return body
