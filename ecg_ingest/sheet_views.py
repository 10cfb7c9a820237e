"""A sheet seen in every way in which it may lie: under each reading of its grid and each quarter turn.

Each way is made when it is first asked for. Which one is right, the labels say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.flatten import Flat, Paper, lay_flat, turned
from ecg_ingest.ink import Ink, find_ink, turned_ink, without_bars
from ecg_ingest.paper_grid import GridScale
from ecg_ingest.printed_labels import TELLING_NAMES, PrintedLabel, find_printed_labels
from ecg_ingest.trace import Row, find_rows

_LEAST_GRID = 0.03  # how much of a picture's pattern its grid must explain
_SCALES_TRIED, _NEARLY_AS_CLEAR = 3, 0.6


@dataclass(frozen=True, kw_only=True)
class View:
    """A level sheet, its ink and the lines that run across it."""

    flat: Flat
    ink: Ink
    rows: list[Row]


class Views:
    """The sheet under each reading of its grid and each quarter turn, made when first asked for and once."""

    def __init__(self, paper: Paper) -> None:
        self.scales = _likely(paper.scales)
        self._paper = paper
        self._level: dict[int, tuple[Flat, Ink]] = {}
        self._views: dict[tuple[int, int], View] = {}
        self._labels: dict[tuple[int, int], list[PrintedLabel]] = {}
        self._last_legible: tuple[tuple[int, int], Ink] | None = None  # one at a time: each takes tens of megabytes

    def level(self, number: int) -> tuple[Flat, Ink]:
        """The sheet level but not turned, under the reading of its grid with this number."""
        if number not in self._level:
            pixels, flat = lay_flat(self._paper, self.scales[number])
            self._level[number] = flat, find_ink(pixels, flat.pixels_per_mm)
        return self._level[number]

    def view(self, number: int, quarter_turns: int) -> View:
        """The same turned clockwise by quarter turns, with its lines."""
        if (number, quarter_turns) not in self._views:
            flat, ink = self.level(number)
            ink = turned_ink(ink, quarter_turns)
            rows = find_rows(ink.mask, flat.pixels_per_mm)
            self._views[number, quarter_turns] = View(flat=turned(flat, quarter_turns), ink=ink, rows=rows)
        return self._views[number, quarter_turns]

    def labels(self, number: int, quarter_turns: int) -> list[PrintedLabel]:
        """The labels on it that stand free."""
        if (number, quarter_turns) not in self._labels:
            flat, ink = self.level(number)
            mask = np.rot90(ink.mask, -quarter_turns)
            legible = self.legible(number, quarter_turns)
            self._labels[number, quarter_turns] = _free_labels(mask, legible, flat.pixels_per_mm)
        return self._labels[number, quarter_turns]

    def legible(self, number: int, quarter_turns: int) -> Ink:
        """Its ink without columns' bars."""
        if self._last_legible is None or self._last_legible[0] != (number, quarter_turns):
            flat, level = self.level(number)
            seen = self._views.get((number, quarter_turns))
            ink = turned_ink(level, quarter_turns) if seen is None else seen.ink
            legible = without_bars(ink, flat.pixels_per_mm)
            self._last_legible = (number, quarter_turns), legible
        return self._last_legible[1]


def _free_labels(mask: NDArray[np.bool_], legible: Ink, pixels_per_mm: float) -> list[PrintedLabel]:
    """The labels that stand free but for columns' bars; what a bar leaves of itself may look like a I."""
    bars = mask & ~legible.mask

    def beside_bar(label: PrintedLabel) -> bool:
        top, left = max(0, round(label.top) - 2), max(0, round(label.left) - 2)
        return bool(bars[top : round(label.bottom) + 2, left : round(label.right) + 2].any())

    found = find_printed_labels(legible, pixels_per_mm)
    return [label for label in found if label.lead in TELLING_NAMES or not beside_bar(label)]


def _likely(scales: Sequence[GridScale]) -> list[GridScale]:
    least = max(_LEAST_GRID, _NEARLY_AS_CLEAR * max((scale.score for scale in scales), default=0.0))
    return [scale for scale in scales[:_SCALES_TRIED] if scale.score >= least]
