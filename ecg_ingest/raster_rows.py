"""Which line lies under which row of labels: one line a row, the rest rhythm strips, nothing left over.

Pure geometry. Gives every way that is possible; the signals decide between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.lead_images import EcgRefused, RefusalReason
from ecg_ingest.raster_layout import LayoutFit
from ecg_ingest.trace import Row, guided_rows

MAX_RHYTHM_ROWS = 3
_LABEL_BELOW, _LABEL_ABOVE = -0.55, 0.75  # of the distance between rows: where labels stand above their line
_SPREAD = 0.45  # of the distance between rows, by how much that may vary
_NEIGHBOURS = 1.7  # of the distance between rows: a line further off is a header's or footer's
_REGULAR = 0.35  # of the distance between rows: lines of a layout are evenly spaced to this


@dataclass(frozen=True, kw_only=True)
class RowMatch:
    """All lines from the top, and the number of the one under the first row of labels."""

    rows: tuple[Row, ...]
    first: int
    spread: float
    drop: float  # how far the labels stand above their lines, of the distance between rows


def match_rows(rows: list[Row], fit: LayoutFit, mask: NDArray[np.bool_], pixels_per_mm: float) -> list[RowMatch]:
    """Every way in which lines fit the rows of labels, the most even first.

    Raises
    ------
    EcgRefused
        ROWS_DO_NOT_MATCH if there is none.
    """
    found = _ways(rows, fit)
    if not found:
        found = _ways(guided_rows(mask, fit.down.mean(axis=1), fit.row_pixels, pixels_per_mm), fit)
    if not found:
        raise EcgRefused(
            RefusalReason.ROWS_DO_NOT_MATCH,
            f"{len(rows)} lines run across the sheet and {len(fit.layout.rows)} rows of leads are labelled",
            "scan the complete sheet, evenly lit, without lines drawn across it",
        )
    return found


def _ways(rows: list[Row], fit: LayoutFit) -> list[RowMatch]:
    count = len(fit.layout.rows)
    ways = []
    for kept in _plausible(rows, fit):
        extra = len(kept) - count
        for first in range(min(extra, MAX_RHYTHM_ROWS) + 1):
            own = kept[first : first + count]
            drops = np.array(
                [_drop(row, labels, across) for row, labels, across in zip(own, fit.down, fit.across, strict=True)]
            )
            if not np.isfinite(drops).all():
                continue
            drops = drops / fit.row_pixels
            spread = float(np.ptp(drops))
            levels = np.array([row.level(float(fit.across.min()), float(row.end)) for row in own])
            uneven = float(np.ptp(np.diff(levels))) / fit.row_pixels if count > 1 else 0.0
            if (
                spread <= _SPREAD
                and drops.min() >= _LABEL_BELOW
                and drops.max() <= _LABEL_ABOVE
                and uneven <= 2 * _REGULAR
            ):
                ways.append(RowMatch(rows=tuple(kept), first=first, spread=spread, drop=float(np.median(drops))))
    ways.sort(key=lambda way: way.spread)
    return ways


def _plausible(rows: list[Row], fit: LayoutFit) -> list[list[Row]]:
    """Lines within reach of the labels, or of rhythm strips beside them; headers and footers are left out."""
    pitch = fit.row_pixels
    ordered = sorted(rows, key=lambda row: float(np.nanmedian(row.heights)))
    levels = [float(np.nanmedian(row.heights)) for row in ordered]
    middle = float(fit.down.mean())
    if not ordered:
        return []
    centre = int(np.argmin([abs(level - middle) for level in levels]))
    first = last = centre
    while first > 0 and levels[first] - levels[first - 1] < _NEIGHBOURS * pitch:
        first -= 1
    while last + 1 < len(levels) and levels[last + 1] - levels[last] < _NEIGHBOURS * pitch:
        last += 1
    near = ordered[first : last + 1]
    count = len(fit.layout.rows)
    return [near] if count <= len(near) <= count + MAX_RHYTHM_ROWS else []


def _drop(row: Row, labels: NDArray[np.float64], across: NDArray[np.float64]) -> float:
    """How far the labels of a row stand above its line: the median over its columns."""
    edges = [*across.tolist(), float(row.end)]
    drops = []
    for column, label in enumerate(labels.tolist()):
        level = row.level(edges[column], max(edges[column] + 10, edges[column + 1]))
        if np.isfinite(level):
            drops.append(level - label)
    return float(np.median(drops)) if drops else float("nan")
