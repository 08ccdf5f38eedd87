"""CLIP's image tower, its taps, and the ways in which its weights arrive."""

import json

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from clare_cache.backbones import ClipConfig
from clare_cache.backbones.clip import ClipBackbone
from clare_cache.backbones.clip_models import build_clip, load_clip
from clare_cache.backbones.config import preprocessing_settings
from clare_cache.errors import BackboneError

FEATURES = ["clip_patch_tokens", "clip_block_cls", "clip_embedding"]
PLAIN = {
    "embed_dim": 8,
    "vision_cfg": {
        "image_size": 32,
        "patch_size": 16,
        "width": 16,
        "layers": 2,
        "head_width": 8,
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
QUICK = {**PLAIN, "quick_gelu": True}
TRAININGS = {
    "openai": {"hf_hub": "someone/small.openai/", "quick_gelu": True},
    "laion2b_s32b_b82k": {
        "hf_hub": "someone/small.laion/",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    },
}


@pytest.fixture
def small(monkeypatch):
    """A small model in open_clip's tables, with and without QuickGELU, for one test."""
    from open_clip import factory, pretrained

    monkeypatch.setitem(factory._MODEL_CONFIGS, "Small", PLAIN)
    monkeypatch.setitem(factory._MODEL_CONFIGS, "Small-quickgelu", QUICK)
    monkeypatch.setitem(pretrained._PRETRAINED, "Small", TRAININGS)
    quick = {"openai": TRAININGS["openai"]}
    monkeypatch.setitem(pretrained._PRETRAINED, "Small-quickgelu", quick)


@pytest.fixture
def weights():
    """A state dict for the small model."""
    torch.manual_seed(3)
    return {name: torch.randn_like(w) for name, w in build_clip(PLAIN).state_dict().items()}


@pytest.fixture(scope="module")
def tiny():
    return load_clip("tiny")


@pytest.fixture(scope="module")
def batch():
    return np.random.default_rng(4).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)


def test_vit_l_14_has_its_published_size():
    with torch.device("meta"):
        model = build_clip(open_clip.get_model_config("ViT-L-14-quickgelu"))
    assert sum(parameter.numel() for parameter in model.parameters()) == 427_616_513


def test_features_are_those_of_open_clips_own_forward(tiny, batch):
    backbone = tiny.image_backbone(ClipConfig(stored_dtype="float32", tap="block_output"))
    found = backbone(batch, ["a", "b"], FEATURES)
    mean = torch.tensor(tiny.mean).view(3, 1, 1)
    std = torch.tensor(tiny.std).view(3, 1, 1)
    pixels = (torch.from_numpy(batch).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.inference_mode():
        expected = tiny.model.visual.forward_intermediates(
            pixels, output_fmt="NLC", output_extra_tokens=True
        )
    tokens = expected["image_intermediates"][-1]
    block_cls = torch.cat(expected["image_intermediates_prefix"], dim=1)
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(found["clip_patch_tokens"], tokens, **close)
    np.testing.assert_allclose(found["clip_block_cls"], block_cls, **close)
    np.testing.assert_allclose(found["clip_embedding"], expected["image_features"], **close)


def test_the_mlp_input_is_what_the_blocks_second_layer_norm_gives(tiny, batch):
    backbone = tiny.image_backbone(ClipConfig(stored_dtype="float32"))
    seen = []
    hooks = [
        block.mlp.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][:, 0]))
        for block in tiny.model.visual.transformer.resblocks
    ]
    found = backbone(batch, ["a", "b"], ["clip_block_cls"])["clip_block_cls"]
    for hook in hooks:
        hook.remove()
    np.testing.assert_array_equal(found, torch.stack(seen, dim=1))


def test_the_tap_is_declared_for_block_class_tokens_alone(tiny):
    paper = tiny.image_backbone(ClipConfig(tap="block_output"))
    code = tiny.image_backbone(ClipConfig(tap="mlp_input"))
    assert paper.declared("clip_block_cls") != code.declared("clip_block_cls")
    assert paper.declared("clip_embedding") == code.declared("clip_embedding")
    assert paper.declared("clip_patch_tokens") == code.declared("clip_patch_tokens")


def test_no_hook_outlives_a_call_not_even_a_failed_one(tiny, batch):
    backbone = tiny.image_backbone(ClipConfig())
    backbone(batch, ["a", "b"], FEATURES)
    with pytest.raises(RuntimeError):
        backbone.features_from(torch.zeros(1, 3, 28, 28), FEATURES)
    assert not any(module._forward_hooks for module in tiny.model.visual.modules())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_close_and_leaves_the_loaded_model_alone(tiny, batch, dtype):
    exact = tiny.image_backbone(ClipConfig(stored_dtype="float32"))
    half = tiny.image_backbone(ClipConfig(stored_dtype="float32", dtype=dtype))
    assert all(parameter.dtype == torch.float32 for parameter in tiny.model.parameters())
    expected, found = (backbone(batch, ["a", "b"], FEATURES) for backbone in (exact, half))
    for name in FEATURES:
        error = np.abs(found[name] - expected[name]).max()
        assert 0 < error < 0.05 * np.abs(expected[name]).max()


def test_random_models_leave_the_callers_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model = load_clip("tiny").model
    assert torch.equal(torch.rand(3), expected)
    again = load_clip("tiny").model
    assert torch.equal(model.visual.proj, again.visual.proj)


def test_a_file_gives_its_weights_and_is_known_by_its_digest(small, weights, tmp_path):
    for path in (tmp_path / "a.safetensors", tmp_path / "b.pt"):
        save_file(weights, path) if path.suffix == ".safetensors" else torch.save(weights, path)
        loaded = load_clip(f"Small-quickgelu:{path}")
        assert torch.equal(loaded.model.visual.proj, weights["visual.proj"])
        assert len(loaded.identity["weights"]["sha256"]) == 64
        assert loaded.identity["quick_gelu"] is True
        assert loaded.mean == open_clip.OPENAI_DATASET_MEAN
        assert str(tmp_path) not in json.dumps(loaded.identity)
    moved = tmp_path / "moved.safetensors"
    save_file(weights, moved)
    again = load_clip(f"Small-quickgelu:{moved}")
    assert again.identity == load_clip(f"Small-quickgelu:{tmp_path / 'a.safetensors'}").identity


def test_a_source_loads_from_any_folder(small, weights, tmp_path, monkeypatch):
    (tmp_path / "clip").mkdir()
    save_file(weights, tmp_path / "clip/mine.safetensors")
    monkeypatch.chdir(tmp_path)
    loaded = load_clip("Small-quickgelu:clip/mine.safetensors")
    assert loaded.source == f"Small-quickgelu:{tmp_path}/clip/mine.safetensors"
    monkeypatch.chdir("/")
    assert load_clip(loaded.source).identity == loaded.identity


@pytest.mark.parametrize(("says", "name"), [(True, "Small-quickgelu"), (False, "Small")])
def test_the_configuration_beside_a_file_decides(small, weights, tmp_path, says, name):
    path = tmp_path / "open_clip_model.safetensors"
    save_file(weights, path)
    model = {"quick_gelu": says}
    pixels = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    config = {"model_cfg": model, "preprocess_cfg": pixels}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    loaded = load_clip(f"{name}:{path}")
    assert (loaded.mean, loaded.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    other = {"Small": "Small-quickgelu", "Small-quickgelu": "Small"}[name]
    with pytest.raises(BackboneError, match=f"Use {name}:"):
        load_clip(f"{other}:{path}")


@pytest.mark.parametrize(("name", "quick"), [("Small-quickgelu", True), ("Small", False)])
def test_a_configuration_that_is_silent_leaves_it_to_the_name(
    small, weights, tmp_path, name, quick
):
    path = tmp_path / "open_clip_model.safetensors"
    save_file(weights, path)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {}}))
    assert load_clip(f"{name}:{path}").identity["quick_gelu"] is quick


@pytest.mark.parametrize("text", ["", "[]", '{"model_cfg": 3}', "\x00"])
def test_a_damaged_configuration_is_named(small, weights, tmp_path, text):
    save_file(weights, tmp_path / "mine.safetensors")
    (tmp_path / "open_clip_config.json").write_text(text)
    with pytest.raises(BackboneError, match=r"open_clip_config\.json: expected open_clip's"):
        load_clip(f"Small:{tmp_path}/mine.safetensors")


def test_a_model_without_a_twin_takes_an_unknown_file(small, weights, tmp_path, monkeypatch):
    from open_clip import factory

    monkeypatch.setitem(factory._MODEL_CONFIGS, "Single", PLAIN)
    save_file(weights, tmp_path / "mine.safetensors")
    loaded = load_clip(f"Single:{tmp_path}/mine.safetensors")
    assert loaded.identity["quick_gelu"] is False
    assert loaded.mean == open_clip.OPENAI_DATASET_MEAN


def test_an_unknown_files_activation_is_the_models(small, weights, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file(weights, path)
    loaded = load_clip(f"Small-quickgelu:{path}")
    assert loaded.identity["quick_gelu"] is True
    block = loaded.model.visual.transformer.resblocks[0]
    assert type(block.mlp.gelu).__name__ == "QuickGELU"


def test_pixel_statistics_follow_the_training_that_a_file_is_named_after(small, weights, tmp_path):
    path = tmp_path / "small-laion2B-s32B-b82K.safetensors"
    save_file(weights, path)
    assert load_clip(f"Small:{path}").mean == (0.5, 0.5, 0.5)


def test_openais_own_file_is_known_by_its_digest(small, weights, tmp_path, monkeypatch):
    path = tmp_path / "mine.safetensors"
    save_file(weights, path)
    digest = "b8cca3fd41ae0c99" + 48 * "0"
    monkeypatch.setattr("clare_cache.backbones.clip_models.file_digest", lambda path: digest)
    with pytest.raises(BackboneError, match=r"Use Small-quickgelu:.*mine\.safetensors"):
        load_clip(f"Small:{path}")


def test_a_tag_is_fetched_from_the_hub_with_its_statistics(small, weights, tmp_path, monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked = []

    def hf_hub_download(repository, name, *, revision, local_files_only):
        asked.append((repository, name, revision, local_files_only))
        if name != "open_clip_pytorch_model.bin":
            raise LocalEntryNotFoundError("not cached")
        path = tmp_path / "snapshots/0123abc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(weights, path)
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loaded = load_clip("Small:laion2b_s32b_b82k")
    assert asked[-1] == ("someone/small.laion", "open_clip_pytorch_model.bin", None, True)
    assert loaded.source == "Small:laion2b_s32b_b82k@0123abc"
    assert load_clip(loaded.source).source == loaded.source
    assert asked[-1][2] == "0123abc"
    assert loaded.std == (0.5, 0.5, 0.5)
    assert torch.equal(loaded.model.visual.proj, weights["visual.proj"])


def test_a_file_for_another_model_is_refused_with_all_faults(small, weights, tmp_path):
    path = tmp_path / "mine.safetensors"
    del weights["visual.proj"]
    weights["extra"] = torch.zeros(1)
    weights["positional_embedding"] = torch.zeros(5, 16)
    save_file(weights, path)
    with pytest.raises(BackboneError) as caught:
        load_clip(f"Small-quickgelu:{path}")
    assert "visual.proj is missing" in str(caught.value)
    assert "extra is unknown to the model" in str(caught.value)
    assert "positional_embedding: expected shape (77, 16), found (5, 16)" in str(caught.value)


def test_resnet_50_has_its_published_size_and_shapes():
    config = open_clip.get_model_config("RN50-quickgelu")
    with torch.device("meta"):
        model = build_clip(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == 102_007_137
    specs = ClipBackbone(
        model.visual, ClipConfig(), mean=(0, 0, 0), std=(1, 1, 1), identity={}, source="",
        device="meta",
    ).arrays  # fmt: skip
    assert {spec.name: spec.shape for spec in specs} == {
        "clip_layer3_map": (1024, 14, 14),
        "clip_embedding": (1024,),
    }
    assert specs[0].axes == ("map_channel", "map_row", "map_column")


def plain_resnet(weights, pixels):
    """Radford et al. 2021, section 2.4, in plain operations: (stage 3, pooled)."""

    def conv(x, name, **options):
        return functional.conv2d(x, weights[f"{name}.weight"], **options)

    def norm(x, name):
        keys = ("running_mean", "running_var", "weight", "bias")
        mean, variance, weight, bias = (weights[f"{name}.{key}"][:, None, None] for key in keys)
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def bottleneck(x, name, stride):
        y = norm(conv(x, f"{name}.conv1"), f"{name}.bn1").relu()
        y = norm(conv(y, f"{name}.conv2", padding=1), f"{name}.bn2").relu()
        y = functional.avg_pool2d(y, stride)
        y = norm(conv(y, f"{name}.conv3"), f"{name}.bn3")
        if f"{name}.downsample.0.weight" in weights:
            x = functional.avg_pool2d(x, stride)
            x = norm(conv(x, f"{name}.downsample.0"), f"{name}.downsample.1")
        return (x + y).relu()

    x = norm(conv(pixels, "conv1", stride=2, padding=1), "bn1").relu()
    x = norm(conv(x, "conv2", padding=1), "bn2").relu()
    x = norm(conv(x, "conv3", padding=1), "bn3").relu()
    x = functional.avg_pool2d(x, 2)
    stages = []
    for stage in (1, 2, 3, 4):
        for number in (0, 1):
            x = bottleneck(x, f"layer{stage}.{number}", 2 if stage > 1 and number == 0 else 1)
        stages.append(x)
    tokens = x.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
    tokens = tokens + weights["attnpool.positional_embedding"]
    q, k, v = (
        (tokens @ weights[f"attnpool.{n}_proj.weight"].T + weights[f"attnpool.{n}_proj.bias"])
        .unflatten(2, (-1, 64))
        .transpose(1, 2)
        for n in "qkv"
    )
    pooled = ((q @ k.transpose(2, 3) / 8).softmax(3) @ v).transpose(1, 2).flatten(2)[:, 0]
    embedding = pooled @ weights["attnpool.c_proj.weight"].T + weights["attnpool.c_proj.bias"]
    return stages[2], embedding


def test_a_resnet_s_features_are_those_of_plain_operations():
    config = {
        **PLAIN,
        "vision_cfg": {"image_size": 64, "layers": [2, 2, 2, 2], "width": 8, "patch_size": None},
    }
    visual = build_clip(config).visual
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for name, weight in visual.state_dict().items():
            # Normalisation that does something, and residual branches that are not zero.
            if ("bn" in name or "downsample.1" in name) and weight.is_floating_point():
                weight.copy_(torch.rand(weight.shape, generator=generator) + 0.5)
    backbone = ClipBackbone(
        visual, ClipConfig(stored_dtype="float32"), mean=(0, 0, 0), std=(1, 1, 1),
        identity={}, source="",
    )  # fmt: skip
    pixels = torch.randn(2, 3, 64, 64, generator=generator)
    found = backbone.features_from(pixels, ["clip_layer3_map", "clip_embedding"])
    stage3, embedding = plain_resnet(visual.state_dict(), pixels)
    assert found["clip_layer3_map"].shape == (2, *backbone.arrays[0].shape) == (2, 128, 4, 4)
    scale = stage3.abs().max()
    torch.testing.assert_close(found["clip_layer3_map"] / scale, stage3 / scale)
    torch.testing.assert_close(found["clip_embedding"], embedding, rtol=1e-4, atol=1e-5)
    assert not visual.layer3._forward_hooks


@pytest.mark.parametrize("quick", [False, True])
def test_of_a_resnet_s_clip_the_flag_concerns_the_text_tower(quick, monkeypatch):
    from open_clip import factory

    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}
    config = {**PLAIN, "vision_cfg": vision, "quick_gelu": quick}
    monkeypatch.setitem(factory._MODEL_CONFIGS, "SmallResNet", config)
    loaded = load_clip("random:SmallResNet")
    assert type(loaded.model.transformer.resblocks[0].mlp.gelu).__name__ == (
        "QuickGELU" if quick else "GELU"
    )
    assert loaded.identity["quick_gelu"] is quick
    assert loaded.text_tower().output_width == 8


class Malice:
    """What a pickle could hold."""


@pytest.mark.parametrize(
    "content", [Malice(), {}, torch.zeros(2)], ids=["object", "none", "tensor"]
)
def test_pickled_objects_and_other_contents_are_refused(small, tmp_path, content):
    path = tmp_path / "mine.pt"
    torch.save(content, path)
    with pytest.raises(BackboneError, match=r"mine\.pt"):
        load_clip(f"Small-quickgelu:{path}")


def test_a_torn_file_is_refused(small, weights, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file(weights, path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BackboneError, match=r"mine\.safetensors cannot be read"):
        load_clip(f"Small-quickgelu:{path}")


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("clare", [0.5] * 3, [0.5] * 3),
        ("lare2", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ("rine", None, None),
    ],
)
def test_a_published_preprocessing_normalises_as_its_authors_do(name, mean, std):
    config = ClipConfig(**preprocessing_settings(name))
    backbone = load_clip("tiny").image_backbone(config)
    plain = load_clip("tiny").image_backbone(ClipConfig())
    batch = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    declared, known = (b.declared("clip_embedding") for b in (backbone, plain))
    if mean is None:
        assert declared == known
        mean, std = known["mean"], known["std"]
    assert (declared["mean"], declared["std"]) == (mean, std)
    pixels = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255
    pixels = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    expected = plain.features_from(pixels, ["clip_embedding"])["clip_embedding"]
    found = backbone(batch, ["a", "b"], ["clip_embedding"])["clip_embedding"]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-3)
