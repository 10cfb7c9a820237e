"""An encoder made ready to answer is the same function, to rounding; in bf16 and int8 nearly so."""

from __future__ import annotations

import copy

import pytest
import torch

from inference.architecture import MICRO, MICRO_VIT, VIT_SMALL
from inference.backbones import chest_encoder
from inference.int8 import Int8Linear, has_int8
from inference.prepared import PreparedVit, prepared
from inference.recipe import Precision


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
    ready = prepared(copy.deepcopy(small), Precision.BF16)
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


@pytest.mark.skipif(not has_int8(), reason="this torch does not offer oneDNN's int8 operators")
def test_in_int8_it_strays_further_and_gives_the_same_bits_again(small: torch.nn.Module) -> None:
    ready = prepared(copy.deepcopy(small), Precision.INT8)
    with torch.inference_mode():
        expected, found = small(PATCHES), ready(PATCHES)
        again = ready(PATCHES)
    assert found.dtype == torch.float32
    assert 1e-4 < (expected - found).std() / expected.std() < 0.1
    assert torch.equal(found, again)


@pytest.mark.skipif(not has_int8(), reason="this torch does not offer oneDNN's int8 operators")
def test_an_int8_layer_errs_by_its_steps_alone() -> None:
    """An input that lies on the steps of its range, and weights on theirs, multiply exactly; a one-sided range too."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randint(-127, 128, (48, 64), generator=generator).float() * 0.01
    weight[:, 0] = 1.27  # so that each row's step is 0.01
    bias = torch.randn(48, generator=generator)
    layer = Int8Linear(weight, bias, rows=20)
    for low, high in ((-128, 127), (0, 255), (3, 255), (-255, -1)):
        x = torch.randint(low, high + 1, (4, 5, 64), generator=generator).float() * 0.02
        x[0, 0, :2] = torch.tensor([float(min(low, 0)), float(max(high, 0))]) * 0.02
        carried = torch.randn(4, 5, 48, generator=generator)
        expected = carried + torch.nn.functional.linear(x, weight, bias)
        assert torch.allclose(layer.onto(carried, x), expected, atol=1e-3)
    assert torch.allclose(layer(torch.zeros(2, 64)).float(), bias.expand(2, -1), rtol=0.01)
