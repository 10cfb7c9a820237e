"""What a second look at a layout's places proves, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from ecg_ingest import RefusalReason
from ecg_ingest.ink import Ink
from ecg_ingest.printed_labels import Look, PrintedLabel
from ecg_ingest.raster_layout import LAYOUTS, LayoutFit
from ecg_ingest.second_look import Contradiction, SecondLook

LAYOUT = next(layout for layout in LAYOUTS if (layout.name, layout.order) == ("3x4", "standard"))
CELLS = {name: (row, column) for row, names in enumerate(LAYOUT.rows) for column, name in enumerate(names)}
NAMES = ("aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
FONT = "Vera.ttf+0"
ACROSS, DOWN = 200.0, 100.0
BLANK = Ink(
    darkness=np.zeros((500, 1000), dtype=np.float32),
    mask=np.zeros((500, 1000), dtype=np.bool_),
    level=1.0,
    grid_level=0.0,
)
Read = Callable[..., SecondLook]


def label(name: str, *, free: bool = True, margin: float = 0.2) -> PrintedLabel:
    row, column = CELLS[name]
    x, y = 100.0 + ACROSS * column, 100.0 + DOWN * row
    return PrintedLabel(
        lead=name,
        left=x - 20.0,
        top=y - 10.0,
        right=x + 20.0,
        bottom=y + 10.0,
        likeness=0.9,
        margin=margin,
        font=FONT,
        free=free,
    )


def look(likeness: Mapping[str, float]) -> Look:
    """A place that looks like each of these names so much, and like all others little."""
    values = dict.fromkeys(NAMES, 0.2) | dict(likeness)
    return Look(likeness=values, centre=dict.fromkeys(NAMES, (0.0, 0.0)), printed=dict.fromkeys(NAMES, (FONT, 20.0)))


@pytest.fixture
def second_look(monkeypatch: pytest.MonkeyPatch) -> Read:
    """A sheet of which every name stands free but those for which a look, or a label among traces, is given."""

    def made(looks: Mapping[str, Look | None], among_traces: Mapping[str, float] | None = None) -> SecondLook:
        hidden = among_traces or {}
        found = {
            cell: label(name, free=name not in hidden, margin=hidden.get(name, 0.2))
            for name, cell in CELLS.items()
            if name not in looks
        }
        at = {CELLS[name]: seen for name, seen in looks.items()}

        def again(_: Ink, place: tuple[float, float], *__: object) -> Look | None:
            return at[round((place[1] - 100.0) / DOWN), round((place[0] - 100.0) / ACROSS)]

        monkeypatch.setattr("ecg_ingest.second_look.look_again", again)
        monkeypatch.setattr("ecg_ingest.second_look.page_fonts", lambda *_: [FONT])
        columns, rows = np.meshgrid(100.0 + ACROSS * np.arange(4), 100.0 + DOWN * np.arange(3))
        fit = LayoutFit(layout=LAYOUT, across=columns, down=rows, found=found, conflicts=())
        return SecondLook(fit, BLANK, BLANK, 6.0, list(found.values()))

    return made


def test_names_that_stand_free_prove_a_layout(second_look: Read) -> None:
    names = second_look({})
    assert names.proves
    assert names.exchangeable() is None


def test_a_name_that_is_read_among_traces_is_kept_with_its_place(second_look: Read) -> None:
    names = second_look({"V4": look({"V4": 0.7, "V1": 0.6})})
    assert CELLS["V4"] in names.read
    assert [found.lead for found in names.newly] == ["V4"]


@pytest.mark.parametrize(
    ("one", "other", "lead", "exchangeable"),
    [("V1", "V2", 0.045, True), ("V1", "V2", 0.055, False), ("V5", "V6", 0.01, True), ("V5", "V6", 0.02, False)],
)
def test_two_unread_chest_names_must_be_likelier_as_they_stand_than_exchanged(
    second_look: Read, one: str, other: str, lead: float, *, exchangeable: bool
) -> None:
    looks = {name: look({name: 0.5, its: 0.5 - lead}) for name, its in ((one, other), (other, one))}
    assert second_look(looks).exchangeable() == ((one, other) if exchangeable else None)


def test_one_chest_name_that_cannot_be_seen_is_told_by_all_others(second_look: Read) -> None:
    assert second_look({"V4": None}).exchangeable() is None


def test_two_chest_names_that_cannot_be_seen_are_exchangeable(second_look: Read) -> None:
    assert second_look({"V4": None, "V6": None}).exchangeable() == ("V4", "V6")


@pytest.mark.parametrize(("margin", "exchangeable"), [(0.05, True), (0.15, False)])
def test_a_name_read_among_traces_tells_an_unseen_one_by_its_margin(
    second_look: Read, margin: float, *, exchangeable: bool
) -> None:
    names = second_look({"V2": None}, {"V1": margin})
    assert names.exchangeable() == (("V1", "V2") if exchangeable else None)


def test_two_names_each_read_among_traces_are_not_exchangeable(second_look: Read) -> None:
    assert second_look({}, {"V1": 0.04, "V2": 0.04}).exchangeable() is None


def test_limb_names_are_left_to_their_equations(second_look: Read) -> None:
    assert second_look({"aVR": None, "aVL": None}).exchangeable() is None


def refusal(second_look: Read, looks: Mapping[str, Look]) -> Contradiction:
    with pytest.raises(Contradiction) as refused:
        second_look(looks)
    assert refused.value.reason is RefusalReason.LABELS_CONTRADICT
    return refused.value


@pytest.mark.parametrize(("likeness", "ahead"), [(0.72, 0.07), (0.57, 0.08), (0.51, 0.11)])
def test_a_place_that_clearly_looks_like_another_name_refuses_the_sheet(
    second_look: Read, likeness: float, ahead: float
) -> None:
    refused = refusal(second_look, {"V1": look({"aVF": likeness, "V1": likeness - ahead})})
    assert "where the name V1 belongs looks like aVF" in refused.detail
    assert refused.read == len(NAMES) - 1


@pytest.mark.parametrize(("likeness", "ahead"), [(0.72, 0.05), (0.57, 0.07), (0.51, 0.09), (0.48, 0.2)])
def test_a_place_that_hardly_looks_like_another_name_says_nothing(
    second_look: Read, likeness: float, ahead: float
) -> None:
    assert CELLS["V1"] not in second_look({"V1": look({"aVF": likeness, "V1": likeness - ahead})}).read


def test_two_places_that_perhaps_look_like_other_names_refuse_the_sheet(second_look: Read) -> None:
    doubtful = look({"aVF": 0.75, "V1": 0.72, "V4": 0.72})
    assert CELLS["V1"] not in second_look({"V1": doubtful}).read
    refusal(second_look, {"V1": doubtful, "V4": doubtful})


def test_a_name_that_stands_as_clearly_at_anothers_place_as_at_its_own_refuses_the_sheet(second_look: Read) -> None:
    own = look({"V6": 0.69, "V5": 0.66})
    refused = refusal(second_look, {"V5": look({"V6": 0.7, "V5": 0.66}), "V6": own})
    assert "looks like V6" in refused.detail
    second_look({"V5": look({"V6": 0.65, "V5": 0.645}), "V6": own})  # less clearly than at its own
