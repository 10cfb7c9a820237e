"""An encoder made ready to answer is the same function, to rounding; in bf16 nearly so."""

from __future__ import annotations

import copy

import pytest
import torch

from inference.architecture import MICRO, MICRO_VIT, VIT_SMALL
from inference.backbones import chest_encoder
from inference.prepared import PreparedVit, prepared


@pytest.fixture(scope="module")
def small() -> torch.nn.Module:
    """DINOv2-small with four blocks and every number random: LayerScale begins at 1e-5 and would hide the blocks."""
    torch.manual_seed(4)
    encoder = chest_encoder(VIT_SMALL).eval().requires_grad_(False)
    encoder.backbone.blocks = encoder.backbone.blocks[:4]  # type: ignore[union-attr,index,assignment]
    for name, parameter in encoder.named_parameters():
        if name.endswith("gamma"):
            parameter.uniform_(0.2, 1.0)
        elif name.endswith("bias") or "norm" in name:
            parameter.normal_(0.5, 0.2)
    return encoder


PATCHES = torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(8))


def test_a_prepared_vit_gives_the_same_numbers_to_rounding(small: torch.nn.Module) -> None:
    ready = prepared(copy.deepcopy(small))
    with torch.inference_mode():
        expected, found = small(PATCHES), ready(PATCHES)
    assert any(isinstance(part, PreparedVit) for part in ready.modules())
    assert torch.allclose(expected, found, atol=2e-5)
    assert expected.std() > 0.05  # there is something to compare


def test_each_number_of_patches_gives_the_same(small: torch.nn.Module) -> None:
    ready = prepared(copy.deepcopy(small))
    with torch.inference_mode():
        together = ready(PATCHES)
        alone = torch.cat([ready(patch[None]) for patch in PATCHES])
    assert torch.allclose(together, alone, atol=2e-5)


def test_it_gives_the_same_bits_again(small: torch.nn.Module) -> None:
    ready = prepared(copy.deepcopy(small))
    with torch.inference_mode():
        assert torch.equal(ready(PATCHES), ready(PATCHES))


def test_without_packed_multiplication_it_multiplies_as_usual(
    small: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.prepared._has_packed", lambda: False)
    ready = prepared(copy.deepcopy(small))
    with torch.inference_mode():
        assert torch.allclose(small(PATCHES), ready(PATCHES), atol=2e-5)


def test_in_bf16_it_strays_a_little(small: torch.nn.Module) -> None:
    ready = prepared(copy.deepcopy(small), torch.bfloat16)
    with torch.inference_mode():
        expected, found = small(PATCHES), ready(PATCHES)
    assert found.dtype == torch.float32
    assert 1e-5 < (expected - found).std() / expected.std() < 0.05


def test_the_weights_move_and_are_not_held_twice(small: torch.nn.Module) -> None:
    given = copy.deepcopy(small)
    before = sum(parameter.numel() for parameter in given.parameters())
    ready = prepared(given)
    left = sum(parameter.numel() for parameter in ready.parameters())
    assert left < 0.2 * before  # patch embedding, norms and projection; the blocks' are packed


@pytest.mark.parametrize("backbone", [MICRO, MICRO_VIT])
def test_other_encoders_stay_as_they_are(backbone: str) -> None:
    encoder = chest_encoder(backbone).eval()
    assert prepared(encoder) is encoder
    assert not any(isinstance(part, PreparedVit) for part in encoder.modules())
