"""Phantom examinations and a small package made once a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from ecg_ingest import RenderStyle
from inference.architecture import MICRO, Architecture
from inference.calibration import Calibration, fit_reference
from inference.engine import Engine, network_from_tensors, tensors_of
from inference.explanation import Typical
from inference.manifest import EcgPreprocessing, Manifest, PackageKind
from inference.network import FusedNetwork
from inference.package import GoldenCase, quantised, write_package
from inference.phantoms import PhantomPatient, Scenario, make_patient
from inference.radiograph import RadiographPreprocessing
from inference.view import View


@pytest.fixture(scope="session")
def phantom() -> PhantomPatient:
    """A CR phantom, MONOCHROME1, with a waveform ECG."""
    return make_patient(1, 3, Scenario.PAIRED_WAVEFORM, mpap_mmhg=42.0)


@pytest.fixture(scope="session")
def lead_images() -> np.ndarray:
    """Lead images of the right shape; what they show does not matter here."""
    return np.random.default_rng(5).integers(0, 256, (12, 48, 224, 3), dtype=np.uint8)


@pytest.fixture
def make_package(tmp_path: Path, lead_images: np.ndarray) -> Callable[..., Path]:
    """Write a package of random weights (seeded); `golden_error_mmhg` spoils its recorded answer."""

    def make(*, backbone: str = MICRO, golden_error_mmhg: float = 0.0, name: str = "package") -> Path:
        torch.manual_seed(0)
        architecture = Architecture(chest_backbone=backbone)
        radiograph, ecg = RadiographPreprocessing(), EcgPreprocessing(style=asdict(RenderStyle()))
        weights = tensors_of(FusedNetwork(architecture), "float16")
        engine = Engine(network_from_tensors(architecture, weights), radiograph, ecg)
        rng = np.random.default_rng(1)
        picture = quantised(rng.random((512, 512), dtype=np.float32))
        values = engine.fuse(engine.embed_chest(picture)[None], engine.embed_ecg(lead_images[None]))[0]
        golden = GoldenCase(
            name="noise",
            picture=picture,
            lead_images=lead_images,
            patch_mpap_mmhg=tuple(float(v) + golden_error_mmhg for v in values),
        )

        def reference(size: int) -> np.ndarray:
            return rng.standard_normal((60, size)).astype(np.float32)

        calibration = Calibration(
            residuals_mmhg=np.linspace(-9.0, 9.0, 41, dtype=np.float32),
            chest=fit_reference(reference(1024), reference(1024)),
            ecg=fit_reference(reference(128), reference(128)),
        )
        typical = Typical(picture=rng.integers(0, 256, (128, 128), dtype=np.uint8), lead_images=lead_images)
        view = View(average=typical.picture, limit=0.5)
        manifest = Manifest(
            name="random-demo",
            version="0.1.0",
            kind=PackageKind.SYNTHETIC_DEMO,
            architecture=architecture,
            weights_dtype="float16",
            radiograph=radiograph,
            ecg=ecg,
            intended_use="tests",
            exclusions=("everything else",),
            data={"source": "random numbers"},
            training={},
            metrics={},
        )
        folder = tmp_path / name
        write_package(
            folder,
            manifest,
            weights=weights,
            calibration={**calibration.to_tensors(), **typical.to_tensors(), **view.to_tensors()},
            golden=(golden,),
            card="# random-demo\n",
        )
        return folder

    return make
