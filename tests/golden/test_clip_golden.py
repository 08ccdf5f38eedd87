"""CLIP features against numbers computed by the authors' own code."""

import numpy as np
import pytest
import torch

from clare_cache.backbones.clip import ClipBackbone
from clare_cache.backbones.clip_models import build_clip
from clare_cache.backbones.config import ClipConfig

CLIP_FILES = [
    "clare-coop-cross_attention",
    "clare-cocoop-cross_attention",
    "clare-cocoop-cross_attention-init",
    "clare-coop-map_bias",
    "clare-cocoop-map_bias",
]
RINE_FILES = ["rine-q1-d256", "rine-q2-d128", "rine-q4-d128"]
SIDE = 16


def relative(found, expected) -> float:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


def build_backbone(golden_draw, *, layers: int) -> ClipBackbone:
    """ViT-L/14's widths with few layers, weights drawn by OpenAI's parameter names."""
    model = build_clip(
        {
            "embed_dim": 768,
            "quick_gelu": True,
            "vision_cfg": {"image_size": 224, "patch_size": 14, "width": 1024, "layers": layers},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "layers": 1},
        }
    )
    for name, parameter in model.named_parameters():
        if name.startswith("visual."):
            drawn = golden_draw.parameter(name, tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(drawn))
    return ClipBackbone(
        model.visual,
        ClipConfig(stored_dtype="float32"),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        identity={},
        source="golden",
    )


@pytest.fixture(scope="module")
def clare_features(golden_draw):
    backbone = build_backbone(golden_draw, layers=2)
    pixels = torch.from_numpy(golden_draw.array("input.image", (4, 3, 224, 224)))
    return backbone.features_from(pixels, ["clip_embedding", "clip_patch_tokens"])


@pytest.fixture(scope="module")
def rine_features(golden_draw):
    backbone = build_backbone(golden_draw, layers=4)
    pixels = torch.from_numpy(golden_draw.array("input.image", (8, 3, 224, 224)))
    return backbone.features_from(pixels, ["clip_block_cls"])


@pytest.mark.parametrize("name", CLIP_FILES)
def test_embedding_and_patch_tokens_are_the_authors(name, clare_features, golden_dir):
    golden = np.load(golden_dir / f"{name}.npz")
    assert relative(clare_features["clip_embedding"], golden["clip_image_embedding"]) < 1e-5
    tokens = clare_features["clip_patch_tokens"].unflatten(1, (SIDE, SIDE))
    assert relative(tokens.mean((1, 2)), golden["patch_map_mean"]) < 1e-5
    assert relative(tokens[:, 0, 0], golden["patch_map_corner"]) < 1e-5
    assert relative(tokens[:, 3, 5], golden["patch_map_r3c5"]) < 1e-5


@pytest.mark.parametrize("name", RINE_FILES)
def test_block_class_tokens_are_the_released_codes(name, rine_features, golden_dir):
    golden = np.load(golden_dir / f"{name}.npz")
    assert relative(rine_features["clip_block_cls"], golden["block_cls"]) < 1e-5
