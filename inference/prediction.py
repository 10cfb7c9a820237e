"""What the network says of one examination, with its uncertainty and where it came from. No torch here."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

PATCH_OFFSETS = (0, 144, 288)
"""Left and top edges of the 3 x 3 patches of 224 in the 512 x 512 picture (Yoon et al., test time)."""


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Which model spoke. Digests are sha256 in hex."""

    name: str
    version: str
    kind: str  # "clinical-research" or "synthetic-demo"
    digest: str  # over the package's manifest, which holds the digest of each file
    preprocessing_digest: str
    architecture: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A quality or out-of-distribution finding about an input."""

    subject: str  # "radiograph" or "ecg"
    code: str
    severity: str  # "note", "warning"
    detail: str


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How the network's 512 x 512 picture lies on the radiograph's own pixel matrix.

    source_column = left + x * scale_x, source_row = top + y * scale_y, for x, y in 0..512.
    """

    rows: int
    columns: int
    left: float
    top: float
    scale_x: float
    scale_y: float

    def patch_box(self, index: int) -> tuple[float, float, float, float]:
        """Patch `index` (0..8, row by row) as (left, top, right, bottom) in the radiograph's pixels."""
        x, y = PATCH_OFFSETS[index % 3], PATCH_OFFSETS[index // 3]
        return (
            self.left + x * self.scale_x,
            self.top + y * self.scale_y,
            self.left + (x + 224) * self.scale_x,
            self.top + (y + 224) * self.scale_y,
        )


@dataclass(frozen=True, kw_only=True)
class Chest:
    """What the radiograph alone gives."""

    embedding: NDArray[np.float32]  # [9, 1024]
    geometry: Geometry
    display: NDArray[np.uint8]  # [rows, columns] grey, air dark, longer side at most 1024
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """An estimate of mean pulmonary artery pressure. Research use only."""

    mpap_mmhg: float  # mean of the nine patches
    interval_low_mmhg: float
    interval_high_mmhg: float
    interval_level: float  # 0.90
    probability_above_20: float  # P(mPAP > 20 mmHg), ESC/ERS 2022
    probability_at_least_25: float  # P(mPAP >= 25 mmHg), earlier definition
    patch_mpap_mmhg: tuple[float, ...]  # nine, row by row
    findings: tuple[Finding, ...]
    model: ModelIdentity
    code_version: str
    seconds: float  # spent in the network for this answer
    # Where the embeddings lie along the package's own directions, for `model drift`; empty if it keeps none.
    chest_components: tuple[float, ...] = ()
    ecg_components: tuple[float, ...] = ()

    def to_json(self) -> str:
        """As stored in the match table; `from_json` gives the same value back."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Prediction:
        """The prediction stored as `text`."""
        fields = json.loads(text)
        fields["model"] = ModelIdentity(**fields["model"])
        fields["findings"] = tuple(Finding(**finding) for finding in fields["findings"])
        for name in ("patch_mpap_mmhg", "chest_components", "ecg_components"):
            fields[name] = tuple(fields.get(name, ()))
        return cls(**fields)
