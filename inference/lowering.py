"""Make of a package a second one whose chest encoder multiplies in bf16, fp16 or int8, if its golden cases allow it.

The weights stay as they are stored; what changes is how they are multiplied, and so the package's digest and version.
"""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from inference.devices import answering_device, multiplies_fast
from inference.engine import Engine, UnfitPrecision, network_from_tensors
from inference.gate import Gate, deltas, passes, told
from inference.manifest import Manifest
from inference.package import Package, locate, read_card, read_package, write_package
from inference.recipe import Precision


class LoweringRefused(Exception):
    """A package may not run in the precision asked for."""

    def __init__(self, detail: str, hint: str = "") -> None:
        super().__init__(detail, hint)
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        return self.detail


def lower(source: Path | str, folder: Path, precision: Precision, *, device: str = "cpu") -> Manifest:
    """Write `source`, to run in `precision`, as a package of its own into `folder`; give back its manifest.

    Its version gets the precision's name appended. `device` is "cpu" or "cuda".

    Raises
    ------
    LoweringRefused
        If the golden cases stray from fp32 by more than the gate allows, the device lacks the precision, or the package
        is not one in fp32.
    PackageRefused
        If `source` is not sound.
    FileExistsError, OSError
        If `folder` holds something else or cannot be written.
    """
    where = locate(source)
    package = read_package(where)
    if package.manifest.gate is not None:
        raise LoweringRefused(
            f"the package runs in {package.manifest.gate.precision.value} already", "give the one in fp32"
        )
    try:
        computes_on = answering_device(device)
    except ValueError as error:
        raise LoweringRefused(str(error), "bf16 and int8 are for CPUs too") from error
    if not multiplies_fast(computes_on, precision):
        raise LoweringRefused(f"this {_kind(device)} has no fast {precision.value}", "fp32 is as fast here, or faster")
    gate = judge(package, precision, device)
    body = package.manifest
    manifest = replace(body, version=f"{body.version}{'.' if '-' in body.version else '-'}{precision.value}", gate=gate)
    card = read_card(where).rstrip() + (
        f"\n\n## Precision\n\nThe chest encoder multiplies in {precision.value}. Over {gate.cases} golden cases its "
        f"patches lie {told(gate.mean_delta_mmhg, gate.maximum_delta_mmhg)} "
        f"({gate.processor}, torch {gate.torch}). The figures above were measured in fp32.\n"
    )
    return write_package(
        folder,
        manifest,
        weights=package.weights,
        calibration=package.calibration,
        golden=package.golden,
        card=card,
    )


def judge(package: Package, precision: Precision, device: str) -> Gate:
    """Compute the golden cases of `package` in `precision`. Raises LoweringRefused where they stray too far."""
    network = network_from_tensors(package.manifest.architecture, package.weights).to(device)
    try:
        engine = Engine(network, package.manifest.radiograph, package.manifest.ecg, precision=precision)
    except UnfitPrecision as error:
        raise LoweringRefused(str(error), "bf16 is for every chest encoder") from error
    found = np.stack([engine.answer(case.picture, case.lead_images) for case in package.golden])
    reference = np.array([case.patch_mpap_mmhg for case in package.golden])
    mean, maximum = deltas(found, reference)
    if not passes(mean, maximum):
        raise LoweringRefused(
            f"in {precision.value} the golden cases lie {told(mean, maximum)}", "this model keeps to fp32"
        )
    return Gate(
        precision=precision,
        cases=len(package.golden),
        mean_delta_mmhg=round(mean, 6),
        maximum_delta_mmhg=round(maximum, 6),
        processor=f"{platform.machine()}, {_capability(device)}",
        torch=torch.__version__,
    )


def _kind(device: str) -> str:
    return "processor" if device == "cpu" else "GPU"


def _capability(device: str) -> str:
    return torch.backends.cpu.get_cpu_capability() if device == "cpu" else torch.cuda.get_device_name(device)
