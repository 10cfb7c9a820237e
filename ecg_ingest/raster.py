"""A picture of a 12-lead ECG on paper to the recording drawn on it, or a refusal with a reason.

Nothing is learned: the grid gives the scale, the printed names the layout, the ink the signals; and every
lead's place must be proved by labels, by one line a row and by the limb leads' equations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ecg_ingest.flatten import Flat, Paper, read_paper
from ecg_ingest.formation import in_formation
from ecg_ingest.glyphs import shapes
from ecg_ingest.hidden_labels import find_hidden_labels
from ecg_ingest.ink import Ink, find_ink
from ecg_ingest.lead_images import LEADS, EcgRefused, LeadBox, QualityFinding, RefusalReason
from ecg_ingest.paper_scale import PULSE_SECONDS, STANDARD_MM_PER_MILLIVOLT, STANDARD_MM_PER_SECOND
from ecg_ingest.placed_labels import Placement, place_labels
from ecg_ingest.printed_labels import TELLING_NAMES, PrintedLabel
from ecg_ingest.raster_columns import Columns, PrintedPulse, erase_words, find_columns, find_pulses, uneven
from ecg_ingest.raster_rows import RowMatch, match_rows
from ecg_ingest.raster_signals import CellSignal, cell_signals, moved_left, recording_of, row_shifts, strokes_in_doubt
from ecg_ingest.recording import Recording
from ecg_ingest.rhythm_strips import repeats
from ecg_ingest.second_look import LEAST_READ, Contradiction
from ecg_ingest.sheet_views import View, Views
from ecg_ingest.trace import Line, Row, find_rows, follow

LEAST_ROWS = 3  # lines across a picture; fewer are no 12-lead ECG
_RULED = 0.01  # pixels up or down a column: a ruler's line
_MOST_INK = 0.2  # of a picture; a sheet has 2 to 8 per cent
_MOST_PIECES = 4000  # of ink: more are grain
LEAST_SIDE = 250  # pixels: twelve leads on fewer cannot be told from one another
_UPRIGHT, _LEGIBLE = 5, 3  # names read: the sheet surely stands this way; it may
_SEARCHED = 3  # turns, and half as many readings of the grid, in which labels under traces are sought: it takes long
_COLUMN_SECONDS = {"3x4": (2.5,), "4x3": (2.5, 10.0 / 3.0), "6x2": (2.5, 5.0), "12x1": (10.0,)}
_COLUMN_TOLERANCE = 0.09  # labels do not stand exactly as far apart as their columns begin
_HEIGHT_TOLERANCE, _WIDTH_TOLERANCE = 0.2, 0.38  # of a pulse: other gains and speeds are twice or half
_LINE_SECONDS = 10.0  # of a line over a whole sheet
_BESIDE_MM, _BESIDE_ROW = 8.0, 0.2  # how far a strip's name may stand from its place, the latter of rows' distance


@dataclass(frozen=True, kw_only=True)
class RasterSheet:
    """What a picture gave."""

    recording: Recording
    layout: str  # "3x4+1"
    order: str  # "standard" or "cabrera"
    boxes: tuple[LeadBox, ...]
    seconds_per_column: float
    pixels_per_mm: float  # of the picture as given


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """A flat sheet and what was seen on it."""

    flat: Flat
    ink: Ink
    rows: list[Row]
    labels: list[PrintedLabel]
    placement: Placement


def read_raster(picture: NDArray[np.uint8], page: int = 0) -> RasterSheet:
    """Recover the signals of a picture of an ECG sheet.

    Parameters
    ----------
    picture : uint8 array [height, width, 3]
        RGB.
    page : int
        For the boxes.

    Raises
    ------
    EcgRefused
        With the reason.
    """
    height, width = picture.shape[:2]
    if min(height, width) < LEAST_SIDE:
        raise EcgRefused(
            RefusalReason.TOO_SMALL, f"{width} x {height} pixels", "scan the sheet at 150 dots an inch or more"
        )
    try:
        return _read_paper(read_paper(picture), page)
    except EcgRefused as refusal:
        if refusal.reason is not RefusalReason.WARPED:
            raise
        try:  # paper that lies flat, and a grid too faint to say so
            sheet = _read_paper(read_paper(picture, as_it_lies=True), page)
        except EcgRefused:
            raise refusal from None
    recording = replace(sheet.recording, findings=(*sheet.recording.findings, _TAKEN_FOR_FLAT))
    return replace(sheet, recording=recording)


_TAKEN_FOR_FLAT = QualityFinding(
    code="paper_taken_for_flat", lead="", detail="the grid seems bent; labels and columns stand as on flat paper"
)


def _read_paper(paper: Paper, page: int) -> RasterSheet:
    views = Views(paper)
    if not views.scales:
        raise _without_grid(paper)
    refusals: list[EcgRefused] = []
    for rank, quarter_turns in enumerate(_orientations(views)):
        try:
            return _read_upright(views, quarter_turns, rank, page)
        except EcgRefused as refusal:
            refusals.append(refusal)
            if refusal.reason not in _PERHAPS_TURNED:
                raise
    raise refusals[0]


_PERHAPS_TURNED = (RefusalReason.LABELS_INSUFFICIENT, RefusalReason.ROWS_DO_NOT_MATCH)


def _orientations(views: Views) -> list[int]:
    """Quarter turns clockwise to try, the likeliest first: lines run across, and letters stand upright."""
    flat, ink = views.level(0)
    level = views.view(0, 0).rows
    if len(level) >= LEAST_ROWS and _legible(views, 0) >= _UPRIGHT:
        return [0, 2]
    upright = find_rows(np.ascontiguousarray(ink.mask.T), flat.pixels_per_mm)
    if max(len(level), len(upright)) < LEAST_ROWS:
        raise _no_ecg(len(level))
    across = _unbroken(level) >= _unbroken(upright)
    ways = [0, 2] if across else [1, 3]
    if min(len(level), len(upright)) >= LEAST_ROWS:
        ways += [1, 3] if across else [0, 2]
    names: list[int] = []
    for turns in ways:
        names.append(_legible(views, turns))
        if names[-1] >= _UPRIGHT:
            break
    most = int(np.argmax(names))
    if names[most] >= _LEGIBLE and names[most] > names[0] + 1:  # grain and traces look like a name or two any way
        ways.insert(0, ways.pop(most))
    return ways


def _legible(views: Views, quarter_turns: int) -> int:
    """How many names that tell stand free when the sheet is turned so."""
    return sum(label.lead in TELLING_NAMES for label in views.labels(0, quarter_turns))


def _unbroken(rows: Sequence[Row]) -> float:
    """How whole the lines are that run one way: the other way only letters and strokes stand in line."""
    if len(rows) < LEAST_ROWS:
        return 0.0
    return float(np.mean(sorted((row.coverage for row in rows), reverse=True)[:LEAST_ROWS]))


def _no_ecg(lines: int) -> EcgRefused:
    return EcgRefused(
        RefusalReason.NOT_AN_ECG,
        f"{lines} lines run across the picture, not the three and more of an ECG sheet",
        "check the routing rule; if it is an ECG, scan the whole sheet evenly lit",
    )


def _read_upright(views: Views, quarter_turns: int, rank: int, page: int) -> RasterSheet:
    seen = _look(views, quarter_turns, rank)
    fit = seen.placement.fit
    pixels_per_mm = seen.flat.pixels_per_mm
    matches = match_rows(seen.rows, fit, seen.ink.mask, pixels_per_mm)
    failures: list[EcgRefused] = []
    read: list[_Way] = []
    for match in matches:
        try:
            read.append(_read_rows(seen, match, page))
        except EcgRefused as refusal:
            failures.append(refusal)
    if not read:
        raise failures[0]
    return _the_one_way(read, nearest=min(abs(match.drop) for match in matches)).sheet


@dataclass(frozen=True, kw_only=True)
class _Way:
    """What a sheet says if its rows of labels belong to certain lines."""

    sheet: RasterSheet
    drop: float  # how far the labels stand above their lines, of the distance between rows
    strips: int  # lines that are no row of leads
    named: int  # of those, with a name that stands to them as the labels to the rows
    repeating: int  # of those, that repeat the lead of that name


def _the_one_way(ways: Sequence[_Way], nearest: float) -> _Way:
    """The way in which labels stand beside their own lines; of several, the one that rhythm strips prove.

    A strip has its name where the rows have theirs, and repeats that lead. The limb leads' equations cannot decide:
    in Cabrera order they nearly hold for rows that are shifted by one.
    """
    proved = [way for way in ways if 0 < way.strips == way.repeating] if len(ways) > 1 else list(ways)
    if len(proved) != 1 or sum(way.named > 0 for way in ways) > 1 or abs(proved[0].drop) > nearest:
        raise EcgRefused(
            RefusalReason.LAYOUT_AMBIGUOUS,
            "the labels may belong to the lines above or below them",
            "export the ECG with labels beside their lines",
        )
    return proved[0]


def _look(views: Views, quarter_turns: int, rank: int) -> _Seen:
    """The reading of the grid under which the labels form a layout at a known speed."""
    refusals = []
    for number in range(len(views.scales)):
        view = views.view(number, quarter_turns)
        free = views.labels(number, quarter_turns)
        try:
            labels, placement = _placed(
                view, views.legible(number, quarter_turns), free, search=max(rank, 2 * number) < _SEARCHED
            )
        except EcgRefused as refusal:
            refusals.append(refusal if _beats(view.ink, view.rows) else _no_ecg(len(view.rows)))
            continue
        return _Seen(flat=view.flat, ink=view.ink, rows=view.rows, labels=labels, placement=placement)
    raise refusals[0]


def _beats(ink: Ink, rows: list[Row]) -> bool:
    """Whether lines run across that are neither ruled nor the grain of a picture full of ink."""
    lively = [row for row in rows if row.roughness > _RULED]
    pieces, _ = cv2.connectedComponents(ink.mask.astype(np.uint8), connectivity=8)
    return len(lively) >= LEAST_ROWS and float(ink.mask.mean()) < _MOST_INK and pieces < _MOST_PIECES


def _placed(
    view: View, legible: Ink, free: list[PrintedLabel], *, search: bool
) -> tuple[list[PrintedLabel], Placement]:
    """The layout from labels that stand free; if they are too few, from those under the trace as well."""
    ink, pixels_per_mm = view.ink, view.flat.pixels_per_mm
    try:
        return free, place_labels(free, ink, legible, pixels_per_mm, _COLUMN_SECONDS, _COLUMN_TOLERANCE)
    except EcgRefused as refusal:
        few = sum(label.lead in TELLING_NAMES for label in free) < _UPRIGHT
        few = few and not (isinstance(refusal, Contradiction) and refusal.read >= LEAST_READ)
        if not search or refusal.reason not in (_PERHAPS_HIDDEN if few else _TOO_FEW_FREE):
            raise
    hidden = find_hidden_labels(legible, pixels_per_mm, free)
    labels = [*free, *(label for label in hidden.labels if not any(_over(label, other) for other in free))]
    try:
        return labels, place_labels(labels, ink, legible, pixels_per_mm, _COLUMN_SECONDS, _COLUMN_TOLERANCE, last=True)
    except EcgRefused as refusal:
        names = in_formation(hidden.perhaps, view.rows, pixels_per_mm, _COLUMN_SECONDS)
        if refusal.reason != RefusalReason.LABELS_INSUFFICIENT or not names:
            raise
        labels = [*free, *(label for label in names if not any(_over(label, other) for other in free))]
        return labels, place_labels(labels, ink, legible, pixels_per_mm, _COLUMN_SECONDS, _COLUMN_TOLERANCE, last=True)


_TOO_FEW_FREE = (RefusalReason.LABELS_INSUFFICIENT, RefusalReason.LAYOUT_AMBIGUOUS)
_PERHAPS_HIDDEN = (*_TOO_FEW_FREE, RefusalReason.NON_STANDARD_SCALE, RefusalReason.LABELS_CONTRADICT)
"""What a few names may say of a sheet and more names disprove: two or three fit several layouts."""


def _over(one: PrintedLabel, other: PrintedLabel) -> bool:
    """Whether two labels share paper, and the other is a name that tells."""
    return (
        other.lead != "I"
        and one.left < other.right
        and one.right > other.left
        and one.top < other.bottom
        and one.bottom > other.top
    )


def _without_grid(paper: Paper) -> EcgRefused:
    ink = find_ink(paper.rgb, max(paper.rgb.shape) / 280.0)
    rows = find_rows(ink.mask, max(paper.rgb.shape) / 280.0)
    if len(rows) < LEAST_ROWS:
        return EcgRefused(
            RefusalReason.NOT_AN_ECG,
            "the picture shows neither a grid nor lines across it",
            "check the routing rule; if it is an ECG, scan the whole sheet",
        )
    return EcgRefused(
        RefusalReason.NO_SCALE,
        "no regular grid can be seen: a millimetre is unknown",
        "scan the sheet in colour or grey, at 150 dots an inch or more, unbent",
    )


def _read_rows(seen: _Seen, match: RowMatch, page: int) -> _Way:
    """Lines to signals, for one way in which the rows of labels may lie over the lines."""
    flat, fit = seen.flat, seen.placement.fit
    work = flat.pixels_per_mm
    mask = _without_letters(seen)
    lines = follow(list(match.rows), mask, seen.ink.darkness, work)
    shifts = row_shifts(lines, work)
    lines = [moved_left(line, shift) for line, shift in zip(lines, shifts, strict=True)]
    own = lines[match.first : match.first + len(fit.layout.rows)]
    pulses = [find_pulses(line, work, work) for line in lines]
    seconds = seen.placement.seconds_per_column
    width = seconds * STANDARD_MM_PER_SECOND * work
    lefts = [_label_left(seen, column) for column in range(fit.layout.columns)]
    columns = find_columns(own, pulses[match.first : match.first + len(own)], lefts, width, work, work)
    beside = [
        pulse
        for row in pulses
        for pulse in row
        if pulse.right <= columns.starts[0] + 1.5 * work or pulse.left >= columns.starts[-1] - 1.5 * work
    ]
    if flat.doubtful and (columns.contradicted or uneven(lefts, columns, beside, work)):
        raise EcgRefused(
            RefusalReason.WARPED,
            "columns or their labels do not stand where the grid, laid flat, says that they do",
            "scan the sheet, or photograph it flat and from straight above",
        )
    findings = _checked_scale(beside)
    cells = cell_signals(own, fit.layout, columns, work)
    strips = [line for number, line in enumerate(lines) if not match.first <= number < match.first + len(own)]
    recording = recording_of(cells, seconds, (*findings, *strokes_in_doubt(cells)))
    sheet = RasterSheet(
        recording=recording,
        layout=f"{fit.layout.name}+{len(strips)}" if strips else fit.layout.name,
        order=fit.layout.order,
        boxes=_boxes(flat, cells, own, strips, columns, shifts[match.first :], page),
        seconds_per_column=seconds,
        pixels_per_mm=flat.source_pixels_per_mm,
    )
    names = [(strip, name) for strip in strips if (name := _name_beside(seen, strip, match.drop)) is not None]
    return _Way(
        sheet=sheet,
        drop=match.drop,
        strips=len(strips),
        named=len(names),
        repeating=sum(repeats(strip, name, cells, columns, work) for strip, name in names),
    )


def _name_beside(seen: _Seen, strip: Line, drop: float) -> str | None:
    """The lead whose name stands to a line as the first column's labels stand to the rows."""
    fit, pixels_per_mm = seen.placement.fit, seen.flat.pixels_per_mm
    across = float(fit.across[:, 0].mean())
    beside = strip.part(across - _BESIDE_MM * pixels_per_mm, across + 2.0 * _BESIDE_MM * pixels_per_mm).middle
    if not np.isfinite(beside).any():
        return None
    down = float(np.nanmedian(beside)) - drop * fit.row_pixels
    near = [
        label
        for label in seen.labels
        if label.lead != "I"
        and abs(label.centre[0] - across) < _BESIDE_MM * pixels_per_mm
        and abs(label.centre[1] - down) < _BESIDE_ROW * fit.row_pixels
    ]
    return max(near, key=lambda label: label.likeness).lead.lstrip("-") if near else None


def _without_letters(seen: _Seen) -> NDArray[np.bool_]:
    """The ink without handwriting and the labels' letters, which often stand on a trace."""
    boxes, pictures = [], []
    for name, font, box in seen.placement.letters:
        boxes.append(box)
        pictures.append(shapes().by_name[name, font].picture)
    return erase_words(seen.ink.plain, boxes, pictures, seen.flat.pixels_per_mm)


def _label_left(seen: _Seen, column: int) -> float:
    """The usual left edge of a column's labels."""
    lefts = [box[0] for row, at, box in seen.placement.boxes if at == column]
    if lefts:
        return float(np.median(lefts))
    return float(np.median(seen.placement.fit.across[:, column])) - seen.flat.pixels_per_mm


def _checked_scale(pulses: list[PrintedPulse]) -> tuple[QualityFinding, ...]:
    """What the calibration pulses say; refuse a gain or speed other than 10 mm/mV and 25 mm/s."""
    if not pulses:
        return (
            QualityFinding(
                code="gain_assumed",
                lead="",
                detail="no calibration pulse is on the picture: 10 mm/mV and 25 mm/s are taken for granted",
            ),
        )
    hint = "print the ECG at 25 mm/s and 10 mm/mV"
    height = float(np.median([pulse.height_mm for pulse in pulses]))
    if abs(height / STANDARD_MM_PER_MILLIVOLT - 1.0) > _HEIGHT_TOLERANCE:
        raise EcgRefused(
            RefusalReason.NON_STANDARD_SCALE, f"the calibration pulse is {height:.1f} mm high, not 10", hint
        )
    half = [pulse for pulse in pulses if abs(pulse.height_mm / 5.0 - 1.0) < _HEIGHT_TOLERANCE]
    if 3 * len(half) >= len(pulses):
        raise EcgRefused(RefusalReason.NON_STANDARD_SCALE, "the calibration pulses differ in height", hint)
    widths = [pulse.width_mm for pulse in pulses if np.isfinite(pulse.width_mm)]
    usual = PULSE_SECONDS * STANDARD_MM_PER_SECOND
    if widths and abs(float(np.median(widths)) / usual - 1.0) > _WIDTH_TOLERANCE:
        raise EcgRefused(
            RefusalReason.NON_STANDARD_SCALE, f"the calibration pulse is {np.median(widths):.1f} mm wide, not 5", hint
        )
    return ()


def _boxes(
    flat: Flat,
    cells: dict[str, CellSignal],
    own: list[Line],
    strips: list[Line],
    columns: Columns,
    shifts: NDArray[np.float64],
    page: int,
) -> tuple[LeadBox, ...]:
    """Each lead's rectangle: its line from end to end, and half-way to the lines above and below it."""
    lines = [*own, *strips]
    boxes = []
    for lead in LEADS:
        cell = cells[lead]
        left, right = columns.starts[cell.column], columns.starts[cell.column + 1]
        levels = sorted(
            level for line in lines if np.isfinite(level := float(np.nanmedian(line.part(left, right).middle)))
        )
        level = float(np.nanmedian(own[cell.row].part(left, right).middle))
        above = [other for other in levels if other < level - 1.0]
        below = [other for other in levels if other > level + 1.0]
        pitch = float(np.median(np.diff(levels)))
        top = (above[-1] + level) / 2.0 if above else level - pitch / 2.0
        bottom = (below[0] + level) / 2.0 if below else level + pitch / 2.0
        moved = shifts[cell.row, np.clip(np.rint([left, right]).astype(int), 0, shifts.shape[1] - 1)]
        x0, y0, x1, y1 = flat.box(
            max(0.0, left + cell.first + float(moved[0])),
            max(0.0, top),
            min(float(flat.width), left + cell.last + float(moved[1])),
            min(float(flat.height), bottom),
        )
        boxes.append(LeadBox(lead=lead, page=page, left=x0, top=y0, right=x1, bottom=y1))
    return tuple(boxes)
