"""Intervals of shares (coverage, sensitivity, ...): Wilson's, where resampling patients cannot show any doubt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import NormalDist

import numpy as np

from inference.evaluation.resampling import Figure


def wilson_interval(hits: float, of: int, level: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a share (Newcombe, Stat Med 1998;17:857).

    `hits` may count parts, where a patient had some of several.
    """
    z = NormalDist().inv_cdf((1.0 + level) / 2.0)
    share = hits / of
    centre = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z * float(np.sqrt(share * (1 - share) / of + z * z / (4 * of * of))) / (1 + z * z / of)
    return centre - half, centre + half


def with_doubt(figures: Mapping[str, Figure], patients: Mapping[str, int], level: float) -> dict[str, Figure]:
    """`figures` of which those shares that are the same in every resample get Wilson's interval.

    Of fifteen patients who were all covered every resample covers all: the bootstrap says 100 % to 100 %, as if there
    were no doubt.

    Parameters
    ----------
    figures
        Shares and others, by name.
    patients
        Of each share, how many patients it is made of: they are the trials.
    level
        Of the interval.
    """
    found = dict(figures)
    for name, count in patients.items():
        figure = found[name]
        if count > 0 and figure.low == figure.high:
            low, high = wilson_interval(figure.value * count, count, level)
            low, high = max(0.0, low), min(1.0, high)
            found[name] = replace(figure, low=low, high=high, method="Wilson", percentile_low=low, percentile_high=high)
    return found
