"""Vector PDFs: every lead from its own line and at its own scale, or a refusal with the right reason."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from ecg_ingest import LEADS, EcgRefused, EcgSource, LeadImages, RefusalReason, RenderStyle, read
from ecg_ingest.page import draw_page
from ecg_ingest.sheet_picture import sheet_picture
from tests.unit.ecg.ecg_builders import (
    Group,
    SheetStyle,
    Signals,
    cell_boxes,
    encapsulated,
    part10,
    sheet,
    waveform,
)

STYLE = RenderStyle()


def refusal(data: bytes) -> EcgRefused:
    with pytest.raises(EcgRefused) as refused:
        read(data, style=STYLE)
    assert refused.value.detail
    return refused.value


def likeness(images: LeadImages, heart: Signals) -> list[float]:
    """Correlation and gain error of each recovered lead against what was drawn, as the worse of both."""
    result = []
    for lead, row in zip(LEADS, images.signals_mv, strict=True):
        shown = np.flatnonzero(np.isfinite(row[:5000]))
        truth = heart[lead][shown]
        r = float(np.corrcoef(row[shown], truth)[0, 1])
        gain = float(np.ptp(row[shown]) / np.ptp(truth))
        result.append(min(r, 1.0 - abs(gain - 1.0)))
    return result


def picture_likeness(one: LeadImages, other: LeadImages) -> np.ndarray:
    a = one.pixels.astype(float).mean(axis=-1).reshape(12, -1)
    b = other.pixels.astype(float).mean(axis=-1).reshape(12, -1)
    return np.array([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)])


@pytest.mark.parametrize(
    ("style", "layout"),
    [
        (SheetStyle(), "3x4+1"),
        (SheetStyle(rhythm=()), "3x4"),
        (SheetStyle(rhythm=("V1", "II", "V5")), "3x4+3"),
        (SheetStyle(rhythm_labels=False), "3x4+1"),
        (SheetStyle(rows=6, rhythm=()), "6x2"),
        (SheetStyle(rows=6), "6x2+1"),
        (SheetStyle(rows=12, rhythm=()), "12x1"),
        (SheetStyle(one_line_a_row=True), "3x4+1"),
        (SheetStyle(rows=6, rhythm=(), one_line_a_row=True), "6x2"),
        (SheetStyle(pieces=True), "3x4+1"),
        (SheetStyle(pulse_in_line=True), "3x4+1"),
        (SheetStyle(pulse_in_line=True, one_line_a_row=True), "3x4+1"),
        (SheetStyle(pulse_in_line=True, rows=6, rhythm=(), text=""), "6x2"),
        (SheetStyle(rhythm_first=True), "3x4+1"),
        (SheetStyle(rhythm_first=True, rhythm_labels=False, rhythm=("II", "V1")), "3x4+2"),
        (SheetStyle(in_form=True), "3x4+1"),
        (SheetStyle(turned=True), "3x4+1"),
        (SheetStyle(turned=True, rotate=270), "3x4+1"),
        (SheetStyle(rotate=90), "3x4+1"),
        (SheetStyle(rotate=180), "3x4+1"),
        (SheetStyle(scale=0.93), "3x4+1"),
        (SheetStyle(scale=0.93, grid=False), "3x4+1"),
        (SheetStyle(scale=0.8, pulse_mm=None), "3x4+1"),
        (SheetStyle(scale=1.1, pulse_mm=None, page_mm=(330.0, 235.0)), "3x4+1"),
        (SheetStyle(grid=False), "3x4+1"),
        (SheetStyle(grid=False, pulse_mm=None), "3x4+1"),
        (SheetStyle(text=""), "3x4+1"),
        (SheetStyle(text="Speed: 25,0 mm/sec  Gain: 1 cm/mV"), "3x4+1"),
        (SheetStyle(text="25 mm/s 5 mm/mV", gain=5.0, pulse_mm=5.0), "3x4+1"),
        (SheetStyle(text="25 mm/s 20 mm/mV", gain=20.0, pulse_mm=20.0, rhythm=()), "3x4"),
        (SheetStyle(text="50 mm/s 10 mm/mV", speed=50.0, page_mm=(594.0, 210.0)), "3x4+1"),
        (SheetStyle(labels={lead: lead.upper() for lead in LEADS}), "3x4+1"),
        (SheetStyle(page_mm=(4000.0, 4000.0)), "3x4+1"),
    ],
    ids=str,
)
def test_a_sheet_gives_back_the_signals_drawn_on_it(heart: Signals, style: SheetStyle, layout: str) -> None:
    images = read(sheet(heart, style), style=STYLE)
    assert (images.source, images.page_layout) == (EcgSource.VECTOR_PDF, layout)
    assert min(likeness(images, heart)) > 0.99


def test_waveform_3x4_and_6x2_of_one_ecg_give_the_same_pictures(heart: Signals) -> None:
    samples = read(part10(waveform(Group(signals=heart))), style=STYLE)
    wide = read(sheet(heart, SheetStyle(hz=500.0)), style=STYLE)
    tall = read(sheet(heart, SheetStyle(rows=6, rhythm=())), style=STYLE)
    for one, other in itertools.combinations((samples, wide, tall), 2):
        assert np.median(picture_likeness(one, other)) > 0.98
        assert picture_likeness(one, other).min() > 0.9


def test_an_encapsulated_pdf_is_read_like_the_pdf_though_padded_with_nul(heart: Signals) -> None:
    pdf = sheet(heart, SheetStyle())
    plain = read(pdf, style=STYLE)
    np.testing.assert_array_equal(read(encapsulated(pdf), style=STYLE).pixels, plain.pixels)
    np.testing.assert_array_equal(read(encapsulated(pdf + b"\0" * 4097), style=STYLE).pixels, plain.pixels)
    np.testing.assert_array_equal(read(b"\r\n" + pdf, style=STYLE).pixels, plain.pixels)


@pytest.mark.parametrize(
    ("style", "reasons"),
    [
        # two labels exchanged, doubled or covered: the traces cannot be trusted to lie where they should
        (SheetStyle(labels={"V1": "V2", "V2": "V1"}), {RefusalReason.LAYOUT_UNKNOWN}),
        (SheetStyle(labels={"aVL": "aVF", "aVF": "aVL"}), {RefusalReason.LAYOUT_UNKNOWN}),
        (SheetStyle(labels={"V3": "V2"}), {RefusalReason.LEADS_MISSING}),
        (SheetStyle(labels={"V3": ""}), {RefusalReason.LEADS_MISSING}),
        (SheetStyle(labels={"aVR": "-aVR"}), {RefusalReason.LAYOUT_UNKNOWN}),
        (
            SheetStyle(labels=dict(zip(LEADS[:6], ("aVL", "I", "aVR", "II", "aVF", "III"), strict=True))),
            {RefusalReason.LAYOUT_UNKNOWN},
        ),
        # a lead without its line
        (SheetStyle(without=("V3",)), {RefusalReason.LEADS_MISSING}),
        (SheetStyle(without=("III", "aVF", "V3", "V6"), rhythm=()), {RefusalReason.LEADS_MISSING}),
        (
            SheetStyle(without=("III", "aVF", "V3", "V6")),
            {RefusalReason.LEADS_MISSING, RefusalReason.LAYOUT_UNKNOWN},
        ),
        # lines exchanged under right labels
        (SheetStyle(rows=6, rhythm=(), swapped=("I", "III")), {RefusalReason.LEAD_ALGEBRA}),
        (SheetStyle(swapped=("aVL", "aVF")), {RefusalReason.LEAD_ALGEBRA}),
        (SheetStyle(swapped=("II", "aVF")), {RefusalReason.LEADS_AMBIGUOUS}),
        # exchanges that leave every equation of a column as it was: only the beats of the next column tell
        (SheetStyle(swapped=("I", "III")), {RefusalReason.LEAD_ALGEBRA}),
        (SheetStyle(swapped=("I", "III"), rhythm=()), {RefusalReason.LEAD_ALGEBRA}),
        (SheetStyle(swapped=("aVR", "aVF"), rhythm=()), {RefusalReason.LEAD_ALGEBRA}),
        (SheetStyle(swapped=("aVR", "aVL"), rhythm=("V1",)), {RefusalReason.LEAD_ALGEBRA}),
        (SheetStyle(rhythm=("V1",), swapped=("V1", "V5")), {RefusalReason.LEADS_AMBIGUOUS}),
        # scale
        (SheetStyle(text="", pulse_mm=None), {RefusalReason.NO_SCALE}),
        (SheetStyle(text="10 mm/mV", pulse_mm=None), {RefusalReason.NO_SCALE}),
        (SheetStyle(text="25 mm/s", pulse_mm=None), {RefusalReason.NO_SCALE}),
        (SheetStyle(text="50 mm/s 10 mm/mV"), {RefusalReason.NON_STANDARD_SCALE}),
        (SheetStyle(text="25 mm/s 5 mm/mV"), {RefusalReason.NON_STANDARD_SCALE}),
        (SheetStyle(text="25 mm/s 5 mm/mV", pulse_mm=None), {RefusalReason.NON_STANDARD_SCALE}),
        (SheetStyle(text="25 mm/s 5 mm/mV", grid=False), {RefusalReason.NON_STANDARD_SCALE}),
        (SheetStyle(pulse_mm=5.0), {RefusalReason.NON_STANDARD_SCALE}),
        (SheetStyle(text="25 mm/s Limb 10 mm/mV Chest 5 mm/mV"), {RefusalReason.NON_STANDARD_SCALE}),
        (SheetStyle(speed=12.5, text="25 mm/s 10 mm/mV", pulse_mm=None), {RefusalReason.TOO_SHORT}),
        (SheetStyle(page_mm=(6000.0, 6000.0)), {RefusalReason.TOO_LARGE}),
    ],
    ids=str,
)
def test_a_sheet_that_proves_nothing_is_refused(heart: Signals, style: SheetStyle, reasons: set[RefusalReason]) -> None:
    assert refusal(sheet(heart, style)).reason in reasons


def test_a_flat_line_is_refused_by_name(heart: Signals) -> None:
    refused = refusal(sheet(heart | {"V2": np.zeros(5000)}, SheetStyle()))
    assert refused.reason is RefusalReason.FLAT_LEAD
    assert "V2" in refused.detail


def test_a_page_of_notes_beside_the_sheet_does_no_harm_and_a_second_sheet_does(heart: Signals) -> None:
    assert refusal(sheet(heart, SheetStyle(), pages=2)).reason is RefusalReason.SEVERAL_PAGES
    pypdfium2 = pytest.importorskip("pypdfium2")
    both = pypdfium2.PdfDocument.new()
    for pdf in (text_page("Report: sinus rhythm, V1 to V6 normal, lead II"), sheet(heart, SheetStyle())):
        both.import_pages(pypdfium2.PdfDocument(pdf))
    buffer = io.BytesIO()
    both.save(buffer)
    assert read(buffer.getvalue(), style=STYLE).page_layout == "3x4+1"


def text_page(*lines: str) -> bytes:
    buffer = io.BytesIO()
    canvas = Canvas(buffer, invariant=1)
    for index, line in enumerate(lines):
        canvas.drawString(20 * mm, (250 - 6 * index) * mm, line)
    canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def picture_page() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    canvas = Canvas(buffer, invariant=1)
    canvas.drawImage(ImageReader(Image.new("L", (60, 40), 200)), 10 * mm, 10 * mm, 190 * mm, 200 * mm)
    canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def many_pages() -> bytes:
    buffer = io.BytesIO()
    canvas = Canvas(buffer, invariant=1)
    for _ in range(30):
        canvas.drawString(10, 10, "page")
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def no_pages() -> bytes:
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [] /Count 0 >>"]
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return body + (
        b"xref\n0 3\n0000000000 65535 f \n%strailer << /Size 3 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
        % (table, len(body))
    )


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: b"", RefusalReason.EMPTY),
        (no_pages, RefusalReason.EMPTY),
        (text_page, RefusalReason.EMPTY),
        (lambda: text_page("Discharge letter", "V1 V2 and V3 show I II"), RefusalReason.NOT_AN_ECG),
        (lambda: text_page(*LEADS), RefusalReason.NOT_AN_ECG),
        (picture_page, RefusalReason.NOT_AN_ECG),
        (many_pages, RefusalReason.TOO_LARGE),
        (lambda: b"%PDF-1.4\n" + bytes(range(256)) * 20, RefusalReason.DAMAGED),
        (lambda: b"%PDF-1.4", RefusalReason.DAMAGED),
        (lambda: encapsulated(b"PK\3\4 a spreadsheet"), RefusalReason.UNSUPPORTED_FORM),
        (lambda: encapsulated(b"\0\0"), RefusalReason.EMPTY),
    ],
)
def test_other_documents_are_refused_with_their_reason(make: object, reason: RefusalReason) -> None:
    assert refusal(make()).reason is reason  # type: ignore[operator]


def test_an_encrypted_pdf_is_refused_as_such(heart: Signals) -> None:
    assert refusal(sheet(heart, SheetStyle(), encrypted=True)).reason is RefusalReason.ENCRYPTED


def test_a_sheet_without_a_single_letter_proves_nothing(heart: Signals) -> None:
    blank = SheetStyle(labels=dict.fromkeys(LEADS, ""), rhythm_labels=False, header="", text="")
    assert refusal(sheet(heart, blank)).reason in {RefusalReason.LABELS_INSUFFICIENT, RefusalReason.NOT_AN_ECG}


@pytest.mark.parametrize("style", [SheetStyle(), SheetStyle(turned=True)], ids=str)
def test_boxes_of_a_vector_sheet_lie_over_their_traces_on_the_drawn_page(heart: Signals, style: SheetStyle) -> None:
    data = sheet(heart, style)
    images = read(data, style=STYLE)
    page = draw_page(data, 0)
    assert images.page_dots_per_inch == 200
    assert images.pixels_per_mm == pytest.approx(200 / 25.4, rel=0.01)
    for box, lead in zip(images.boxes, LEADS, strict=True):
        assert box.lead == lead
        part = page[round(box.top) : round(box.bottom), round(box.left) : round(box.right)]
        # 2.5 s at 25 mm/s, whichever way the page lies, and a trace over all of it
        assert max(part.shape[:2]) / images.pixels_per_mm == pytest.approx(62.5, abs=1.0)
        dark = (part.max(axis=2) < 90).any(axis=int(np.argmin(part.shape[:2])))
        assert dark.mean() > 0.95


@pytest.mark.parametrize("record", ["00009", "00038", "00040"])
def test_real_sheets_give_back_the_recording_they_were_made_from(samples: Path, record: str) -> None:
    truth = np.loadtxt(samples / "ecg_signal" / f"{record}_hr.csv", delimiter=",", skiprows=1).T
    names = [f"ptbxl_{record}_hr.pdf"] + (["ptbxl_00009_hr_6x2.pdf"] if record == "00009" else [])
    whole = read(part10(waveform(Group(signals=dict(zip(LEADS, truth, strict=True)), sensitivity=1.0))), style=STYLE)
    for name in names:
        images = read((samples / "ecg_pdf" / name).read_bytes(), style=STYLE)
        assert images.page_layout == ("6x2" if "6x2" in name else "3x4+1")
        for row, lead in enumerate(truth):
            # Drawn is every fourth sample, from the fifth on.
            shown = np.flatnonzero(np.isfinite(images.signals_mv[row]))[::4]
            shown = shown[shown + 4 < 5000]
            assert np.corrcoef(images.signals_mv[row][shown], lead[shown + 4])[0, 1] > 0.99
        assert np.median(picture_likeness(images, whole)) > 0.9


def test_a_sheet_of_a_real_recorder_shows_what_its_waveform_holds(samples: Path, mortara_ecg: Path) -> None:
    images = read((samples / "ecg_pdf" / "mortara_eli250_3x4_1.pdf").read_bytes(), style=STYLE)
    whole = read(mortara_ecg.read_bytes(), style=STYLE)
    assert images.page_layout == "3x4+1"
    assert np.median(picture_likeness(images, whole)) > 0.9


def test_every_real_sheet_is_accepted(samples: Path) -> None:
    for path in sorted((samples / "ecg_pdf").glob("*.pdf")):
        assert read(path.read_bytes(), style=STYLE).page_layout in {"3x4+1", "6x2"}


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union of two rectangles (left, top, right, bottom)."""
    wide, high = (min(one[2 + k], other[2 + k]) - max(one[k], other[k]) for k in (0, 1))
    if wide <= 0 or high <= 0:
        return 0.0
    both = wide * high
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / (sum(areas) - both)


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("rows", "seconds"), [(3, 2.5), (6, 5.0), (12, 10.0)])
def test_boxes_are_pixels_of_the_page_as_a_viewer_shows_it(
    heart: Signals, rows: int, seconds: float, turned: bool, rotate: int
) -> None:
    """An administrator looks at the boxes over the drawn page: /Rotate and sideways drawing must not move them."""
    style = SheetStyle(rows=rows, rhythm=(), turned=turned, rotate=rotate)
    pdf = sheet(heart, style)
    images = read(pdf, style=STYLE)
    shown = sheet_picture(pdf, 0)
    assert shown is not None
    assert images.page_dots_per_inch == pytest.approx(200)
    assert images.page_order == "standard"
    assert images.page_seconds_per_lead == pytest.approx(seconds, abs=0.01)
    assert images.pixels_per_mm == pytest.approx(200 / 25.4, rel=0.01)
    assert_boxes_lie_where_the_cells_are(images, style)


# A page turned by its own coordinates and by /Rotate shows upright; a smaller page box moves the page's corner.
CROPPED = {False: (10.0, 5.0, 290.0, 204.0), True: (6.0, 10.0, 205.0, 290.0)}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("half_turn", [0, 180])
def test_boxes_are_told_on_the_page_that_is_shown_where_its_box_cuts_the_sheet(
    heart: Signals, turned: bool, half_turn: int
) -> None:
    style = SheetStyle(turned=turned, rotate=half_turn, crop_mm=CROPPED[turned])
    pdf = sheet(heart, style)
    images = read(pdf, style=STYLE)
    shown = sheet_picture(pdf, 0)
    assert shown is not None
    left, bottom, right, top = CROPPED[turned]
    assert shown.shape[:2] == pytest.approx(((top - bottom) * 200 / 25.4, (right - left) * 200 / 25.4), abs=2)
    assert_boxes_lie_where_the_cells_are(images, style)
    for box in images.boxes:  # and what is drawn there is a line from end to end
        part = shown[round(box.top) : round(box.bottom), round(box.left) : round(box.right)]
        dark = (part.max(axis=2) < 90).any(axis=int(np.argmin(part.shape[:2])))
        assert dark.mean() > 0.95


def assert_boxes_lie_where_the_cells_are(images: LeadImages, style: SheetStyle) -> None:
    truth = cell_boxes(style)
    assert [box.lead for box in images.boxes] == list(LEADS)
    for box in images.boxes:
        # A lead's own median is not where its baseline was drawn: a millimetre or two of a row.
        found = (box.left, box.top, box.right, box.bottom)
        assert overlap(found, truth[box.lead]) > (0.9 if style.rows == 3 and not style.rhythm else 0.75)
