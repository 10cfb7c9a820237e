"""Which layout a sheet has, proved label by label: a second look at every place where a name should stand.

A name that cannot be read proves nothing; one that says something else refuses the sheet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ecg_ingest.glyphs import shapes
from ecg_ingest.ink import Ink
from ecg_ingest.lead_images import EcgRefused, RefusalReason
from ecg_ingest.paper_scale import STANDARD_MM_PER_SECOND
from ecg_ingest.printed_labels import TELLING_NAMES, PrintedLabel, look_again, page_fonts
from ecg_ingest.raster_layout import LayoutFit, fit_layouts, same_name

LEAST_READ = 6  # of nine names that tell (aVR to V6)
LEAST_CHEST = 4
_LEAST_FREE = 3  # labels that stand free, before a second look is worth it
_READ, _READ_MARGIN = 0.58, 0.03
_ELSE, _ELSE_MARGIN = 0.85, 0.15  # when another name is certain
_CERTAIN, _CERTAIN_MARGIN = 0.8, 0.08
_REACH_MM = 5.0
_FONTS = 3  # of the page, tried in a second look
_LAYOUTS_TRIED, _LAYOUT_MARGIN = 4, 4.0  # layouts that may turn out better than the first, by their free labels
_USUAL_SPEED = 2.0  # labels that a column of usual length is worth
_SURE, _SURE_LEAD = 8, 3
_LEAD = 2  # names by which the proved layout leads the next

_Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A proved layout."""

    fit: LayoutFit
    seconds_per_column: float
    read: frozenset[tuple[int, int]]  # cells whose name was read
    boxes: tuple[tuple[int, int, _Box], ...]  # row, column and place of every name that was read
    letters: tuple[tuple[str, str, _Box], ...]  # name, font and place of every name that was read


def place_labels(
    labels: Sequence[PrintedLabel],
    ink: Ink,
    pixels_per_mm: float,
    column_seconds: Mapping[str, Sequence[float]],
    tolerance: float,
) -> Placement:
    """The one layout that the labels prove.

    Raises
    ------
    EcgRefused
        LABELS_INSUFFICIENT, LABELS_CONTRADICT, LAYOUT_AMBIGUOUS or NON_STANDARD_SCALE.
    """
    fits = fit_layouts(labels, pixels_per_mm)

    def promise(fit: LayoutFit) -> float:
        return fit.score + _USUAL_SPEED * (_seconds(fit, pixels_per_mm, column_seconds, tolerance) is not None)

    fits.sort(key=lambda fit: -promise(fit))
    proved: list[Placement] = []
    refusals: list[EcgRefused] = []
    for fit in fits[:_LAYOUTS_TRIED]:
        if proved and _beyond_doubt(proved[0], fit):
            continue
        if len(fit.found) < _LEAST_FREE or promise(fit) < promise(fits[0]) - _LAYOUT_MARGIN:
            continue
        try:
            seconds = _seconds(fit, pixels_per_mm, column_seconds, tolerance)
            if seconds is None:
                raise _not_standard(fit, pixels_per_mm, column_seconds)
            proved.append(_looked_again(fit, ink, pixels_per_mm, seconds, labels))
        except EcgRefused as refusal:
            refusals.append(refusal)
    if not proved:
        raise refusals[0] if refusals else _too_few(0 if not fits else len(fits[0].found))
    proved.sort(key=lambda placement: -len(placement.read))
    if len(proved) > 1 and len(proved[0].read) - len(proved[1].read) < _LEAD:
        raise EcgRefused(
            RefusalReason.LAYOUT_AMBIGUOUS,
            f"the labels fit {proved[0].fit.layout.name} ({proved[0].fit.layout.order}) and "
            f"{proved[1].fit.layout.name} ({proved[1].fit.layout.order}) about as well",
            "scan the sheet so that every label can be read",
        )
    return proved[0]


def _beyond_doubt(proved: Placement, other: LayoutFit) -> bool:
    """Whether so many names were read where one layout has them, that another need not be looked at."""
    return len(proved.read) >= _SURE and len(proved.fit.found) - len(other.found) >= _SURE_LEAD


def _too_few(count: int) -> EcgRefused:
    return EcgRefused(
        RefusalReason.LABELS_INSUFFICIENT,
        f"{count} lead names of a known layout can be read",
        "scan the whole sheet sharply, names and all",
    )


def _contradiction(name: str) -> EcgRefused:
    return EcgRefused(
        RefusalReason.LABELS_CONTRADICT,
        f"the name {name} stands where another lead belongs",
        "leads are labelled twice, or in an order that no recorder uses: export the ECG again",
    )


def _seconds(
    fit: LayoutFit, pixels_per_mm: float, column_seconds: Mapping[str, Sequence[float]], tolerance: float
) -> float | None:
    """How long a column lasts at 25 mm/s, from how far apart its labels stand."""
    nominal = column_seconds[fit.layout.name]
    if fit.layout.columns == 1:
        return nominal[0]
    shown = fit.column_pixels / pixels_per_mm / STANDARD_MM_PER_SECOND
    return next((seconds for seconds in nominal if abs(shown / seconds - 1.0) <= tolerance), None)


def _not_standard(fit: LayoutFit, pixels_per_mm: float, column_seconds: Mapping[str, Sequence[float]]) -> EcgRefused:
    return EcgRefused(
        RefusalReason.NON_STANDARD_SCALE,
        f"columns stand {fit.column_pixels / pixels_per_mm:.0f} mm apart, not "
        + " or ".join(f"{seconds * STANDARD_MM_PER_SECOND:.0f}" for seconds in column_seconds[fit.layout.name]),
        "print the ECG at 25 mm/s",
    )


def _looked_again(  # noqa: PLR0912
    fit: LayoutFit, ink: Ink, pixels_per_mm: float, seconds: float, labels: Sequence[PrintedLabel]
) -> Placement:
    found = {cell: label for cell, label in fit.found.items() if label.lead != "I"}
    if not found:
        raise _too_few(0)
    fonts = page_fonts(list(found.values()), ink, _FONTS)
    height = float(np.median([label.height for label in found.values()]))
    read = set(found)
    boxes: list[tuple[int, int, _Box]] = []
    letters: list[tuple[str, str, _Box]] = []
    for label in labels:
        if label.lead != "I" or label in fit.found.values():
            letters.append((label.lead, label.font, (label.left, label.top, label.right, label.bottom)))
    for (row, column), label in found.items():
        boxes.append((row, column, (label.left, label.top, label.right, label.bottom)))
    reach = (_REACH_MM * pixels_per_mm, min(_REACH_MM * pixels_per_mm, 0.2 * fit.row_pixels))
    for row, names in enumerate(fit.layout.rows):
        for column, expected in enumerate(names):
            out_of_place = [label for r, c, label in fit.conflicts if (r, c) == (row, column) and _certain(label)]
            if (row, column) in found or expected not in TELLING_NAMES:
                if out_of_place and (row, column) not in found:
                    raise _contradiction(out_of_place[0].lead)
                continue
            look = look_again(ink, (fit.across[row, column], fit.down[row, column]), reach, height, fonts)
            if look is None:
                if out_of_place:
                    raise _contradiction(out_of_place[0].lead)
                continue
            name, likeness, margin = look.best()
            if same_name(name, expected):
                if likeness >= _READ and (margin >= _READ_MARGIN or expected.endswith("aVR")):
                    read.add((row, column))
                    box = _box(name, fonts[0], look.centre[name], height)
                    boxes.append((row, column, box))
                    letters.append((name, fonts[0], box))
            elif out_of_place or (likeness >= _ELSE and margin >= _ELSE_MARGIN):
                raise _contradiction(out_of_place[0].lead if out_of_place else name)
    telling = [cell for cell in read if fit.layout.rows[cell[0]][cell[1]] in TELLING_NAMES]
    chest = [cell for cell in telling if fit.layout.rows[cell[0]][cell[1]].startswith("V")]
    if len(telling) < LEAST_READ or len(chest) < LEAST_CHEST:
        raise _too_few(len(read))
    return Placement(
        fit=fit, seconds_per_column=seconds, read=frozenset(read), boxes=tuple(boxes), letters=tuple(letters)
    )


def _certain(label: PrintedLabel) -> bool:
    """Whether a free-standing name is clear enough to accuse a sheet."""
    return label.free and label.likeness >= _CERTAIN and label.margin >= _CERTAIN_MARGIN


def _box(name: str, font: str, centre: tuple[float, float], height: float) -> _Box:
    word = next(word for word in shapes().words if word.name == name and word.font == font)
    x, y = centre
    return x - height * word.aspect / 2.0, y - height / 2.0, x + height * word.aspect / 2.0, y + height / 2.0
