"""Whether names that no one could read alone, faint or run through by traces, are those that a layout has there.

Pure: over how much each place looks like each name.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Set

from ecg_ingest.printed_labels import NO_NAME, TELLING_NAMES, Look
from ecg_ingest.raster_layout import Layout

_IN_ORDER_READ, _IN_ORDER_CHEST = 4, 2  # names read, of those that tell, where the others are only seen in order
_FAINT_LEAD = 0.04  # another name's lead that would contradict the one expected
_FAINT_LIMB_LEAD = 0.06  # the same for aVR, aVL and aVF, which the limb leads' equations prove as well
_EXCHANGED_LEAD = 0.05  # of two names at their places, to the same two exchanged

Cell = tuple[int, int]  # row and column


def in_order(layout: Layout, read: Set[Cell], looks: Mapping[Cell, Look]) -> bool:
    """Whether names that are too faint or covered to be read are, together, nothing else than those expected.

    Nearly every place must look most like its own name, no place clearly more like another, and no two places
    as much like each other's: two names exchanged would be the likelier ones where they stand.

    Parameters
    ----------
    read : set of (row, column)
        Places whose name is read.
    looks : mapping
        What a second look found at the other places; none where it lies beyond the picture.
    """
    places = {
        (row, column): name
        for row, names in enumerate(layout.rows)
        for column, name in enumerate(names)
        if name in TELLING_NAMES
    }
    if sum(cell in read for cell in places) < _IN_ORDER_READ:
        return False
    if sum(cell in read and name.startswith("V") for cell, name in places.items()) < _IN_ORDER_CHEST:
        return False
    unread = {cell: name for cell, name in places.items() if cell not in read}
    if not all(cell in looks for cell in unread):
        return False
    likeness = {cell: _by_name(looks[cell]) for cell in unread}
    ahead = {}
    for cell, name in unread.items():
        own = likeness[cell].get(_plain(name), 0.0)
        others = [value for other, value in likeness[cell].items() if other != _plain(name)]
        if own < NO_NAME or not others:
            return False
        ahead[cell] = own - max(others)
    chest = [lead for cell, lead in ahead.items() if unread[cell].startswith("V")]
    if min(ahead.values()) < -_FAINT_LIMB_LEAD or min(chest, default=0.0) < -_FAINT_LEAD:
        return False
    if sum(lead <= 0.0 for lead in chest) > 1:
        return False
    for one, other in itertools.combinations(unread, 2):
        mine, its = _plain(unread[one]), _plain(unread[other])
        kept = likeness[one][mine] + likeness[other][its]
        if kept - likeness[one].get(its, 0.0) - likeness[other].get(mine, 0.0) < _EXCHANGED_LEAD:
            return False
    return True


def faint_names(layout: Layout, read: Set[Cell], looks: Mapping[Cell, Look]) -> Iterator[tuple[str, Look]]:
    """Each name that is seen in order but not read, and what was seen where it stands."""
    for (row, column), look in looks.items():
        name = layout.rows[row][column]
        if (row, column) not in read and name in look.centre:
            yield name, look


def _plain(name: str) -> str:
    """A name without the minus of Cabrera sheets."""
    return name.lstrip("-−")


def _by_name(look: Look) -> dict[str, float]:
    likeness: dict[str, float] = {}
    for name, value in look.likeness.items():
        likeness[_plain(name)] = max(value, likeness.get(_plain(name), -1.0))
    return likeness
