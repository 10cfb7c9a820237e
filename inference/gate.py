"""What must be proved before a package may multiply in anything but fp32, and the record of that proof. No torch here.

The chest encoder alone may run in another precision; ECG branch, head and sums stay fp32. Whichever it is, the golden
cases hold the answers of fp32, and the package is refused where its own stray further from them than the limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from inference.recipe import Precision

MEAN_LIMIT_MMHG = 0.1
MAXIMUM_LIMIT_MMHG = 0.5


@dataclass(frozen=True, kw_only=True)
class Gate:
    """How far a package's patch values in `precision` lay from fp32 over its golden cases, when it was made."""

    precision: Precision
    cases: int
    mean_delta_mmhg: float  # of the absolute differences of all patches
    maximum_delta_mmhg: float
    processor: str  # on which it was measured
    torch: str  # version

    def __post_init__(self) -> None:
        if self.precision not in {Precision.BF16, Precision.FP16, Precision.INT8}:
            raise ValueError("a gate is for bf16, fp16 or int8")
        if self.cases < 1:
            raise ValueError("a gate needs a case")
        if not passes(self.mean_delta_mmhg, self.maximum_delta_mmhg):
            raise ValueError(f"the gate does not hold: {told(self.mean_delta_mmhg, self.maximum_delta_mmhg)}")

    def to_json(self) -> dict[str, object]:
        """As it stands in a manifest."""
        return asdict(self) | {"precision": self.precision.value}

    @classmethod
    def from_json(cls, fields: Mapping[str, object]) -> Gate:
        """The gate of a manifest. Raises KeyError, TypeError or ValueError where it is wrong or does not hold."""
        known = {"precision", "cases", "mean_delta_mmhg", "maximum_delta_mmhg", "processor", "torch"}
        if set(fields) != known:
            raise ValueError("fields of the gate differ from those known")
        return cls(
            precision=Precision(str(fields["precision"])),
            cases=int(str(fields["cases"])),
            mean_delta_mmhg=float(str(fields["mean_delta_mmhg"])),
            maximum_delta_mmhg=float(str(fields["maximum_delta_mmhg"])),
            processor=str(fields["processor"]),
            torch=str(fields["torch"]),
        )


def deltas(found: NDArray[np.floating], reference: NDArray[np.floating]) -> tuple[float, float]:
    """Mean and maximum absolute difference, mmHg, of patch values [cases, 9] from those of fp32."""
    apart = np.abs(found.astype(np.float64) - reference.astype(np.float64))
    return float(apart.mean()), float(apart.max())


def passes(mean_mmhg: float, maximum_mmhg: float) -> bool:
    """Whether differences are within the limits. NaN is not."""
    return mean_mmhg <= MEAN_LIMIT_MMHG and maximum_mmhg <= MAXIMUM_LIMIT_MMHG


def told(mean_mmhg: float, maximum_mmhg: float) -> str:
    """Differences beside their limits, for people."""
    return (
        f"{mean_mmhg:.3f} mmHg from fp32 on average and {maximum_mmhg:.3f} at most, "
        f"where {MEAN_LIMIT_MMHG:g} and {MAXIMUM_LIMIT_MMHG:g} are allowed"
    )
