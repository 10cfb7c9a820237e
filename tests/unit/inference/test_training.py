"""Training is by patient, seeded to the last bit, and ends in a package that verifies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ecg_ingest import RenderStyle
from inference.architecture import MICRO, MICRO_ECG, MICRO_VIT, VIT_SMALL, Architecture
from inference.batches import Batches
from inference.card import model_card
from inference.checkpoint import RunDiffers
from inference.devices import Workers, precision_on
from inference.engine import tensors_of
from inference.examinations import Examination
from inference.manifest import EcgPreprocessing, PackageKind
from inference.predictor import Predictor
from inference.radiograph import RadiographPreprocessing
from inference.recipe import DEMO, Precision, Recipe
from inference.release import Description, of_another_patient, refuse_too_few, release
from inference.split import DEMO_SHARES, Split, split_by_patient
from inference.training import Diverged, Trained, train

ROOT = Path(__file__).parents[3]
PROGRAM = "tests.unit.inference.killed_training"
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
    split = split_by_patient(ids, seed=5, shares=DEMO_SHARES)
    parts = [{ids[k] for k in part} for part in (split.train, split.validation, split.calibration, split.test)]
    assert sum(len(part) for part in parts) == len(set().union(*parts)) == 100
    assert [len(part) for part in parts] == [60, 5, 20, 15]
    assert split == split_by_patient(ids, seed=5, shares=DEMO_SHARES)
    assert split != split_by_patient(ids, seed=6, shares=DEMO_SHARES)


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
    assert (manifest.metrics["patients"], manifest.metrics["examinations"]) == (3, 6)
    error = manifest.metrics["mean_absolute_error"]
    assert isinstance(error, dict)
    assert error["low"] <= error["value"] <= error["high"]
    card = (tmp_path / "blob-demo" / "MODEL_CARD.md").read_text()
    assert str(error["value"]) in card
    assert "Of 6 held-out examinations" in card
    assert "Whose data it holds" not in card  # blobs are nobody's
    named = replace(manifest, kind=PackageKind.CLINICAL_RESEARCH)
    assert "radiograph and the ECG of one or two held-out patients" in model_card(named)


@pytest.mark.parametrize("backbone", [MICRO_VIT, pytest.param(VIT_SMALL, marks=pytest.mark.long)])
def test_a_training_killed_in_the_middle_of_an_epoch_ends_as_if_it_had_not_been(tmp_path: Path, backbone: str) -> None:
    """Guards: a training of days lost, or silently another, after a power cut (kill -9 at a step's end)."""

    def begin(folder: Path, kill_after: int) -> int:
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", PROGRAM, str(folder), str(kill_after), backbone]
        return subprocess.run(command, check=False, cwd=ROOT).returncode

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert begin(whole, 0) == 0
    assert begin(broken, 3) == -signal.SIGKILL
    assert not (broken / "ended.safetensors").exists()
    assert begin(broken, 0) == 0
    assert (broken / "ended.safetensors").read_bytes() == (whole / "ended.safetensors").read_bytes()
    assert (broken / "history.json").read_bytes() == (whole / "history.json").read_bytes()
    assert (broken / "resumed").exists()


def test_a_checkpoint_of_another_training_is_not_taken_up(examinations: list[Examination], tmp_path: Path) -> None:
    def begin(recipe: Recipe) -> Trained:
        return train(
            Architecture(chest_backbone=MICRO_VIT, ecg_branch=MICRO_ECG),
            examinations,
            SPLIT,
            recipe,
            radiograph=RadiographPreprocessing(),
            ecg=ECG,
            folder=tmp_path,
        )

    begin(RECIPE)
    with pytest.raises(RunDiffers, match="another training"):
        begin(replace(RECIPE, seed=4))
    assert begin(RECIPE).history[0].number == 1


def test_a_training_that_diverges_ends_with_an_error_and_not_with_weights(examinations: list[Examination]) -> None:
    """Guards: a package of the weights that it began with, as if its first epoch had been the best."""

    def spoil(network: torch.nn.Module) -> None:
        with torch.no_grad():
            network.head.output.weight.fill_(float("nan"))  # type: ignore[operator,union-attr]

    with pytest.raises(Diverged, match="in epoch 1"):
        train(
            Architecture(chest_backbone=MICRO),
            examinations,
            SPLIT,
            RECIPE,
            radiograph=RadiographPreprocessing(),
            ecg=ECG,
            prepare=spoil,
        )


def test_processes_without_a_step_are_refused_and_do_not_train_nothing(examinations: list[Examination]) -> None:
    with pytest.raises(ValueError, match="make no step for 4 processes"):
        train(
            Architecture(chest_backbone=MICRO),
            examinations,
            SPLIT,
            RECIPE,  # four examinations a step
            radiograph=RadiographPreprocessing(),
            ecg=ECG,
            workers=Workers(device=torch.device("cpu"), count=4),
        )


def test_another_patients_input_is_never_another_visit_of_the_same() -> None:
    """Guards: the correlation that is left without an input looked better where visits stand together in the table."""
    for visits in ([1] * 9, [3, 3, 3, 3], [4, 1, 2, 1], [1, 5, 5]):
        patient = np.repeat(np.arange(len(visits)), visits)
        for rows in (patient, np.random.default_rng(1).permutation(patient)):
            given = of_another_patient(rows)
            assert sorted(given) == list(range(len(rows)))
            assert (rows[given] != rows).all()
    with pytest.raises(ValueError, match="one patient's"):
        of_another_patient(np.array([0, 0, 0, 1]))


@pytest.mark.parametrize("one_patients", [7, 12])
def test_that_one_patient_has_most_of_the_test_visits_is_said_before_the_training(
    examinations: list[Examination], one_patients: int
) -> None:
    """Guards: the whole training, and then no package."""
    split = Split(train=tuple(range(10)), validation=(10,), calibration=tuple(range(11, 28)), test=tuple(range(28, 40)))
    refuse_too_few(examinations, split)
    visits = [
        replace(one, patient_id="often") if 28 <= k < 28 + one_patients else one for k, one in enumerate(examinations)
    ]
    with pytest.raises(ValueError, match="more than half of the held-out examinations are one patient's"):
        refuse_too_few(visits, split)


def test_a_recipe_is_the_papers_unless_it_says_otherwise() -> None:
    recipe = Recipe()
    assert (recipe.epochs, recipe.learning_rate, recipe.crops_an_examination) == (20, 5e-5, 1)
    assert {recipe.rate(step, 100) for step in range(100)} == {5e-5}
    assert (recipe.weight_decay, recipe.ecg_withheld) == (0.0, 0.0)
    rates = [DEMO.rate(step, 100) for step in range(100)]
    assert max(rates) == DEMO.learning_rate == rates[15]
    assert rates == sorted(rates[:16]) + sorted(rates[16:], reverse=True)


def test_half_precision_is_refused_where_there_is_no_gpu() -> None:
    cpu = torch.device("cpu")
    assert precision_on(cpu, Precision.AUTO) is Precision.FP32
    for precision in (Precision.BF16, Precision.FP16):
        with pytest.raises(ValueError, match="a CPU trains in fp32"):
            precision_on(cpu, precision)


def test_every_crop_lies_in_the_picture_and_each_epoch_sees_others(examinations: list[Examination]) -> None:
    batches = Batches(examinations, replace(RECIPE, crop_step=4), RadiographPreprocessing(), ECG)
    rows = np.arange(4)
    first, again = batches.draw(rows, 1), batches.draw(rows, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], batches.draw(rows, 2)[0])
    assert first[0].shape == (4, 1, 224, 224)
    # What an examination gives does not depend on its neighbours in the step.
    assert torch.equal(batches.draw(rows[2:3], 1)[0], first[0][2:3])
    assert sorted(np.concatenate(batches.of_epoch(range(10), 1)).tolist()) == list(range(10))


@pytest.mark.long
def test_two_processes_learn_together(tmp_path: Path) -> None:
    """torchrun on loopback with gloo: the same way as on several GPUs, which nobody here could measure."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", PROGRAM]
    done = subprocess.run([*command, str(tmp_path), "0"], check=False, capture_output=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    history = json.loads((tmp_path / "history.json").read_text())
    assert [epoch["number"] for epoch in history] == [1, 2]
