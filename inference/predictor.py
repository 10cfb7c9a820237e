"""Load a model package, refuse it if it is not what it says, and answer: radiograph and ECG to a `Prediction`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inference.architecture import CHEST_EMBEDDING
from inference.calibration import INTERVAL_LEVEL, Calibration
from inference.devices import answering_device, multiplies_fast
from inference.engine import LEAD_IMAGES_SHAPE, PATCHES, Engine, UnfitPrecision, network_from_tensors
from inference.explanation import Explanation, Typical, explain, occlude
from inference.gate import deltas, passes, told
from inference.manifest import Manifest, PackageFault, PackageRefused
from inference.package import (
    CALIBRATION,
    GOLDEN,
    GOLDEN_TOLERANCE_MMHG,
    MANIFEST,
    WEIGHTS,
    GoldenCase,
    locate,
    read_package,
)
from inference.prediction import Chest, Finding, ModelIdentity, Prediction
from inference.radiograph import Radiograph, RadiographPreprocessing
from inference.signature import vouched_manifest
from inference.view import View


class Predictor:
    """A model package in service. One a process; not meant to be shared by threads."""

    def __init__(
        self, engine: Engine, calibration: Calibration, typical: Typical, view: View, manifest: Manifest
    ) -> None:
        self._engine = engine
        self._calibration = calibration
        self._view = view
        self.typical = typical
        self._manifest = manifest
        self.identity: ModelIdentity = manifest.identity()

    @classmethod
    def load(
        cls, folder: Path | str, *, threads: int | None = None, public_key: Path | None = None, device: str = "cpu"
    ) -> Predictor:
        """The package in `folder`, or the shipped package of that name.

        Parameters
        ----------
        folder
            A model package.
        threads
            How many threads torch may use in this process; None leaves torch's own choice. The same number gives
            bit-identical answers.
        public_key
            A PEM file; then the package must be signed by its private key (`signature`).
        device
            "cpu", or "cuda" for the first GPU.

        Raises
        ------
        PackageRefused
            If it is not signed by that key, a file is missing, added or changed, the tensors do not fit, or a golden
            case differs by more than 0.05 mmHg; in another precision than fp32, by more than `gate` allows. Also if
            there is no such device.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        vouched = None if public_key is None else vouched_manifest(locate(folder), public_key)
        package = read_package(locate(folder))
        if vouched not in {None, package.manifest.identity().digest}:
            raise PackageRefused(PackageFault.SIGNATURE, MANIFEST, "is not the file that was signed", "install again")
        try:
            network = network_from_tensors(package.manifest.architecture, package.weights)
        except ValueError as error:
            raise PackageRefused(PackageFault.WEIGHTS, WEIGHTS, str(error)) from error
        package.weights.clear()  # the network has copies; a ViT-L's 1.2 GB are not to be held beside them
        try:
            calibration = Calibration.from_tensors(package.calibration)
            typical = Typical.from_tensors(package.calibration)
            view = View.from_tensors(package.calibration, typical.picture)
        except (LookupError, ValueError) as error:
            raise PackageRefused(PackageFault.CALIBRATION, CALIBRATION, f"is not a calibration ({error})") from error
        manifest = package.manifest
        computes_on = _device(manifest, device)
        try:
            engine = Engine(network.to(computes_on), manifest.radiograph, manifest.ecg, precision=manifest.precision)
        except UnfitPrecision as error:
            raise PackageRefused(
                PackageFault.PRECISION, MANIFEST, str(error), "use the package in fp32 that it was made of"
            ) from error
        _reproduce(engine, package.golden, manifest)
        return cls(engine, calibration, typical, view, manifest)

    @property
    def ecg_style(self) -> Mapping[str, object]:
        """Keyword arguments of `ecg_ingest`'s `RenderStyle` for this model."""
        return dict(self._manifest.ecg.style)

    @property
    def preprocessing(self) -> RadiographPreprocessing:
        """How a radiograph is to be read for this model."""
        return self._manifest.radiograph

    def chest(self, radiograph: Radiograph) -> Chest:
        """Everything that a radiograph, read by `preprocessing`, gives without its ECG."""
        return Chest(
            embedding=self._engine.embed_chest(radiograph.picture),
            geometry=radiograph.geometry,
            display=radiograph.display,
            findings=(*radiograph.findings, *self._view.findings(radiograph.picture)),
        )

    def embed(self, picture: NDArray[np.floating]) -> NDArray[np.float32]:
        """The embedding of a picture [512, 512] that was already read by this model's preprocessing."""
        return self._engine.embed_chest(picture.astype(np.float32))

    def predict(self, embedding: NDArray[np.float32], lead_images: NDArray[np.uint8]) -> Prediction:
        """The estimate for one examination.

        Parameters
        ----------
        embedding
            Of the radiograph, float32 [9, 1024], as `chest` gave it for this very model.
        lead_images
            uint8 [12, 48, 224, 3], drawn in `ecg_style`.

        Raises
        ------
        ValueError
            If a shape or dtype differs or a value is not finite.
        """
        return self.predict_batch([embedding], [lead_images])[0]

    def predict_batch(
        self, embeddings: Sequence[NDArray[np.float32]], lead_images: Sequence[NDArray[np.uint8]]
    ) -> list[Prediction]:
        """As `predict` for several examinations at once; equal to it to rounding (1e-3 mmHg)."""
        if len(embeddings) != len(lead_images) or not embeddings:
            raise ValueError("as many embeddings as lead images are needed, and at least one")
        for embedding in embeddings:
            if embedding.shape != (PATCHES, CHEST_EMBEDDING) or embedding.dtype != np.float32:
                raise ValueError(f"an embedding must be float32 [9, 1024], not {embedding.shape}")
            if not np.isfinite(embedding).all():
                raise ValueError("an embedding holds values that are not finite")
        for leads in lead_images:
            if leads.shape != LEAD_IMAGES_SHAPE or leads.dtype != np.uint8:
                raise ValueError(f"lead images must be uint8 [12, 48, 224, 3], not {leads.shape}")
        start = time.perf_counter()
        chest = np.stack(embeddings)
        ecg = self._engine.embed_ecg(np.stack(lead_images))
        values = self._engine.fuse(chest, ecg)
        seconds = (time.perf_counter() - start) / len(values)
        return [self._prediction(values[k], chest[k], ecg[k], seconds) for k in range(len(values))]

    def explain(self, embedding: NDArray[np.float32], lead_images: NDArray[np.uint8]) -> Explanation:
        """What patches and leads contribute to the estimate that `predict` gives for the same arguments."""
        return explain(self._engine, self.typical, embedding, lead_images)

    def occlude(
        self,
        picture: NDArray[np.float32],
        lead_images: NDArray[np.uint8],
        *,
        progress: Callable[[], None] = lambda: None,
    ) -> NDArray[np.float64]:
        """What each of 8 x 8 places of the radiograph changes, mmHg [8, 8]: the work of sixteen examinations."""
        return occlude(self._engine, self.typical, picture.astype(np.float32), lead_images, progress=progress)

    def _prediction(
        self,
        patch_mmhg: NDArray[np.float32],
        chest: NDArray[np.float32],
        ecg: NDArray[np.float32],
        seconds: float,
    ) -> Prediction:
        mpap = float(np.mean(patch_mmhg.astype(np.float64)))
        low, high = self._calibration.interval(mpap)
        kept = self._calibration.drift
        return Prediction(
            mpap_mmhg=mpap,
            interval_low_mmhg=low,
            interval_high_mmhg=high,
            interval_level=INTERVAL_LEVEL,
            probability_above_20=self._calibration.probability_above(mpap, 20.0, inclusive=False),
            probability_at_least_25=self._calibration.probability_above(mpap, 25.0, inclusive=True),
            patch_mpap_mmhg=tuple(float(value) for value in patch_mmhg),
            findings=self._findings(chest, ecg),
            model=self.identity,
            code_version=_code_version(),
            seconds=seconds,
            chest_components=kept.chest.components(chest.mean(axis=0)) if kept else (),
            ecg_components=kept.ecg.components(ecg) if kept else (),
        )

    def _findings(self, chest: NDArray[np.float32], ecg: NDArray[np.float32]) -> tuple[Finding, ...]:
        found = []
        for subject, reference, embedding in (
            ("radiograph", self._calibration.chest, chest.mean(axis=0)),
            ("ecg", self._calibration.ecg, ecg),
        ):
            if reference.is_unusual(embedding):
                times = reference.ratio(embedding)
                found.append(
                    Finding(
                        subject=subject,
                        code="out_of_distribution",
                        severity="warning",
                        detail=f"unlike the model's own data: {times:.1f} times the largest distance that is usual",
                    )
                )
        return tuple(found)


def _device(manifest: Manifest, name: str) -> torch.device:
    """Where the package is to answer; refused if that is not here, or would have to emulate its precision."""
    try:
        device = answering_device(name)
    except ValueError as error:
        raise PackageRefused(
            PackageFault.DEVICE, MANIFEST, f"cannot run on {name}: {error}", 'set model.device to "cpu"'
        ) from error
    if not multiplies_fast(device, manifest.precision):
        kind = "processor" if device.type == "cpu" else "GPU"
        raise PackageRefused(
            PackageFault.PRECISION,
            MANIFEST,
            f"runs in {manifest.precision.value}, for which this {kind} has no instructions",
            "use the package in fp32 that it was made of, or another model.device",
        )
    return device


def _reproduce(engine: Engine, golden: Sequence[GoldenCase], manifest: Manifest) -> None:
    """Refuse a package whose recorded answers this machine does not give: exactly in fp32, else within the gate."""
    found = np.stack([engine.answer(case.picture, case.lead_images) for case in golden])
    reference = np.array([case.patch_mpap_mmhg for case in golden])
    if manifest.gate is not None:
        mean, maximum = deltas(found, reference)
        if not passes(mean, maximum):
            precision = manifest.precision.value
            raise PackageRefused(
                PackageFault.GOLDEN,
                GOLDEN,
                f"in {precision} its cases lie {told(mean, maximum)}",
                "use the package in fp32 that it was made of",
            )
        return
    for case, apart in zip(golden, np.abs(found - reference).max(axis=1), strict=True):
        if not apart <= GOLDEN_TOLERANCE_MMHG:
            raise PackageRefused(
                PackageFault.GOLDEN,
                GOLDEN,
                f"case {case.name} differs by {apart:.3f} mmHg, more than {GOLDEN_TOLERANCE_MMHG}",
                "this machine or its libraries compute another model than the one that was tested",
            )


@cache
def _code_version() -> str:
    try:
        return version("pulmolink")
    except PackageNotFoundError:
        return "unknown"
