"""What a package keeps of the patients it was calibrated on, so that later results can be held against them.

A few principal directions of each embedding, the held-out patients' values along them, and what was estimated for
them: numbers without names. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DIRECTIONS = 8
"""Of each embedding: the more there are, the less a change of one is seen."""
MOST_VISITS = 2000

Array = NDArray[np.float32]


def thinned(values: Array) -> Array:
    """At most `MOST_VISITS` of `values` [visits, ...], evenly over the whole: a table may stand by site or by year."""
    if len(values) <= MOST_VISITS:
        return values
    return values[np.linspace(0, len(values) - 1, MOST_VISITS).astype(np.intp)]


@dataclass(frozen=True, kw_only=True)
class Directions:
    """Principal directions of an embedding, in units of the training patients' spread."""

    mean: Array  # [n]
    basis: Array  # [DIRECTIONS or fewer, n], orthonormal rows
    spread: Array  # [DIRECTIONS or fewer]
    held_out: Array  # [visits, DIRECTIONS or fewer], values of patients that took no part in finding the directions

    def components(self, embedding: Array) -> tuple[float, ...]:
        """Where `embedding` [n] lies along each direction."""
        return tuple(round(float(value), 4) for value in self._along(embedding[None])[0])

    def _along(self, embeddings: Array) -> Array:
        return np.asarray((embeddings - self.mean) @ self.basis.T / self.spread, dtype=np.float32)

    @classmethod
    def fit(cls, usual: Array, held_out: Array) -> Directions:
        """From embeddings of visits of training patients and of held-out ones, [visits, n] each."""
        mean = usual.mean(axis=0)
        _, singular, basis = np.linalg.svd((usual - mean).astype(np.float64), full_matrices=False)
        spread = singular / np.sqrt(len(usual))
        kept = min(DIRECTIONS, int(np.count_nonzero(spread > 1e-6 * spread[0]))) if spread[0] > 0 else 0
        found = cls(
            mean=mean.astype(np.float32),
            basis=basis[:kept].astype(np.float32),
            spread=spread[:kept].astype(np.float32),
            held_out=np.zeros((0, kept), dtype=np.float32),
        )
        values = found._along(thinned(held_out))
        return cls(mean=found.mean, basis=found.basis, spread=found.spread, held_out=values)


@dataclass(frozen=True, kw_only=True)
class DriftReference:
    """Held-out patients of a package: embeddings along `Directions`, and estimates."""

    chest: Directions
    ecg: Directions
    predicted_mmhg: Array  # [visits]

    def to_tensors(self) -> dict[str, NDArray[np.generic]]:
        """As kept in calibration.safetensors."""
        tensors: dict[str, NDArray[np.generic]] = {"drift.predicted_mmhg": self.predicted_mmhg}
        for name, directions in (("chest", self.chest), ("ecg", self.ecg)):
            for field in Directions.__dataclass_fields__:
                tensors[f"drift.{name}.{field}"] = getattr(directions, field)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.generic]]) -> DriftReference | None:
        """What a package keeps, None if it was made before anything was kept. KeyError or ValueError if misshapen."""
        if "drift.predicted_mmhg" not in tensors:
            return None

        def directions(name: str) -> Directions:
            found = {
                field: np.ascontiguousarray(tensors[f"drift.{name}.{field}"], dtype=np.float32)
                for field in Directions.__dataclass_fields__
            }
            kept, size = found["basis"].shape
            shapes = (found["mean"].shape, found["spread"].shape, found["held_out"].shape[1:])
            if shapes != ((size,), (kept,), (kept,)) or not (found["spread"] > 0).all():
                raise ValueError(f"the {name} directions are misshapen")
            return Directions(**found)

        predicted = np.ascontiguousarray(tensors["drift.predicted_mmhg"], dtype=np.float32)
        return cls(chest=directions("chest"), ecg=directions("ecg"), predicted_mmhg=predicted)
