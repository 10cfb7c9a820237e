"""The network keeps the paper's interface: shapes, parameter counts, and the split first layer."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch

from ecg_ingest import RenderStyle
from inference.architecture import (
    BACKBONES,
    MICRO,
    MICRO_ECG,
    MICRO_RESNET,
    MICRO_VGG,
    MICRO_VIT,
    RESNET34,
    VGG16,
    VIT_BASE,
    VIT_LARGE,
    VIT_SMALL,
    Architecture,
)
from inference.averaging import for_stand_ins
from inference.backbones import chest_encoder
from inference.batches import Batches
from inference.examinations import Examination
from inference.manifest import EcgPreprocessing
from inference.network import EcgBranch, FusedNetwork, Head, MicroEcgBranch, parameters
from inference.radiograph import RadiographPreprocessing
from inference.recipe import Recipe
from inference.training import grid_estimates


def test_the_ecg_branch_has_the_papers_parameters_and_gives_128_numbers() -> None:
    branch = EcgBranch().eval()
    assert parameters(branch) == 423_616
    assert branch(torch.zeros(2, 36, 48, 224)).shape == (2, 128)


def test_the_head_has_the_papers_parameters() -> None:
    assert parameters(Head()) == 683_169


def test_the_head_without_an_ecg_is_1024_to_592_to_1() -> None:
    head = Head(0)
    assert parameters(head) == 1024 * 592 + 592 + 592 + 1
    chest = torch.rand(6, 1024)
    assert torch.allclose(head(chest, None), head.split(chest.view(2, 3, 1024), None).flatten(), atol=1e-6)


def test_an_ecg_costs_the_multiplications_that_the_paper_counts() -> None:
    branch, counted = EcgBranch().eval(), []
    for layer in branch.features:
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(
                lambda layer, _given, out: counted.append(out[0].numel() * layer.weight[0].numel())
            )
    with torch.device("meta"):
        branch.to("meta")(torch.zeros(1, 36, 48, 224))
    assert round((sum(counted) + 256 * 128) / 1e9, 3) == 0.619


def test_dinov2_large_constructs_with_257_position_embeddings_and_gives_1024_numbers() -> None:
    with torch.device("meta"):
        encoder = chest_encoder(VIT_LARGE)
        assert encoder(torch.zeros(9, 3, 224, 224)).shape == (9, 1024)
    assert encoder.pos_embed.shape == (1, 257, 1024)
    whole = parameters(encoder) + 423_616 + 683_169
    assert round(whole / 1e6, 1) == 304.3


@pytest.mark.parametrize(
    ("backbone", "millions"),
    [(VIT_LARGE, 303.2), (VIT_BASE, 86.5), (VIT_SMALL, 22.0), (RESNET34, 21.8), (VGG16, 138.5)],
)
def test_each_chest_backbone_of_timm_comes_to_1024_numbers(backbone: str, millions: float) -> None:
    with torch.device("meta"):
        encoder = chest_encoder(backbone).eval()
        assert encoder(torch.zeros(2, 3, 224, 224)).shape == (2, 1024)
    assert round(parameters(encoder) / 1e6, 1) == millions


@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_row_of_the_papers_table_has_a_fused_and_an_image_only_network(backbone: str) -> None:
    with torch.device("meta"):
        fused, alone = (
            FusedNetwork(architecture).eval()
            for architecture in (Architecture(chest_backbone=backbone), Architecture.image_only(backbone))
        )
        patches, leads = torch.zeros(2, 3, 224, 224), torch.zeros(2, 36, 48, 224)
        assert fused(patches, leads).shape == alone(patches, leads).shape == (2,)
    assert parameters(fused) - parameters(alone) == 423_616 + 128 * 592


def test_the_small_ecg_stand_in_keeps_the_interface() -> None:
    assert MicroEcgBranch().eval()(torch.zeros(2, 36, 48, 224)).shape == (2, 128)
    assert parameters(MicroEcgBranch()) == 43_688


def test_an_architecture_without_a_choice_of_ecg_branch_reads_as_before() -> None:
    plain = Architecture(chest_backbone=MICRO)
    assert "ecg_branch" not in plain.to_json()  # the digest of packages from before depends on it
    for architecture in (
        plain,
        Architecture.image_only(MICRO),
        Architecture(chest_backbone=MICRO, ecg_branch=MICRO_ECG),
    ):
        assert Architecture(**architecture.to_json()) == architecture  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="implemented"):
        Architecture(chest_backbone=MICRO, ecg_embedding=0)


def test_the_micro_stand_in_keeps_the_interface() -> None:
    encoder = chest_encoder(MICRO).eval()
    assert parameters(encoder) < 1_000_000
    assert encoder(torch.zeros(2, 3, 224, 224)).shape == (2, 1024)


def test_splitting_the_first_fused_layer_changes_nothing_but_rounding() -> None:
    torch.manual_seed(3)
    network = FusedNetwork(Architecture(chest_backbone=MICRO)).eval()
    patches, leads = torch.rand(9, 3, 224, 224), torch.rand(1, 36, 48, 224)
    with torch.inference_mode():
        plain = network(patches, leads.expand(9, -1, -1, -1))
        split = network.head.split(network.chest(patches)[None], network.ecg(leads))[0]
    assert torch.allclose(plain, split, atol=1e-5)


def test_an_unknown_backbone_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown chest backbone 'resnet9000'"):
        Architecture(chest_backbone="resnet9000")


@pytest.mark.parametrize("backbone", [MICRO_VIT, MICRO_RESNET, MICRO_VGG])
def test_averaging_beforehand_changes_nothing_for_the_stand_ins(backbone: str) -> None:
    rng = np.random.default_rng(6)
    examination = Examination(
        patient_id="P",
        picture=rng.random((512, 512), dtype=np.float32).astype(np.float16),
        lead_images=rng.integers(0, 256, (12, 48, 224, 3), dtype=np.uint8),
        mpap_mmhg=30.0,
    )
    torch.manual_seed(2)
    network = FusedNetwork(Architecture(chest_backbone=backbone, ecg_branch=MICRO_ECG))
    radiograph, ecg = RadiographPreprocessing(), EcgPreprocessing(style=asdict(RenderStyle()))
    whole, before = (
        grid_estimates(network, [one], [0], radiograph=radiograph, ecg=ecg)
        for one in (examination, for_stand_ins(examination))
    )
    assert whole == pytest.approx(before, abs=2e-3)
    batches = [
        Batches([one], Recipe(crop_step=4), radiograph, ecg) for one in (examination, for_stand_ins(examination))
    ]
    (full, *_), (small, *_) = (one.draw(np.zeros(1, dtype=np.int64), 3) for one in batches)
    assert torch.allclose(torch.nn.functional.avg_pool2d(full, 4), small, atol=1e-3)
