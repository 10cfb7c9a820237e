"""A small training as a process of its own: FOLDER KILL_AFTER [BACKBONE].

It kills itself with -9 after KILL_AFTER steps, 0 never.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from ecg_ingest import RenderStyle
from inference.architecture import MICRO_ECG, MICRO_VIT, Architecture
from inference.checkpoint import FILE
from inference.devices import workers_of
from inference.engine import tensors_of
from inference.examinations import Examination
from inference.manifest import EcgPreprocessing
from inference.radiograph import RadiographPreprocessing
from inference.recipe import Recipe
from inference.split import Split
from inference.training import Step, train

folder, kill_after = Path(sys.argv[1]), int(sys.argv[2])
backbone = sys.argv[3] if len(sys.argv) > 3 else MICRO_VIT
rng = np.random.default_rng(7)
examinations = [
    Examination(
        patient_id=f"P{number}",
        picture=rng.random((512, 512), dtype=np.float32).astype(np.float16),
        lead_images=rng.integers(0, 256, (12, 48, 224, 3), dtype=np.uint8),
        mpap_mmhg=float(rng.uniform(12, 60)),
    )
    for number in range(12)
]
if kill_after == 0 and (folder / FILE).exists():
    (folder / "resumed").touch()
steps = 0


def after(_step: Step) -> None:
    global steps  # noqa: PLW0603 - a program of a page
    steps += 1
    if steps == kill_after:
        os.kill(os.getpid(), signal.SIGKILL)


with workers_of("cpu") as workers:
    trained = train(
        Architecture(chest_backbone=backbone, ecg_branch=MICRO_ECG),
        examinations,
        Split(train=tuple(range(8)), validation=(8, 9), calibration=(), test=(10, 11)),
        Recipe(epochs=2, examinations_a_step=4, learning_rate=1e-3, seed=3, threads=1),
        radiograph=RadiographPreprocessing(),
        ecg=EcgPreprocessing(style=asdict(RenderStyle())),
        folder=folder,
        workers=workers,
        on_step=after,
        checkpoint_seconds=0.0,
    )
    if workers.is_first:
        save_file(tensors_of(trained.network, "float32"), folder / "ended.safetensors")
        (folder / "history.json").write_text(json.dumps([asdict(epoch) for epoch in trained.history]))
