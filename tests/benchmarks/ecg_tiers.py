"""What sheets are like: a random look for each tier, from a clean export to a photograph. Seeded."""

from __future__ import annotations

import numpy as np

from ecg_ingest.lead_images import LEADS
from tests.benchmarks.ecg_sheets import PAPERS, Look
from tests.unit.ecg.ecg_builders import SheetStyle

TIERS = ("vector", "clean", "degraded", "photo")
FONTS = ("_a______.pfb", "_ab_____.pfb", "_er_____.pfb", "_eb_____.pfb", "Vera.ttf", "VeraBd.ttf", "com_____.pfb")
_LAYOUTS = ("3x4", "6x2", "12x1", "4x3")
_SHARES = (0.55, 0.2, 0.15, 0.1)
_RHYTHM = {
    "3x4": ((), ("II",), ("II",), ("II",), ("V1", "II"), ("V1", "II", "V5")),
    "6x2": ((), ("II",)),
    "12x1": ((),),
    "4x3": ((), ("II",)),
}

_SAID = (
    "25 mm/s   {gain:g} mm/mV",
    "25mm/s {gain:g}mm/mV 0.05-150Hz",
    "Speed: 25,0 mm/sec  Gain: {centimetres:g} cm/mV",
)


def vector_style(chance: np.random.Generator) -> SheetStyle:
    """A vector PDF's look."""
    rows = int(chance.choice([3, 3, 3, 6, 12]))
    rhythm = _RHYTHM[{3: "3x4", 6: "6x2", 12: "12x1"}[rows]]
    grid = bool(chance.random() < 0.8)
    scale = float(chance.choice([1.0, 1.0, 0.8]))
    turned = bool(chance.random() < 0.15)
    pulse = bool(chance.random() < 0.8 or not grid)
    gain = float(chance.choice([10.0] * 8 + [5.0, 20.0])) if pulse else 10.0
    said = _SAID[int(chance.integers(len(_SAID)))]
    pieces = bool(chance.random() < 0.1)
    return SheetStyle(
        rows=rows,
        rhythm=rhythm[int(chance.integers(len(rhythm)))],
        grid=grid,
        one_line_a_row=bool(chance.random() < 0.2),
        gain=gain,
        pulse_mm=gain if pulse else None,
        pulse_in_line=bool(chance.random() < 0.15) and not pieces,
        pieces=pieces,
        text=said.format(gain=gain, centimetres=gain / 10.0),
        labels={lead: lead.upper() for lead in LEADS} if chance.random() < 0.15 else {},
        rhythm_labels=bool(chance.random() < 0.85),
        rhythm_first=bool(chance.random() < 0.1),
        in_form=bool(chance.random() < 0.15),
        turned=turned,
        rotate=int(chance.choice([0, 90, 90, 270] if turned else [0, 0, 0, 180])),
        scale=scale,
    )


def random_look(tier: str, chance: np.random.Generator) -> Look:
    """A sheet of a raster tier: gain and speed are always the standard ones."""
    layout = str(chance.choice(_LAYOUTS, p=_SHARES))
    rhythm = _RHYTHM[layout]
    look = Look(
        layout=layout,
        order="cabrera" if chance.random() < 0.1 else "standard",
        rhythm=rhythm[int(chance.integers(len(rhythm)))],
        paper=str(chance.choice([name for name in PAPERS if name != "faded"])),
        font=str(chance.choice(FONTS)),
        label_mm=float(chance.uniform(2.4, 3.8)),
        label_place=str(chance.choice(["above", "above", "below", "on"])),
        pixels_per_mm=float(chance.uniform(6.0, 10.0)),
        pulse=str(chance.choice(["left", "left", "right", "none"])),
        pen_mm=float(chance.uniform(0.22, 0.45)),
        grid_fine=bool(chance.random() < 0.85),
        separators=str(chance.choice(["none", "ticks", "bars", "dotted"])),
        header=bool(chance.random() < 0.7),
        tilt_degrees=float(chance.normal(0.0, 0.4)),
        jpeg=int(chance.choice([0, 0, 90])),
        noise=float(chance.uniform(0.0, 1.5)),
        blur=float(chance.uniform(0.0, 0.5)),
    )
    if tier == "degraded":
        _degrade(look, chance)
    if tier == "photo":
        _photograph(look, chance)
    return look


def _degrade(look: Look, chance: np.random.Generator) -> None:
    look.pixels_per_mm = float(chance.uniform(4.0, 7.0))
    look.paper = str(chance.choice(list(PAPERS)))
    look.tilt_degrees = float(chance.uniform(-6.0, 6.0))
    look.quarter_turns = int(chance.choice([0, 0, 0, 0, 1, 2, 3]))
    look.blur = float(chance.uniform(0.4, 1.1))
    look.noise = float(chance.uniform(1.0, 7.0))
    look.jpeg = int(chance.integers(45, 85))
    look.contrast = float(chance.uniform(0.55, 1.0))
    look.creases = int(chance.integers(0, 3))
    look.shadow = float(chance.uniform(0.0, 0.3))
    look.stamp = bool(chance.random() < 0.3)
    look.handwriting = bool(chance.random() < 0.3)
    look.crop_right_mm = float(chance.choice([0.0, 0.0, 14.0, 24.0]))


def _photograph(look: Look, chance: np.random.Generator) -> None:
    look.pixels_per_mm = float(chance.uniform(4.2, 7.0))
    look.tilt_degrees = float(chance.uniform(-4.0, 4.0))
    look.keystone = float(chance.uniform(0.0, 0.14))
    look.bend = float(chance.uniform(0.0, 4.0))
    look.blur = float(chance.uniform(0.4, 1.0))
    look.noise = float(chance.uniform(1.0, 5.0))
    look.jpeg = int(chance.integers(60, 90))
    look.shadow = float(chance.uniform(0.1, 0.5))
    look.creases = int(chance.integers(0, 3))
    look.contrast = float(chance.uniform(0.6, 1.0))
