"""Only what an annotation says comes out of a child."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_ingest.lead_images import LEADS, PIXELS_SHAPE, EcgSource, LeadBox, LeadImages, QualityFinding, RenderStyle
from pacs_node.opening.framing import AnswerMalformed
from pacs_node.opening.plain import ITEMS, TEXT_LENGTH, from_plain, to_plain


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, kw_only=True)
class Inner:
    word: str


@dataclass(frozen=True, kw_only=True)
class Outer:
    number: float
    count: int
    sure: bool
    colour: Colour
    inner: tuple[Inner, ...]
    pair: tuple[int, str]
    perhaps: Inner | None = None


PLAIN = {
    "number": 1.5,
    "count": 2,
    "sure": True,
    "colour": "red",
    "inner": [{"word": "a"}],
    "pair": [1, "b"],
    "perhaps": None,
}


def test_what_was_taken_apart_is_put_together_again() -> None:
    value = from_plain(Outer, PLAIN)
    assert value.inner == (Inner(word="a"),)
    assert json.loads(json.dumps(to_plain(value))) == PLAIN


@pytest.mark.parametrize(
    "change",
    [
        {"number": "1.5"},
        {"number": True},
        {"number": math.inf},
        {"number": 2**60},
        {"number": 10**400},
        {"count": 1.5},
        {"sure": 1},
        {"colour": "blue"},
        {"colour": ["red"]},
        {"inner": {}},
        {"inner": [{}]},
        {"inner": [{"word": "a", "more": 1}]},
        {"inner": [{"word": "a"}] * (ITEMS + 1)},
        {"inner": [{"word": "a\n"}]},
        {"inner": [{"word": "a" * (TEXT_LENGTH + 1)}]},
        {"pair": [1]},
        {"pair": [1, "b", 2]},
        {"perhaps": "no"},
        {"another": 1},
    ],
    ids=repr,
)
def test_anything_else_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(AnswerMalformed):
        from_plain(Outer, PLAIN | change)


def test_a_missing_field_is_refused() -> None:
    with pytest.raises(AnswerMalformed):
        from_plain(Outer, {name: value for name, value in PLAIN.items() if name != "count"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*PLAIN, "word"]) | st.text(), inner),
)


@settings(max_examples=60, deadline=None)
@given(json_values, st.dictionaries(st.sampled_from(list(PLAIN)), json_values))
def test_no_json_makes_it_fail_otherwise(whole: object, changes: dict[str, object]) -> None:
    for plain in (whole, PLAIN | changes):
        with contextlib.suppress(AnswerMalformed):
            from_plain(Outer, plain)


def test_characters_that_cannot_be_printed_do_not_leave_the_child() -> None:
    """A header's own words may stand in a finding."""
    assert to_plain(Inner(word="a\x1b[2J\n山")) == {"word": "a?[2J?山"}


def test_lead_images_with_every_field_survive_the_way() -> None:
    """A field that is added to them must be of a kind that can be checked."""
    leads = LeadImages(
        pixels=np.zeros(PIXELS_SHAPE, dtype=np.uint8),
        source=EcgSource.VECTOR_PDF,
        style=RenderStyle(),
        page_layout="3x4+1",
        seconds_recorded=10.0,
        derived_leads=("III",),
        quality=(QualityFinding(code="noisy", lead="V1", detail="mains"),),
        sampling_hz=500.0,
        signals_mv=np.zeros((len(LEADS), 10), dtype=np.float32),
        boxes=tuple(LeadBox(lead=lead, page=0, left=1.5, top=2.0, right=3.25, bottom=4.0) for lead in LEADS),
        page_order="standard",
        page_seconds_per_lead=2.5,
        pixels_per_mm=7.87,
        page_dots_per_inch=200.0,
    )
    arrays = {"pixels": leads.pixels, "signals_mv": leads.signals_mv}
    back = from_plain(LeadImages, json.loads(json.dumps(to_plain(leads))), arrays)
    assert to_plain(back) == to_plain(leads)
    assert back.derived_leads == leads.derived_leads
    assert back.boxes == leads.boxes
