"""The network keeps the paper's interface: shapes, parameter counts, and the split first layer."""

from __future__ import annotations

import pytest
import torch

from inference.architecture import MICRO, VIT_LARGE, Architecture
from inference.network import EcgBranch, FusedHead, FusedNetwork, chest_encoder, parameters


def test_the_ecg_branch_has_the_papers_parameters_and_gives_128_numbers() -> None:
    branch = EcgBranch().eval()
    assert parameters(branch) == 423_616
    assert branch(torch.zeros(2, 36, 48, 224)).shape == (2, 128)


def test_the_head_has_the_papers_parameters() -> None:
    assert parameters(FusedHead()) == 683_169


def test_dinov2_large_constructs_with_257_position_embeddings_and_gives_1024_numbers() -> None:
    with torch.device("meta"):
        encoder = chest_encoder(VIT_LARGE)
        assert encoder(torch.zeros(9, 3, 224, 224)).shape == (9, 1024)
    assert encoder.pos_embed.shape == (1, 257, 1024)
    whole = parameters(encoder) + 423_616 + 683_169
    assert round(whole / 1e6, 1) == 304.3


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
