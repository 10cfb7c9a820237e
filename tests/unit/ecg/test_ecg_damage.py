"""Sheets that were folded, written on, stamped, photographed askew or cut: read all the same, or refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ecg_ingest import LEADS, EcgRefused, RefusalReason, RenderStyle, raster, read
from ecg_ingest.crossings import Run, divide
from ecg_ingest.flatten import Paper, read_paper
from ecg_ingest.folds import without_folds
from ecg_ingest.ink import Ink, find_ink
from ecg_ingest.paper_grid import GridScale
from ecg_ingest.pen_marks import pen_marks
from ecg_ingest.raster_columns import Columns, PrintedPulse, erase_words, uneven
from ecg_ingest.raster_layout import LAYOUTS
from ecg_ingest.raster_signals import cell_signals, moved_left, row_shifts, strokes_in_doubt
from ecg_ingest.second_look import lone_bar
from ecg_ingest.trace import Line, Row, follow
from tests.unit.ecg.test_ecg_raster import boxes_hold_their_cells, drawn, likeness

STYLE = RenderStyle()
SMALL = 5.0  # pixels a millimetre: what is still read well, and fast
BLACK, BLUE, RED = (20, 20, 25), (40, 50, 150), (222, 118, 124)


def shadow(height: int, width: int, at: float, lean: float) -> NDArray[np.float32]:
    """A fold from top to bottom, three tenths dark in its middle and about a millimetre wide at 6 pixels each."""
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    away = columns - at - lean * (rows - height / 2)
    return (0.3 * np.exp(-((away / 4.0) ** 2))).astype(np.float32)


def strokes(height: int, width: int) -> NDArray[np.float32]:
    """Twelve rows that beat at once: their strokes stand in line, and cover most of the height."""
    ink = np.zeros((height, width), np.float32)
    for level in np.linspace(60, height - 60, 12).round().astype(int).tolist():
        ink[level - 1 : level + 2] = 0.9
        for beat in range(80, width, 150):
            ink[level - 50 : level, beat : beat + 3] = 0.9
    return ink


def test_a_fold_s_shadow_is_taken_out_and_strokes_and_level_lines_stay() -> None:
    ink, fold = strokes(1100, 1600), shadow(1100, 1600, 700.0, 0.05)
    cleared = without_folds(1.0 - (1.0 - ink) * (1.0 - fold), 0.9, 6.0)
    assert float(cleared[ink == 0.0].max()) < 0.1
    assert float(cleared[ink > 0.0].min()) > 0.8


def test_a_sheet_without_folds_is_left_as_it_is() -> None:
    ink = strokes(1100, 1600)
    assert without_folds(ink, 0.9, 6.0) is ink


def test_a_fold_across_the_rows_is_taken_out_too() -> None:
    ink, fold = strokes(1100, 1600), np.ascontiguousarray(shadow(1600, 1100, 538.0, 0.0).T)
    cleared = without_folds(1.0 - (1.0 - ink) * (1.0 - fold), 0.9, 6.0)
    assert float(np.quantile(cleared[ink == 0.0], 0.999)) < 0.1


def written_on() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A black line, a blue one across it, a red stamp over both ends; and where the black line is."""
    rgb = np.full((200, 400, 3), 250, np.uint8)
    cv2.circle(rgb, (340, 100), 45, RED, 6)
    cv2.line(rgb, (60, 40), (140, 170), BLUE, 3)
    black = np.zeros((200, 400), np.uint8)
    cv2.line(black, (10, 100), (390, 100), 1, 3)
    under = (rgb[..., 0] == RED[0]) & (black > 0)
    rgb[black > 0] = BLACK
    rgb[under] = np.rint(0.6 * np.array((200, 30, 40)) + 0.4 * np.array(BLACK)).astype(np.uint8)
    return rgb, black > 0


def test_handwriting_of_another_colour_is_no_ink_and_a_trace_under_a_stamp_is() -> None:
    rgb, trace = written_on()
    darkness = (1.0 - rgb.max(axis=2) / 250.0).astype(np.float32)
    mask = darkness > 0.2
    kept = mask & ~pen_marks(rgb, darkness, mask, 0.45)
    assert kept[trace].all()
    assert float((kept & ~trace).sum()) < 0.05 * float((mask & ~trace).sum())


def test_a_sheet_printed_in_one_colour_loses_nothing() -> None:
    rgb, _ = written_on()
    rgb[...] = np.where((rgb == BLUE).all(axis=2)[..., None], rgb, 250)
    darkness = (1.0 - rgb.max(axis=2) / 250.0).astype(np.float32)
    assert not pen_marks(rgb, darkness, darkness > 0.2, 0.3).any()


@pytest.mark.parametrize(
    "damage",
    [{"creases": 2, "paper": "faded"}, {"handwriting": True, "paper": "faded"}, {"stamp": True, "contrast": 0.7}],
    ids=str,
)
def test_a_damaged_scan_gives_the_signals_of_a_whole_one(damage: dict[str, object]) -> None:
    sheet = drawn(rhythm=(), pixels_per_mm=SMALL, blur=0.6, noise=2.0, **damage)
    images = read(sheet.file(), style=STYLE)
    assert boxes_hold_their_cells(images, sheet)
    assert min(likeness(images, sheet, lead) for lead in LEADS) > 0.9


def test_shadows_of_folds_are_no_ink() -> None:
    sheet = drawn(creases=2, paper="faded")
    assert find_ink(sheet.rgb, 6.0).mask[10:100, :].mean() < 0.05  # above the rows: a header, and folds


def beating(width: int, places: list[float], level: float) -> Line:
    """A level line with strokes at these places."""
    top, bottom = np.full(width, level - 1.0), np.full(width, level + 1.0)
    for place in places:
        top[round(place) - 2 : round(place) + 3] = level - 30.0
    return Line(top=top, bottom=bottom, thickness=2.0)


@pytest.mark.parametrize("apart_mm", [0.0, 5.0])
def test_rows_of_a_sheet_seen_from_above_beat_at_once_again(apart_mm: float) -> None:
    width, beats, pixels_per_mm = 1500, np.arange(120.0, 1400.0, 160.0), 6.0
    lines = []
    for row in range(6):
        stretched = 1.0 + (row - 2.5) / 5.0 * apart_mm * pixels_per_mm / (width / 2.0)
        lines.append(beating(width, (750.0 + (beats - 750.0) * stretched).tolist(), 100.0 * (row + 1)))
    shifts = row_shifts(lines, pixels_per_mm)
    assert (shifts == 0.0).all() == (apart_mm == 0.0)
    for line, shift in zip(lines, shifts, strict=True):
        moved = moved_left(line, shift)
        found = np.flatnonzero(np.diff((moved.bottom - moved.top > 10.0).astype(int)) == 1) + 3
        assert np.abs(found - beats).max() <= 4.0


def test_a_line_that_is_interrupted_does_not_take_its_neighbour_s_ink() -> None:
    mask = np.zeros((240, 900), dtype=np.bool_)
    mask[79:82] = mask[139:142] = True
    mask[139:142, 400:700] = False
    rows = [Row(heights=np.full(900, level), coverage=1.0) for level in (80.0, 140.0)]
    upper, lower = follow(rows, mask, mask.astype(np.float32), 6.0)
    assert np.isfinite(upper.top).all()
    assert np.isfinite(lower.top[:390]).all()
    assert np.isfinite(lower.top[710:]).all()
    assert not (np.abs(lower.middle[410:690] - 80.0) < 5.0).any()


def touching(columns: int, pixels_per_mm: float = 6.0) -> tuple[Run, Run]:
    """Two rows 20 mm apart; an S wave and an R wave of 12 mm towards one another, one run of ink in some columns."""
    tall = 72.0
    upper, lower = level_lines()
    upper[1, 95:105] += tall
    lower[0, 95:105] -= tall
    middle = slice(100 - columns // 2, 100 - columns // 2 + columns)
    upper[:, middle] = lower[:, middle] = np.array([[99.0], [221.0]])
    return divided(upper, lower, pixels_per_mm)


def level_lines() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First and last row [2, 200] of two level lines, 120 pixels apart."""
    upper, lower = (np.stack((np.full(200, level - 1), np.full(200, level + 1))) for level in (100.0, 220.0))
    return upper, lower


def divided(upper: NDArray[np.float64], lower: NDArray[np.float64], pixels_per_mm: float = 6.0) -> tuple[Run, Run]:
    """The two rows' runs after each stroke between them was given to one."""
    paths = np.full(200, 100), np.full(200, 220)
    one, other = (
        Run(path=path, on=np.ones(200, np.bool_), ends=ends, whole=ends.copy(), other=ends.copy())
        for path, ends in zip(paths, (upper, lower), strict=True)
    )
    divide(one, other, pixels_per_mm)
    return one, other


def test_waves_of_two_rows_that_touch_stay_as_long_as_they_are_beside() -> None:
    upper, lower = touching(3)
    assert float(upper.end.max()) == 173.0
    assert float(lower.start.min()) == 147.0
    assert (upper.other == upper.ends).all()
    assert (lower.other == lower.ends).all()


def hidden(step: float, beyond: float = 0.0, alone: float = 0.0) -> tuple[Run, Run]:
    """Waves that grow by `step` pixels a column towards one another, the middle five columns one run of ink.

    `beyond` is how far that ink goes below the lower row; `alone` an S wave elsewhere that nothing touches.
    """
    upper, lower = level_lines()
    for away in range(3, 8):
        for column in (100 - away, 100 + away):
            upper[1, column] += (8 - away) * step
            lower[0, column] -= (8 - away) * step
    upper[1, 75] += alone
    upper[:, 98:103] = lower[:, 98:103] = np.array([[99.0], [221.0 + beyond]])
    return divided(upper, lower)


def test_waves_hidden_by_one_another_go_on_as_steeply_as_beside() -> None:
    upper, lower = hidden(10.0)
    assert 152.0 < float(upper.end[100]) < 182.0
    assert 138.0 < float(lower.start[100]) < 168.0
    assert (upper.end[98:103] >= lower.start[98:103] - 1.0).all()
    assert (upper.other != upper.ends).any()


def test_waves_hidden_by_one_another_go_no_farther_than_those_that_nothing_touches() -> None:
    upper, _ = hidden(10.0, alone=54.0)
    assert float(upper.end[100]) <= 101.0 + 54.0
    upper, _ = hidden(10.0, alone=20.0)  # a smaller one says nothing
    assert float(upper.end[100]) > 101.0 + 54.0


def test_a_wave_that_may_have_gone_on_through_the_other_row_is_in_doubt_all_the_way() -> None:
    upper, lower = hidden(18.0, beyond=30.0)
    assert (upper.other[1, 100:101] == 251.0).all()
    assert (lower.other[1, 100:101] < 251.0).all()
    upper, lower = hidden(18.0)
    assert float(upper.other[1].max()) < 240.0


def test_a_stroke_that_may_be_either_row_s_is_in_doubt() -> None:
    upper, lower = touching(14)
    assert (upper.other != upper.ends).any()
    assert (lower.other != lower.ends).any()


@pytest.mark.parametrize(
    ("fall_mm", "rise_mm", "doubted"),
    [(0.0, 0.0, True), (0.6, 0.9, True), (0.7, 1.0, True), (0.0, 4.0, False), (4.0, 0.0, False)],
)
def test_a_stroke_of_two_columns_is_in_doubt_unless_its_flanks_say_whose_it_is(
    fall_mm: float, rise_mm: float, doubted: bool
) -> None:
    upper, lower = level_lines()
    upper[1, 98:100] += fall_mm * 6.0
    lower[0, 98:100] -= rise_mm * 6.0
    upper[:, 100:102] = lower[:, 100:102] = np.array([[99.0], [221.0]])
    one, other = divided(upper, lower)
    assert bool((one.other != one.ends).any()) is doubted
    assert bool((other.other != other.ends).any()) is doubted


@pytest.mark.parametrize(
    ("doubt", "leads", "refused"),
    [(0.0, 1, False), (24.0, 1, True), (3.0, 1, False), (8.0, 1, False), (8.0, 3, True)],
    ids=["no doubt", "much in one lead", "little in one lead", "some in one lead", "some in three leads"],
)
def test_leads_whose_strokes_may_be_their_neighbours_are_refused(doubt: float, leads: int, refused: bool) -> None:
    layout = next(layout for layout in LAYOUTS if layout.name == "12x1")
    beats = [100.0, 250.0, 400.0]
    lines = [beating(500, beats, 100.0 * (row + 1)) for row in range(12)]
    for row in range(7, 7 + leads):
        lines[row] = replace(lines[row], doubt=np.where(lines[row].bottom - lines[row].top > 10.0, doubt, 0.0))
    columns = Columns(starts=(0.0, 500.0), contradicted=False, framed=True)
    if not refused:
        cells = cell_signals(lines, layout, columns, 6.0)
        assert set(cells) == set(LEADS)
        told = [(finding.code, finding.lead) for finding in strokes_in_doubt(cells)]
        assert told == ([("strokes_in_doubt", "V2")] if doubt == 8.0 else [])
        return
    with pytest.raises(EcgRefused) as refusal:
        cell_signals(lines, layout, columns, 6.0)
    assert refusal.value.reason is RefusalReason.TRACES_OVERLAP
    assert "V2" in refusal.value.detail


@pytest.mark.parametrize("slope", [0.0, 0.1])
def test_a_trace_that_runs_along_through_letters_stays(slope: float) -> None:
    mask = np.zeros((60, 100), dtype=np.bool_)
    trace = np.rint(30.0 + slope * np.arange(100)).astype(int)
    for offset in (-1, 0, 1):
        mask[trace + offset, np.arange(100)] = True
    letter = np.zeros((20, 40), dtype=np.float32)
    letter[:, 2:38] = 1.0
    mask[22:42, 32:68] = True
    cleared = erase_words(mask, [(30.0, 22.0, 70.0, 42.0)], [letter], 6.0)
    assert cleared.any(axis=0).all()
    assert cleared.sum(axis=0).max() <= 5
    above = mask.copy()
    above[:20] = False
    above[trace - 1, np.arange(100)] = above[trace, np.arange(100)] = above[trace + 1, np.arange(100)] = False
    above[22:42, 32:68] = True
    assert not erase_words(above, [(30.0, 22.0, 70.0, 42.0)], [letter], 6.0).any()  # no trace: nothing is left


def test_rims_of_letters_that_stand_a_little_higher_are_cleared() -> None:
    mask = np.zeros((60, 100), dtype=np.bool_)
    mask[45:48] = True
    mask[18:40, 40:50] = True
    cleared = erase_words(mask, [(40.0, 20.0, 50.0, 40.0)], [np.ones((20, 10), dtype=np.float32)], 6.0)
    assert cleared.sum() == mask[45:48].sum()


def test_a_wave_s_piece_is_no_lone_i() -> None:
    darkness = np.zeros((80, 200), dtype=np.float32)
    darkness[30:50, 100:104] = 1.0  # a bar as tall as letters
    ink = Ink(darkness=darkness, mask=darkness > 0.4, level=1.0, grid_level=0.0)
    assert lone_bar(ink, (100.0, 40.0), 20.0, 6.0)
    assert not lone_bar(ink, (65.0, 40.0), 20.0, 6.0)  # the window's edge cuts it
    ink.mask[30:33, 97:107] = ink.mask[47:50, 97:107] = True
    assert lone_bar(ink, (100.0, 40.0), 20.0, 6.0)  # with serifs
    ink.mask[33:47, 97] = ink.mask[33:47, 106] = True
    assert not lone_bar(ink, (100.0, 40.0), 20.0, 6.0)  # a box


def test_letters_that_reach_beyond_the_page_are_passed_over() -> None:
    mask = np.ones((60, 80), dtype=np.bool_)
    letter = np.ones((10, 10), dtype=np.float32)
    boxes = [(-5.0, 10.0, 8.0, 20.0), (70.0, 10.0, 90.0, 20.0), (10.0, 55.0, 20.0, 70.0), (10.0, -6.0, 20.0, 4.0)]
    assert (erase_words(mask, boxes, [letter] * len(boxes), 6.0) == mask).all()


def test_a_sheet_whose_layout_reaches_beyond_the_page_is_refused() -> None:
    rgb = drawn(pixels_per_mm=SMALL).rgb
    done, data = cv2.imencode(".png", cv2.cvtColor(rgb[: round(0.6 * rgb.shape[0])], cv2.COLOR_RGB2BGR))
    assert done
    with pytest.raises(EcgRefused) as refused:
        read(bytes(data), style=STYLE)
    assert refused.value.reason in (
        RefusalReason.ROWS_DO_NOT_MATCH,
        RefusalReason.LABELS_INSUFFICIENT,
        RefusalReason.NOT_AN_ECG,
        RefusalReason.LAYOUT_AMBIGUOUS,
    )


def test_paper_whose_labels_do_not_stand_where_its_grid_says_is_refused_as_warped() -> None:
    """Bent, and its last two columns stand seven millimetres further than its grid says: time would not run evenly."""
    sheet = drawn(
        bend=2.0, keystone=0.06, separators="none", pulse="none", header=False, rhythm=(), pixels_per_mm=SMALL
    )
    rgb, apart = sheet.rgb, round(7.0 * SMALL)
    at = round(sheet.box("V1")[0]) - 6
    ink = rgb.max(axis=2) < 120
    moved = np.zeros_like(ink)
    moved[:, :at] = ink[:, :at]
    moved[:, at + apart :] = ink[:, at:-apart]
    paper = cv2.inpaint(rgb, cv2.dilate(ink.astype(np.uint8), np.ones((5, 5), np.uint8)), 3, cv2.INPAINT_TELEA)
    paper[moved] = 20
    done, data = cv2.imencode(".png", cv2.cvtColor(paper, cv2.COLOR_RGB2BGR))
    assert done
    with pytest.raises(EcgRefused) as refused:
        read(bytes(data), style=STYLE)
    assert refused.value.reason is RefusalReason.WARPED


@pytest.mark.parametrize(
    ("widths_mm", "proved"), [((), False), ((float("nan"),), False), ((5.2, 4.9), True), ((5.9, 5.8), False)]
)
def test_a_single_column_on_doubtful_paper_is_uneven_unless_a_pulse_is_as_wide_as_it_should_be(
    widths_mm: tuple[float, ...], proved: bool
) -> None:
    pulses = [PrintedPulse(width_mm=width, height_mm=10.0, left=10, right=40) for width in widths_mm]
    columns = Columns(starts=(50.0, 1550.0), contradicted=False, framed=True)
    assert uneven([60.0], columns, pulses, 6.0) is not proved


@pytest.mark.parametrize("framed", [True, False])
def test_labels_on_doubtful_paper_stand_more_evenly_where_the_lines_do_not_begin_and_end_with_the_columns(
    framed: bool,
) -> None:
    columns = Columns(starts=(0.0, 400.0, 800.0, 1200.0), contradicted=False, framed=framed)
    assert uneven([12.0, 412.0, 803.0], columns, [], 6.0) is not framed  # 1.5 mm
    assert not uneven([12.0, 412.0, 806.0], columns, [], 6.0)  # 1 mm
    assert uneven([12.0, 412.0, 797.0], columns, [], 6.0)  # 2.5 mm


@dataclass(frozen=True)
class Bent:
    """What a grid says of a paper, as far as it is asked."""

    is_flat: bool
    residual_mm: float = 9.0
    straight_mm: float = 9.0


def test_paper_whose_grid_is_neither_flat_nor_bent_believably_is_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards: a photograph from the side was read by a grid that explained an eighth of the picture."""
    sheet = drawn(keystone=0.06)
    assert read_paper(sheet.rgb).straightened is not None
    monkeypatch.setattr("ecg_ingest.flatten.find_bend", lambda *_: None)
    assert read_paper(sheet.rgb).doubtful
    assert not read_paper(drawn().rgb).doubtful  # a grid that is clearly flat


def test_a_grid_other_than_the_likeliest_does_not_prove_that_paper_is_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards: a sheet was read by one grid, in which it lay bent, because it lay flat in another."""
    paper = read_paper(drawn(keystone=0.06).rgb, as_it_lies=True)
    one, other = GridScale(across=5.0, down=5.0, score=0.14), GridScale(across=7.5, down=7.5, score=0.11)
    monkeypatch.setattr("ecg_ingest.flatten.tint", lambda rgb: rgb[..., 0].astype(np.float32))
    monkeypatch.setattr("ecg_ingest.flatten.grid_scales", lambda _: [one, other])
    for flat, doubtful in ((one, False), (other, True)):
        bends = {scale.score: Bent(is_flat=scale is flat) for scale in (one, other)}
        monkeypatch.setattr(
            "ecg_ingest.flatten.find_bend", lambda _pattern, _tilt, scale, bends=bends: bends[scale.score]
        )
        assert read_paper(paper.rgb).doubtful is doubtful


def test_paper_whose_grid_seems_bent_and_that_is_taken_for_flat_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def misled(picture: NDArray[np.uint8], *, as_it_lies: bool = False) -> Paper:
        if not as_it_lies:
            raise EcgRefused(RefusalReason.WARPED, "bent", "")
        return read_paper(picture, as_it_lies=True)

    sheet = drawn(rhythm=(), pixels_per_mm=SMALL)
    codes = [{finding.code for finding in raster.read_raster(sheet.rgb).recording.findings}]
    monkeypatch.setattr(raster, "read_paper", misled)
    codes.append({finding.code for finding in raster.read_raster(sheet.rgb).recording.findings})
    assert ["paper_taken_for_flat" in some for some in codes] == [False, True]
