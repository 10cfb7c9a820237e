"""Draw a schematic PA chest radiograph from the signs it shall show: attenuation along rays, then film.

In: signs and a random generator; out: 12-bit stored values, air low. Lengths are millimetres on the detector;
x grows to the patient's left (the right of the picture), y downwards. No DICOM here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from inference.phantoms.signs import ChestSigns

Array = NDArray[np.floating[Any]]

PIXEL_MM = 0.35
COARSE = 2  # anatomy is drawn on a grid this many times coarser than the detector; noise is not
HIGHEST_STORED = 4095  # 12 bits


@dataclass(frozen=True, kw_only=True)
class Build:
    """The nuisances of one exposure: whose body, how it stood, how it was exposed."""

    scale: float  # body size, 1 is ordinary
    rotation_degrees: float  # of the body in the picture's plane
    shift_mm: tuple[float, float]
    inspiration_mm: float  # how far the diaphragm stands below its ordinary place
    fat: float  # soft tissue around the thorax, 1 is ordinary
    quanta: float  # exposure; more is less noise
    gamma: float  # of the film curve
    black: float  # level of air, share of full scale
    breast: float  # 0 to 1
    rib_phase: float
    rows: int
    columns: int
    pixel_mm: float = PIXEL_MM

    def at_half_size(self) -> Build:
        """The same exposure with pixels twice as wide: a quarter of the work, and as much noise a square millimetre."""
        return replace(
            self,
            rows=2 * (self.rows // 4),
            columns=2 * (self.columns // 4),
            pixel_mm=2.0 * self.pixel_mm,
            quanta=4.0 * self.quanta,
        )


def draw_build(rng: np.random.Generator, *, female: bool) -> Build:
    """The nuisances of one exposure, at random. Rows and columns are even."""
    return Build(
        scale=float(rng.uniform(0.93, 1.06)),
        rotation_degrees=float(rng.normal(0.0, 1.3)),
        shift_mm=(float(rng.normal(0.0, 4.0)), float(rng.normal(0.0, 5.0))),
        inspiration_mm=float(rng.normal(0.0, 6.0)),
        fat=float(rng.uniform(0.85, 1.25)),
        quanta=float(rng.uniform(900.0, 3000.0)),
        gamma=float(rng.uniform(0.85, 1.2)),
        black=float(rng.uniform(0.02, 0.07)),
        breast=float(rng.uniform(0.4, 1.0)) if female else float(rng.uniform(0.0, 0.15)),
        rib_phase=float(rng.uniform(0.0, 1.0)),
        rows=2 * int(rng.integers(500, 561)),
        columns=2 * int(rng.integers(496, 529)),
    )


def draw_chest(signs: ChestSigns, build: Build, rng: np.random.Generator, *, marker: str = "L") -> NDArray[np.uint16]:
    """The radiograph as stored values, uint16 [rows, columns], 0 to 4095, air low (as MONOCHROME2).

    Parameters
    ----------
    signs
        What the pressure shows.
    build
        Body, stance and exposure; gives the shape of the picture.
    rng
        Vessels and noise.
    marker
        The radiopaque letter at the patient's left shoulder.
    """
    x, y = body_coordinates(build)
    lungs = _Lungs(x, y, build)
    path = _soft_tissue(x, y, lungs, build)
    path += _heart_and_vessels(x, y, lungs, signs, build, rng)
    path += _bones(x, y, lungs, build)
    return expose(path, build, rng, marker)


def body_coordinates(build: Build) -> tuple[Array, Array]:
    """Where each coarse pixel lies in the body, millimetres from the midline and from the upper edge."""
    rows, columns = build.rows // COARSE, build.columns // COARSE
    step = build.pixel_mm * COARSE
    across = (np.arange(columns, dtype=np.float32) - (columns - 1) / 2) * step - build.shift_mm[0]
    down = (np.arange(rows, dtype=np.float32) - (rows - 1) / 2) * step - build.shift_mm[1]
    angle = np.deg2rad(build.rotation_degrees)
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    x = (cosine * across[None, :] + sine * down[:, None]) / build.scale
    y = (-sine * across[None, :] + cosine * down[:, None]) / build.scale + 180.0
    return x.astype(np.float32), y.astype(np.float32)


def soft_step(value: Array, width: float) -> Array:
    """0 below, 1 above, a smooth rise `width` wide around zero."""
    t = np.clip(value / width + 0.5, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _fourth(value: Array) -> Array:
    """`value**4`, many times faster than the general power."""
    square = value * value
    return square * square


def ellipsoid(
    x: Array, y: Array, centre: tuple[float, float], half: tuple[float, float], tilt_degrees: float = 0.0
) -> Array:
    """Thickness along the ray of an ellipsoid, 1 at its middle; `half` are its half axes in the plane."""
    angle = np.deg2rad(tilt_degrees)
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    dx, dy = x - centre[0], y - centre[1]
    u = (cosine * dx + sine * dy) / half[0]
    v = (-sine * dx + cosine * dy) / half[1]
    return np.sqrt(np.maximum(0.0, 1.0 - u * u - v * v))


THORAX_HALF_MM = 132.0  # greatest inner half width
APEX_MM = 52.0
BASE_MM = 262.0


class _Lungs:
    """Where the lungs are: `air` is the share of the ray in lung (0 to 1), `cage` the inner thorax."""

    def __init__(self, x: Array, y: Array, build: Build) -> None:
        self.right_dome = BASE_MM - 20.0 + build.inspiration_mm
        self.left_dome = BASE_MM - 8.0 + build.inspiration_mm
        side = np.abs(x)
        depth = np.clip((y - APEX_MM) / (BASE_MM - APEX_MM), 0.0, 1.2)
        self.wall = THORAX_HALF_MM * np.sqrt(np.maximum(0.0, 1.0 - np.maximum(0.0, 1.0 - depth / 0.78) ** 2.3)).astype(
            np.float32
        )
        self.cage = soft_step(self.wall - side, 3.0) * soft_step(y - APEX_MM, 3.0)
        dome = np.where(x < 0, self.right_dome, self.left_dome)
        # The domes rise medially of their middle and fall into the costophrenic angles.
        fall = (
            52.0 * np.clip((side - 58.0) / 74.0, 0.0, 1.0) ** 2.6 + 16.0 * np.clip((58.0 - side) / 58.0, 0.0, 1.0) ** 2
        )
        self.diaphragm = (dome + fall).astype(np.float32)
        above = soft_step(self.diaphragm - y, 3.5)
        mediastinum = 15.0 + 7.0 * np.clip((y - 150.0) / 80.0, 0.0, 1.0) + 9.0 * np.clip((95.0 - y) / 45.0, 0, 1)
        beside = soft_step(side - mediastinum.astype(np.float32), 9.0)
        roundness = np.sqrt(np.clip(1.0 - ((side - 74.0) / 72.0) ** 2, 0.0, 1.0))
        self.air = (self.cage * above * beside * (0.70 + 0.30 * roundness)).astype(np.float32)
        self.above = above
        self.emptied = np.zeros_like(self.air)  # cm of water that the air stands for; set by `_soft_tissue`


def _soft_tissue(x: Array, y: Array, lungs: _Lungs, build: Build) -> Array:
    """Centimetres of water along the ray for body wall, abdomen and mediastinum."""
    side = np.abs(x)
    shoulder = 34.0 * soft_step(140.0 - y, 150.0)
    half = 158.0 + 16.0 * (build.fat - 1.0) + shoulder - 60.0 * soft_step(38.0 - y, 90.0)
    inside = np.clip(1.0 - (side / half) ** 2, 0.0, 1.0)
    body = 19.0 * build.fat**0.5 * np.sqrt(inside) * (1.0 - 0.25 * soft_step(80.0 - y, 110.0))
    neck = 4.0 * np.exp(-((x / 62.0) ** 2)) * soft_step(62.0 - y, 60.0)
    lung = lungs.emptied = (0.66 * body * lungs.air).astype(np.float32)
    abdomen = 3.2 * (1.0 - lungs.above) * lungs.cage
    bubble = 5.0 * ellipsoid(x, y, (62.0, lungs.left_dome + 20.0), (26.0, 13.0), -8.0) * (1 - lungs.above)
    trachea = 2.0 * np.exp(-_fourth((x - 1.0 + 3.0 * soft_step(y - 100, 60)) / 8.0)) * soft_step(128.0 - y, 14.0)
    breast = build.breast * sum(1.8 * ellipsoid(x, y, (sign * 78.0, 222.0), (56.0, 46.0)) for sign in (-1.0, 1.0))
    axilla = 1.6 * np.exp(-(((side - 150.0) / 26.0) ** 2)) * soft_step(210.0 - y, 120.0)
    return (body + neck + abdomen + breast + axilla - lung - bubble - trachea).astype(np.float32)


def _heart_and_vessels(
    x: Array, y: Array, lungs: _Lungs, signs: ChestSigns, build: Build, rng: np.random.Generator
) -> Array:
    """Centimetres of water that heart, great vessels and lung vessels put in the lungs' place."""
    width = 2.0 * THORAX_HALF_MM * signs.cardiothoracic_ratio
    right = width * signs.right_border_share
    left = width - right
    floor = 0.5 * (lungs.right_dome + lungs.left_dome)
    # An apex lifted by a large right ventricle stands higher and further out than a low left ventricular one.
    lift = 12.0 * np.clip((signs.right_border_share - 0.29) / 0.12, 0.0, 1.0)
    ventricles = 9.5 * ellipsoid(
        x, y, (left - 62.0, floor - 34.0 - lift * 0.5), (64.0, 46.0 + 0.10 * (width - 110.0)), 24.0
    )
    atrium = 7.5 * ellipsoid(x, y, (-right + 33.0, floor - 36.0), (33.0, 47.0), 4.0)
    core = 8.0 * ellipsoid(x, y, (2.0, floor - 42.0), (min(right, left) * 0.95, 60.0), 8.0)
    cava = 3.2 * soft_step(30.0 + x, 6.0) * soft_step(-x + 4.0, 8.0) * soft_step(y - 74.0, 30.0)
    cava *= soft_step(floor - 70.0 - y, 40.0)
    knob = 6.0 * ellipsoid(x, y, (23.0, 103.0), (18.0, 17.0))
    aorta = 2.2 * np.exp(-_fourth((x - 25.0) / 9.0)) * soft_step(y - 103.0, 20.0) * soft_step(250.0 - y, 30.0)
    main = signs.main_artery_mm
    segment = 7.0 * ellipsoid(x, y, (24.0 + 0.35 * main, 133.0), (0.55 * main + 14.0, main + 8.0), -12.0)
    appendage = 5.0 * ellipsoid(x, y, (30.0, 158.0), (20.0 + 0.25 * (left - 75.0), 26.0), -25.0)
    trunk = 6.5 * np.sqrt(ellipsoid(x, y, (9.0, 165.0), (29.0 + 0.22 * main, 92.0), -4.0))
    parts = [ventricles, atrium, core, cava, knob, aorta, segment, appendage, trunk]
    # A soft maximum, so that the organs flow into one another as their shadows do.
    organ = np.sqrt(np.sqrt(sum(_fourth(part) for part in parts)))
    hila = _hila(x, y, signs)
    tree = _vessel_tree(x.shape, lungs, signs, build, rng)
    tissue = 1.15 * organ + hila + 1.3 * tree
    # Tissue can only take the place of air: the ray never gains more than the lung had taken from it.
    air = lungs.emptied + np.float32(1e-3)
    return (air * tissue / np.sqrt(np.sqrt(_fourth(air) + _fourth(tissue)))).astype(np.float32)


def _hila(x: Array, y: Array, signs: ChestSigns) -> Array:
    """The right descending artery and both hila, centimetres of water."""
    radius = 0.5 * signs.right_descending_artery_mm
    course = -(34.0 + 0.20 * np.clip(y - 138.0, 0.0, 60.0) + radius)
    taper = radius * (1.0 - 0.35 * np.clip((y - 140.0) / 50.0, 0.0, 1.0))
    tube = np.sqrt(np.maximum(0.0, 1.0 - ((x - course) / taper) ** 2)) * soft_step(y - 134.0, 12.0)
    tube *= soft_step(190.0 - y, 34.0)
    upper = ellipsoid(x, y, (-40.0 - 0.4 * radius, 130.0), (10.0 + 0.8 * radius, 13.0 + 0.3 * radius), -35.0)
    left = ellipsoid(x, y, (46.0 + 0.5 * radius, 130.0), (9.0 + 1.1 * radius, 11.0 + 0.9 * radius), 30.0)
    return np.maximum.reduce([0.36 * radius * tube, 0.26 * radius * upper, 0.26 * radius * left])


def _vessel_tree(
    shape: tuple[int, int], lungs: _Lungs, signs: ChestSigns, build: Build, rng: np.random.Generator
) -> Array:
    """Branching lung vessels, centimetres of water; the outer ones thin out as `peripheral_vessels` falls."""
    rows, columns = shape
    step = build.pixel_mm * COARSE
    angle = np.deg2rad(build.rotation_degrees)

    def pixel(px: float, py: float) -> tuple[float, float]:
        bx, by = px * build.scale, (py - 180.0) * build.scale
        across = np.cos(angle) * bx - np.sin(angle) * by + build.shift_mm[0]
        down = np.sin(angle) * bx + np.cos(angle) * by + build.shift_mm[1]
        return float(across / step + (columns - 1) / 2), float(down / step + (rows - 1) / 2)

    canvas = Image.new("L", (columns * 2, rows * 2), 0)
    pen = ImageDraw.Draw(canvas)
    # A stack of (x, y, direction, radius mm, length mm, generation): depth first, so that thin ones overdraw.
    stack: list[tuple[float, float, float, float, float, int]] = []
    for sign in (-1.0, 1.0):
        for direction in np.linspace(-78.0, 82.0, 9):
            heading = np.deg2rad(direction + rng.normal(0.0, 5.0))
            start_x = sign * (42.0 + 6.0 * np.cos(heading))
            stack.append((start_x, 140.0 + 14.0 * np.sin(heading), heading, 2.7, 26.0, 0))
    while stack:
        px, py, heading, radius, length, generation = stack.pop()
        sign = -1.0 if px < 0 else 1.0
        if generation >= 2 and rng.random() > signs.peripheral_vessels:
            continue
        length *= float(rng.uniform(0.7, 1.25))
        qx = px + sign * length * float(np.cos(heading))
        qy = py + length * float(np.sin(heading))
        ax, ay = pixel(px, py)
        bx, by = pixel(qx, qy)
        pen.line(
            [(2 * ax, 2 * ay), (2 * bx, 2 * by)],
            fill=int(min(255.0, 70.0 * radius)),
            width=max(1, round(4.0 * radius * build.scale / step)),
        )
        if generation < 4:
            spread = np.deg2rad(float(rng.uniform(14.0, 30.0)))
            for turn in (-spread, spread * float(rng.uniform(0.5, 1.0))):
                stack.append((qx, qy, heading + turn, radius * 0.70, length * 0.86, generation + 1))
    drawn = canvas.resize((columns, rows), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(0.8))
    return np.asarray(drawn, dtype=np.float32) / 255.0 * 1.7


def _bones(x: Array, y: Array, lungs: _Lungs, build: Build) -> Array:
    """Centimetres of water that weigh as much as spine, ribs, clavicles and scapulae do."""
    side = np.abs(x)
    cage = soft_step(lungs.wall + 7.0 - side, 3.0) * soft_step(y - APEX_MM + 8.0, 6.0)
    u = side / THORAX_HALF_MM
    spacing = 23.5
    posterior = (y - 40.0 + 14.0 * np.sin(np.pi * np.minimum(u * 0.9, 1.0)) - 42.0 * u**2.3) / spacing
    anterior = (y - 66.0 + 62.0 * (u - 0.25) ** 1.0 - 26.0 * (1.0 - u) ** 2) / (spacing * 1.15)
    back = _rib_profile(posterior + build.rib_phase, 0.20) * soft_step(side - 14.0, 8.0)
    back *= soft_step(300.0 - y, 30.0)
    front = _rib_profile(anterior + build.rib_phase * 0.7, 0.23) * soft_step(side - 52.0, 44.0)
    front *= soft_step(y - 70.0, 20.0) * soft_step(250.0 - y, 40.0)
    ribs = (1.05 * back + 0.62 * front) * cage * (1.0 + 0.5 * np.clip((side - 110.0) / 22.0, 0.0, 1.0))
    discs = 0.72 + 0.28 * soft_step(np.abs(((y + 11.0 * build.rib_phase) / 23.0) % 1.0 - 0.5) * 23.0 - 2.5, 2.5)
    spine = 2.0 * np.clip(1.0 - _fourth(x / 17.0), 0.0, 1.0) * discs
    processes = 0.8 * np.exp(-((x / 5.0) ** 2)) * np.exp(-((((y / 23.0) % 1.0) - 0.5) ** 2) / 0.02)
    along = np.clip((side - 14.0) / 118.0, 0.0, 1.0)
    bow = 66.0 - 26.0 * along - 9.0 * np.sin(2.0 * np.pi * along)
    clavicle = 1.7 * tube(y - bow, 6.0 + 2.5 * (1.0 - along) ** 2)
    clavicle *= soft_step(side - 14.0, 5.0) * soft_step(134.0 - side, 8.0)
    edge = 122.0 + 0.10 * (y - 70.0)
    scapula = 0.65 * soft_step(side - edge, 4.0) * soft_step(166.0 - side, 34.0)
    scapula *= soft_step(y - 56.0, 18.0) * soft_step(176.0 - 0.5 * (side - edge) - y, 22.0)
    humerus = 2.0 * ellipsoid(x, y, (-168.0, 60.0), (24.0, 26.0)) + 2.0 * ellipsoid(x, y, (168.0, 60.0), (24.0, 26.0))
    return (ribs + spine + processes + clavicle + scapula + humerus).astype(np.float32)


def tube(distance: Array, radius: Array) -> Array:
    """A hollow bone seen from the side: a soft body with denser edges."""
    t = np.clip(1.0 - (distance / radius) ** 2, 0.0, 1.0)
    return np.sqrt(t) * (0.62 + 0.38 * (1.0 - t))


def _rib_profile(phase: Array, half_width: float) -> Array:
    """Ribs one unit of phase apart, each with denser borders, the lower one thinner."""
    offset = (phase % 1.0 - 0.5) / half_width
    body = soft_step(1.0 - np.abs(offset), 0.30)
    return body * (0.62 + 0.38 * offset**2 - 0.10 * offset)


def expose(path: Array, build: Build, rng: np.random.Generator, marker: str) -> NDArray[np.uint16]:
    """From centimetres of water to stored values: detector noise, then a film curve with local contrast."""
    attenuation = 0.150 * np.maximum(path, 0.0)
    full = Image.fromarray(attenuation).resize((build.columns, build.rows), Image.Resampling.BICUBIC)
    signal = np.asarray(full, dtype=np.float32)
    grain = rng.standard_normal(signal.shape, dtype=np.float32)
    signal = signal + grain * np.exp(0.5 * signal - 0.5) / np.float32(np.sqrt(build.quanta))
    # Processed radiographs show the logarithm with the broad contrast pressed down.
    small = full.resize((14, 14), Image.Resampling.BOX)
    broad = np.asarray(small.resize((build.columns, build.rows), Image.Resampling.BICUBIC))
    shown = signal - 0.32 * broad
    low, high = 0.10, 2.15
    level = np.clip((shown - low) / (high - low), 0.0, 1.0) ** np.float32(build.gamma)
    value = build.black + (0.93 - build.black) * level
    _mark(value, marker, PIXEL_MM / build.pixel_mm)
    return np.rint(value * HIGHEST_STORED).astype(np.uint16)


def _mark(value: Array, marker: str, size: float) -> None:
    """Burn the radiopaque side letter into `value`, at the patient's left shoulder; `size` 1 is 64 pixels."""
    side, right = round(64 * size), round(40 * size)
    letter = Image.new("L", (side, side), 0)
    ImageDraw.Draw(letter).text((14 * size, 4 * size), marker, fill=255, font=ImageFont.load_default(size=46 * size))
    mask = np.asarray(letter, dtype=np.float32) / 255.0
    rows, columns = value.shape
    part = value[rows // 12 : rows // 12 + side, columns - right - side : columns - right]
    np.maximum(part, mask * 0.98, out=part)
