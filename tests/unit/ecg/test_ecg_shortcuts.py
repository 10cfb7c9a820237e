"""What reading a sheet does quickly gives what the slow way gives. Random inputs are seeded."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ecg_ingest import hidden_labels, ink, printed_labels, row_runs, trace

CHANCE = np.random.default_rng(5)


def beating(levels: list[float], height: int, pen: int = 3) -> NDArray[np.bool_]:
    """Lines with a narrow upright wave every hundred columns, joined up and down as a pen would."""
    columns = np.arange(400)
    mask = np.zeros((height, columns.size), dtype=np.bool_)
    for level in levels:
        way = np.rint(level - 34.0 * np.exp(-(((columns % 100) - 50) ** 2) / 14.0)).astype(int)
        for column in range(1, columns.size):
            low, high = sorted((way[column - 1], way[column]))
            mask[low : high + pen, column] = True
    return mask


@pytest.mark.parametrize("shares", [(0.994,), (0.93, 0.994), (0.3, 0.5)])
def test_quantiles_among_the_darkest_are_those_of_all_pixels(shares: tuple[float, ...]) -> None:
    darkness = np.clip(CHANCE.normal(0.0, 0.2, (300, 402)), 0.0, 1.0).astype(np.float32)
    np.testing.assert_allclose(ink._quantiles(darkness, *shares), np.quantile(darkness[::2, ::2], shares), atol=1e-6)


def test_pieces_measured_on_the_ink_are_those_that_opencv_measures() -> None:
    mask = cv2.dilate((CHANCE.random((200, 310)) < 0.01).astype(np.uint8), np.ones((3, 4), np.uint8)) > 0
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    found_numbers, found = printed_labels._connected(mask)
    assert count > 50
    np.testing.assert_array_equal(found_numbers, numbers)
    np.testing.assert_array_equal(found, stats[1:])


def test_likeness_to_a_letter_is_opencv_s() -> None:
    dark = cv2.GaussianBlur((CHANCE.random((160, 200)) < 0.05).astype(np.float32), (0, 0), 1.2)
    dark += printed_labels.grain((160, 200))
    letter = printed_labels.sized("V", "Vera.ttf+0", 13.0)
    found = hidden_labels._likeness(dark, letter, hidden_labels._spread(dark, *letter.shape))
    np.testing.assert_allclose(found, cv2.matchTemplate(dark, letter, cv2.TM_CCOEFF_NORMED), atol=1e-4)


def test_rows_followed_two_pixels_at_once_have_the_same_runs_of_ink(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = [90.0, 201.0, 310.0]
    upright = np.ascontiguousarray(beating(levels, 371).T)
    rows = [np.full(400, level) for level in levels]
    quick = row_runs.row_runs(upright, rows, 8.0)
    monkeypatch.setattr(row_runs, "_TOGETHER", 1)
    for one, other in zip(quick, row_runs.row_runs(upright, rows, 8.0), strict=True):
        assert one.on[1:].all()
        np.testing.assert_array_equal(one.on, other.on)
        np.testing.assert_array_equal(one.ends[:, one.on], other.ends[:, one.on])


def test_a_path_leaves_a_speck_for_the_stroke_on_its_way() -> None:
    upright = np.zeros((3, 40), dtype=np.bool_)
    upright[:, 10:30] = True
    upright[1, 11] = False  # the middle column's first pixel stands off its stroke
    path = np.array([10, 10, 20])
    run = row_runs._run(upright, upright[:, ::2] | upright[:, 1::2], path, 2)
    assert run.ends[:, 1].tolist() == [12.0, 29.0]


def test_only_ink_that_lies_wholly_far_from_every_row_is_left_out() -> None:
    mask = np.zeros((400, 300), dtype=np.bool_)
    mask[10:20, 20:60] = True  # a header
    mask[5:205, 200:203] = True  # a stroke from the header into the first row
    mask[200, :] = mask[300, :] = True
    mask[395:, 100] = True  # a footer
    rows = [np.full(300, 200.0), np.full(300, 300.0)]
    kept = trace._near_rows(mask, rows, 5.0)
    gone = mask & ~kept
    assert gone[10:20, 20:60].all()
    assert gone[395:, 100].all()
    assert gone.sum() == 400 + 5
