"""Draw radiographs that a wrong tag lets through: not the chest, not from the front, or with their greys exchanged.

In: which mistake, an index and a seed; out: Part 10 bytes whose header says PA view of the chest. Nothing learns from
these pictures: they show whether the checks behind the tags see a mistake. The anatomy is schematic.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.phantoms import dicom
from inference.phantoms.chest import (
    HIGHEST_STORED,
    Array,
    Build,
    body_coordinates,
    draw_build,
    draw_chest,
    ellipsoid,
    expose,
    soft_step,
    tube,
)
from inference.phantoms.patients import plan_visit
from inference.phantoms.pressure import HIGHEST_MMHG, LOWEST_MMHG, Difficulty
from inference.phantoms.signs import chest_signs


class WrongFilm(StrEnum):
    """What is wrong with a picture that says it is a PA view of the chest."""

    LATERAL = "lateral"  # the chest from the side
    INVERTED = "inverted"  # a PA chest whose polarity is the other one than its tags say
    TURNED = "turned"  # a PA chest lying on its side
    UPSIDE_DOWN = "upside-down"
    NOISE = "noise"  # no picture at all: grain, fine or coarse
    ABDOMEN = "abdomen"
    PELVIS = "pelvis"
    SKULL = "skull"
    KNEE = "knee"
    HAND = "hand"


def make_wrong_film(kind: WrongFilm, index: int, seed: int) -> bytes:
    """A DICOM object of phantom patient `index` of cohort `seed` whose pixels are not what its header says.

    CR and DX and both polarities take turns, as with the right films. The same arguments give the same bytes.
    """
    plan = plan_visit(index, seed, Difficulty.EASY)
    rng = np.random.default_rng([seed, index, 5, list(WrongFilm).index(kind)])
    pixels = _drawn(kind, draw_build(rng, female=plan.person.sex == "F"), rng)
    return dicom.radiograph(
        dicom.Examination(seed=seed, index=index, role=f"wrong-{kind.value}", at=plan.radiograph_at),
        plan.person,
        pixels,
        view="PA",
        digital=index % 2 == 0,
        inverted=index % 4 in (1, 2),
    )


def _drawn(kind: WrongFilm, build: Build, rng: np.random.Generator) -> NDArray[np.uint16]:
    """The pixels, uint16 [rows, columns], 0 to 4095, air low where the mistake leaves it so."""
    if kind is WrongFilm.NOISE:
        return _noise(build, rng)
    if kind in _CHANGES:
        chest = draw_chest(chest_signs(float(rng.uniform(LOWEST_MMHG, HIGHEST_MMHG)), rng), build, rng)
        return np.ascontiguousarray(_CHANGES[kind](chest))
    x, y = body_coordinates(build)
    if rng.integers(0, 2):
        x = -x  # the other side of the body, or the other hand
    return expose(_BODIES[kind](x, y, rng), build, rng, str(rng.choice(["L", "R"])))


def _noise(build: Build, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Grain of one to sixty-four pixels."""
    grain = 2 ** int(rng.integers(0, 7))
    coarse = rng.random((max(2, build.rows // grain), max(2, build.columns // grain)), dtype=np.float32)
    full = Image.fromarray(coarse).resize((build.columns, build.rows), Image.Resampling.BICUBIC)
    return np.rint(np.clip(np.asarray(full), 0.0, 1.0) * HIGHEST_STORED).astype(np.uint16)


def _lateral(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """The chest from the side: one field of lung before the spine, the heart behind the breastbone."""
    lean = float(rng.normal(0.0, 0.05))
    u = x + lean * (y - 180.0)  # towards the back
    chest = 118.0 + 10.0 * float(rng.normal())
    front = -chest + 46.0 * soft_step(110.0 - y, 130.0)
    back = 0.86 * chest + 14.0 * np.cos((y - 150.0) / 70.0)
    depth = soft_step(u - front, 16.0) * soft_step(back + 34.0 - u, 16.0)
    body = 27.0 * depth * (0.72 + 0.28 * soft_step(y - 70.0, 110.0))
    dome = 262.0 + 8.0 * float(rng.normal()) - 26.0 * ((u + 25.0) / 95.0) * soft_step(25.0 - u, 140.0)
    diaphragm = dome + 34.0 * soft_step(u - 20.0, 110.0)
    cage = soft_step(u - front - 16.0, 10.0) * soft_step(back - 4.0 - u, 10.0) * soft_step(y - 56.0, 24.0)
    air = cage * soft_step(diaphragm - y, 6.0)
    heart = 6.5 * ellipsoid(u, y, (78.0 - chest, 206.0), (58.0, 62.0), 30.0)
    arch = 4.5 * ellipsoid(u, y, (14.0, 112.0), (36.0, 22.0)) + 2.5 * np.exp(-(((u - 52.0) / 13.0) ** 2)) * soft_step(
        y - 112.0, 30.0
    )
    hila = 5.0 * ellipsoid(u, y, (4.0, 146.0), (24.0, 22.0))
    inside = np.minimum(0.72 * body * air, heart + arch + hila)
    vertebrae = 0.75 + 0.25 * np.cos((y + 23.0 * float(rng.random())) / 23.0 * 2.0 * np.pi)
    spine = 5.0 * np.exp(-(((u - back + 26.0) / 17.0) ** 4)) * vertebrae
    sternum = 2.4 * np.exp(-(((u - front - 9.0) / 5.0) ** 2)) * soft_step(y - 86.0, 20.0) * soft_step(240.0 - y, 20.0)
    ribs = 0.7 * (np.sin((y + 0.75 * u + 30.0 * float(rng.random())) / 25.0 * 2.0 * np.pi) > 0.55) * cage
    arms = 9.0 * ellipsoid(u, y, (-10.0, 30.0), (90.0, 52.0))
    return _path(body - 0.72 * body * air + inside + spine + sternum + ribs + arms)


def _abdomen(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """Soft tissue from the lowest ribs to the pelvis, the spine in the middle, gas in the bowel."""
    side = np.abs(x)
    body = 21.0 * np.sqrt(np.clip(1.0 - (side / (172.0 + 12.0 * float(rng.normal()))) ** 2, 0.0, 1.0))
    psoas = 1.6 * soft_step(16.0 + 0.28 * np.clip(y - 90.0, 0.0, 220.0) - side, 14.0) * soft_step(y - 80.0, 60.0)
    liver = 2.4 * ellipsoid(x, y, (-82.0, 92.0), (88.0, 78.0))
    gas = sum(
        float(rng.uniform(1.5, 5.0))
        * ellipsoid(
            x,
            y,
            (float(rng.normal(0.0, 75.0)), float(rng.uniform(90.0, 300.0))),
            (float(rng.uniform(12.0, 34.0)), float(rng.uniform(10.0, 20.0))),
            float(rng.uniform(-60.0, 60.0)),
        )
        for _ in range(int(rng.integers(4, 12)))
    )
    discs = 0.74 + 0.26 * np.cos(y / 34.0 * 2.0 * np.pi + float(rng.uniform(0.0, 6.0)))
    spine = 2.8 * np.clip(1.0 - (x / 24.0) ** 4, 0.0, 1.0) * discs
    wings = 2.2 * tube(np.hypot((side - 92.0) / 1.1, y - 330.0) - 52.0, np.full_like(x, 13.0))
    ribs = 0.8 * tube(y - 28.0 - 0.55 * side, np.full_like(x, 6.0)) * soft_step(side - 24.0, 10.0)
    return _path(body + psoas + liver + spine + wings + ribs - gas)


def _pelvis(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """Iliac wings, sacrum, hip joints and the upper femora."""
    side = np.abs(x)
    body = 21.0 * np.sqrt(np.clip(1.0 - (side / (178.0 + 10.0 * float(rng.normal()))) ** 2, 0.0, 1.0))
    body *= 1.0 - 0.35 * soft_step(y - 250.0, 80.0) * soft_step(22.0 - side, 24.0)
    wings = 3.0 * ellipsoid(side, y, (92.0, 112.0), (54.0, 70.0), -28.0)
    rim = 2.6 * tube(np.hypot(side - 92.0, 0.8 * (y - 112.0)) - 58.0, np.full_like(x, 9.0))
    sacrum = 3.0 * ellipsoid(x, y, (0.0, 128.0), (40.0, 62.0)) + 2.2 * np.clip(1.0 - (x / 22.0) ** 4, 0.0, 1.0) * (
        soft_step(90.0 - y, 40.0)
    )
    inlet = 4.0 * ellipsoid(x, y, (0.0, 205.0), (50.0, 44.0))
    heads = 4.0 * ellipsoid(side, y, (96.0, 218.0), (25.0, 25.0))
    sockets = 2.4 * tube(np.hypot(side - 92.0, y - 216.0) - 31.0, np.full_like(x, 7.0))
    shafts = 3.4 * tube(side - 118.0 - 0.06 * (y - 250.0), np.full_like(x, 16.0)) * soft_step(y - 232.0, 24.0)
    pubis = 2.6 * tube(np.hypot(side - 34.0, y - 252.0) - 26.0, np.full_like(x, 9.0))
    return _path(body + wings + rim + sacrum + heads + sockets + shafts + pubis - inlet)


def _skull(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """A head from the front: dense vault, orbits, sinuses, jaw and neck."""
    wide, high = 74.0 + 4.0 * float(rng.normal()), 100.0 + 5.0 * float(rng.normal())
    top = 150.0 + 8.0 * float(rng.normal())
    head = 15.0 * ellipsoid(x, y, (0.0, top), (wide + 7.0, high + 8.0))
    vault = 3.8 * tube((np.hypot(x / wide, (y - top) / high) - 1.0) * wide, np.full_like(x, 8.0))
    orbits = sum(2.6 * ellipsoid(x, y, (sign * 32.0, top + 26.0), (21.0, 18.0)) for sign in (-1.0, 1.0))
    nose = 3.4 * ellipsoid(x, y, (0.0, top + 54.0), (13.0, 24.0))
    sinuses = sum(1.8 * ellipsoid(x, y, (sign * 30.0, top + 62.0), (16.0, 17.0)) for sign in (-1.0, 1.0))
    jaw = 2.8 * tube(np.hypot(x / 0.82, y - top - 66.0) - 58.0, np.full_like(x, 10.0)) * soft_step(y - top - 60.0, 30.0)
    neck = 11.0 * np.sqrt(np.clip(1.0 - (x / 60.0) ** 2, 0.0, 1.0)) * soft_step(y - top - 78.0, 40.0)
    spine = 2.6 * np.clip(1.0 - (x / 17.0) ** 4, 0.0, 1.0) * soft_step(y - top - 70.0, 30.0)
    return _path(head + vault + jaw + neck + spine - orbits - nose - sinuses)


def _knee(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """Two bones that meet in the middle of the film, air on both sides."""
    middle = 178.0 + 10.0 * float(rng.normal())
    zoom = float(rng.uniform(0.55, 0.85))
    u, v = x * zoom, (y - middle) * zoom
    leg = 11.0 * np.sqrt(np.clip(1.0 - (u / (62.0 - 0.03 * v)) ** 2, 0.0, 1.0))
    flare = 14.0 * np.exp(-((v / 34.0) ** 2))
    femur = 3.6 * tube(u, 17.0 + flare) * soft_step(-4.0 - v, 4.0)
    tibia = 3.4 * tube(u + 2.0, 15.0 + flare) * soft_step(v - 3.0, 4.0)
    fibula = 1.8 * tube(u - 31.0, np.full_like(x, 6.0)) * soft_step(v - 22.0, 10.0)
    patella = 1.6 * ellipsoid(u, v, (1.0, -30.0), (19.0, 21.0))
    return _path(leg + femur + tibia + fibula + patella)


def _hand(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """Five fingers, the palm's bones and the wrist; most of the film is air."""
    wrist = soft_step(y - 270.0, 30.0)
    path = 3.2 * ellipsoid(x, y, (0.0, 236.0), (58.0, 66.0)) + 3.2 * tube(x, np.full_like(x, 32.0)) * wrist
    spread = float(rng.uniform(0.75, 1.2))
    fingers = ((-52.0, 88.0), (-19.0, 150.0), (-5.0, 166.0), (8.0, 152.0), (23.0, 122.0))  # degrees, millimetres
    for finger, (degrees, length) in enumerate(fingers):
        angle = np.deg2rad(spread * degrees)
        base_x, base_y = -44.0 + 21.0 * finger, 246.0 if finger else 262.0
        along = (x - base_x) * np.sin(angle) - (y - base_y) * np.cos(angle)
        across = (x - base_x) * np.cos(angle) + (y - base_y) * np.sin(angle)
        within = soft_step(along, 8.0) * soft_step(length - along, 10.0)
        path = path + 1.9 * tube(across, np.full_like(x, 12.0)) * within
        joints = np.clip(1.0 - np.exp(-(((along % (length / 3.4)) - 2.0) ** 2) / 10.0), 0.0, 1.0)
        path = path + 1.8 * tube(across, np.full_like(x, 5.5)) * within * joints
    forearm = sum(2.4 * tube(x - at, np.full_like(x, 9.0)) for at in (-13.0, 13.0)) * soft_step(y - 312.0, 12.0)
    return _path(path + forearm)


def _path(path: Array) -> Array:
    """Centimetres of water along the ray, as `expose` takes them."""
    return np.maximum(path, 0.0).astype(np.float32)


_CHANGES: dict[WrongFilm, Callable[[NDArray[np.uint16]], NDArray[np.uint16]]] = {
    WrongFilm.INVERTED: lambda chest: np.uint16(HIGHEST_STORED) - chest,
    WrongFilm.TURNED: np.rot90,
    WrongFilm.UPSIDE_DOWN: np.flipud,
}

_BODIES: dict[WrongFilm, Callable[[Array, Array, np.random.Generator], Array]] = {
    WrongFilm.LATERAL: _lateral,
    WrongFilm.ABDOMEN: _abdomen,
    WrongFilm.PELVIS: _pelvis,
    WrongFilm.SKULL: _skull,
    WrongFilm.KNEE: _knee,
    WrongFilm.HAND: _hand,
}
