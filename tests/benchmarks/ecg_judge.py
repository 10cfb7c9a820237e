"""One task of the ECG benchmark: make or take a file, have it read, and say how near to the truth that came.

A task is a group and a name: a tier and the number of a drawn sheet, a folder of real files and a file's name, or
"adversarial" and the name of a case. The same task gives the same file; what comes back is one line of JSON.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ecg_ingest import LEADS, EcgRefused, LeadImages, RenderStyle, read
from ecg_ingest.recording import Recording
from ecg_ingest.render import render
from ecg_ingest.sheet_picture import sheet_picture
from tests.benchmarks.ecg_adversarial import cases, described
from tests.benchmarks.ecg_sheets import draw
from tests.benchmarks.ecg_signals import HZ, Heart, made_heart, real_hearts
from tests.benchmarks.ecg_tiers import TIERS, random_look, vector_style
from tests.unit.ecg.ecg_builders import cell_boxes
from tests.unit.ecg.ecg_builders import sheet as vector_sheet

STYLE = RenderStyle()
REAL = ("ecg_scan", "ecg_photo", "ecg_pdf")  # folders of the samples
ADVERSARIAL = "adversarial"
Row = dict[str, Any]
Task = tuple[str, str]  # group, name
Box = tuple[float, float, float, float]

_LAG = 30  # samples, 60 ms: by how much a column's beginning may be mistaken and the lead still be known
_ALIKE, _ANOTHERS = 0.8, 0.9  # a signal less like its own lead than this, and so much like another's, is another's
_SAMPLE_FILES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pdf")


@dataclass(kw_only=True)
class Drawn:
    """A drawn file and its truth."""

    data: bytes
    heart: Heart
    cells: dict[str, NDArray[np.float64]]  # what each lead's place on the sheet shows, mV
    starts: dict[str, int]  # the sample of the heart with which it begins
    boxes: dict[str, Box]  # pixels
    look: dict[str, Any]  # what is not usual about it


def code_digest() -> str:
    """Of all that decides what a line says: the reader, and what draws and judges."""
    here = Path(__file__).resolve()
    files = [*sorted((here.parents[2] / "ecg_ingest").glob("*.py")), *sorted(here.parent.glob("ecg_*.py"))]
    files.append(here.parents[1] / "unit" / "ecg" / "ecg_builders.py")
    digest = hashlib.sha256()
    for path in files:
        if path.stem not in ("ecg_figures", "ecg_lines"):  # these only show and keep what was found
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def real_tasks(samples: Path) -> list[Task]:
    """The real files at hand."""
    return [
        (folder, path.name)
        for folder in REAL
        for path in sorted((samples / folder).glob("*"))
        if path.suffix.lower() in _SAMPLE_FILES
    ]


def adversarial_tasks(*, drawn: bool = True) -> list[Task]:
    """Every input that must not be read as if it were ordinary; without the slower, drawn ones if asked."""
    return [(ADVERSARIAL, case.name) for case in cases() if drawn or not case.drawn]


class Judge:
    """Does tasks; holds what they share."""

    def __init__(self, samples: Path) -> None:
        self._samples = samples
        self._hearts = real_hearts(samples)
        self._cases = {case.name: case for case in cases()}
        self._code = code_digest()

    def row(self, task: Task) -> Row:
        """Do one task."""
        group, name = task
        row: Row = {"group": group, "sheet": name, "code": self._code}
        if group == ADVERSARIAL:
            case = self._cases[name]
            images = _read(case.make(), row)
            found = described(images) if images else row["reason"]
            row |= {"outcome": str(found), "right": found in case.right}
        elif group in REAL:
            images = _read((self._samples / group / name).read_bytes(), row)
            self._judge_real(images, row)
        else:
            begun = time.process_time()
            drawn = self.drawn(group, int(name))
            row |= {"look": drawn.look, "drawing_seconds": round(time.process_time() - begun, 3)}
            images = _read(drawn.data, row)
            if images is not None:
                _judge_drawn(images, drawn, row)
        if images is not None:
            row["boxes"] = [[round(edge) for edge in (b.left, b.top, b.right, b.bottom)] for b in images.boxes]
        return row

    def drawn(self, tier: str, number: int) -> Drawn:
        """Sheet `number` of a tier."""
        chance = np.random.default_rng([TIERS.index(tier), number])
        real = bool(self._hearts) and chance.random() < 0.4
        heart = self._hearts[int(chance.integers(len(self._hearts)))] if real else made_heart(number)
        if tier == "vector":
            style = vector_style(chance)
            size = round(10.0 * style.rows / 12 * HZ)
            starts = {lead: index // style.rows * size for index, lead in enumerate(LEADS)}
            return Drawn(
                data=vector_sheet(heart, style),
                heart=heart,
                cells={lead: heart[lead][first : first + size] for lead, first in starts.items()},
                starts=starts,
                boxes=cell_boxes(style),
                look=_unusual(style),
            )
        sheet = draw(heart, HZ, random_look(tier, chance), seed=number)
        boxes = {lead: sheet.box(lead) for lead in LEADS}
        return Drawn(
            data=sheet.file(),
            heart=heart,
            cells=sheet.signals,
            starts=sheet.starts,
            boxes=boxes,
            look=_unusual(sheet.look),
        )

    def file(self, task: Task) -> bytes:
        """The bytes that a task is about."""
        group, name = task
        if group == ADVERSARIAL:
            return self._cases[name].make()
        if group in REAL:
            return (self._samples / group / name).read_bytes()
        return self.drawn(group, int(name)).data

    def picture(self, task: Task) -> NDArray[np.uint8] | None:
        """What a task's file shows, RGB; None where that is nothing."""
        try:
            return sheet_picture(self.file(task))
        except EcgRefused:
            return None

    def _judge_real(self, images: LeadImages | None, row: Row) -> None:
        """Lead boxes drawn by hand are the truth, where they exist."""
        row["wrong"] = []
        path = self._samples / "labels" / f"{row['sheet']}.json"
        if not path.is_file():
            return
        label = json.loads(path.read_text(encoding="utf-8"))
        row["is_12_lead"] = label["is_12_lead"]
        if images is None:
            return
        boxes = {box.lead: (box.left, box.top, box.right, box.bottom) for box in images.boxes}
        overlaps = {lead: overlap(boxes[lead], tuple(box)) for lead, box in label["leads"].items()}
        row["iou"] = [round(value, 3) for value in overlaps.values()]
        row["wrong"] = [lead for lead, value in overlaps.items() if value < 0.5]
        if not label["is_12_lead"]:
            row["wrong"] = ["accepted, and no 12-lead ECG"]


def _unusual(look: Any) -> dict[str, Any]:
    usual = asdict(type(look)())
    values = asdict(look)
    return {
        field.name: round(value, 3) if isinstance(value := values[field.name], float) else value
        for field in fields(look)
        if values[field.name] != usual[field.name]
    }


def _read(data: bytes, row: Row) -> LeadImages | None:
    """Read, with the time of one core and the most memory that it took."""
    counted = _forget_peak()
    begun, at = time.process_time(), time.monotonic()
    images: LeadImages | None = None
    try:
        images = read(data, style=STYLE)
        row |= {"accepted": True, "layout": images.page_layout, "order": images.page_order}
    except EcgRefused as refusal:
        row |= {"accepted": False, "reason": refusal.reason.value, "detail": refusal.detail}
    row["seconds"] = round(time.process_time() - begun, 3)
    row["wall_seconds"] = round(time.monotonic() - at, 3)
    row["mebibytes"] = _peak_mebibytes() if counted else None  # of the whole process
    row["findings"] = sorted({finding.code for finding in images.quality}) if images else []
    return images


def _forget_peak() -> bool:
    """Let the kernel count this process's peak memory anew (proc(5), clear_refs), without what drawing left behind."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except (OSError, AttributeError):
        return False
    return True


def _peak_mebibytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    return 0


def _judge_drawn(images: LeadImages, drawn: Drawn, row: Row) -> None:
    """Compare what was read with what was drawn.

    A lead is wrong if the middle of its box lies in no part of its own place on the sheet, or if its signal is another
    lead's, or its own upside down.
    """
    wrong, unlike, late, likenesses, ratios = [], [], [], [], []
    for index, lead in enumerate(LEADS):
        first, truth = drawn.starts[lead], drawn.cells[lead]
        signal = images.signals_mv[index].astype(np.float64)
        found = np.full(truth.size, np.nan)
        part = signal[first : first + truth.size]
        found[: part.size] = part
        likeness, ratio, lag = _likeness(found, truth)
        likenesses.append(round(likeness, 4))
        ratios.append(round(ratio, 2))
        late.append(lag)
        box = images.boxes[index]
        x, y = (box.left + box.right) / 2.0, (box.top + box.bottom) / 2.0
        x0, y0, x1, y1 = drawn.boxes[lead]
        if not (x0 <= x <= x1 and y0 <= y <= y1):
            wrong.append(lead)
        elif likeness < _ALIKE:
            others = [_likeness(found, drawn.cells[other])[0] for other in LEADS if other != lead]
            if max(*others, _likeness(-found, truth)[0]) > _ANOTHERS:
                wrong.append(lead)
            elif likeness < 0.5:
                unlike.append(lead)
    row |= {"wrong": wrong, "unlike": unlike, "r": likenesses, "snr_db": ratios}
    row["late_ms"] = [round(1000.0 * lag / HZ) for lag in late]
    found_boxes = [(box.left, box.top, box.right, box.bottom) for box in images.boxes]
    row["iou"] = [round(overlap(box, drawn.boxes[lead]), 3) for box, lead in zip(found_boxes, LEADS, strict=True)]
    # The waveform is the whole recording, though the sheet shows 2.5 s of a lead: what the network would be given.
    whole = np.stack([drawn.heart[lead] for lead in LEADS])
    truth, _ = render(
        Recording(signals_mv=whole, sampling_hz=HZ, clocks=(0,) * 12, derived_leads=(), findings=()), STYLE
    )
    pairs = zip(truth.astype(np.float64), images.pixels.astype(np.float64), strict=True)
    row["picture_r"] = [round(float(np.corrcoef(a.ravel(), b.ravel())[0, 1]), 4) for a, b in pairs]


def _likeness(found: NDArray[np.float64], truth: NDArray[np.float64]) -> tuple[float, float, int]:
    """Correlation, signal-to-noise ratio (dB) and shift (samples) at the best shift within 60 ms.

    Both at `HZ`, about their means over the samples that both have.
    """
    size = min(found.size, truth.size)
    best = (-1.0, -99.0, 0)
    step = 3
    lags = list(range(-_LAG, _LAG + 1, step))
    tried = 0
    while tried < len(lags):
        lag = lags[tried]
        tried += 1
        a, b = found[max(0, lag) : size + min(0, lag)], truth[max(0, -lag) : size + min(0, -lag)]
        both = np.isfinite(a) & np.isfinite(b)
        if both.sum() >= HZ:
            x, y = a[both] - a[both].mean(), b[both] - b[both].mean()
            likeness = float((x @ y) / max(np.sqrt((x @ x) * (y @ y)), 1e-12))
            if likeness > best[0]:
                best = (likeness, float(10.0 * np.log10((y @ y) / max(float((x - y) @ (x - y)), 1e-12))), lag)
        if tried == len(lags) and step > 1:  # and now between the best of the coarse shifts and its neighbours
            lags += [near for near in range(best[2] - step + 1, best[2] + step) if near != best[2]]
            step = 1
    return best


def overlap(box: Box, other: Box) -> float:
    """Intersection over union."""
    wide = min(box[2], other[2]) - max(box[0], other[0])
    high = min(box[3], other[3]) - max(box[1], other[1])
    if wide <= 0 or high <= 0:
        return 0.0
    both = (box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return float(wide * high / (both - wide * high))


def one_core() -> None:
    """Let nothing in this process compute with more than one thread."""
    cv2.setNumThreads(1)
