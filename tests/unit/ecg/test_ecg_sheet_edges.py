"""What stands at a sheet's or a column's edge and is no lead: a header's text, a cut pulse, a neighbour's wave."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ecg_ingest.raster_columns import Columns, find_columns, find_pulses
from ecg_ingest.raster_layout import LAYOUTS
from ecg_ingest.raster_signals import cell_signals
from ecg_ingest.trace import Line, Row, follow

PIXELS_PER_MM = 8.0


def test_a_line_with_a_gap_does_not_climb_to_the_header_above_it() -> None:
    width, levels = 1200, (320, 560, 800)
    mask = np.zeros((900, width), dtype=np.bool_)
    for level in levels:
        mask[level : level + 3, 40:1160] = True
    mask[levels[0] : levels[0] + 3, 300:350] = False
    mask[120:123, 300:350] = True  # as dense as text, 25 mm above the line
    rows = [Row(heights=np.full(width, level + 1.0), coverage=1.0) for level in levels]
    line = follow(rows, mask, mask.astype(np.float32), PIXELS_PER_MM)[0]
    assert np.isnan(line.top[302:348]).all()
    assert float(np.nanmedian(line.middle)) == pytest.approx(levels[0] + 1.0, abs=0.5)


def beside_a_pulse(first_mm: float) -> Line:
    """A level line behind a pulse of 1 mV, 5 mm wide, that begins so many millimetres into the picture."""
    height: NDArray[np.float64] = np.full(2200, 300.0)
    up, down = round(first_mm * PIXELS_PER_MM), round((first_mm + 5.0) * PIXELS_PER_MM)
    height[max(0, up) : down] -= 10.0 * PIXELS_PER_MM
    top, bottom = height - 1.0, height + 1.0
    for edge in (up, down):
        if edge > 0:
            top[edge], bottom[edge] = 300.0 - 10.0 * PIXELS_PER_MM - 1.0, 301.0
    height = np.arange(2200)
    ends = height >= down + 2000 + round(8.0 * PIXELS_PER_MM)
    top[ends] = bottom[ends] = np.nan
    return Line(top=top, bottom=bottom, thickness=2.0)


def test_a_pulse_that_the_picture_s_edge_cuts_has_a_height_and_no_width() -> None:
    whole, cut = (find_pulses(beside_a_pulse(first_mm), PIXELS_PER_MM, PIXELS_PER_MM) for first_mm in (4.0, -2.0))
    assert [pulse.height_mm for pulse in whole] == [pytest.approx(10.0, abs=0.3)]
    assert [pulse.width_mm for pulse in whole] == [pytest.approx(5.0, abs=0.3)]
    assert [pulse.height_mm for pulse in cut] == [pytest.approx(10.0, abs=0.3)]
    assert np.isnan(cut[0].width_mm)


@pytest.mark.parametrize("left_mm", [-2.0, -3.5])
def test_leads_begin_behind_a_pulse_that_the_picture_s_edge_cuts(left_mm: float) -> None:
    lines = [beside_a_pulse(left_mm)] * 3
    pulses = [find_pulses(line, PIXELS_PER_MM, PIXELS_PER_MM) for line in lines]
    width = 500.0
    end = (left_mm + 5.0) * PIXELS_PER_MM
    labels = [end + 12.0 + column * width for column in range(4)]
    columns = find_columns(lines, pulses, labels, width, PIXELS_PER_MM, PIXELS_PER_MM)
    assert end - 2.0 <= columns.starts[0] <= end + 2.0 * PIXELS_PER_MM


@pytest.mark.parametrize("to_edge", [-4, 4], ids=["before the edge", "behind it"])
def test_what_lies_between_a_stroke_and_a_column_s_edge_is_not_the_lead_s(to_edge: int) -> None:
    """Guards: a neighbour's wave that began with a stroke was drawn as the end of the lead before it."""
    layout = next(layout for layout in LAYOUTS if (layout.name, layout.order) == ("6x2", "standard"))
    width, edge = 1000, 500
    lines = []
    for row in range(6):
        level = np.full(width, 200.0 * (row + 1))
        level[::100] -= 8.0  # beats, lest a lead be empty
        top, bottom = level - 1.0, level + 1.0
        stroke = edge + to_edge
        bottom[stroke] += 10.0 * PIXELS_PER_MM
        between = slice(min(stroke, edge), max(stroke, edge))
        beside = np.arange(width)[between] != stroke
        top[between][beside] += 10.0 * PIXELS_PER_MM  # where the stroke ends
        bottom[between][beside] += 10.0 * PIXELS_PER_MM
        lines.append(Line(top=top, bottom=bottom, thickness=2.0))
    columns = Columns(starts=(0.0, float(edge), float(width)), contradicted=False, framed=True)
    cells = cell_signals(lines, layout, columns, PIXELS_PER_MM)
    assert all(np.nanmax(np.abs(cell.samples_mv)) < 0.2 for cell in cells.values())
