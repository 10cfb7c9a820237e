"""The same signals give the same picture, whatever they were read from, and a picture says what it hides."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from ecg_ingest.lead_images import LEADS, RenderStyle
from ecg_ingest.recording import Recording
from ecg_ingest.render import HEIGHT, INK, WIDTH, choose_window, render
from tests.unit.ecg.ecg_builders import Signals

STYLE = RenderStyle()
DIGEST = "edcdbeda023a7e17e959a73ff9b0caecf1602ae4f98e42fb4e8805c17bb963fc"


def recording(rows: np.ndarray, hz: float = 500.0) -> Recording:
    return Recording(signals_mv=rows, sampling_hz=hz, clocks=(0,) * 12, derived_leads=(), findings=())


def synthetic(hz: float = 500.0, height: float = 1.0, width: float = 0.03) -> np.ndarray:
    """A bump each second in every lead, half a second after the full second."""
    phase = (np.arange(round(10 * hz)) / hz) % 1.0
    return np.tile(height * np.exp(-0.5 * ((phase - 0.5) / width) ** 2), (12, 1))


def ink(picture: np.ndarray) -> np.ndarray:
    """How dark each pixel is, 0 to 1."""
    return 1.0 - picture.astype(float).mean(axis=-1) / 255.0


def test_pictures_are_the_same_bytes_on_every_machine() -> None:
    # Exact in binary: no library function between the numbers and the picture.
    steps = (np.arange(5000) * 37 % 257 - 128) / 256.0
    pixels, _ = render(recording(np.tile(steps, (12, 1))), STYLE)
    again, _ = render(recording(np.tile(steps, (12, 1))), STYLE)
    np.testing.assert_array_equal(pixels, again)
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == DIGEST


def test_each_column_of_leads_shows_its_own_seconds() -> None:
    rows = np.zeros((12, 5000))
    for row in range(12):
        at = row // 3 * 1250 + 625
        rows[row, at - 10 : at + 10] = 1.0  # in the middle of the lead's own seconds
    pixels, findings = render(recording(rows), STYLE)
    assert findings == ()
    for row in range(12):
        dark = ink(pixels[row])[: HEIGHT // 2 - 5].max(axis=0)
        assert abs(int(np.mean(np.flatnonzero(dark > 0.5))) - WIDTH // 2) <= 1


@pytest.mark.parametrize(("layout", "seconds"), [("3x4", 2.5), ("6x2", 5.0), ("12x1", 10.0)])
def test_every_layout_takes_consecutive_seconds(layout: str, seconds: float) -> None:
    style = RenderStyle(layout=layout, seconds_per_lead=seconds)
    starts = [style.window_start(lead) for lead in LEADS]
    assert starts == sorted(starts)
    assert starts[-1] + seconds == 10.0
    assert render(recording(synthetic()), style)[1] == ()


def test_an_r_wave_keeps_its_height_at_every_sampling_rate() -> None:
    tops = []
    for hz in (125.0, 250.0, 500.0, 1000.0):
        pixels, _ = render(recording(synthetic(hz, width=0.012), hz), RenderStyle(grid=False))
        tops.append(int(np.flatnonzero((ink(pixels[0]) > 0.25).any(axis=1))[0]))
    assert max(tops) - min(tops) <= 2
    full = HEIGHT / 2 - HEIGHT / STYLE.millivolts_full_height  # where 1 mV is
    assert all(abs(top - full) <= 3 for top in tops)


def test_the_baseline_lies_in_the_middle_whatever_the_offset() -> None:
    plain, _ = render(recording(synthetic()), STYLE)
    lifted, _ = render(recording(synthetic() + 0.75), STYLE)
    np.testing.assert_array_equal(plain, lifted)
    middle = plain[0, HEIGHT // 2 - 1 : HEIGHT // 2 + 1, 5].astype(float).mean()
    assert middle < np.mean(INK) + 110


def test_a_wave_that_leaves_the_picture_is_reported() -> None:
    _, findings = render(recording(synthetic(height=4.0)), STYLE)
    assert {finding.code for finding in findings} == {"clipped"}
    assert {finding.lead for finding in findings} == set(LEADS)


def test_a_lead_recorded_at_other_seconds_is_shown_from_there_and_says_so() -> None:
    rows = synthetic()
    rows[3:, 1250:] = np.nan
    _, findings = render(recording(rows), STYLE)
    assert {finding.lead for finding in findings if finding.code == "window_moved"} == set(LEADS[3:])


def test_the_nearest_whole_window_is_taken_and_the_earlier_of_two() -> None:
    samples = np.zeros(1000)
    samples[400:500] = np.nan
    assert choose_window(samples, 100.0, 0.0, 2.5).start == 0
    moved = choose_window(samples, 100.0, 3.0, 2.5)
    assert (moved.start, moved.moved) == (150, True)
    assert choose_window(samples, 100.0, 4.9, 2.5).start == 500 - 0
    assert choose_window(samples, 100.0, 3.25, 2.5).start == 150  # 500 is as near


def test_a_lead_cut_short_is_shown_from_where_it_should_begin_and_the_rest_stays_empty() -> None:
    samples = np.full(1000, math.nan)
    samples[250:430] = 0.0
    window = choose_window(samples, 100.0, 2.5, 2.5)
    assert (window.start, window.end, window.moved) == (250, 500, False)
    assert choose_window(samples, 100.0, 0.0, 2.5).moved


def test_a_sheet_that_ends_a_sample_early_is_not_moved() -> None:
    rows = synthetic()
    rows[:, 4985:] = np.nan
    _, findings = render(recording(rows), STYLE)
    assert {(finding.code, finding.lead) for finding in findings} == {("rendered_short", lead) for lead in LEADS[9:]}


def test_the_grid_is_paper_and_can_be_left_out() -> None:
    flat = np.zeros((12, 5000))
    grid, _ = render(recording(flat), STYLE)
    plain, _ = render(recording(flat), RenderStyle(grid=False))
    assert len(np.unique(plain[0, 0].reshape(-1, 3), axis=0)) == 1
    redness = grid[0, 4, :, 0].astype(int) - grid[0, 4, :, 1].astype(int)
    strong = np.flatnonzero(redness > 30)
    assert np.median(np.diff(strong[np.diff(strong, prepend=-9) > 2])) == pytest.approx(WIDTH / 12.5, abs=1.0)


@pytest.mark.parametrize(
    "fields",
    [
        {"layout": "4x3"},
        {"seconds_per_lead": 0.0},
        {"seconds_per_lead": math.nan},
        {"millivolts_full_height": -1.0},
        {"paper_mm_per_second": math.inf},
        {"paper_mm_per_millivolt": "10"},
        {"grid": 1},
    ],
)
def test_a_style_that_cannot_be_drawn_is_refused_when_made(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        RenderStyle(**fields)  # type: ignore[arg-type]


def test_a_real_record_fills_its_pictures(heart: Signals) -> None:
    pixels, _ = render(recording(np.stack([heart[lead] for lead in LEADS])), STYLE)
    for picture in pixels:
        assert (ink(picture) > 0.3).any(axis=0).all()  # a line in every column
