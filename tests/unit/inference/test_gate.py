"""A package multiplies in another precision than fp32 only if its golden cases prove that it may."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from inference import devices
from inference.gate import Gate, passes
from inference.lowering import LoweringRefused, lower
from inference.manifest import PackageFault, PackageRefused
from inference.package import read_card, read_identity, read_manifest, read_package, write_package
from inference.predictor import Predictor
from inference.recipe import Precision
from pacs_node.cli import root

MakePackage = Callable[..., Path]
STEEPER = 100_000


@pytest.fixture
def any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let bf16 run emulated where the processor has none: slow, and the same numbers."""
    monkeypatch.setattr(devices, "_processor_has", lambda *_: True)


def steep(folder: Path) -> Path:
    """The package with an output layer 100,000 times as steep, and golden cases that say so."""
    package = read_package(folder)
    weights = dict(package.weights)
    weights["head.output.weight"] = (weights["head.output.weight"].astype(np.float32) * STEEPER).astype(np.float32)
    offset = float(weights["head.output.bias"].item())
    golden = tuple(
        replace(case, patch_mpap_mmhg=tuple(STEEPER * (value - offset) + offset for value in case.patch_mpap_mmhg))
        for case in package.golden
    )
    write_package(
        folder,
        replace(package.manifest, weights_dtype="float32"),
        weights=weights,
        calibration=package.calibration,
        golden=golden,
        card="# steep\n",
    )
    return folder


def gate(**fields: object) -> Gate:
    known = {"precision": Precision.BF16, "cases": 1, "mean_delta_mmhg": 0.01, "maximum_delta_mmhg": 0.02}
    return Gate(**(known | {"processor": "x86_64, AVX512", "torch": "2.13.0"} | fields))  # type: ignore[arg-type]


@pytest.mark.usefixtures("any_processor")
def test_a_lowered_package_answers_within_the_gate_and_records_it(
    make_package: MakePackage, tmp_path: Path, lead_images: np.ndarray
) -> None:
    source = make_package()
    manifest = lower(source, tmp_path / "lowered", Precision.BF16)
    assert manifest.gate is not None
    assert manifest.gate.precision is Precision.BF16
    assert 0 < manifest.gate.maximum_delta_mmhg <= 0.5
    assert read_manifest(tmp_path / "lowered") == manifest
    exact, near = Predictor.load(source), Predictor.load(tmp_path / "lowered")
    picture = read_package(source).golden[0].picture
    apart = [
        abs(a - b)
        for a, b in zip(
            exact.predict(exact.embed(picture), lead_images).patch_mpap_mmhg,
            near.predict(near.embed(picture), lead_images).patch_mpap_mmhg,
            strict=True,
        )
    ]
    assert max(apart) == pytest.approx(manifest.gate.maximum_delta_mmhg, abs=2e-6)


@pytest.mark.usefixtures("any_processor")
def test_a_lowered_package_is_another_model_that_says_so(make_package: MakePackage, tmp_path: Path) -> None:
    source = make_package()
    lower(source, tmp_path / "lowered", Precision.BF16)
    before, after = read_identity(source), read_identity(tmp_path / "lowered")
    assert after.digest != before.digest
    assert after.version == f"{before.version}-bf16"
    assert after.architecture == f"{before.architecture}, chest encoder in bf16"
    assert "multiplies in bf16" in read_card(tmp_path / "lowered")


@pytest.mark.usefixtures("any_processor")
def test_a_model_that_bf16_leads_astray_is_refused_and_nothing_written(
    make_package: MakePackage, tmp_path: Path
) -> None:
    source = steep(make_package())
    Predictor.load(source)  # in fp32 it is sound
    with pytest.raises(LoweringRefused, match=r"on average and .* at most, where 0.1 and 0.5 are allowed"):
        lower(source, tmp_path / "lowered", Precision.BF16)
    assert not (tmp_path / "lowered").exists()


@pytest.mark.usefixtures("any_processor")
def test_a_gate_that_this_machine_does_not_meet_is_refused_at_start(make_package: MakePackage) -> None:
    folder = steep(make_package())
    package = read_package(folder)
    write_package(
        folder,
        replace(package.manifest, gate=gate()),  # claims what is not so
        weights=package.weights,
        calibration=package.calibration,
        golden=package.golden,
        card="# steep\n",
    )
    with pytest.raises(PackageRefused) as caught:
        Predictor.load(folder)
    assert caught.value.fault is PackageFault.GOLDEN
    assert "in bf16 its cases lie" in caught.value.detail


def test_a_processor_without_bf16_refuses_to_make_and_to_load(
    make_package: MakePackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_package()
    monkeypatch.setattr(devices, "_processor_has", lambda *_: True)
    lower(source, tmp_path / "lowered", Precision.BF16)
    monkeypatch.setattr(devices, "_processor_has", lambda *_: False)
    with pytest.raises(LoweringRefused, match="no fast bf16"):
        lower(source, tmp_path / "again", Precision.BF16)
    with pytest.raises(PackageRefused) as caught:
        Predictor.load(tmp_path / "lowered")
    assert caught.value.fault is PackageFault.PRECISION
    assert "use the package in fp32" in caught.value.hint


def test_fp16_is_for_gpus() -> None:
    assert not devices.multiplies_fast(torch.device("cpu"), Precision.FP16)
    assert devices.multiplies_fast(torch.device("cpu"), Precision.FP32)


@pytest.mark.usefixtures("any_processor")
def test_int8_is_for_a_vit_and_refused_for_anything_else(make_package: MakePackage, tmp_path: Path) -> None:
    source = make_package()  # a small stand-in that is not timm's ViT
    with pytest.raises(LoweringRefused, match="int8 is for a ViT"):
        lower(source, tmp_path / "lowered", Precision.INT8)
    package = read_package(source)
    write_package(
        tmp_path / "claimed",
        replace(package.manifest, gate=gate(precision=Precision.INT8)),
        weights=package.weights,
        calibration=package.calibration,
        golden=package.golden,
        card="# claimed\n",
    )
    with pytest.raises(PackageRefused) as caught:
        Predictor.load(tmp_path / "claimed")
    assert caught.value.fault is PackageFault.PRECISION


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU is needed")
def test_without_a_gpu_nothing_is_made_for_one_nor_served_by_one(make_package: MakePackage, tmp_path: Path) -> None:
    source = make_package()
    with pytest.raises(LoweringRefused, match="no GPU that torch can use"):
        lower(source, tmp_path / "lowered", Precision.FP16, device="cuda")
    with pytest.raises(PackageRefused, match="cannot run on cuda: there is no GPU") as caught:
        Predictor.load(source, device="cuda")
    assert caught.value.fault is PackageFault.DEVICE
    assert "model.device" in caught.value.hint


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU is needed")
def test_on_a_gpu_the_golden_cases_are_reproduced_and_fp16_is_served(
    make_package: MakePackage, tmp_path: Path, lead_images: np.ndarray
) -> None:
    source = make_package()
    lower(source, tmp_path / "lowered", Precision.FP16, device="cuda")
    picture = read_package(source).golden[0].picture
    for folder in (source, tmp_path / "lowered"):
        predictor = Predictor.load(folder, device="cuda")
        once, again = (predictor.predict(predictor.embed(picture), lead_images) for _ in range(2))
        assert once.patch_mpap_mmhg == again.patch_mpap_mmhg


def test_int8_is_not_trained_in_and_not_for_gpus() -> None:
    with pytest.raises(ValueError, match="nothing trains in int8"):
        devices.precision_on(torch.device("cpu"), Precision.INT8)
    assert not devices.multiplies_fast(torch.device("cuda"), Precision.INT8)


@pytest.mark.usefixtures("any_processor")
def test_a_lowered_package_is_not_lowered_again(make_package: MakePackage, tmp_path: Path) -> None:
    lower(make_package(), tmp_path / "lowered", Precision.BF16)
    with pytest.raises(LoweringRefused, match="runs in bf16 already"):
        lower(tmp_path / "lowered", tmp_path / "twice", Precision.BF16)


@pytest.mark.parametrize(
    "fields",
    [
        {"mean_delta_mmhg": 0.11},
        {"maximum_delta_mmhg": 0.51},
        {"maximum_delta_mmhg": float("nan")},
        {"cases": 0},
        {"precision": Precision.FP32},
    ],
)
def test_a_record_that_proves_nothing_is_no_gate(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="gate"):
        gate(**fields)


def test_the_limits_themselves_pass() -> None:
    assert passes(0.1, 0.5)
    assert not passes(0.1001, 0.5)
    assert not passes(0.1, 0.5001)


def test_a_gate_survives_the_manifest() -> None:
    assert Gate.from_json(gate().to_json()) == gate()
    with pytest.raises(ValueError, match="differ from those known"):
        Gate.from_json(gate().to_json() | {"waived": True})


@pytest.mark.usefixtures("any_processor")
def test_the_command_lowers_and_verify_says_what_was_held(make_package: MakePackage, tmp_path: Path) -> None:
    out = tmp_path / "lowered"
    done = CliRunner().invoke(root, ["model", "lower", str(make_package()), "--precision", "bf16", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "0.1.0-bf16" in done.output
    verified = CliRunner().invoke(root, ["model", "verify", str(out)])
    assert verified.exit_code == 0, verified.output
    assert "the gate of bf16" in verified.output
