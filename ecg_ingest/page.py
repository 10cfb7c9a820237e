"""The words and lines of a PDF page, in points, turned so that the page's labels read from left to right.

The only place that touches PDFium. PDFium is not thread-safe: everything here runs under one lock, and a
process that reads many files at once should use child processes.
"""

from __future__ import annotations

import ctypes
import math
import threading
import time
import unicodedata
from dataclasses import dataclass

import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium
from numpy.typing import NDArray

from ecg_ingest.lead_images import EcgRefused, RefusalReason

MAX_PAGES = 20
MAX_PAGE_POINTS = 14_400.0  # 200 inches, the largest page of PDF 1.7 (Annex C)
MAX_OBJECTS = 200_000
MAX_POINTS = 3_000_000
MAX_CHARACTERS = 50_000
MAX_SECONDS = 20.0  # for all pages of a file
DRAWN_DOTS_PER_INCH = 200  # 7.9 pixels a millimetre
MAX_DRAWN_SIDE = 5000  # pixels
MAX_DEPTH = 12  # of form objects within form objects

_JOINED_POINTS = 0.02  # a line that starts this close to the last one's end goes on with it
_CURVE_STEPS = 4
_LOCK = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Word:
    """Characters without a gap between them, and their box."""

    text: str  # NFKC: full-width and Roman-numeral characters become plain ones
    left: float
    bottom: float
    right: float
    top: float

    @property
    def middle(self) -> float:
        """Height of the box's centre."""
        return (self.bottom + self.top) / 2.0


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a page shows. y grows upwards."""

    words: tuple[Word, ...]
    strokes: tuple[NDArray[np.float64], ...]  # each [points, 2], in the order they are drawn
    picture_share: float  # of the page's area that the largest picture covers
    to_pixels: NDArray[np.float64]  # [2, 3] from these points to pixels of the page as `draw_page` draws it
    dots_per_inch: float  # of that drawing


def read_pages(data: bytes) -> list[Page]:
    """All pages of a PDF.

    Raises
    ------
    EcgRefused
        ENCRYPTED, EMPTY, DAMAGED, or TOO_LARGE beyond the limits above.
    """
    with _LOCK:
        document = _open(data)
        try:
            return _pages(document)
        except pypdfium2.PdfiumError as error:
            raise EcgRefused(
                RefusalReason.DAMAGED, "a page of the PDF cannot be read", "export the ECG again"
            ) from error
        finally:
            document.close()


def number_of_pages(data: bytes) -> int:
    """How many pages a PDF has.

    Raises
    ------
    EcgRefused
        ENCRYPTED, EMPTY or DAMAGED.
    """
    with _LOCK:
        document = _open(data)
        try:
            return len(document)
        finally:
            document.close()


def draw_page(data: bytes, index: int) -> NDArray[np.uint8]:
    """A page as pixels at `DRAWN_DOTS_PER_INCH`, [height, width, 3] RGB; very large pages with fewer.

    Raises
    ------
    EcgRefused
        DAMAGED, or TOO_LARGE beyond the limits above.
    """
    with _LOCK:
        document = _open(data)
        try:
            width, height = document.get_page_size(index)
            if not (0 < width <= MAX_PAGE_POINTS and 0 < height <= MAX_PAGE_POINTS):
                raise EcgRefused(RefusalReason.TOO_LARGE, "a page is too large", "export the ECG on an ordinary page")
            scale = drawn_dots_per_inch(width, height) / 72.0
            bitmap = document[index].render(scale=scale, rev_byteorder=True, prefer_bgrx=False)
            pixels = np.asarray(bitmap.to_numpy())
            return np.array(pixels[:, :, :3] if pixels.ndim == 3 else np.stack([pixels] * 3, axis=2), dtype=np.uint8)
        except pypdfium2.PdfiumError as error:
            raise EcgRefused(
                RefusalReason.DAMAGED, "a page of the PDF cannot be drawn", "export the ECG again"
            ) from error
        finally:
            document.close()


def drawn_dots_per_inch(width: float, height: float) -> float:
    """At how many dots an inch `draw_page` draws a page of this size in points."""
    return min(float(DRAWN_DOTS_PER_INCH), 72.0 * MAX_DRAWN_SIDE / max(width, height))


def _open(data: bytes) -> pypdfium2.PdfDocument:
    # DICOM pads to even length with NUL, and some senders to whole blocks; PDFium looks for the end of
    # the file in the last kilobyte only.
    content = data[data.index(b"%PDF-") :].rstrip(b"\0")
    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
            raise EcgRefused(
                RefusalReason.ENCRYPTED, "the PDF asks for a password", "send it without a password"
            ) from error
        if b"/Encrypt" in content:
            raise EcgRefused(
                RefusalReason.ENCRYPTED, "the PDF is encrypted in a way not supported", "send it unencrypted"
            ) from error
        if _declares_no_page(content):
            raise EcgRefused(RefusalReason.EMPTY, "the PDF has no page", "export the ECG again") from error
        raise EcgRefused(RefusalReason.DAMAGED, "the PDF cannot be opened", "export the ECG again") from error
    return document


def _declares_no_page(content: bytes) -> bool:
    """A well-formed file without pages fails to open; tell it from a broken one."""
    return len(content) < 16_384 and b"/Count 0" in content and b"%%EOF" in content


def _pages(document: pypdfium2.PdfDocument) -> list[Page]:
    count = len(document)
    if count == 0:
        raise EcgRefused(RefusalReason.EMPTY, "the PDF has no page", "export the ECG again")
    if count > MAX_PAGES:
        raise EcgRefused(
            RefusalReason.TOO_LARGE,
            f"{count} pages; at most {MAX_PAGES} are read",
            "send the ECG sheet alone",
        )
    deadline = time.monotonic() + MAX_SECONDS
    pages = []
    for index in range(count):
        width, height = document.get_page_size(index)
        if not (0 < width <= MAX_PAGE_POINTS and 0 < height <= MAX_PAGE_POINTS):
            raise EcgRefused(
                RefusalReason.TOO_LARGE,
                f"a page of {width / 72 * 25.4:.0f} x {height / 72 * 25.4:.0f} mm",
                "export the ECG on an ordinary page",
            )
        page = document[index]
        words, angle = _words(page)
        strokes, share = _strokes(page, deadline, width * height)
        shown_width, shown_height = page.get_size()  # after /Rotate
        pages.append(
            Page(
                words=tuple(_turned_word(word, angle) for word in words),
                strokes=tuple(_turned(stroke, angle) for stroke in strokes),
                picture_share=share,
                to_pixels=_to_pixels(page, shown_width, shown_height, angle),
                dots_per_inch=drawn_dots_per_inch(width, height),
            )
        )
    return pages


def _to_pixels(page: pypdfium2.PdfPage, width: float, height: float, turns: int) -> NDArray[np.float64]:
    """From points turned by `turns` to pixels of the drawn page: /Rotate and a shifted page box included."""
    scale = drawn_dots_per_inch(width, height) / 72.0
    size = (math.ceil(width * scale), math.ceil(height * scale))
    corners = np.array([[0.0, 0.0], [1000.0, 0.0], [0.0, 1000.0]])
    places = []
    for x, y in corners.tolist():
        column, row = ctypes.c_int(), ctypes.c_int()
        # Device coordinates are whole numbers: ask for a page drawn sixteen times as fine.
        pdfium.FPDF_PageToDevice(page.raw, 0, 0, size[0] * 16, size[1] * 16, 0, x, y, column, row)
        places.append((column.value / 16.0, row.value / 16.0))
    matrix = np.hstack((_turned(corners, turns), np.ones((3, 1))))
    solved: NDArray[np.float64] = np.linalg.solve(matrix, np.array(places)).T
    return solved


def _words(page: pypdfium2.PdfPage) -> tuple[list[Word], int]:
    """Words in the page's own coordinates, and the quarter turns (counter-clockwise) most of them have."""
    text = page.get_textpage()
    count = text.count_chars()
    if count > MAX_CHARACTERS:
        raise EcgRefused(
            RefusalReason.TOO_LARGE, f"{count} characters on a page", "send the ECG sheet alone, not a report"
        )
    turns = [0, 0, 0, 0]
    words: list[Word] = []
    characters = ""
    box = [0.0, 0.0, 0.0, 0.0]

    def finish() -> None:
        nonlocal characters
        if characters:
            plain = unicodedata.normalize("NFKC", characters)
            words.append(Word(text=plain, left=box[0], bottom=box[1], right=box[2], top=box[3]))
        characters = ""

    for index in range(count):
        code = pdfium.FPDFText_GetUnicode(text, index)
        character = chr(code) if 0 < code < 0x110000 else " "
        if character.isspace() or pdfium.FPDFText_IsGenerated(text, index) == 1:
            finish()
            continue
        left, bottom, right, top = text.get_charbox(index)
        clockwise = math.degrees(pdfium.FPDFText_GetCharAngle(text, index))
        turns[round(-clockwise / 90.0) % 4] += 1
        size = max(right - left, top - bottom, min(box[2] - box[0], box[3] - box[1]))  # a full stop is tiny
        apart = max(left - box[2], box[0] - right, bottom - box[3], box[1] - top)
        if characters and apart > size:
            finish()
        if characters:
            box = [min(box[0], left), min(box[1], bottom), max(box[2], right), max(box[3], top)]
        else:
            box = [left, bottom, right, top]
        characters += character
    finish()
    return words, int(np.argmax(turns)) if any(turns) else 0


def _strokes(page: pypdfium2.PdfPage, deadline: float, page_area: float) -> tuple[list[NDArray[np.float64]], float]:
    """Every line drawn on the page, and how much of it the largest picture covers."""
    finished: list[NDArray[np.float64]] = []
    open_line: list[tuple[float, float]] = []
    objects = points = 0
    share = 0.0

    def finish() -> None:
        nonlocal open_line
        if len(open_line) > 1:
            finished.append(np.array(open_line))
        open_line = []

    for item in page.get_objects(max_depth=MAX_DEPTH):
        objects += 1
        if objects > MAX_OBJECTS or points > MAX_POINTS or time.monotonic() > deadline:
            raise EcgRefused(
                RefusalReason.TOO_LARGE,
                "a page draws more than an ECG sheet does",
                f"at most {MAX_OBJECTS} objects, {MAX_POINTS} points and {MAX_SECONDS:g} s are spent",
            )
        if item.type == pdfium.FPDF_PAGEOBJ_IMAGE:
            left, bottom, right, top = item.get_bounds()
            share = max(share, (right - left) * (top - bottom) / page_area)
        if item.type != pdfium.FPDF_PAGEOBJ_PATH:
            continue
        for line in _lines(item):
            points += len(line)
            joined = open_line and math.dist(open_line[-1], line[0]) < _JOINED_POINTS
            if joined and _goes_right(open_line[-1], line):
                open_line.extend(line[1:])
            else:
                finish()
                open_line = line
    finish()
    return finished, share


def _goes_right(last: tuple[float, float], line: list[tuple[float, float]]) -> bool:
    """Exporters that draw a trace piece by piece draw it forwards; boxes and frames turn back."""
    return math.dist(last, line[-1]) > 0.0


def _lines(item: pypdfium2.PdfObject) -> list[list[tuple[float, float]]]:
    """A path object's subpaths as points in page coordinates; curves in short pieces."""
    a, b, c, d, e, f = _matrix(item)
    lines: list[list[tuple[float, float]]] = []
    line: list[tuple[float, float]] = []
    control: list[tuple[float, float]] = []
    x, y = ctypes.c_float(), ctypes.c_float()
    for index in range(pdfium.FPDFPath_CountSegments(item.raw)):
        segment = pdfium.FPDFPath_GetPathSegment(item.raw, index)
        pdfium.FPDFPathSegment_GetPoint(segment, x, y)
        point = (a * x.value + c * y.value + e, b * x.value + d * y.value + f)
        kind = pdfium.FPDFPathSegment_GetType(segment)
        if kind == pdfium.FPDF_SEGMENT_MOVETO:
            if len(line) > 1:
                lines.append(line)
            line = [point]
        elif kind == pdfium.FPDF_SEGMENT_BEZIERTO:
            control.append(point)
            if len(control) == 3 and line:
                line.extend(_curve(line[-1], *control))
                control = []
        else:
            line.append(point)
        if pdfium.FPDFPathSegment_GetClose(segment) and len(line) > 1:
            line.append(line[0])
    if len(line) > 1:
        lines.append(line)
    return lines


def _curve(
    p0: tuple[float, float], p1: tuple[float, float], p2: tuple[float, float], p3: tuple[float, float]
) -> list[tuple[float, float]]:
    """Points on a cubic Bezier curve after its start."""
    points = []
    for step in range(1, _CURVE_STEPS + 1):
        t = step / _CURVE_STEPS
        s = 1.0 - t
        w0, w1, w2, w3 = s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t
        points.append(
            (
                w0 * p0[0] + w1 * p1[0] + w2 * p2[0] + w3 * p3[0],
                w0 * p0[1] + w1 * p1[1] + w2 * p2[1] + w3 * p3[1],
            )
        )
    return points


def _matrix(item: pypdfium2.PdfObject) -> tuple[float, float, float, float, float, float]:
    """From the object's coordinates to the page's, through every form that contains it."""
    matrix = item.get_matrix()
    container = item.container
    while container is not None:
        matrix = matrix.multiply(container.get_matrix())
        container = container.container
    values = matrix.get()
    return (values[0], values[1], values[2], values[3], values[4], values[5])


def _turned(points: NDArray[np.float64], turns: int) -> NDArray[np.float64]:
    """Points after undoing `turns` quarter turns counter-clockwise.

    /Rotate says how a viewer turns the page; only the text's own direction says how the sheet lies.
    """
    x, y = points[:, 0], points[:, 1]
    if turns == 1:
        return np.stack((y, -x), axis=1)
    if turns == 2:
        return np.stack((-x, -y), axis=1)
    if turns == 3:
        return np.stack((-y, x), axis=1)
    return points


def _turned_word(word: Word, turns: int) -> Word:
    corners = _turned(np.array([[word.left, word.bottom], [word.right, word.top]]), turns)
    (left, bottom), (right, top) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return Word(text=word.text, left=left, bottom=bottom, right=right, top=top)
