"""Which layout a sheet has, proved label by label: a second look at every place where a name should stand.

A name that cannot be read proves nothing; one that says something else refuses the sheet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ecg_ingest.faint_names import faint_names, in_order
from ecg_ingest.glyphs import shapes
from ecg_ingest.ink import Ink
from ecg_ingest.lead_images import EcgRefused, RefusalReason
from ecg_ingest.paper_scale import STANDARD_MM_PER_SECOND
from ecg_ingest.printed_labels import TELLING_NAMES, Look, PrintedLabel, look_again, page_fonts
from ecg_ingest.raster_layout import LayoutFit, fit_layouts, same_name, settled

LEAST_READ = 6  # of nine names that tell (aVR to V6)
LEAST_CHEST = 4
_LEAST_FREE = 3  # labels that stand free, before a second look is worth it
_READ, _READ_MARGIN = 0.58, 0.03
_ELSE, _ELSE_LEAD = 0.7, 0.06  # when a name looks like another, by how much more than like the one expected
_FAINT_ELSE, _FAINT_ELSE_LEAD = 0.55, 0.075  # the same for a fainter name that is the clearer another
_DOUBT_LEAD = 0.02  # twice on a sheet
_CERTAIN, _CERTAIN_MARGIN = 0.8, 0.08
_BAR_REACH_MM = 6.0  # from where a label's middle should be
_BAR_SHARE = 0.6  # of a label's height that a bar's column is inked
_REACH_MM, _REACH_LEAST_MM = 5.0, 1.2
_SETTLED = 4  # names that tell, from which on they say how near to its place a name stands
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
    legible: Ink,
    pixels_per_mm: float,
    column_seconds: Mapping[str, Sequence[float]],
    tolerance: float,
    *,
    last: bool = False,
) -> Placement:
    """The one layout that the labels prove; `legible` is the ink without bars.

    With `last`, a refusal gives the reason of the layout that most labels form, not of the likeliest: labels under
    traces were sought already, and fewer names in order are no better explanation than more with two exchanged.

    Raises
    ------
    EcgRefused
        LABELS_INSUFFICIENT, LABELS_CONTRADICT, LAYOUT_AMBIGUOUS or NON_STANDARD_SCALE.
    """
    fits = [fit for fit in fit_layouts(labels, pixels_per_mm) if _on_sheet(fit, ink, pixels_per_mm)]

    def promise(fit: LayoutFit) -> float:
        return fit.score + _USUAL_SPEED * (_seconds(fit, pixels_per_mm, column_seconds, tolerance) is not None)

    fits.sort(key=lambda fit: -promise(fit))
    proved: list[Placement] = []
    refusals: list[tuple[int, EcgRefused]] = []
    for fit in fits[:_LAYOUTS_TRIED]:
        if proved and _beyond_doubt(proved[0], fit):
            continue
        if len(fit.found) < _LEAST_FREE or promise(fit) < promise(fits[0]) - _LAYOUT_MARGIN:
            continue
        try:
            seconds = _seconds(fit, pixels_per_mm, column_seconds, tolerance)
            if seconds is None:
                raise _not_standard(fit, pixels_per_mm, column_seconds)
            proved.append(_looked_again(fit, ink, legible, pixels_per_mm, seconds, labels))
        except EcgRefused as refusal:
            refusals.append((len(fit.found), refusal))
    if not proved:
        if not refusals:
            raise _too_few(0 if not fits else len(fits[0].found))
        raise (max(refusals, key=lambda refused: refused[0]) if last else refusals[0])[1]
    proved.sort(key=lambda placement: -len(placement.read))
    if len(proved) > 1 and len(proved[0].read) - len(proved[1].read) < _LEAD:
        raise EcgRefused(
            RefusalReason.LAYOUT_AMBIGUOUS,
            f"the labels fit {proved[0].fit.layout.name} ({proved[0].fit.layout.order}) and "
            f"{proved[1].fit.layout.name} ({proved[1].fit.layout.order}) about as well",
            "scan the sheet so that every label can be read",
        )
    return proved[0]


def _on_sheet(fit: LayoutFit, ink: Ink, pixels_per_mm: float) -> bool:
    """Whether every name's place lies on the picture: where the sheet ends, no lead can be."""
    beyond = _REACH_MM * pixels_per_mm
    height, width = ink.mask.shape
    return bool(
        fit.across.min() > -beyond
        and fit.down.min() > -beyond
        and fit.across.max() < width + beyond
        and fit.down.max() < height + beyond
    )


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


def _looked_again(  # noqa: PLR0912, PLR0915
    fit: LayoutFit,
    ink: Ink,
    legible: Ink,
    pixels_per_mm: float,
    seconds: float,
    labels: Sequence[PrintedLabel],
    *,
    once_more: bool = True,
) -> Placement:
    found = {cell: label for cell, label in fit.found.items() if label.lead != "I"}
    if not found:
        raise _too_few(0)
    fonts = page_fonts(list(found.values()), legible, _FONTS)
    height = float(np.median([label.height for label in found.values()]))
    read = {cell for cell, label in found.items() if label.sure}
    boxes: list[tuple[int, int, _Box]] = []
    letters: list[tuple[str, str, _Box]] = []
    newly: list[PrintedLabel] = []
    looks: dict[tuple[int, int], Look] = {}
    doubted: list[str] = []
    for label in labels:
        if label.sure and (label.lead != "I" or label in fit.found.values()):
            letters.append((label.lead, label.font, (label.left, label.top, label.right, label.bottom)))
    for row, column in read:
        label = found[row, column]
        boxes.append((row, column, (label.left, label.top, label.right, label.bottom)))
    reach = _reach(fit, pixels_per_mm)
    for row, names in enumerate(fit.layout.rows):
        for column, expected in enumerate(names):
            out_of_place = [label for r, c, label in fit.conflicts if (r, c) == (row, column) and _certain(label, ink)]
            if expected not in TELLING_NAMES:
                if any(set(label.lead) == {"I"} for label in out_of_place) or (
                    out_of_place and (row, column) not in found
                ):
                    raise _contradiction(out_of_place[0].lead)
                place = (fit.across[row, column], fit.down[row, column])
                if expected != "I" and (row, column) not in found and _lone_bar(ink, place, height, pixels_per_mm):
                    raise _contradiction("I")
                continue
            if (row, column) in read:
                continue
            look = look_again(legible, (fit.across[row, column], fit.down[row, column]), reach, height, fonts)
            if look is None:
                if out_of_place:
                    raise _contradiction(out_of_place[0].lead)
                continue
            looks[row, column] = look
            name, likeness, margin = look.best()
            if same_name(name, expected):
                if likeness >= _READ and (margin >= _READ_MARGIN or expected.endswith("aVR")):
                    read.add((row, column))
                    box = _box(name, fonts[0], look.centre[name], height)
                    boxes.append((row, column, box))
                    letters.append((name, fonts[0], box))
                    newly.append(_label(name, fonts[0], box, likeness, margin))
                continue
            ahead = likeness - max(value for other, value in look.likeness.items() if same_name(other, expected))
            if likeness >= _ELSE and ahead >= _DOUBT_LEAD:
                doubted.append(name)
            another = (likeness >= _ELSE and ahead >= _ELSE_LEAD) or (
                likeness >= _FAINT_ELSE and ahead >= _FAINT_ELSE_LEAD
            )
            if out_of_place or another or len(doubted) > 1:
                raise _contradiction(out_of_place[0].lead if out_of_place else name)
    telling = [cell for cell in read if fit.layout.rows[cell[0]][cell[1]] in TELLING_NAMES]
    chest = [cell for cell in telling if fit.layout.rows[cell[0]][cell[1]].startswith("V")]
    enough = len(telling) >= LEAST_READ and len(chest) >= LEAST_CHEST
    if not enough and in_order(fit.layout, read, looks):
        enough = True
        for name, place in faint_names(fit.layout, read, looks):
            letters.append((name, fonts[0], _box(name, fonts[0], place, height)))
    if not enough:
        if once_more and newly:  # they say better where the others must stand
            more = [*labels, *newly]
            better = settled(fit, more, pixels_per_mm)
            return _looked_again(better, ink, legible, pixels_per_mm, seconds, more, once_more=False)
        raise _too_few(len(read))
    return Placement(
        fit=fit, seconds_per_column=seconds, read=frozenset(read), boxes=tuple(boxes), letters=tuple(letters)
    )


def _reach(fit: LayoutFit, pixels_per_mm: float) -> tuple[float, float]:
    """How far across and down a name may stand from its place: the less, the better the names read say where."""
    reach = _REACH_MM * pixels_per_mm
    off = [
        (abs(label.centre[0] - fit.across[cell]), abs(label.centre[1] - fit.down[cell]))
        for cell, label in fit.found.items()
        if label.lead in TELLING_NAMES
    ]
    if len(off) >= _SETTLED:
        reach = min(reach, _REACH_LEAST_MM * pixels_per_mm + 2.0 * float(np.max(off)))
    return reach, min(reach, 0.2 * fit.row_pixels)


def _certain(label: PrintedLabel, ink: Ink) -> bool:
    """Whether a free-standing name is clear enough to accuse a sheet."""
    if not label.free:
        return False
    if label.likeness >= _CERTAIN and label.margin >= _CERTAIN_MARGIN:
        return True
    # II and III look much alike; their bars can be counted where they stand apart.
    return set(label.lead) == {"I"} and len(label.lead) > 1 and _bars(label, ink) == len(label.lead)


def _lone_bar(ink: Ink, place: tuple[float, float], height: float, pixels_per_mm: float) -> bool:
    """Whether an I stands where II or III should: one bar as tall as the letters, and blank paper beside it."""
    reach = round(_BAR_REACH_MM * pixels_per_mm)
    left, top = max(0, round(place[0]) - reach), max(0, round(place[1] - 0.9 * height))
    window = ink.mask[top : round(place[1] + 0.9 * height), left : round(place[0]) + reach].astype(np.uint8)
    if min(window.shape) < 4:
        return False
    count, _, stats, _ = cv2.connectedComponentsWithStats(window, connectivity=8)
    for x, y, wide, tall, _ in stats[1:count].tolist():
        upright = 0.8 * height < tall < 1.2 * height and wide < 0.35 * height
        if upright and abs(top + y + tall / 2.0 - place[1]) < 0.35 * height:
            beside = window[y : y + tall, max(0, x - round(height)) : x + wide + round(height)]
            return int(beside.sum()) == int(window[y : y + tall, x : x + wide].sum())
    return False


def _bars(label: PrintedLabel, ink: Ink) -> int:
    """Upright strokes of about a label's own height that stand apart."""
    part = ink.mask[round(label.top) : round(label.bottom), round(label.left) : round(label.right)]
    tall = np.concatenate(([False], part.mean(axis=0) > _BAR_SHARE, [False])) if part.size else np.zeros(2, np.bool_)
    return int((np.diff(tall.astype(np.int8)) > 0).sum())


def _label(name: str, font: str, box: _Box, likeness: float, margin: float) -> PrintedLabel:
    left, top, right, bottom = box
    return PrintedLabel(
        lead=name,
        left=left,
        top=top,
        right=right,
        bottom=bottom,
        likeness=likeness,
        margin=margin,
        font=font,
        free=False,
    )


def _box(name: str, font: str, centre: tuple[float, float], height: float) -> _Box:
    word = next(word for word in shapes().words if word.name == name and word.font == font)
    x, y = centre
    return x - height * word.aspect / 2.0, y - height / 2.0, x + height * word.aspect / 2.0, y + height / 2.0
