"""Training is by patient, seeded to the last bit, and ends in a package that verifies."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from ecg_ingest import RenderStyle
from inference.architecture import MICRO, Architecture
from inference.engine import tensors_of
from inference.manifest import EcgPreprocessing, PackageKind
from inference.predictor import Predictor
from inference.radiograph import RadiographPreprocessing
from inference.release import Description, release
from inference.training import Examination, Recipe, Split, Trained, split_by_patient, train

RECIPE = Recipe(epochs=1, examinations_a_step=4, crops_an_examination=1, seed=3)
ECG = EcgPreprocessing(style=asdict(RenderStyle()))


@pytest.fixture(scope="module")
def examinations() -> list[Examination]:
    """Blobs whose size follows the pressure: enough to train on, quick to make."""
    rng = np.random.default_rng(2)
    made = []
    for number in range(40):
        mpap = float(rng.uniform(12, 60))
        picture = rng.random((512, 512), dtype=np.float32) * 0.2
        picture[:, : int(mpap * 8)] += 0.6
        leads = rng.integers(200, 256, (12, 48, 224, 3), dtype=np.uint8)
        leads[:, 24 - int(mpap / 3) : 25] = 10
        made.append(
            Examination(
                patient_id=f"P{number // 2:02d}",
                picture=picture.astype(np.float16),
                lead_images=leads,
                mpap_mmhg=mpap,
            )
        )
    return made


NINE_PATIENTS = (*range(8, 16), *range(18, 28))  # two visits each
SPLIT = Split(train=tuple(range(8)), validation=(16, 17), calibration=NINE_PATIENTS, test=tuple(range(30, 36)))


def run(examinations: list[Examination]) -> Trained:
    return train(
        Architecture(chest_backbone=MICRO), examinations, SPLIT, RECIPE, radiograph=RadiographPreprocessing(), ecg=ECG
    )


@pytest.fixture(scope="module")
def trained(examinations: list[Examination]) -> Trained:
    return run(examinations)


def test_no_patient_stands_in_two_parts() -> None:
    ids = [f"P{number // 3}" for number in range(300)]
    split = split_by_patient(ids, seed=5)
    parts = [{ids[k] for k in part} for part in (split.train, split.validation, split.calibration, split.test)]
    assert sum(len(part) for part in parts) == len(set().union(*parts)) == 100
    assert [len(part) for part in parts] == [60, 5, 20, 15]
    assert split == split_by_patient(ids, seed=5)
    assert split != split_by_patient(ids, seed=6)


def test_the_same_seed_gives_the_same_weights_to_the_last_bit(
    examinations: list[Examination], trained: Trained
) -> None:
    again = run(examinations)
    assert again.history == trained.history
    first, second = tensors_of(trained.network, "float32"), tensors_of(again.network, "float32")
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_a_released_package_verifies_and_carries_its_figures(
    examinations: list[Examination], trained: Trained, tmp_path: Path
) -> None:
    manifest = release(
        tmp_path / "blob-demo",
        Description(
            name="blob-demo",
            version="0.0.1",
            kind=PackageKind.SYNTHETIC_DEMO,
            intended_use="tests",
            exclusions=("people",),
            data={"source": "blobs"},
        ),
        trained,
        examinations,
        SPLIT,
        RECIPE,
        architecture=Architecture(chest_backbone=MICRO),
        radiograph=RadiographPreprocessing(),
        ecg=ECG,
        weights_dtype="float16",
    )
    assert Predictor.load(tmp_path / "blob-demo").identity == manifest.identity()
    assert manifest.metrics["patients"] == 6
    error = manifest.metrics["mean_absolute_error"]
    assert isinstance(error, dict)
    assert error["low"] <= error["value"] <= error["high"]
    card = (tmp_path / "blob-demo" / "MODEL_CARD.md").read_text()
    assert str(error["value"]) in card
