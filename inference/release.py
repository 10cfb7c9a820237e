"""From a trained network to a model package: calibrate, measure on held-out patients, record, write.

What is measured is what is shipped: the weights are rounded to their stored form first.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inference import card
from inference.agreement import FEWEST_MEASURED, agreement, bootstrap_intervals
from inference.architecture import Architecture
from inference.calibration import INTERVAL_LEVEL, Calibration, fit_reference, minimum_patients, patient_weights
from inference.drift import MOST_VALUES, OTHER_VALUES
from inference.drift_reference import Directions, DriftReference, thinned
from inference.engine import Engine, network_from_tensors, tensors_of
from inference.evaluation.shares import wilson_interval
from inference.examinations import Examination
from inference.explanation import Typical
from inference.manifest import EcgPreprocessing, Manifest, PackageKind
from inference.package import GoldenCase, quantised, write_package
from inference.radiograph import RadiographPreprocessing
from inference.recipe import Recipe
from inference.split import Split
from inference.training import Trained
from inference.view import View


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a person must say of a model; the rest is measured."""

    name: str
    version: str
    kind: PackageKind
    intended_use: str
    exclusions: tuple[str, ...]
    data: Mapping[str, object]


def release(
    folder: Path,
    description: Description,
    trained: Trained,
    examinations: Sequence[Examination],
    split: Split,
    recipe: Recipe,
    *,
    architecture: Architecture,
    radiograph: RadiographPreprocessing,
    ecg: EcgPreprocessing,
    weights_dtype: str = "float32",
    device: str = "cpu",
) -> Manifest:
    """Write the package of a trained network into `folder` and give back its manifest.

    `device` computes calibration and figures; golden cases always carry the CPU's answers.

    Raises
    ------
    ValueError
        If there are too few calibration or test patients, or the network takes no ECG.
    OSError
        If the folder cannot be written.
    """
    refuse_too_few(examinations, split)
    weights = tensors_of(trained.network.cpu(), weights_dtype)
    engine = Engine(network_from_tensors(architecture, weights).to(device), radiograph, ecg)
    calibration = calibrate(engine, examinations, split)
    typical = Typical.of(examinations, split.train)
    view = View.fit(
        typical.picture,
        (examinations[row].picture for row in split.calibrating),
        _patient_numbers(examinations, split.calibrating),
    )
    metrics = measure(engine, calibration, examinations, split.test, seed=recipe.seed)
    metrics["films_called_another_view"] = sum(bool(view.findings(examinations[row].picture)) for row in split.test)
    manifest = Manifest(
        name=description.name,
        version=description.version,
        kind=description.kind,
        architecture=architecture,
        weights_dtype=weights_dtype,
        radiograph=radiograph,
        ecg=ecg,
        intended_use=description.intended_use,
        exclusions=description.exclusions,
        data={
            **description.data,
            "patients": {
                part: len({examinations[row].patient_id for row in rows}) for part, rows in asdict(split).items()
            },
            "examinations": {part: len(rows) for part, rows in asdict(split).items()},
            "calibrated_on": "calibration patients" if split.calibration else "validation patients",
            "mpap_mmhg": _spread([examination.mpap_mmhg for examination in examinations]),
            **_tags(examinations, split.calibrating),
        },
        training={
            "recipe": asdict(recipe),
            "history": [asdict(epoch) for epoch in trained.history],
            "chosen_epoch": trained.chosen_epoch,
            "versions": {"torch": torch.__version__, "numpy": np.__version__},
            "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        },
        metrics=metrics,
    )
    return write_package(
        folder,
        manifest,
        weights=weights,
        calibration={**calibration.to_tensors(), **typical.to_tensors(), **view.to_tensors()},
        golden=golden_cases(
            Engine(network_from_tensors(architecture, weights), radiograph, ecg), examinations, split.test
        ),
        card=card.model_card(manifest),
    )


def refuse_too_few(examinations: Sequence[Examination], split: Split) -> None:
    """Pass if a package can be made of a training on `split`; nobody should learn that after the training.

    Raises
    ------
    ValueError
        If too few patients calibrate the interval, or there are too few test examinations to measure anything on, or
        more than half of them are one patient's.
    """
    needed = minimum_patients(INTERVAL_LEVEL)
    found = len({examinations[row].patient_id for row in split.calibrating})
    if found < needed:
        who = "calibration" if split.calibration else "validation"
        raise ValueError(
            f"no package can be made: its {INTERVAL_LEVEL:.0%} interval needs {needed} {who} patients, the split has "
            f"{found}; give more patients, or a column split with calibration patients"
        )
    if len(split.test) < FEWEST_MEASURED:
        raise ValueError(
            f"no package can be made: its figures need {FEWEST_MEASURED} test examinations, the split has "
            f"{len(split.test)}"
        )
    of_another_patient(_patient_numbers(examinations, split.test))


def calibrate(engine: Engine, examinations: Sequence[Examination], split: Split) -> Calibration:
    """Residuals and limits from the calibration patients; what is usual from the training patients.

    Where the split sets no calibration patients apart, as the paper's does not, the validation patients calibrate,
    although they chose the epoch: their residuals are smaller than a new patient's by that choice.
    """
    chest, ecg = embeddings(engine, examinations, split.calibrating)
    measured = _measured(examinations, split.calibrating)
    usual_chest, usual_ecg = embeddings(engine, examinations, split.train)
    estimated = engine.fuse(chest, ecg).mean(axis=1)
    residuals = measured - estimated.astype(np.float64)
    patient = _patient_numbers(examinations, split.calibrating)
    return Calibration(
        residuals_mmhg=residuals.astype(np.float32),
        patient=patient,
        drift=DriftReference(
            chest=Directions.fit(usual_chest.mean(axis=1), chest.mean(axis=1)),
            ecg=Directions.fit(usual_ecg, ecg),
            predicted_mmhg=thinned(estimated.astype(np.float32)),
        ),
        chest=fit_reference(usual_chest.mean(axis=1), chest.mean(axis=1), patient=patient),
        ecg=fit_reference(usual_ecg, ecg, patient=patient),
    )


def measure(
    engine: Engine,
    calibration: Calibration,
    examinations: Sequence[Examination],
    rows: Sequence[int],
    *,
    seed: int,
) -> dict[str, object]:
    """Agreement on held-out patients with 95% bootstrap intervals, coverage, and what each input contributes.

    `*_of_another_patient` give the correlation that is left when one input is swapped among the patients.
    """
    chest, ecg = embeddings(engine, examinations, rows)
    measured = _measured(examinations, rows)
    estimated = engine.fuse(chest, ecg).mean(axis=1).astype(np.float64)
    result = asdict(agreement(measured, estimated))
    patient = _patient_numbers(examinations, rows)
    limits = bootstrap_intervals(measured, estimated, patient, seed=seed)
    half = calibration.half_width_mmhg()
    # Each patient counts once, with the share of the visits that were covered.
    weights = patient_weights(patient)
    patients = round(float(weights.sum()))
    covered = float(weights[np.abs(measured - estimated) <= half].sum())
    swapped = of_another_patient(patient)
    distances = [(calibration.chest, chest.mean(axis=1)), (calibration.ecg, ecg)]
    unusual = [sum(ref.is_unusual(row) for row in rows_) for ref, rows_ in distances]
    metrics: dict[str, object] = {"patients": patients, "examinations": result.pop("examinations")}
    for name, value in result.items():
        low, high = limits[name]
        metrics[name] = {"value": round(value, 3), "low": round(low, 3), "high": round(high, 3)}
    low, high = wilson_interval(covered, patients)
    metrics["interval"] = {
        "level": INTERVAL_LEVEL,
        "half_width_mmhg": round(half, 2),
        "coverage": {
            "value": round(covered / patients, 3),
            "low": round(low, 3),
            "high": round(high, 3),
        },
    }
    metrics["out_of_distribution_flags"] = {"radiograph": unusual[0], "ecg": unusual[1]}
    mean_error = float(np.mean(np.abs(measured - measured.mean())))
    metrics["mean_absolute_error_of_predicting_the_mean"] = round(mean_error, 3)
    for name, estimate in (
        ("correlation_with_ecg_of_another_patient", engine.fuse(chest, ecg[swapped])),
        ("correlation_with_radiograph_of_another_patient", engine.fuse(chest[swapped], ecg)),
    ):
        other = agreement(measured, estimate.mean(axis=1).astype(np.float64))
        metrics[name] = round(other.correlation, 3)
    return metrics


def of_another_patient(patient: NDArray[np.integer]) -> NDArray[np.intp]:
    """For each visit [visits] the row of a visit of another patient, each row once.

    Visits of one patient stand together in most tables: the next row would be the same person's.

    Raises
    ------
    ValueError
        If one patient has more than half of the visits.
    """
    order = np.argsort(patient, kind="stable")
    most = int(np.bincount(patient).max())
    if 2 * most > len(patient):
        raise ValueError("more than half of the held-out examinations are one patient's")
    given = np.empty(len(patient), dtype=np.intp)
    given[order] = np.roll(order, most)
    return given


def embeddings(
    engine: Engine, examinations: Sequence[Examination], rows: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Chest [n, 9, 1024] and ECG [n, 128] embeddings of the examinations at `rows`."""
    chest = np.stack([engine.embed_chest(examinations[k].picture.astype(np.float32)) for k in rows])
    ecg = np.concatenate([engine.embed_ecg(examinations[k].lead_images[None]) for k in rows])
    return chest, ecg


def golden_cases(engine: Engine, examinations: Sequence[Examination], rows: Sequence[int]) -> tuple[GoldenCase, ...]:
    """The held-out patients of lowest and highest pressure, with the engine's own answers."""
    ordered = sorted(rows, key=lambda k: examinations[k].mpap_mmhg)
    cases = []
    for name, row in (("low", ordered[0]), ("high", ordered[-1])):
        examination = examinations[row]
        picture = quantised(examination.picture.astype(np.float32))
        values = engine.fuse(engine.embed_chest(picture)[None], engine.embed_ecg(examination.lead_images[None]))
        cases.append(
            GoldenCase(
                name=name,
                picture=picture,
                lead_images=examination.lead_images,
                patch_mpap_mmhg=tuple(float(value) for value in values[0]),
            )
        )
    return tuple(cases)


def _patient_numbers(examinations: Sequence[Examination], rows: Sequence[int]) -> NDArray[np.int32]:
    """The patients of `rows`, numbered: their names stay out of the package."""
    return np.unique([examinations[k].patient_id for k in rows], return_inverse=True)[1].astype(np.int32)


def _measured(examinations: Sequence[Examination], rows: Sequence[int]) -> NDArray[np.float64]:
    return np.array([examinations[k].mpap_mmhg for k in rows], dtype=np.float64)


def _tags(examinations: Sequence[Examination], rows: Sequence[int]) -> dict[str, object]:
    """How often each value of each tag occurs among `rows`; rare ones beyond `MOST_VALUES` count together."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        for name, value in examinations[row].tags.items():
            counts.setdefault(name, Counter())[value] += 1
    if not counts:
        return {}
    told = {}
    for name, of_value in sorted(counts.items()):
        common = dict(of_value.most_common(MOST_VALUES))
        rest = of_value.total() - sum(common.values())
        told[name] = common | ({OTHER_VALUES: rest} if rest else {})
    return {"tags": told}


def _spread(values: Sequence[float]) -> dict[str, float]:
    array = np.asarray(values)
    return {
        "lowest": round(float(array.min()), 1),
        "highest": round(float(array.max()), 1),
        "mean": round(float(array.mean()), 2),
        "sd": round(float(array.std(ddof=1)), 2),
    }
