"""Where something holds without a break."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def stretches(of: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Places beside one another that are true: of each stretch the first, and the one after the last."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], of, [False])).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
