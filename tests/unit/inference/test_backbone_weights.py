"""Published weights come in from a safetensors file, at 257 tokens, and only if they are the backbone's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from inference.architecture import RESNET34, VIT_SMALL
from inference.backbone_weights import BackboneRefused, import_weights, resampled
from inference.backbones import chest_encoder
from inference.network import parameters


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as timm publishes DINOv2: 1370 tokens of position, a mask token, random numbers."""
    torch.manual_seed(4)
    state = {name: tensor.clone() for name, tensor in chest_encoder(VIT_SMALL).backbone.state_dict().items()}
    state["pos_embed"] = torch.randn(1, 1370, 384)
    state["mask_token"] = torch.zeros(1, 384)
    file = tmp_path_factory.mktemp("weights") / "dinov2.safetensors"
    save_file(state, file)
    return file


def test_a_local_file_gives_the_backbone_its_weights_at_257_tokens(published: Path) -> None:
    torch.manual_seed(9)
    encoder = chest_encoder(VIT_SMALL)
    projection = encoder.project.weight.clone()
    imported = import_weights(encoder, VIT_SMALL, str(published))
    assert imported.tokens == 1370
    assert len(imported.sha256) == 64
    assert encoder.backbone.pos_embed.shape == (1, 257, 384)
    assert torch.equal(encoder.project.weight, projection)
    assert parameters(encoder) == 22_023_040


def test_resampling_keeps_the_class_token_and_a_constant_grid() -> None:
    position = torch.full((1, 1370, 8), 0.25)
    position[:, 0] = 3.0
    made = resampled(position)
    assert made.shape == (1, 257, 8)
    assert torch.equal(made[:, 0], position[:, 0])
    assert torch.allclose(made[:, 1:], torch.full((1, 256, 8), 0.25), atol=1e-5)
    same = torch.rand(1, 257, 8)
    assert resampled(same) is same
    with pytest.raises(BackboneRefused, match="1000 tokens"):
        resampled(torch.zeros(1, 1000, 8))


def test_a_pickle_is_not_opened_and_the_way_out_is_named(tmp_path: Path) -> None:
    file = tmp_path / "dinov2_vits14_pretrain.pth"
    file.write_bytes(b"never read")
    with pytest.raises(BackboneRefused, match=r"pickle.*save_file.*dinov2_vits14_pretrain.safetensors"):
        import_weights(chest_encoder(VIT_SMALL), VIT_SMALL, str(file))


def test_weights_of_another_backbone_or_no_weights_are_refused_by_name(published: Path, tmp_path: Path) -> None:
    with pytest.raises(BackboneRefused, match="is not a file of resnet34"):
        import_weights(chest_encoder(RESNET34), RESNET34, str(published))
    noise = tmp_path / "noise.safetensors"
    noise.write_bytes(b"\x00" * 64)
    with pytest.raises(BackboneRefused, match="not a safetensors file"):
        import_weights(chest_encoder(VIT_SMALL), VIT_SMALL, str(noise))
