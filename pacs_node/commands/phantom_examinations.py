"""Phantom examinations as the network takes them: the ECG reader draws what the phantoms' signals show."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecg_ingest import RenderStyle
    from inference.examinations import Examination
    from inference.phantoms import Shown

MANY = 64  # patients from which it pays to draw in several processes


def phantom_examinations(
    patients: int,
    seed: int,
    difficulty: str,
    style: RenderStyle,
    *,
    stand_ins: bool,
    progress: Callable[[], None] = lambda: None,
) -> tuple[list[Examination], list[Shown]]:
    """The first visits of a cohort, drawn on all processors, and what each shows of the pressure.

    Parameters
    ----------
    stand_ins
        Give pictures and leads averaged, as `ablation.for_stand_ins` does.
    """
    examinations: list[Examination] = []
    shown: list[Shown] = []
    draw = partial(_draw, seed=seed, difficulty=difficulty, style=style, stand_ins=stand_ins)
    for examination, one in _each(draw, patients):
        examinations.append(examination)
        shown.append(one)
        progress()
    return examinations, shown


def _each(draw: Callable[[int], tuple[Examination, Shown]], patients: int) -> Iterator[tuple[Examination, Shown]]:
    processors = len(os.sched_getaffinity(0))
    if patients < MANY or processors == 1:
        yield from map(draw, range(patients))
        return
    with ProcessPoolExecutor(processors, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        yield from pool.map(draw, range(patients), chunksize=16)


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone: it would wait for work for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _draw(index: int, *, seed: int, difficulty: str, style: RenderStyle, stand_ins: bool) -> tuple[Examination, Shown]:
    from ecg_ingest.recording import Recording
    from ecg_ingest.render import render
    from inference.examinations import Examination
    from inference.phantoms import Difficulty
    from inference.phantoms.drawn import SAMPLING_HZ, draw_examination
    from inference.radiograph import RadiographPreprocessing

    drawn = draw_examination(index, seed, Difficulty(difficulty), RadiographPreprocessing())
    recording = Recording(
        signals_mv=drawn.signals_mv, sampling_hz=SAMPLING_HZ, clocks=(0,) * 12, derived_leads=(), findings=()
    )
    told = drawn.described
    examination = Examination(
        patient_id=drawn.patient_id,
        picture=drawn.picture,
        lead_images=render(recording, style)[0],
        mpap_mmhg=drawn.shown.mpap_mmhg,
        name=f"phantom {index}",
        acquired_at=told.radiograph_at.isoformat(),
        attributes={
            "sex": told.sex,
            "age": str(told.age),
            "smoker": "yes" if told.smoker else "no",
            "ph_group": str(told.ph_group),
            "site": told.site,
            "scanner": told.scanner,
        },
    )
    if stand_ins:
        from inference.averaging import for_stand_ins

        examination = for_stand_ins(examination)
    return examination, drawn.shown
