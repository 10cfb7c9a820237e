"""Names that no one could read alone: what they say together, and what two exchanged ones may never say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ecg_ingest.faint_names import in_order
from ecg_ingest.formation import in_formation
from ecg_ingest.printed_labels import Look, PrintedLabel, grain
from ecg_ingest.raster_columns import find_pulses
from ecg_ingest.raster_layout import LAYOUTS
from ecg_ingest.trace import Line, Row

PIXELS_PER_MM = 5.0
SECONDS = {"3x4": (2.5,), "4x3": (2.5,), "6x2": (2.5, 5.0), "12x1": (10.0,)}
NAMES = ("aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SIX_BY_TWO = next(layout for layout in LAYOUTS if (layout.name, layout.order) == ("6x2", "standard"))
READ = {(3, 0), (4, 0), (0, 1), (1, 1)}  # aVR, aVL, V1, V2
FAINT = {(5, 0): "aVF", (2, 1): "V3", (3, 1): "V4", (4, 1): "V5", (5, 1): "V6"}


def look(most_like: str, ahead: float = 0.06, likeness: float = 0.5) -> Look:
    """A place that looks like one name more than like all others."""
    values = {name: likeness - (0.0 if name == most_like else ahead) for name in NAMES}
    return Look(likeness=values, centre=dict.fromkeys(NAMES, (0.0, 0.0)), printed={})


def test_faint_names_in_order_are_believed() -> None:
    assert in_order(SIX_BY_TWO, READ, {cell: look(name) for cell, name in FAINT.items()})


@pytest.mark.parametrize(("one", "other"), [((4, 1), (5, 1)), ((2, 1), (4, 1)), ((5, 0), (2, 1))])
def test_two_faint_names_that_were_exchanged_are_not(one: tuple[int, int], other: tuple[int, int]) -> None:
    looks = {cell: look(name) for cell, name in FAINT.items()}
    looks[one], looks[other] = looks[other], looks[one]
    assert not in_order(SIX_BY_TWO, READ, looks)


def test_two_places_as_much_like_each_other_s_names_prove_no_order() -> None:
    looks = {cell: look(name) for cell, name in FAINT.items()}
    for cell, other in (((4, 1), "V6"), ((5, 1), "V5")):
        looks[cell] = replace(looks[cell], likeness=looks[cell].likeness | {other: 0.49})
    assert not in_order(SIX_BY_TWO, READ, looks)


def test_a_place_where_nothing_is_seen_proves_no_order() -> None:
    looks = {cell: look(name) for cell, name in FAINT.items()}
    assert not in_order(SIX_BY_TWO, READ, looks | {(4, 1): look("V5", likeness=0.42)})
    del looks[4, 1]
    assert not in_order(SIX_BY_TWO, READ, looks)


def test_a_place_looked_at_for_its_own_name_only_proves_no_order() -> None:
    looks = {cell: look(name) for cell, name in FAINT.items()}
    likeness = {"aVR": 0.5, "-aVR": 0.45}
    rows = tuple(("aVR", *names[1:]) if row == 5 else names for row, names in enumerate(SIX_BY_TWO.rows))
    looks[5, 0] = Look(likeness=likeness, centre=dict.fromkeys(likeness, (0.0, 0.0)), printed={})
    assert not in_order(replace(SIX_BY_TWO, rows=rows), READ, looks)


def test_faint_names_alone_prove_no_order() -> None:
    everything = {cell: look(name) for cell, name in FAINT.items()}
    everything |= {(3, 0): look("aVR"), (1, 1): look("V2")}
    assert not in_order(SIX_BY_TWO, {(4, 0), (0, 1)}, everything)


def label(name: str, across: float, down: float, likeness: float) -> PrintedLabel:
    """A name of three millimetres, its middle at a place in millimetres."""
    x, y = across * PIXELS_PER_MM, down * PIXELS_PER_MM
    return PrintedLabel(
        lead=name,
        left=x - 15.0,
        right=x + 15.0,
        top=y - 7.5,
        bottom=y + 7.5,
        likeness=likeness,
        margin=0.05 if likeness > 0.58 else -0.02,
        font="Vera.ttf+0",
        free=False,
    )


def lines(count: int) -> list[Row]:
    """Level lines 25 mm apart, the first 30 mm down."""
    return [Row(heights=np.full(1500, (30.0 + 25.0 * row) * PIXELS_PER_MM), coverage=1.0) for row in range(count)]


def by_chance(count: int) -> list[PrintedLabel]:
    """Names wherever traces look like one."""
    chance = np.random.default_rng(4)
    return [
        label(str(chance.choice(NAMES)), chance.uniform(0, 290), chance.uniform(20, 160), chance.uniform(0.5, 0.7))
        for _ in range(count)
    ]


def standing(names: dict[str, float]) -> list[PrintedLabel]:
    """Names of a 6x2 sheet, a column of 5 s, each with its likeness, six millimetres above their lines."""
    return [
        label(name, 20.0 + 125.0 * column, 24.0 + 25.0 * row, names[name])
        for row, leads in enumerate(SIX_BY_TWO.rows)
        for column, name in enumerate(leads)
        if name in names
    ]


def test_names_that_stand_in_formation_are_found_among_those_that_traces_look_like() -> None:
    true = standing({"aVR": 0.62, "aVF": 0.55, "V1": 0.66, "V3": 0.57, "V4": 0.6, "V6": 0.52})
    found = in_formation([*by_chance(60), *true], lines(6), PIXELS_PER_MM, SECONDS)
    assert {(name.lead, name.centre) for name in found} == {(name.lead, name.centre) for name in true}
    assert not any(name.sure for name in found)


def test_names_by_chance_stand_in_no_formation() -> None:
    assert in_formation(by_chance(60), lines(6), PIXELS_PER_MM, SECONDS) == []


def test_two_formations_as_good_as_one_another_are_none() -> None:
    true = standing({"V1": 0.66, "V2": 0.62, "V4": 0.6, "V6": 0.62})
    shifted = [label(name.lead, name.centre[0] / 5.0, name.centre[1] / 5.0 + 25.0, name.likeness) for name in true]
    assert in_formation(true, lines(7), PIXELS_PER_MM, SECONDS)
    assert in_formation([*true, *shifted], lines(7), PIXELS_PER_MM, SECONDS) == []


@pytest.mark.parametrize(("height_mm", "pulses"), [(10.0, 1), (20.0, 1), (30.0, 0)])
def test_what_stands_higher_than_any_calibration_pulse_is_none(height_mm: float, pulses: int) -> None:
    middle = np.full(600, 300.0)
    middle[40:65] -= height_mm * PIXELS_PER_MM
    top, bottom = middle - 1.0, middle + 1.0
    bottom[[40, 64]] = 301.0
    line = Line(top=top, bottom=bottom, thickness=2.0)
    assert len(find_pulses(line, PIXELS_PER_MM, PIXELS_PER_MM)) == pulses


def test_a_whole_sheet_s_noise_is_always_the_same_and_not_kept() -> None:
    one, other = grain((300, 400)), grain((300, 400))
    assert one is not other
    np.testing.assert_array_equal(one, other)
