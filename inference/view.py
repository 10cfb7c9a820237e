"""Whether pixels show a chest from the front, whatever the tags say: likeness to the average radiograph. No torch here.

In: a picture as the network gets it and the average picture of the training patients; out: a finding where the two do
not agree. The picture is shifted and stretched a little to lie on the average as well as it can; then what is left of
both without their broadest greys is correlated. A chest from the side, another part of the body or noise does not lie
on it; a picture whose greys are exchanged does, with the opposite sign. Small errors of position are not looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from inference.calibration import usual_limit
from inference.prediction import Finding

HIGHEST_LIMIT = 0.52
"""No picture that is at least so like is called another view, however alike the training's own pictures are.

Measured with phantoms as the average: phantoms .88 and more, real PA films of three makers .62 to .77, drawings of
other views and parts .46 and less, a real leg film and slices of CT .26 and less.
"""

SIDE = 32  # pixels of a side at which pictures are compared
MARGIN = 2  # of these left out at the edges: collimation and letters stand there
BROAD = 6.0  # standard deviation of the blur that is taken away: the body before the air around it tells little
FINER = 2  # the picture is kept this many times finer, so that it can be moved
STRETCHES = (0.8, 0.9, 1.0, 1.12, 1.25)
SHIFTS = (-4, -2, 0, 2, 4)  # of SIDE * FINER pixels


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How well a picture lies on the average: correlations, -1 to 1."""

    upright: float  # of the picture as it is
    inverted: float  # of the picture with its greys exchanged


@dataclass(frozen=True, kw_only=True)
class View:
    """What a frontal chest looks like to a model: its training's average picture, and how like others must be."""

    average: NDArray[np.uint8]  # [128, 128]
    limit: float

    @classmethod
    def fit(
        cls,
        average: NDArray[np.uint8],
        held_out: Iterable[NDArray[np.floating]],
        patient: NDArray[np.integer] | None = None,
    ) -> View:
        """With the limit that 99 in 100 patients outside the training exceed, and never above `HIGHEST_LIMIT`.

        Parameters
        ----------
        average
            uint8 [128, 128].
        held_out
            Pictures [512, 512] of visits outside the training; with fewer than 99 patients their lowest likeness is
            taken (`calibration.usual_limit`).
        patient
            Whose they are; None where each is another patient's.
        """
        told = np.array([likeness(picture, average).upright for picture in held_out])
        return cls(average=average, limit=min(HIGHEST_LIMIT, -usual_limit(-told, patient)))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.generic]], average: NDArray[np.uint8]) -> View:
        """That of a package. Raises LookupError or ValueError if its limit is missing or no correlation."""
        limit = float(tensors["view.limit"].reshape(-1)[0].item())
        if not -1.0 <= limit <= HIGHEST_LIMIT:
            raise ValueError(f"a view's limit lies in -1 to {HIGHEST_LIMIT}")
        return cls(average=average, limit=limit)

    def to_tensors(self) -> dict[str, NDArray[np.generic]]:
        """The limit, as kept in calibration.safetensors; the average picture is kept there once for all."""
        return {"view.limit": np.array([self.limit], dtype=np.float64)}

    def findings(self, picture: NDArray[np.floating]) -> tuple[Finding, ...]:
        """A warning if `picture` [512, 512] is no chest from the front, or has its greys exchanged."""
        found = likeness(picture, self.average)
        if found.upright >= self.limit:
            return ()
        if found.inverted >= self.limit:
            return (_warning("probably_inverted", "it is like a frontal chest only with its greys exchanged"),)
        return (
            _warning(
                "not_frontal_chest",
                f"likeness {found.upright:.2f} to the average frontal chest, below {self.limit:.2f}",
            ),
        )


def likeness(picture: NDArray[np.floating], average: NDArray[np.generic]) -> Likeness:
    """Compare `picture` [512, 512] with the `average` one [128, 128]; both in any scale of grey, air low."""
    template = _local(_reduced(average, SIDE))[MARGIN:-MARGIN, MARGIN:-MARGIN]
    template = template - template.mean()
    lines = _lines()
    windows, points = len(lines), lines.shape[1]
    flat = lines.reshape(windows * points, -1)
    # Every window of rows with every window of columns, in one product.
    seen = (flat @ _local(_reduced(picture, SIDE * FINER)) @ flat.T).reshape(windows, points, windows, points)
    along = np.einsum("apbq,pq->ab", seen, template, optimize=True)
    spread = seen.var(axis=(1, 3)) * points**2 * float((template**2).sum())
    found = np.divide(along, np.sqrt(spread), out=np.zeros_like(along), where=spread > 1e-9)
    return Likeness(upright=float(found.max()), inverted=float(-found.min()))


def _reduced(picture: NDArray[np.generic], side: int) -> NDArray[np.float32]:
    by = picture.shape[0] // side
    return picture.astype(np.float32).reshape(side, by, side, by).mean(axis=(1, 3))


def _local(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """`picture` less its own blur."""
    blur = _blur(len(picture))
    return np.asarray(picture - blur @ picture @ blur.T, dtype=np.float32)


@lru_cache(maxsize=2)
def _blur(side: int) -> NDArray[np.float32]:
    """What each pixel of a line of `side` takes of every other, Gaussian, [side, side]."""
    at = np.arange(side) / (side / SIDE * BROAD)
    weights = np.exp(-0.5 * (at[:, None] - at) ** 2)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=1)
def _lines() -> NDArray[np.float32]:
    """How each point of a shifted and stretched line mixes the finer picture's pixels, [windows, points, pixels]."""
    fine = SIDE * FINER
    at = (np.arange(MARGIN, SIDE - MARGIN) + 0.5) * FINER - fine / 2
    places = np.stack([at * stretch + shift for stretch in STRETCHES for shift in SHIFTS]) + fine / 2 - 0.5
    places = np.clip(places, 0.0, fine - 1.0)  # beyond the edge, the edge
    return np.maximum(0.0, 1.0 - np.abs(places[..., None] - np.arange(fine))).astype(np.float32)


def _warning(code: str, detail: str) -> Finding:
    return Finding(subject="radiograph", code=code, severity="warning", detail=detail)
