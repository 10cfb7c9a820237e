"""Measure the reading of ECG sheets against known truth: drawn sheets of four tiers, and the real files at hand.

python -m tests.benchmarks.ecg [--sheets N] [--tiers ...] [--quick] [--out FOLDER] writes FOLDER/ecg.jsonl, one JSON
object a sheet and a summary a tier, prints a table, and leaves pictures of refused and wrong sheets in
FOLDER/ecg-sheets. Bounds are not asserted. Real files come from $PULMOLINK_SAMPLES or ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ecg_ingest import LEADS, EcgRefused, LeadImages, RenderStyle, read
from ecg_ingest.recording import Recording
from ecg_ingest.render import render
from tests.benchmarks.ecg_sheets import Sheet, draw
from tests.benchmarks.ecg_signals import HZ, Heart, made_heart, real_hearts
from tests.benchmarks.ecg_tiers import TIERS, random_look, vector_style
from tests.unit.ecg.ecg_builders import sheet as vector_sheet

STYLE = RenderStyle()
Row = dict[str, Any]
_PICTURES_KEPT = 24  # of each tier
_LAG = 30  # samples, 60 ms: by how much a column's beginning may be mistaken and the lead still be known


def main(arguments: list[str]) -> int:
    """Run everything; exit status 0 whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ecg", description=__doc__)
    parser.add_argument("--sheets", type=int, default=1000, help="drawn sheets a tier (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first sheet: other numbers, other sheets")
    parser.add_argument("--tiers", nargs="*", default=TIERS, choices=TIERS)
    parser.add_argument("--quick", action="store_true", help="three sheets a tier: shows that it runs")
    parser.add_argument("--out", type=Path, default=Path("bench-output"), help="folder of ecg.jsonl (%(default)s)")
    chosen = parser.parse_args(arguments)
    samples = Path(os.environ.get("PULMOLINK_SAMPLES", "../shared/data"))
    pictures = chosen.out / "ecg-sheets"
    pictures.mkdir(parents=True, exist_ok=True)
    hearts = real_hearts(samples)
    rows: list[Row] = []
    with (chosen.out / "ecg.jsonl").open("w", encoding="utf-8") as file:
        for tier in chosen.tiers:
            count = 3 if chosen.quick else chosen.sheets
            for row in _drawn(tier, range(chosen.first, chosen.first + count), hearts, pictures):
                rows.append(row)
                print(json.dumps(row), file=file, flush=True)
        for row in _real(samples, pictures):
            rows.append(row)
            print(json.dumps(row), file=file, flush=True)
        for group in dict.fromkeys(row["group"] for row in rows):
            summary = _summary(group, [row for row in rows if row["group"] == group])
            print(json.dumps(summary), file=file, flush=True)
    _show(rows)
    return 0


def _drawn(tier: str, numbers: range, hearts: list[Heart], pictures: Path) -> Iterator[Row]:
    kept = 0
    for number in numbers:
        chance = np.random.default_rng([TIERS.index(tier), number])
        heart = hearts[int(chance.integers(len(hearts)))] if hearts and chance.random() < 0.4 else made_heart(number)
        row: Row = {"group": tier, "sheet": number}
        sheet: Sheet | None = None
        if tier == "vector":
            style = vector_style(chance)
            data = vector_sheet(heart, style)
            row["look"] = repr(style)
            shown = _vector_truth(heart, style.rows, [*style.rhythm])
        else:
            sheet = draw(heart, HZ, random_look(tier, chance), seed=number)
            data = sheet.file()
            row["look"] = repr(sheet.look)
            shown = _sheet_truth(heart, sheet)
        images = _read(data, row)
        if images is not None:
            _judge(images, heart, shown, sheet, row)
        if sheet is not None and (images is None or row["wrong"]) and kept < _PICTURES_KEPT:
            kept += 1
            _keep(pictures / f"{tier}-{number}-{row.get('reason', 'wrong')}.jpg", sheet.rgb, images)
        yield row


def _read(data: bytes, row: Row) -> LeadImages | None:
    begun = time.process_time()
    images: LeadImages | None = None
    try:
        images = read(data, style=STYLE)
        row |= {"accepted": True, "layout": images.page_layout, "order": images.page_order}
    except EcgRefused as refusal:
        row |= {"accepted": False, "reason": refusal.reason.value, "detail": refusal.detail}
    row["seconds"] = round(time.process_time() - begun, 3)
    row["findings"] = sorted({finding.code for finding in images.quality}) if images else []
    return images


def _vector_truth(heart: Heart, rows: int, rhythm: list[str]) -> NDArray[np.float64]:
    each = round(10.0 * rows / 12 * HZ)
    shown = np.full((12, round(10.0 * HZ)), np.nan)
    for index, lead in enumerate(LEADS):
        first = index // rows * each
        shown[index, first : first + each] = heart[lead][first : first + each]
        if lead in rhythm:
            shown[index] = heart[lead][: shown.shape[1]]
    return shown


def _sheet_truth(heart: Heart, sheet: Sheet) -> NDArray[np.float64]:
    shown = np.full((12, heart["I"].size), np.nan)
    for index, lead in enumerate(LEADS):
        first, values = sheet.starts[lead], sheet.signals[lead]
        shown[index, first : first + values.size] = values
    return shown


def _judge(images: LeadImages, heart: Heart, shown: NDArray[np.float64], sheet: Sheet | None, row: Row) -> None:
    """Compare what was read with what was drawn. A lead is wrong if its box or its signal is another's."""
    wrong, unlike = [], []
    correlations, ratios = [], []
    for index, lead in enumerate(LEADS):
        likeness, ratio = _likeness(images.signals_mv[index].astype(np.float64), shown[index], images.sampling_hz)
        correlations.append(likeness)
        ratios.append(ratio)
        if sheet is not None:
            box = images.boxes[index]
            x, y = (box.left + box.right) / 2.0, (box.top + box.bottom) / 2.0
            x0, y0, x1, y1 = sheet.box(lead)
            if not (x0 <= x <= x1 and y0 <= y <= y1):
                wrong.append(lead)
                continue
        if likeness < 0.5:
            unlike.append(lead)
            others = {
                other: _likeness(images.signals_mv[index].astype(np.float64), shown[at], images.sampling_hz)[0]
                for at, other in enumerate(LEADS)
                if other != lead
            }
            mirrored = _likeness(-images.signals_mv[index].astype(np.float64), shown[index], images.sampling_hz)[0]
            if max(others.values()) > 0.9 or mirrored > 0.8:
                wrong.append(lead)
    row["wrong"], row["unlike"] = wrong, unlike
    row["r"], row["snr_db"] = round(float(np.median(correlations)), 4), round(float(np.median(ratios)), 2)
    if sheet is not None:
        overlaps = [_overlap(images.boxes[index], sheet.box(lead)) for index, lead in enumerate(LEADS)]
        row["iou"] = [round(value, 3) for value in overlaps]
    truth, _ = render(
        Recording(signals_mv=shown, sampling_hz=HZ, clocks=(0,) * 12, derived_leads=(), findings=()), STYLE
    )
    pairs = zip(truth.astype(np.float64), images.pixels.astype(np.float64), strict=True)
    row["picture_r"] = round(float(np.median([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])), 4)


def _likeness(found: NDArray[np.float64], truth: NDArray[np.float64], hz: float) -> tuple[float, float]:
    """Correlation and signal-to-noise ratio (dB) where both exist, at the best shift within 60 ms."""
    assert hz == HZ, "both at 500 Hz"
    size = min(found.size, truth.size)
    best = (-1.0, -99.0)
    for lag in range(-_LAG, _LAG + 1):
        a, b = found[max(0, lag) : size + min(0, lag)], truth[max(0, -lag) : size + min(0, -lag)]
        both = np.isfinite(a) & np.isfinite(b)
        if both.sum() < HZ:
            continue
        x, y = a[both] - a[both].mean(), b[both] - b[both].mean()
        likeness = float((x @ y) / max(np.sqrt((x @ x) * (y @ y)), 1e-12))
        if likeness > best[0]:
            best = (likeness, float(10.0 * np.log10((y @ y) / max(float((x - y) @ (x - y)), 1e-12))))
    return best


def _overlap(box: Any, other: tuple[float, float, float, float]) -> float:
    wide = min(box.right, other[2]) - max(box.left, other[0])
    high = min(box.bottom, other[3]) - max(box.top, other[1])
    if wide <= 0 or high <= 0:
        return 0.0
    both = (box.right - box.left) * (box.bottom - box.top) + (other[2] - other[0]) * (other[3] - other[1])
    return float(wide * high / (both - wide * high))


def _real(samples: Path, pictures: Path) -> Iterator[Row]:
    """The files at hand; lead boxes drawn by hand are the truth, where they exist."""
    folders = ("ecg_scan", "ecg_photo", "ecg_pdf")
    for path in sorted(path for folder in folders for path in (samples / folder).glob("*") if path.suffix != ".json"):
        row: Row = {"group": f"real {path.parent.name}", "sheet": path.name, "wrong": []}
        images = _read(path.read_bytes(), row)
        labels = samples / "labels" / f"{path.name}.json"
        if labels.is_file():
            label = json.loads(labels.read_text(encoding="utf-8"))
            row["is_12_lead"] = label["is_12_lead"]
            if images is not None:
                boxes = {box.lead: box for box in images.boxes}
                overlaps = {lead: _overlap(boxes[lead], tuple(box)) for lead, box in label["leads"].items()}
                row["iou"] = [round(value, 3) for value in overlaps.values()]
                row["wrong"] = [lead for lead, value in overlaps.items() if value < 0.5]
                if not label["is_12_lead"]:
                    row["wrong"] = ["accepted, and no 12-lead ECG"]
        if images is not None and path.suffix != ".pdf":
            _keep(pictures / f"real-{path.stem}.jpg", cv2.imread(str(path))[:, :, ::-1], images)
        yield row


def _keep(path: Path, rgb: NDArray[np.uint8], images: LeadImages | None) -> None:
    picture = np.ascontiguousarray(rgb[:, :, ::-1])
    for box in images.boxes if images else ():
        corners = (round(box.left), round(box.top)), (round(box.right), round(box.bottom))
        cv2.rectangle(picture, *corners, (200, 60, 0), 2)
        cv2.putText(picture, box.lead, (corners[0][0] + 5, corners[0][1] + 24), 0, 0.8, (200, 60, 0), 2)
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 80])


def _summary(group: str, rows: list[Row]) -> Row:
    read_rows = [row for row in rows if row["accepted"]]
    overlaps = [value for row in read_rows for value in row.get("iou", ())]
    wrong = [row["sheet"] for row in read_rows if row["wrong"]]

    def median(name: str) -> float | None:
        values = [row[name] for row in read_rows if name in row]
        return round(float(np.median(values)), 4) if values else None

    return {
        "summary": group,
        "sheets": len(rows),
        "accepted": len(read_rows),
        "accepted_share": round(len(read_rows) / max(1, len(rows)), 4),
        "wrong": wrong,
        "unlike": sum(len(row.get("unlike", ())) for row in read_rows),  # leads whose signal is hardly theirs
        "iou_median": round(float(np.median(overlaps)), 3) if overlaps else None,
        "iou_p5": round(float(np.quantile(overlaps, 0.05)), 3) if overlaps else None,
        "r_median": median("r"),
        "snr_db_median": median("snr_db"),
        "picture_r_median": median("picture_r"),
        "seconds_median": round(float(np.median([row["seconds"] for row in rows])), 2),
        "seconds_worst_accepted": max((row["seconds"] for row in read_rows), default=None),
        "refused": dict(Counter(row["reason"] for row in rows if not row["accepted"])),
        "peak_mebibytes_with_drawing": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _show(rows: list[Row]) -> None:
    table = Table(box=SIMPLE_HEAD)
    for title in (
        "sheets",
        "read",
        "wrong",
        "unlike leads",
        "IoU med / p5",
        "r",
        "SNR dB",
        "picture r",
        "s med / worst",
        "refused for",
    ):
        table.add_column(title)
    for group in dict.fromkeys(row["group"] for row in rows):
        found = _summary(group, [row for row in rows if row["group"] == group])
        table.add_row(
            f"{group} ({found['sheets']})",
            f"{found['accepted_share']:.1%}",
            str(len(found["wrong"])),
            str(found["unlike"]),
            f"{found['iou_median']} / {found['iou_p5']}",
            str(found["r_median"]),
            str(found["snr_db_median"]),
            str(found["picture_r_median"]),
            f"{found['seconds_median']} / {found['seconds_worst_accepted']}",
            ", ".join(f"{reason} {count}" for reason, count in found["refused"].items()),
        )
    Console(width=180).print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
