"""Which line on a sheet is which lead: labels that form a known layout, baselines that fit them one to one.

Pure geometry. A sheet that fits no layout, or more than one, is refused: nothing is guessed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.lead_images import LEADS, EcgRefused, RefusalReason
from ecg_ingest.page import Word
from ecg_ingest.paper_scale import POINTS_PER_MM, Pulse, cut_pulse

ROWS_OF_LAYOUT = {"3x4": 3, "6x2": 6, "12x1": 12}
MAX_RHYTHM_ROWS = 3

_SAME_ROW = 3.0 * POINTS_PER_MM  # labels of a row, about their middle
_SAME_COLUMN = 4.0 * POINTS_PER_MM  # labels of a column, by left edge or middle
_TRACE_POINTS = 25
_TRACE_WIDTH = 20.0 * POINTS_PER_MM
_BACKWARDS = 0.1  # points that a trace may step back by rounding
_LABEL_BEFORE = 20.0 * POINTS_PER_MM  # a label may stand this far before its trace
_SPLIT_ERROR = 4.0 * POINTS_PER_MM  # between labels and equal parts of a row
_MAX_LABEL_FITS = 20_000
_ROW_GAP = 0.35  # of the distance between rows: baselines of one row differ by less
_LABEL_BELOW, _LABEL_ABOVE = -0.4, 0.65  # of the distance between rows: where labels stand
_DROP_SPREAD = 0.5  # of the distance between rows, by how much that may vary
_UNEVEN = 0.25  # of the usual distance between points

_BY_UPPER = {lead.upper(): lead for lead in LEADS}


@dataclass(frozen=True, kw_only=True)
class Label:
    """A lead's name on the page."""

    lead: str
    left: float
    right: float
    middle: float  # height

    @property
    def centre(self) -> float:
        """Across."""
        return (self.left + self.right) / 2.0


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One lead's line: points [n, 2], left to right, and the column it stands in."""

    lead: str
    column: int
    points: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Twelve cells, the rhythm strips beside them (lead "" where unlabelled), and the layout's name."""

    layout: str  # "3x4+1", "6x2", ...
    columns: int
    cells: tuple[Cell, ...]
    rhythm: tuple[Cell, ...]


def find_labels(words: Iterable[Word]) -> list[Label]:
    """Every word that is a lead's name.

    Raises
    ------
    EcgRefused
        LAYOUT_UNKNOWN for "-aVR": a sheet in Cabrera order.
    """
    labels = []
    for word in words:
        name = word.text.rstrip(":").upper()
        if name.lstrip("-−–") == "AVR" and name != "AVR":
            raise EcgRefused(
                RefusalReason.LAYOUT_UNKNOWN,
                "the sheet shows -aVR: it is in Cabrera order",
                "set the recorder to the standard order",
            )
        if lead := _BY_UPPER.get(name):
            labels.append(Label(lead=lead, left=word.left, right=word.right, middle=word.middle))
    return labels


def find_traces(
    strokes: Sequence[NDArray[np.float64]],
) -> tuple[list[NDArray[np.float64]], list[Pulse]]:
    """Lines that run from left to right with many points over some width, each once.

    A calibration pulse at a line's beginning is cut off and returned beside them.
    """
    traces: list[NDArray[np.float64]] = []
    pulses: list[Pulse] = []
    for stroke in strokes:
        if len(stroke) < _TRACE_POINTS or np.ptp(stroke[:, 0]) < _TRACE_WIDTH:
            continue
        line = stroke[::-1] if stroke[0, 0] > stroke[-1, 0] else stroke
        if np.diff(line[:, 0]).min() < -_BACKWARDS:
            continue
        if any(other.shape == line.shape and np.allclose(other, line, atol=0.05) for other in traces):
            continue  # drawn twice, as a halo and a line
        traces.append(line)
    for index, line in enumerate(traces):
        pulse, rest = cut_pulse(line)
        if pulse is not None:
            pulses.append(pulse)
            traces[index] = rest
    return traces, pulses


def read_sheet(labels: Sequence[Label], traces: Sequence[NDArray[np.float64]]) -> Sheet:
    """Give every lead its line.

    The labels must form exactly one known layout; the traces' baselines must be as many as its rows (and up
    to three rhythm strips), each at the same height under its labels; each row must be one line, or
    one a column.

    Raises
    ------
    EcgRefused
        LEADS_MISSING, LEADS_AMBIGUOUS or LAYOUT_UNKNOWN.
    """
    absent = [lead for lead in LEADS if not any(label.lead == lead for label in labels)]
    if absent:
        raise EcgRefused(
            RefusalReason.LEADS_MISSING,
            f"the sheet has no label {', '.join(absent)}",
            "all twelve leads must be on one page, labelled as text",
        )
    layout, grid = _fit_layout(labels)
    heights = [float(np.mean([label.middle for label in row])) for row in grid]
    rows = _rows(traces, _ROW_GAP * float(np.min(-np.diff(heights))))
    first = _first_row(rows, heights)
    own = rows[first : first + len(grid)]
    cells: list[Cell] = []
    for row_labels, row_traces in zip(grid, own, strict=True):
        parts = _columns(row_labels, row_traces)
        for column, (label, points) in enumerate(zip(row_labels, parts, strict=True)):
            cells.append(Cell(lead=label.lead, column=column, points=points))
    _check_columns(cells, len(grid[0]))
    drop = float(np.mean(heights)) - float(np.mean([_height(row) for row in own]))
    rhythm = tuple(_rhythm(row, labels, grid, drop) for row in [*rows[:first], *rows[first + len(grid) :]])
    name = f"{layout}+{len(rhythm)}" if rhythm else layout
    return Sheet(layout=name, columns=len(grid[0]), cells=tuple(cells), rhythm=rhythm)


def _fit_layout(labels: Sequence[Label]) -> tuple[str, list[list[Label]]]:
    """The one layout that the labels form, as rows of labels from the top."""
    fits: list[tuple[str, list[list[Label]]]] = []
    for layout, rows in ROWS_OF_LAYOUT.items():
        table = [LEADS[start : start + rows] for start in range(0, len(LEADS), rows)]
        columns = [_column_fits(leads, labels) for leads in table]
        if any(not column for column in columns):
            continue
        for tried, chosen in enumerate(itertools.product(*columns)):
            if tried >= _MAX_LABEL_FITS:
                raise _contradicting_labels()
            if _side_by_side(chosen):
                fits.append((layout, [list(row) for row in zip(*chosen, strict=True)]))
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise EcgRefused(
            RefusalReason.LEADS_AMBIGUOUS,
            "the lead labels can be read as a layout in more than one way",
            "label every lead once",
        )
    raise _contradicting_labels()


def _contradicting_labels() -> EcgRefused:
    return EcgRefused(
        RefusalReason.LAYOUT_UNKNOWN,
        "the lead labels form none of the layouts 3x4, 6x2 and 12x1 in standard order",
        "export the ECG in one of these layouts",
    )


def _column_fits(leads: Sequence[str], labels: Sequence[Label]) -> list[tuple[Label, ...]]:
    """Every way to find these labels below one another."""
    ways: list[tuple[Label, ...]] = [(label,) for label in labels if label.lead == leads[0]]
    for lead in leads[1:]:
        following = [label for label in labels if label.lead == lead]
        ways = [
            (*way, label)
            for way in ways
            for label in following
            if label.middle < way[-1].middle - _SAME_ROW and _aligned(way[0], label)
        ]
        if len(ways) > _MAX_LABEL_FITS:
            raise _contradicting_labels()
    return ways


def _aligned(one: Label, other: Label) -> bool:
    return min(abs(one.left - other.left), abs(one.centre - other.centre)) <= _SAME_COLUMN


def _side_by_side(columns: Sequence[tuple[Label, ...]]) -> bool:
    """Whether columns stand from left to right with their labels at the same heights."""
    for one, other in itertools.pairwise(columns):
        if any(b.left <= a.right for a, b in zip(one, other, strict=True)):
            return False
        if any(abs(a.middle - b.middle) > _SAME_ROW for a, b in zip(columns[0], other, strict=True)):
            return False
    return True


def _baseline(trace: NDArray[np.float64]) -> float:
    return float(np.median(trace[:, 1]))


def _height(row: Sequence[NDArray[np.float64]]) -> float:
    return float(np.mean([_baseline(trace) for trace in row]))


def _rows(traces: Sequence[NDArray[np.float64]], gap: float) -> list[list[NDArray[np.float64]]]:
    """Traces by baseline from the top. A new row begins where the baseline falls by more than `gap`."""
    ordered = sorted(traces, key=_baseline, reverse=True)
    rows: list[list[NDArray[np.float64]]] = []
    for trace in ordered:
        if rows and _baseline(rows[-1][-1]) - _baseline(trace) < gap:
            rows[-1].append(trace)
        else:
            rows.append([trace])
    return rows


def _first_row(rows: Sequence[Sequence[NDArray[np.float64]]], heights: Sequence[float]) -> int:
    """Which row of traces lies under the first row of labels.

    Labels stand from just below to two thirds of a row above their baselines, all alike. One row further
    up or down is then out of reach, so that at most one answer is possible; none is a refusal.
    """
    spacing = float(np.min(-np.diff(heights)))
    extra = len(rows) - len(heights)
    if extra < 0:
        raise EcgRefused(
            RefusalReason.LEADS_MISSING,
            f"{len(heights)} rows are labelled and {len(rows)} rows of traces drawn",
            "export the complete sheet",
        )
    fits = []
    for first in range(min(extra, MAX_RHYTHM_ROWS) + 1):
        own = rows[first : first + len(heights)]
        drops = [height - _height(row) for height, row in zip(heights, own, strict=True)]
        alike = max(drops) - min(drops) <= _DROP_SPREAD * spacing
        if alike and _LABEL_BELOW * spacing <= min(drops) and max(drops) <= _LABEL_ABOVE * spacing:
            fits.append(first)
    if extra > MAX_RHYTHM_ROWS or len(fits) != 1:
        raise _rows_do_not_fit()
    return fits[0]


def _rows_do_not_fit() -> EcgRefused:
    return EcgRefused(
        RefusalReason.LAYOUT_UNKNOWN,
        "the traces' baselines do not match the rows of labels one to one",
        "export the ECG as 3x4, 6x2 or 12x1 without overlapping rows",
    )


def _columns(labels: Sequence[Label], traces: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """A row's lines, one a label: as drawn, or one line cut into equal parts."""
    ordered = sorted(traces, key=lambda trace: float(trace[0, 0]))
    if len(ordered) == 1 and len(labels) > 1:
        return _cut(labels, ordered[0])
    if len(ordered) < len(labels):
        raise EcgRefused(
            RefusalReason.LEADS_MISSING,
            f"the row of {', '.join(label.lead for label in labels)} has {len(ordered)} traces",
            "export the complete sheet",
        )
    if len(ordered) > len(labels):
        raise EcgRefused(
            RefusalReason.LAYOUT_UNKNOWN,
            f"the row of {', '.join(label.lead for label in labels)} has {len(ordered)} traces",
            "traces in pieces cannot be told from other leads: export each as one line",
        )
    for index, (label, trace) in enumerate(zip(labels, ordered, strict=True)):
        before = float(ordered[index - 1][-1, 0]) if index else -np.inf
        if before > trace[0, 0] + 0.1 * float(np.ptp(trace[:, 0])):
            raise EcgRefused(
                RefusalReason.LAYOUT_UNKNOWN,
                f"the traces near {label.lead} overlap from left to right",
                "export the ECG as 3x4, 6x2 or 12x1",
            )
        if not trace[0, 0] - _LABEL_BEFORE < label.centre < trace[-1, 0] or label.right < before - _LABEL_BEFORE:
            raise EcgRefused(
                RefusalReason.LAYOUT_UNKNOWN,
                f"the label {label.lead} does not stand at its trace",
                "export the ECG as 3x4, 6x2 or 12x1",
            )
    return ordered


def _cut(labels: Sequence[Label], trace: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """One line over all columns in equal parts, where the labels stand as far apart."""
    step = even_step(trace[:, 0])
    start, end = float(trace[0, 0]), float(trace[-1, 0]) + (step or 0.0)
    width = (end - start) / len(labels)
    for index, label in enumerate(labels):
        if abs(label.left - labels[0].left - index * width) > _SPLIT_ERROR:
            raise EcgRefused(
                RefusalReason.LAYOUT_UNKNOWN,
                f"where {label.lead} begins on its line cannot be told",
                "export each lead as one line",
            )
    parts = []
    for index in range(len(labels)):
        left, right = start + index * width, start + (index + 1) * width
        if step is not None:  # each point belongs to one lead; between two leads the line jumps
            first = round(index * width / step)
            parts.append(trace[first : round((index + 1) * width / step)])
            continue
        inside = (trace[:, 0] > left) & (trace[:, 0] < right)
        ends = np.interp([left, right], trace[:, 0], trace[:, 1])
        parts.append(np.concatenate(([[left, ends[0]]], trace[inside], [[right, ends[1]]])))
    return parts


def even_step(positions: NDArray[np.float64]) -> float | None:
    """The distance between evenly spaced points; None where points were left out or added."""
    steps = np.diff(positions)
    usual = float(np.median(steps))
    if usual <= 0.0 or np.any(np.abs(steps - usual) > _UNEVEN * usual):
        return None
    return usual


def _check_columns(cells: Sequence[Cell], columns: int) -> None:
    """Lines of a column begin together and are as long as one another, or time would not be the same."""
    for column in range(columns):
        lines = [cell.points for cell in cells if cell.column == column]
        starts = [float(line[0, 0]) for line in lines]
        widths = [float(np.ptp(line[:, 0])) for line in lines]
        if max(starts) - min(starts) > 2.0 * POINTS_PER_MM or max(widths) > 1.1 * min(widths):
            raise EcgRefused(
                RefusalReason.LAYOUT_UNKNOWN,
                "the traces of a column do not begin and end together",
                "export the ECG as 3x4, 6x2 or 12x1",
            )


def _rhythm(
    row: Sequence[NDArray[np.float64]], labels: Sequence[Label], grid: Sequence[Sequence[Label]], drop: float
) -> Cell:
    """A strip beside the leads, with the name beside it if there is one."""
    if len(row) != 1:
        raise _rows_do_not_fit()
    trace = row[0]
    used = {id(label) for line in grid for label in line}
    spacing = min(a[0].middle - b[0].middle for a, b in itertools.pairwise(grid))
    near = [
        label
        for label in labels
        if id(label) not in used
        and abs(label.middle - _baseline(trace) - drop) < 0.35 * spacing
        and trace[0, 0] - _LABEL_BEFORE < label.centre < trace[0, 0] + _LABEL_BEFORE
    ]
    return Cell(lead=near[0].lead if len(near) == 1 else "", column=0, points=trace)
