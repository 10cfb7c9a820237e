"""Draw ECG sheets with known truth: any layout, paper, font and damage, from real or made signals.

Every knob is something that a recorder, a printer, a scanner or a hand does. Seeded: the same seed, the same sheet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ecg_ingest.lead_images import LEADS

Signals = Mapping[str, NDArray[np.float64]]  # mV

CABRERA = ("aVL", "I", "-aVR", "II", "aVF", "III", *LEADS[6:])
PAPERS = {  # paper, fine line, strong line, ink
    "pink": ((255, 246, 244), (252, 214, 212), (240, 160, 160), (20, 20, 25)),
    "red": ((254, 236, 232), (246, 178, 172), (226, 110, 110), (30, 20, 20)),
    "orange": ((255, 250, 240), (250, 220, 180), (240, 180, 110), (10, 10, 10)),
    "green": ((246, 253, 246), (196, 232, 200), (130, 200, 150), (15, 30, 15)),
    "blue": ((246, 249, 255), (200, 215, 245), (140, 170, 230), (15, 15, 60)),
    "grey": ((250, 250, 250), (220, 220, 220), (180, 180, 180), (20, 20, 20)),
    "faded": ((244, 238, 230), (232, 214, 204), (216, 188, 178), (110, 100, 105)),
    "mono": ((255, 255, 255), (228, 228, 228), (200, 200, 200), (0, 0, 0)),
}


@dataclass(kw_only=True)
class Look:
    """How a sheet is drawn. Millimetres are those of the grid."""

    layout: str = "3x4"
    order: str = "standard"
    rhythm: tuple[str, ...] = ("II",)
    paper: str = "pink"
    font: str = "_a______.pfb"
    label_mm: float = 3.0
    label_place: str = "above"  # above, below, on
    pixels_per_mm: float = 8.0
    speed: float = 25.0
    gain: float = 10.0
    pulse: str = "left"  # left, right, none
    pen_mm: float = 0.32
    pitch_mm: float = 0.0  # between rows; 0 by layout
    grid_fine: bool = True
    separators: str = "none"  # none, ticks, bars, dotted
    header: bool = True
    handwriting: bool = False
    stamp: bool = False
    crop_right_mm: float = 0.0
    names: Mapping[str, str] = field(default_factory=dict)  # another name where a lead's own belongs
    covered: tuple[str, ...] = ()  # labels under a sticker
    flat: tuple[str, ...] = ()
    # what happens to the printed sheet
    tilt_degrees: float = 0.0
    quarter_turns: int = 0
    blur: float = 0.0  # pixels
    noise: float = 0.0  # grey levels
    jpeg: int = 0  # quality; 0 none
    shadow: float = 0.0  # 0 to 1
    creases: int = 0
    keystone: float = 0.0  # how much narrower the top is
    bend: float = 0.0  # millimetres
    contrast: float = 1.0


@dataclass(kw_only=True)
class Sheet:
    """A picture and its truth."""

    rgb: NDArray[np.uint8]
    look: Look
    boxes: dict[str, NDArray[np.float64]]  # [4, 2] corners in the picture's pixels
    signals: dict[str, NDArray[np.float64]]  # what each cell shows, mV
    starts: dict[str, int]  # the first sample that each cell shows
    hz: float

    def file(self) -> bytes:
        """PNG, or JPEG if the look says so."""
        wanted = (cv2.IMWRITE_JPEG_QUALITY, self.look.jpeg) if self.look.jpeg else (cv2.IMWRITE_PNG_COMPRESSION, 1)
        done, data = cv2.imencode(
            ".jpg" if self.look.jpeg else ".png", cv2.cvtColor(self.rgb, cv2.COLOR_RGB2BGR), wanted
        )
        assert done
        return bytes(data)

    def box(self, lead: str) -> tuple[float, float, float, float]:
        """The upright rectangle between the middles of a cell's sides."""
        a, b, c, d = self.boxes[lead]
        mid = np.array([(a + b) / 2, (b + c) / 2, (c + d) / 2, (d + a) / 2])
        (x0, y0), (x1, y1) = mid.min(axis=0).tolist(), mid.max(axis=0).tolist()
        height, width = self.rgb.shape[:2]
        return max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)


ROWS = {"3x4": 3, "6x2": 6, "12x1": 12, "4x3": 4}
PITCH = {"3x4": 32.0, "6x2": 26.0, "12x1": 19.0, "4x3": 32.0}


def draw(signals: Signals, hz: float, look: Look, seed: int = 0) -> Sheet:
    """A sheet of ten seconds."""
    chance = np.random.default_rng(seed)
    rows = ROWS[look.layout]
    columns = 12 // rows
    seconds = {4: 2.5, 3: 2.5, 2: 5.0, 1: 10.0}[columns]
    lines = rows + len(look.rhythm)
    pitch = look.pitch_mm or PITCH[look.layout]
    s = look.pixels_per_mm * 2.0  # drawn twice as fine, then reduced
    left, top = 16.0, 24.0 if look.header else 6.0
    width_mm = left + columns * seconds * look.speed + 16.0 - look.crop_right_mm
    height_mm = top + lines * pitch + 14.0
    canvas = _paper(width_mm, height_mm, top, look, s)
    ink = PAPERS[look.paper][3]
    order = LEADS if look.order == "standard" else CABRERA
    boxes: dict[str, NDArray[np.float64]] = {}
    shown: dict[str, NDArray[np.float64]] = {}
    starts: dict[str, int] = {}
    texts: list[tuple[float, float, str]] = []
    pen = max(1, round(look.pen_mm * s))
    for line in range(lines):
        y = top + (line + 0.5) * pitch
        if look.pulse != "none":
            begin = left - 9.0 if look.pulse == "left" else left + columns * seconds * look.speed + 2.0
            wide, high = 0.2 * look.speed, look.gain
            points = [(0, 0), (1, 0), (1, -high), (1 + wide, -high), (1 + wide, 0), (2 + wide, 0)]
            _polyline(canvas, np.array(points) + np.array([begin, y]), s, pen, ink)
        if line >= rows:
            lead = look.rhythm[line - rows]
            _trace(canvas, signals[lead], hz, left, y, look, s, pen, ink, 0.0, columns * seconds)
            texts.append((left, y, lead))
            continue
        for column in range(columns):
            name = order[column * rows + line]
            lead = name.lstrip("-")
            values = -np.asarray(signals[lead]) if name.startswith("-") else np.asarray(signals[lead])
            if lead in look.flat:
                values = np.zeros_like(values)
            x = left + column * seconds * look.speed
            _trace(canvas, values, hz, x, y, look, s, pen, ink, column * seconds, seconds)
            first = starts[lead] = round(column * seconds * hz)
            shown[lead] = np.asarray(signals[lead])[first : first + round(seconds * hz)]
            boxes[lead] = np.array(
                [[x, y - pitch / 2], [x + seconds * look.speed, y - pitch / 2],
                 [x + seconds * look.speed, y + pitch / 2], [x, y + pitch / 2]]
            ) * s  # fmt: skip
            if lead not in look.covered:
                texts.append((x, y, look.names.get(lead, name)))
            if column and look.separators != "none":
                _separator(canvas, x, y, pitch, look, s, ink)
    font = _font(look.font, look.label_mm, s)
    drop = {"above": -0.36 * pitch, "below": 0.2 * pitch, "on": -0.12 * pitch}[look.label_place]
    for x, y, text in texts:
        _write(canvas, (x + 1.0) * s, (y + drop - look.label_mm / 2) * s, text, font, ink)
    if look.header:
        small = _font("_er_____.pfb", 2.8, s)
        for number, text in enumerate(
            ("ID 00000   HR 72 bpm  PR 160 ms  QRS 92 ms  QT/QTc 380/410", "Sinus rhythm, V5+V1, lead II, V 3")
        ):
            _write(canvas, 8 * s, (4 + 5 * number) * s, text, small, ink)
        footer = f"{look.speed:g} mm/s   {look.gain:g} mm/mV   0.05-150 Hz"
        _write(canvas, 20 * s, (height_mm - 6.0) * s, footer, small, ink)
    if look.handwriting:
        _scribble(canvas, chance, s)
    if look.stamp:
        _stamp(canvas, chance, s)
    rgb = cv2.resize(canvas, (canvas.shape[1] // 2, canvas.shape[0] // 2), interpolation=cv2.INTER_AREA)
    sheet = Sheet(rgb=rgb, look=look, boxes={k: v / 2.0 for k, v in boxes.items()}, signals=shown, starts=starts, hz=hz)
    _damage(sheet, chance)
    return sheet


def _paper(width_mm: float, height_mm: float, top: float, look: Look, s: float) -> NDArray[np.uint8]:
    """Grid paper of an even number of pixels."""
    width, height = 2 * round(width_mm * s / 2), 2 * round(height_mm * s / 2)
    paper, fine, strong, _ = PAPERS[look.paper]

    def marked(row: NDArray[np.uint8], colour: tuple[int, int, int], every: float, thick: float) -> NDArray[np.uint8]:
        pen = max(1, round(thick * s))
        for x in np.arange(0.0, width_mm, every):
            row[round(x * s) : round(x * s) + pen] = colour
        return row

    plain = np.tile(np.array(paper, np.uint8), (width, 1))
    if look.grid_fine:
        plain = marked(plain, fine, 1.0, 0.1)
    plain = marked(plain, strong, 5.0, 0.2)
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = plain
    fine_row = marked(np.tile(np.array(fine, np.uint8), (width, 1)), strong, 5.0, 0.2)
    for every, thick, row in ((1.0, 0.1, fine_row), (5.0, 0.2, np.array(strong, np.uint8))):
        if every == 5.0 or look.grid_fine:
            pen = max(1, round(thick * s))
            for y in np.arange(top - 4.0, height_mm - 8.0, every):
                canvas[round(y * s) : round(y * s) + pen] = row
    return canvas


def _write(
    canvas: NDArray[np.uint8],
    x: float,
    y: float,
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    ink: tuple[int, int, int],
) -> None:
    """Text with its upper left corner here."""
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text))
    if right <= left or bottom <= top:
        return
    image = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(image).text((-left, -top), text, fill=255, font=font)
    column, row = round(x) + left, round(y) + top
    part = canvas[max(0, row) : row + image.height, max(0, column) : column + image.width]
    mask = np.asarray(image)[max(0, -row) :, max(0, -column) :][: part.shape[0], : part.shape[1], None] / 255.0
    part[:] = np.rint(part * (1.0 - mask) + np.array(ink) * mask).astype(np.uint8)


def _font(name: str, millimetres: float, s: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    import reportlab

    size = millimetres * s / 0.72  # capital letters are 0.72 of the size
    for folder in (Path(reportlab.__file__).parent / "fonts", Path("/usr/share/fonts/truetype/dejavu")):
        if (folder / name).is_file():
            return ImageFont.truetype(str(folder / name), size)
    return ImageFont.load_default(size)


def _trace(
    canvas: NDArray[np.uint8], values: NDArray[np.float64], hz: float, x: float, y: float, look: Look,
    s: float, pen: int, ink: tuple[int, int, int], start: float, seconds: float,
) -> None:  # fmt: skip
    part = values[round(start * hz) : round((start + seconds) * hz)]
    xs = x + np.arange(part.size) / hz * look.speed
    _polyline(canvas, np.stack((xs, y - part * look.gain), axis=1), s, pen, ink)


def _polyline(
    canvas: NDArray[np.uint8], points: NDArray[np.float64], s: float, pen: int, ink: tuple[int, int, int]
) -> None:
    fixed = np.rint(points * s * 16).astype(np.int32)
    cv2.polylines(canvas, [fixed], False, ink, pen, cv2.LINE_AA, 4)


def _separator(
    canvas: NDArray[np.uint8], x: float, y: float, pitch: float, look: Look, s: float, ink: tuple[int, int, int]
) -> None:
    if look.separators == "ticks":
        spans = [(y - 0.42 * pitch, y - 0.3 * pitch)]
    elif look.separators == "bars":
        spans = [(y - 5.0, y - 1.5), (y + 1.5, y + 5.0)]
    else:
        spans = [(at, at + 0.6) for at in np.arange(y - pitch / 2, y + pitch / 2, 1.4)]
    for low, high in spans:
        cv2.line(canvas, (round(x * s), round(low * s)), (round(x * s), round(high * s)), ink, max(1, round(0.25 * s)))


def _scribble(canvas: NDArray[np.uint8], chance: np.random.Generator, s: float) -> None:
    height, width = canvas.shape[:2]
    for _ in range(3):
        x, y = chance.uniform(0.1, 0.8) * width, chance.uniform(0.05, 0.95) * height
        steps = chance.normal(0.0, 2.2 * s, (14, 2)) + np.array([2.0 * s, 0.0])
        points = np.rint(np.cumsum(steps, axis=0) + np.array([x, y])).astype(np.int32)
        cv2.polylines(canvas, [points], False, (40, 50, 150), max(1, round(0.45 * s)), cv2.LINE_AA)


def _stamp(canvas: NDArray[np.uint8], chance: np.random.Generator, s: float) -> None:
    height, width = canvas.shape[:2]
    at = (round(chance.uniform(0.6, 0.9) * width), round(chance.uniform(0.05, 0.9) * height))
    reach = round(10 * s)
    corner = max(0, at[0] - reach), max(0, at[1] - reach)
    under = canvas[corner[1] : at[1] + reach, corner[0] : at[0] + reach]
    layer = under.copy()
    middle = at[0] - corner[0], at[1] - corner[1]
    cv2.circle(layer, middle, round(9 * s), (200, 30, 40), round(0.8 * s), cv2.LINE_AA)
    cv2.putText(layer, "SEEN", (middle[0] - round(6 * s), middle[1]), 0, s / 8.0, (200, 30, 40), max(1, round(0.4 * s)))
    under[:] = cv2.addWeighted(layer, 0.6, under, 0.4, 0.0)


def _damage(sheet: Sheet, chance: np.random.Generator) -> None:
    """Creases, shadow, geometry, blur and noise, in the order in which they happen."""
    look = sheet.look
    sheet.rgb = _shaded(sheet.rgb, look, chance)
    if look.keystone or look.tilt_degrees:
        _tilt(sheet)
    if look.bend:
        _bend(sheet)
    if look.blur:
        sheet.rgb = cv2.GaussianBlur(sheet.rgb, (0, 0), look.blur)
    if look.noise:
        cv2.setRNGSeed(int(chance.integers(2**31)))
        grain = np.empty(sheet.rgb.shape[:2], np.int16)
        cv2.randn(grain, 0.0, look.noise)
        sheet.rgb = cv2.add(sheet.rgb, cv2.merge([grain] * 3), dtype=cv2.CV_8U)
    if look.quarter_turns:
        h, w = sheet.rgb.shape[:2]
        sheet.rgb = np.ascontiguousarray(np.rot90(sheet.rgb, -look.quarter_turns))
        for k, v in sheet.boxes.items():
            x, y = v[:, 0].copy(), v[:, 1].copy()
            turned = {1: (h - y, x), 2: (w - x, h - y), 3: (y, w - x)}[look.quarter_turns % 4]
            sheet.boxes[k] = np.stack(turned, axis=1)


def _shaded(rgb: NDArray[np.uint8], look: Look, chance: np.random.Generator) -> NDArray[np.uint8]:
    height, width = rgb.shape[:2]
    if look.creases or look.shadow:
        light = np.ones((height, width), np.float32)
        for _ in range(look.creases):
            x = chance.uniform(0.1, 0.9) * width
            lean = chance.uniform(-0.1, 0.1)
            low, high = sorted((x, x + lean * height))
            first, last = max(0, int(low) - 40), min(width, int(high) + 40)  # elsewhere it is not seen
            across, down = np.arange(first, last, dtype=np.float32), np.arange(height, dtype=np.float32)
            away = np.abs(across[None, :] - np.float32(x) - np.float32(lean) * down[:, None])
            dark, bright = np.exp(-((away / 4.0) ** 2)), np.exp(-(((away - 9.0) / 8.0) ** 2))
            light[:, first:last] *= 1.0 - 0.3 * dark + 0.06 * bright
        if look.shadow:
            gx, gy = chance.uniform(-1, 1, 2)
            coarse = (height // 8 + 1, width // 8 + 1)
            ramp = gx * np.linspace(-1, 1, coarse[1])[None, :] + gy * np.linspace(-1, 1, coarse[0])[:, None]
            shade = (1.0 - look.shadow * 0.5 * (1 + np.tanh(2 * ramp))).astype(np.float32)
            light *= cv2.resize(shade, (width, height), interpolation=cv2.INTER_LINEAR)
        rgb = cv2.merge([cv2.multiply(channel, light, dtype=cv2.CV_8U) for channel in cv2.split(rgb)])
    if look.contrast != 1.0:
        rgb = cv2.LUT(rgb, np.rint(255.0 - (255.0 - np.arange(256)) * look.contrast).astype(np.uint8))
    return rgb


def _tilt(sheet: Sheet) -> None:
    """Turn the sheet, and let its top be farther away."""
    look = sheet.look
    height, width = sheet.rgb.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    angle = np.deg2rad(look.tilt_degrees)
    rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = corners.copy()
    moved[0, 0] += look.keystone * width / 2
    moved[1, 0] -= look.keystone * width / 2
    moved = (moved - [width / 2, height / 2]) @ rotate.T
    moved -= moved.min(axis=0)
    size = tuple(np.ceil(moved.max(axis=0)).astype(int).tolist())
    matrix = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    border = [float(v) for v in sheet.rgb[2, 2]]
    sheet.rgb = cv2.warpPerspective(
        sheet.rgb, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=border
    )
    sheet.boxes = {k: cv2.perspectiveTransform(v[None], matrix)[0] for k, v in sheet.boxes.items()}


def _bend(sheet: Sheet) -> None:
    """Lift the middle of the sheet."""
    look = sheet.look
    height, width = sheet.rgb.shape[:2]
    shift = (look.bend * look.pixels_per_mm * np.sin(np.linspace(0, np.pi, width))).astype(np.float32)
    xs = np.broadcast_to(np.arange(width, dtype=np.float32), (height, width))
    ys = np.arange(height, dtype=np.float32)[:, None] + shift[None, :]
    sheet.rgb = cv2.remap(sheet.rgb, xs.copy(), ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    for v in sheet.boxes.values():
        v[:, 1] -= np.interp(v[:, 0], np.arange(width), shift)
