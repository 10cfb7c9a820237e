"""Pictures of ECG sheets: every lead in its place, or a refusal. Sheets are drawn with known truth."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from ecg_ingest import LEADS, EcgSource, LeadImages, RefusalReason, RenderStyle, read
from ecg_ingest.cheapest_path import cheapest_paths
from ecg_ingest.glyphs import shapes
from ecg_ingest.ink import Ink, without_bars
from ecg_ingest.paper_grid import grid_scales, tint, without_ink
from ecg_ingest.printed_labels import find_printed_labels
from ecg_ingest.raster_columns import find_columns
from ecg_ingest.row_bands import band_costs, row_bands
from ecg_ingest.trace import Line
from ecg_ingest.unbend import find_bend
from tests.benchmarks.ecg_adversarial import Case, cases, outcome
from tests.benchmarks.ecg_sheets import Look, Sheet, draw
from tests.benchmarks.ecg_signals import HZ, made_heart

STYLE = RenderStyle()
CASES = cases()


def drawn(**knobs: Any) -> Sheet:
    """A scan of a made heart; the seed of creases, stamps and noise is fixed."""
    return draw(made_heart(11), HZ, Look(**({"pixels_per_mm": 6.0, "label_mm": 3.2} | knobs)), seed=3)


def likeness(images: LeadImages, sheet: Sheet, lead: str) -> float:
    """Correlation of a lead's signal with what its cell shows, at the best shift within 40 ms."""
    truth = sheet.signals[lead]
    found = images.signals_mv[LEADS.index(lead)].astype(np.float64)[sheet.starts[lead] :][: truth.size]
    best = -1.0
    for lag in range(-20, 21):
        a, b = found[max(0, lag) : found.size + min(0, lag)], truth[max(0, -lag) :]
        a, b = a[: min(a.size, b.size)], b[: min(a.size, b.size)]
        both = np.isfinite(a) & np.isfinite(b)
        best = max(best, float(np.corrcoef(a[both], b[both])[0, 1]))
    return best


def boxes_hold_their_cells(images: LeadImages, sheet: Sheet) -> bool:
    """Whether each box's middle lies in the middle half of its own cell."""
    for box in images.boxes:
        x0, y0, x1, y1 = sheet.box(box.lead)
        across = ((box.left + box.right) / 2 - x0) / (x1 - x0)
        down = ((box.top + box.bottom) / 2 - y0) / (y1 - y0)
        if not (0.25 < across < 0.75 and 0.25 < down < 0.75):
            return False
    return True


def test_a_scan_gives_layout_scale_boxes_and_signals() -> None:
    sheet = drawn()
    images = read(sheet.file(), style=STYLE)
    assert (images.source, images.page_layout, images.page_order) == (EcgSource.RASTER, "3x4+1", "standard")
    assert images.page_seconds_per_lead == 2.5
    assert images.pixels_per_mm == pytest.approx(6.0, rel=0.01)
    assert [box.lead for box in images.boxes] == list(LEADS)
    assert boxes_hold_their_cells(images, sheet)
    assert float(np.median([likeness(images, sheet, lead) for lead in LEADS])) > 0.95
    assert all(likeness(images, sheet, lead) > 0.8 for lead in LEADS)


def test_a_sheet_upside_down_gives_boxes_on_the_picture_as_given() -> None:
    sheet = drawn(quarter_turns=2)
    images = read(sheet.file(), style=STYLE)
    assert images.page_layout == "3x4+1"
    assert boxes_hold_their_cells(images, sheet)


def test_cabrera_order_is_told_from_the_standard_one_and_its_minus_avr_is_turned_back() -> None:
    sheet = drawn(layout="6x2", order="cabrera", rhythm=())
    images = read(sheet.file(), style=STYLE)
    assert (images.page_layout, images.page_order) == ("6x2", "cabrera")
    assert boxes_hold_their_cells(images, sheet)
    assert likeness(images, sheet, "aVR") > 0.8


@pytest.mark.parametrize("order", ["standard", "cabrera"])
def test_labels_between_two_rows_belong_to_the_row_for_which_the_strip_s_own_name_speaks(order: str) -> None:
    sheet = drawn(order=order, label_place="below", pitch_mm=26.0)
    images = read(sheet.file(), style=STYLE)
    assert (images.page_layout, images.page_order) == ("3x4+1", order)
    assert boxes_hold_their_cells(images, sheet)


def test_labels_between_two_rows_are_ambiguous_if_the_strip_bears_another_lead_s_name() -> None:
    sheet = drawn(label_place="below", pitch_mm=26.0, rhythm=("V1",))
    left, _, _, bottom = sheet.box("III")
    across, down = slice(round(left), round(left) + 54), round(bottom) + 90  # 9 mm; 15 mm under the strip's top
    sheet.rgb[down : down + 66, across] = sheet.rgb[down - 156 : down - 90, across]  # III, a row higher, over V1
    assert outcome(sheet.file()) is RefusalReason.LAYOUT_AMBIGUOUS


def test_names_that_the_traces_run_into_are_read() -> None:
    sheet = drawn(layout="6x2", rhythm=(), label_place="on", font="VeraBd.ttf", label_mm=2.8)
    images = read(sheet.file(), style=STYLE)
    assert images.page_layout == "6x2"
    assert boxes_hold_their_cells(images, sheet)


@pytest.mark.parametrize(
    "bent", [{"keystone": 0.06, "bend": 1.5}, {"keystone": 0.1, "bend": 3.0, "tilt_degrees": 1.5}], ids=str
)
def test_a_photograph_of_bent_paper_is_laid_flat(bent: dict[str, float]) -> None:
    sheet = drawn(shadow=0.2, **bent)
    images = read(sheet.file(), style=STYLE)
    assert boxes_hold_their_cells(images, sheet)
    assert float(np.median([likeness(images, sheet, lead) for lead in LEADS])) > 0.9


@pytest.mark.parametrize(("beside_mm", "contradicted"), [(0.0, False), (4.0, True)])
def test_columns_are_contradicted_by_lines_that_break_together_beside_them(
    beside_mm: float, contradicted: bool
) -> None:
    across, width, left = 8.0, 500.0, 100
    lines = []
    for level in (200.0, 400.0, 600.0):
        heights = np.full(2300, np.nan)
        heights[left : left + 2000] = level
        for column in range(1, 4):
            heights[left + round(column * width + beside_mm * across) : left + 2000] = level + 8.0 * (column % 2)
        lines.append(Line(top=heights - 0.5, bottom=heights + 0.5, thickness=2.0))
    labels = [left + 8.0 + column * width for column in range(4)]
    columns = find_columns(lines, [[], [], []], labels, width, across, across)
    assert columns.starts[0] == pytest.approx(left, abs=2.0)
    assert columns.contradicted is contradicted


def test_the_map_of_a_bent_grid_knows_how_many_millimetres_lie_between_two_places() -> None:
    sheet = drawn(keystone=0.06, bend=2.0)
    pattern = tint(sheet.rgb)
    bend = find_bend(without_ink(pattern, sheet.rgb), 0.0, grid_scales(pattern)[0])
    assert bend is not None
    assert not bend.is_flat
    for lead in ("I", "aVF", "V1", "V6"):
        corners = bend.millimetres(sheet.boxes[lead])
        assert np.ptp(corners[:, 0]) == pytest.approx(62.5, abs=1.0)
        assert np.ptp(corners[:, 1]) == pytest.approx(32.0, abs=1.0)


def test_a_flat_grid_needs_no_map() -> None:
    sheet = drawn(rhythm=())
    pattern = tint(sheet.rgb)
    bend = find_bend(without_ink(pattern, sheet.rgb), 0.0, grid_scales(pattern)[0])
    assert bend is not None
    assert bend.is_flat


def test_a_name_that_a_column_s_bar_strikes_is_read_without_the_bar() -> None:
    darkness = np.zeros((240, 400), dtype=np.float32)
    word = shapes().by_name["aVR", "_a______.pfb+0"]
    wide = round(28 * word.aspect)
    darkness[100:128, 102 : 102 + wide] = cv2.resize(word.picture, (wide, 28), interpolation=cv2.INTER_AREA)
    darkness[40:130, 100:104] = 1.0  # through the a's left side
    ink = Ink(darkness=darkness, mask=darkness > 0.4, level=1.0, grid_level=0.0)
    assert "aVR" not in [label.lead for label in find_printed_labels(ink, 8.0)]
    assert [label.lead for label in find_printed_labels(without_bars(ink, 8.0), 8.0)] == ["aVR"]


def test_rows_are_followed_alike_one_at_a_time_and_all_at_once() -> None:
    mask = np.zeros((300, 400), dtype=np.bool_)
    columns = np.arange(400)
    levels = [60.0, 110.0, 160.0, 210.0, 260.0]
    for level in levels:
        heights = np.rint(level + 30.0 * np.exp(-(((columns % 100) - 50) ** 2) / 30.0)).astype(int)
        mask[heights, columns] = mask[heights + 1, columns] = True
    rows = [np.full(400, level) for level in levels]
    bands = row_bands(rows, 300, 5.0)
    upright = np.ascontiguousarray(mask.T)
    together, _ = cheapest_paths(*band_costs(upright, rows, bands, range(5), 5.0))
    for number in range(5):
        alone, _ = cheapest_paths(*band_costs(upright, rows, bands, [number], 5.0))
        np.testing.assert_array_equal(alone[0], together[number])


def test_a_sheet_without_a_pulse_says_that_its_gain_is_assumed() -> None:
    codes = {finding.code for finding in read(drawn(pulse="none").file(), style=STYLE).quality}
    assert "gain_assumed" in codes


def test_a_pdf_that_holds_a_scan_is_read_by_its_pixels() -> None:
    sheet = drawn()
    buffer = io.BytesIO()
    Image.fromarray(sheet.rgb).save(buffer, "PDF", resolution=6.0 * 25.4)
    images = read(buffer.getvalue(), style=STYLE)
    assert (images.source, images.page_layout) == (EcgSource.RASTER, "3x4+1")
    assert images.page_dots_per_inch == 200


@pytest.mark.parametrize("case", [case for case in CASES if not case.drawn], ids=lambda case: case.name)
def test_an_input_that_is_no_ordinary_ecg_has_its_right_outcome(case: Case) -> None:
    assert outcome(case.make()) in case.right


QUICK = (
    "V1 and V2 named the wrong way round",
    "5 mm/mV",
    "50 mm/s",
    "noise",
    "blank grid paper",
    "six leads only",
    "degraded 27: V5 named V6",
    "clean 207: V5 named V6",
)


@pytest.mark.parametrize("case", [case for case in CASES if case.name in QUICK], ids=lambda case: case.name)
def test_a_picture_that_is_no_ordinary_ecg_has_its_right_outcome(case: Case) -> None:
    assert outcome(case.make()) in case.right


@pytest.mark.long
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.drawn and case.name not in QUICK], ids=lambda case: case.name
)
def test_every_other_picture_has_its_right_outcome_too(case: Case) -> None:
    assert outcome(case.make()) in case.right
