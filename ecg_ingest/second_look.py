"""A second look at every place of one layout: which names stand there, and which accuse the sheet.

A name that cannot be read proves nothing; one that says something else refuses the sheet.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from ecg_ingest.faint_names import Cell, faint_names, in_order
from ecg_ingest.glyphs import shapes
from ecg_ingest.ink import Ink
from ecg_ingest.lead_images import EcgRefused, RefusalReason
from ecg_ingest.printed_labels import TELLING_NAMES, Look, PrintedLabel, look_again, page_fonts
from ecg_ingest.raster_layout import LayoutFit, same_name

LEAST_READ = 6  # of nine names that tell (aVR to V6)
_LEAST_CHEST = 4
NAME_REACH_MM = 5.0  # how far a name may stand from its place
_READ, _READ_MARGIN = 0.58, 0.03
_ELSE = ((0.7, 0.06), (0.55, 0.075), (0.5, 0.1))  # likeness of another name, and its lead over the one expected
_DOUBT, _DOUBT_LEAD = 0.7, 0.02  # the same, at two places of a sheet
_TWICE, _TWICE_SHARE = 0.56, 0.6  # likeness of a name seen at two places; its lead at the wrong one, of that at its own
_EXCHANGED_LEAD = 0.1  # of two chest leads' names at their places, to the same two exchanged
_ALIKE, _ALIKE_LEAD = {"V5", "V6"}, 0.03  # the same for two that differ little
_CERTAIN, _CERTAIN_MARGIN = 0.8, 0.08
_BAR_REACH_MM = 6.0  # from where a label's middle should be
_BAR_SHARE = 0.6  # of a label's height that a bar's column is inked
_SERIFS_WIDE = 0.6  # of a letter's height, an I with its serifs
_REACH_LEAST_MM = 1.2
_SETTLED = 4  # names that tell, from which on they say how near to its place a name stands
_FONTS = 3  # of the page, tried in a second look

Box = tuple[float, float, float, float]


class Contradiction(EcgRefused):
    """A name stands where another lead belongs in a layout of which `read` other names are read."""

    def __init__(self, name: str, expected: str, read: int) -> None:
        super().__init__(
            RefusalReason.LABELS_CONTRADICT,
            f"what stands where the name {expected} belongs looks like {name}",
            "scan the sheet flat and sharply, names and all; if a name is printed twice or in another lead's place, "
            "export the ECG again",
        )
        self.read = read


class SecondLook:
    """What stands at the places of one layout; made, it has looked at them all.

    Attributes
    ----------
    read : set of (row, column)
        Places whose name was read.
    boxes : list of (row, column, box)
        Where every name stands that was read.
    letters : list of (name, font, box)
        Every name that stands on the sheet, to be told from traces.
    newly : list of PrintedLabel
        Names that were read only now.

    Raises
    ------
    Contradiction
        A name says something else than the layout.
    """

    def __init__(
        self, fit: LayoutFit, ink: Ink, legible: Ink, pixels_per_mm: float, labels: Sequence[PrintedLabel]
    ) -> None:
        self._fit, self._ink, self._legible, self._pixels_per_mm = fit, ink, legible, pixels_per_mm
        found = {cell: label for cell, label in fit.found.items() if label.lead != "I"}
        self._fonts = page_fonts(list(found.values()), legible, _FONTS) if found else []
        self._height = float(np.median([label.height for label in found.values()])) if found else 0.0
        self._reach = _reach(fit, pixels_per_mm)
        self._found = found
        self._looks: dict[Cell, Look] = {}
        self._doubted = 0
        self.read = {cell for cell, label in found.items() if label.sure}
        self.boxes = [(row, column, found[row, column].box) for row, column in self.read]
        self.letters = [
            (label.lead, label.font, label.box)
            for label in labels
            if label.sure and (label.lead != "I" or label in fit.found.values())
        ]
        self.newly: list[PrintedLabel] = []
        if found:
            for cell, expected in _places(fit):
                if expected not in TELLING_NAMES:
                    self._check_bars(cell, expected)
                elif cell not in self.read:
                    self._look_at(cell, expected)
            self._check_twice()

    @property
    def proves(self) -> bool:
        """Whether enough names of the layout are read."""
        telling = self._telling()
        return len(telling) >= LEAST_READ and sum(name.startswith("V") for name in telling) >= _LEAST_CHEST

    def exchangeable(self) -> tuple[str, str] | None:
        """Two chest leads, not both read where they belong, that may as well be named the other way round.

        Limb leads are proved by their equations as well.
        """
        if not self._found:
            return None
        places = [(cell, name) for cell, name in _places(self._fit) if name.startswith("V")]
        unsure = [(cell, name, self._seen_at(cell, name)) for cell, name in places if not self._stands_free(cell)]
        for (here, one, first), (there, other, second) in itertools.combinations(unsure, 2):
            if {here, there} <= self.read:
                continue
            kept = first.get(one, 0.0) + second.get(other, 0.0)
            needed = _ALIKE_LEAD if {one, other} == _ALIKE else _EXCHANGED_LEAD
            if kept - first.get(other, 0.0) - second.get(one, 0.0) < needed:
                return one, other
        return None

    def _stands_free(self, cell: Cell) -> bool:
        return cell in self._found and self._found[cell].sure and self._found[cell].free

    def _seen_at(self, cell: Cell, name: str) -> dict[str, float]:
        """How much a place looks like each name; of a name read among traces, how much more than like any other."""
        if cell in self._looks:
            return self._looks[cell].likeness
        return {name: self._found[cell].margin} if cell in self.read else {}

    def in_order(self) -> bool:
        """Whether the names that cannot be read are, together, nothing else than the layout's; kept as letters then."""
        if not in_order(self._fit.layout, self.read, self._looks):
            return False
        for name, look in faint_names(self._fit.layout, self.read, self._looks):
            self.letters.append((name, look.printed[name][0], _box(name, look)))
        return True

    def _telling(self) -> list[str]:
        names = [self._fit.layout.rows[row][column] for row, column in self.read]
        return [name for name in names if name in TELLING_NAMES]

    def _contradiction(self, name: str, expected: str) -> Contradiction:
        return Contradiction(name, expected, len(self._telling()))

    def _out_of_place(self, cell: Cell) -> list[PrintedLabel]:
        """Other leads' names that clearly stand at a place."""
        return [
            label for row, column, label in self._fit.conflicts if (row, column) == cell and _certain(label, self._ink)
        ]

    def _check_bars(self, cell: Cell, expected: str) -> None:
        """Refuse a sheet that has another name where I, II or III belongs."""
        out_of_place = self._out_of_place(cell)
        if any(set(label.lead) == {"I"} for label in out_of_place) or (out_of_place and cell not in self._found):
            raise self._contradiction(out_of_place[0].lead, expected)
        if cell in self._found or expected == "I":
            return
        if lone_bar(self._ink, (self._fit.across[cell], self._fit.down[cell]), self._height, self._pixels_per_mm):
            raise self._contradiction("I", expected)

    def _look_at(self, cell: Cell, expected: str) -> None:
        """Read the name at a place, or refuse a sheet that has another there."""
        out_of_place = self._out_of_place(cell)
        place, reach = self._where(cell, expected)
        look = look_again(self._legible, place, reach, self._height, self._fonts)
        if look is None:
            if out_of_place:
                raise self._contradiction(out_of_place[0].lead, expected)
            return
        self._looks[cell] = look
        name, likeness, margin = look.best()
        if not same_name(name, expected):
            self._check_other(name, likeness, expected, look, out_of_place)
        elif likeness >= _READ and (margin >= _READ_MARGIN or expected.endswith("aVR")):
            box, font = _box(name, look), look.printed[name][0]
            self.read.add(cell)
            self.boxes.append((*cell, box))
            self.letters.append((name, font, box))
            self.newly.append(_label(name, font, box, likeness, margin))

    def _where(self, cell: Cell, name: str) -> tuple[tuple[float, float], tuple[float, float]]:
        """Where a name's middle may stand: names of a column begin together, or have their middles together."""
        if self._reach[0] >= NAME_REACH_MM * self._pixels_per_mm:
            return (float(self._fit.across[cell]), float(self._fit.down[cell])), self._reach
        usual = float(np.median([label.right - label.left for label in self._found.values()]))
        word = shapes().by_name[name, self._fonts[0]]
        wider = (word.aspect * self._height - usual) / 2.0
        place = float(self._fit.across[cell]) + wider / 2.0, float(self._fit.down[cell])
        return place, (self._reach[0] + abs(wider) / 2.0, self._reach[1])

    def _check_twice(self) -> None:
        """Refuse a sheet where a place looks like another's name at least as clearly as that one's own place does."""
        own = {name: self._looks[cell].likeness for cell, name in _places(self._fit) if cell in self._looks}
        for cell, expected in _places(self._fit):
            if cell not in self._looks or cell in self.read:
                continue
            name, likeness, _ = self._looks[cell].best()
            if likeness < _TWICE or not _kin(name, expected) or name not in own.get(name, ()):
                continue
            lead = likeness - self._looks[cell].likeness.get(expected, 0.0)
            share = _TWICE_SHARE if name[0] == "V" else 1.0  # of the others their equations say more
            if lead >= max(_DOUBT_LEAD, share * (own[name][name] - own[name].get(expected, 0.0))):
                raise self._contradiction(name, expected)

    def _check_other(
        self, name: str, likeness: float, expected: str, look: Look, out_of_place: Sequence[PrintedLabel]
    ) -> None:
        """Refuse a sheet where what is not the name expected clearly is another, or where it perhaps is, twice."""
        if out_of_place:
            raise self._contradiction(out_of_place[0].lead, expected)
        ahead = likeness - max(value for other, value in look.likeness.items() if same_name(other, expected))
        self._doubted += likeness >= _DOUBT and ahead >= _DOUBT_LEAD
        if self._doubted > 1 or any(likeness >= least and ahead >= lead for least, lead in _ELSE):
            raise self._contradiction(name, expected)


def _kin(name: str, other: str) -> bool:
    """Whether two names differ in a letter only."""
    return (name[0] == "V") == (other[0] == "V")


def _places(fit: LayoutFit) -> Iterator[tuple[Cell, str]]:
    for row, names in enumerate(fit.layout.rows):
        for column, name in enumerate(names):
            yield (row, column), name


def _reach(fit: LayoutFit, pixels_per_mm: float) -> tuple[float, float]:
    """How far across and down a name may stand from its place: the less, the better the names read say where."""
    reach = NAME_REACH_MM * pixels_per_mm
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


def lone_bar(ink: Ink, place: tuple[float, float], height: float, pixels_per_mm: float) -> bool:
    """Whether an I stands where II or III should: one bar, perhaps with serifs, and blank paper beside it."""
    reach = round(_BAR_REACH_MM * pixels_per_mm)
    left, top = max(0, round(place[0]) - reach), max(0, round(place[1] - 0.9 * height))
    window = ink.mask[top : round(place[1] + 0.9 * height), left : round(place[0]) + reach].astype(np.uint8)
    if min(window.shape) < 4:
        return False
    count, _, stats, _ = cv2.connectedComponentsWithStats(window, connectivity=8)
    for x, y, wide, tall, _ in stats[1:count].tolist():
        if x == 0 or x + wide == window.shape[1]:
            continue  # the window cuts it: of a wave or a word a piece only is seen
        upright = 0.8 * height < tall < 1.2 * height and wide < _SERIFS_WIDE * height
        stem = np.flatnonzero(window[y + round(0.3 * tall) : y + round(0.7 * tall), x : x + wide].any(axis=0))
        if stem.size == 0 or np.ptp(stem) >= 0.35 * height or abs(stem.mean() - (wide - 1) / 2.0) > 0.12 * height:
            continue
        if upright and abs(top + y + tall / 2.0 - place[1]) < 0.35 * height:
            beside = window[y : y + tall, max(0, x - round(height)) : x + wide + round(height)]
            if int(beside.sum()) == int(window[y : y + tall, x : x + wide].sum()):
                return True
    return False


def _bars(label: PrintedLabel, ink: Ink) -> int:
    """Upright strokes of about a label's own height that stand apart."""
    part = ink.mask[round(label.top) : round(label.bottom), round(label.left) : round(label.right)]
    tall = np.concatenate(([False], part.mean(axis=0) > _BAR_SHARE, [False])) if part.size else np.zeros(2, np.bool_)
    return int((np.diff(tall.astype(np.int8)) > 0).sum())


def _label(name: str, font: str, box: Box, likeness: float, margin: float) -> PrintedLabel:
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


def _box(name: str, look: Look) -> Box:
    font, height = look.printed[name]
    (x, y), aspect = look.centre[name], shapes().by_name[name, font].aspect
    return x - height * aspect / 2.0, y - height / 2.0, x + height * aspect / 2.0, y + height / 2.0
