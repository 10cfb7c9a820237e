"""Which network a package holds, as data. No torch here: a command may ask without loading it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

CHEST_EMBEDDING = 1024
ECG_EMBEDDING = 128
HIDDEN = 592

VIT_LARGE = "vit_large_patch14_dinov2.lvd142m"  # the paper's, through timm
MICRO = "micro-conv-stand-in"
BACKBONES = (VIT_LARGE, MICRO)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A fused network at the paper's interface. Only the chest backbone varies."""

    chest_backbone: str
    chest_embedding: int = CHEST_EMBEDDING
    ecg_embedding: int = ECG_EMBEDDING
    hidden: int = HIDDEN

    def __post_init__(self) -> None:
        if self.chest_backbone not in BACKBONES:
            raise ValueError(f"unknown chest backbone {self.chest_backbone!r}; known: {', '.join(BACKBONES)}")
        if (self.chest_embedding, self.ecg_embedding, self.hidden) != (CHEST_EMBEDDING, ECG_EMBEDDING, HIDDEN):
            raise ValueError(f"only {CHEST_EMBEDDING} + {ECG_EMBEDDING} to {HIDDEN} is implemented")

    @property
    def name(self) -> str:
        """In one line, for people."""
        return (
            f"{self.chest_backbone} {self.chest_embedding} + ECG convolution {self.ecg_embedding}, "
            f"head {self.chest_embedding + self.ecg_embedding}-{self.hidden}-1"
        )

    def to_json(self) -> dict[str, object]:
        """As it stands in a manifest."""
        return asdict(self)
