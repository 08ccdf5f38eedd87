"""The error map's arithmetic, and the ways in which Stable Diffusion's weights arrive."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from clare_cache.backbones import ErrorMapConfig, error_map, numerics
from clare_cache.backbones.diffusers_folder import fit_faults
from clare_cache.backbones.error_map import ErrorMapBackbone, ErrorMapFromLatent
from clare_cache.backbones.stable_diffusion import (
    architecture,
    build_networks,
    load_stable_diffusion,
    schedule_from,
)
from clare_cache.errors import BackboneError
from clare_cache.fingerprint import fingerprint
from clare_cache.seeds import standard_normal

IDS = ["a" * 64, "b" * 64]
SCALING = 0.18215
LOOKS = (
    "error_map",
    "error_map-n2",
    "error_map-t280-n6",
    "error_map_signed",
    "error_map_signed-t280-n1",
    "error_map-t280-n1",
    "vae_latent",
)


@pytest.fixture
def folder(golden_dir, tmp_path):
    return shutil.copytree(golden_dir / "tiny-sd", tmp_path / "tiny-sd")


@pytest.fixture(scope="module")
def backbone():
    return ErrorMapBackbone(
        load_stable_diffusion("tiny", prompt="a photo"), ErrorMapConfig(), features=LOOKS
    )


@pytest.fixture(scope="module")
def batch():
    """Two smooth pictures."""
    rows, columns = np.mgrid[:256, :256]
    red = 128 + 90 * np.sin(rows / 40) * np.cos(columns / 55)
    picture = np.stack([red, rows / 2 + 60, columns / 2 + 60], axis=-1)
    return np.stack([picture, picture[::-1]]).astype(np.uint8)


def mean_square(errors):
    """(B, draws, …) → (B, …)"""
    return errors.square().mean(dim=1)


def count(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_random_sd21_has_the_real_models_size():
    with torch.device("meta"):
        unet, vae, text_encoder = build_networks(architecture("sd21"))
    assert count(unet) == 865_910_724
    assert count(vae) == 83_653_863
    assert count(text_encoder) == 340_387_840


def test_schedule_is_the_files_not_the_class_default():
    alphas_cumprod = schedule_from(architecture("sd21")["scheduler"])
    found = alphas_cumprod[[200, 261, 280]]
    np.testing.assert_allclose(found, [0.753691733, 0.655669034, 0.624057472], rtol=1e-6)


def test_a_row_is_made_from_the_seeded_draws_of_its_id(backbone, batch):
    found = backbone(batch, IDS, ["error_map"])["error_map"]
    mean, std = backbone.posterior(batch)
    for i, image_id in enumerate(IDS):
        drawn = standard_normal(0, image_id, "latent_sample", (4, 32, 32))
        latents = (mean[i : i + 1] + std[i : i + 1] * torch.from_numpy(drawn)) * SCALING
        noise = [standard_normal(0, image_id, f"noise/{k}", (4, 32, 32)) for k in range(4)]
        expected = mean_square(
            backbone.errors(latents, torch.from_numpy(np.stack(noise))[None], 200)
        )
        np.testing.assert_allclose(found[i], expected[0], rtol=1e-4, atol=1e-5)


def test_draws_are_averaged_and_chunks_do_not_matter(backbone, batch, monkeypatch):
    mean, _ = backbone.posterior(batch)
    noise = torch.from_numpy(standard_normal(0, "draws", "test", (2, 5, 4, 32, 32)))
    together = mean_square(backbone.errors(mean, noise, 200))
    monkeypatch.setitem(error_map.UNET_ROWS, "cpu", 3)
    in_chunks = mean_square(backbone.errors(mean, noise, 200))
    one_by_one = [mean_square(backbone.errors(mean, noise[:, k : k + 1], 200)) for k in range(5)]
    torch.testing.assert_close(in_chunks, together, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sum(one_by_one) / 5, together, rtol=1e-4, atol=1e-5)


def test_all_maps_of_a_look_share_the_vae_pass_the_draws_and_the_unet_calls(backbone, batch):
    calls = {"vae": 0, "rows": []}
    hooks = [
        backbone._vae.encoder.register_forward_hook(lambda *_: calls.update(vae=calls["vae"] + 1)),
        backbone._unet.register_forward_hook(
            lambda module, inputs, output: calls["rows"].append((len(inputs[0]), int(inputs[1])))
        ),
    ]
    found = backbone(batch, IDS, LOOKS)
    for hook in hooks:
        hook.remove()
    assert list(found) == list(LOOKS)
    # Two images: 4 draws at the default timestep, 6 at the other.
    assert calls == {"vae": 1, "rows": [(8, 200), (12, 280)]}
    mean, std = backbone.posterior(batch)
    drawn = [standard_normal(0, i, "latent_sample", (4, 32, 32)) for i in IDS]
    latents = (mean + std * torch.from_numpy(np.stack(drawn))) * SCALING
    noise = torch.from_numpy(
        np.stack(
            [[standard_normal(0, i, f"noise/{k}", (4, 32, 32)) for k in range(6)] for i in IDS]
        )
    )
    errors = {
        200: backbone.errors(latents, noise[:, :4], 200),
        280: backbone.errors(latents, noise, 280),
    }
    expected = {
        "error_map": errors[200].square().mean(1),
        "error_map-n2": errors[200][:, :2].square().mean(1),
        "error_map-t280-n6": errors[280].square().mean(1),
        "error_map_signed": errors[200].mean(1),
        "error_map_signed-t280-n1": errors[280][:, 0],
        "error_map-t280-n1": errors[280][:, 0].square(),
        "vae_latent": latents.half(),
    }
    for array, values in expected.items():
        torch.testing.assert_close(torch.from_numpy(found[array]), values, rtol=1e-4, atol=1e-5)


def test_a_map_named_like_the_settings_is_the_map_of_the_settings(batch):
    config = ErrorMapConfig(timestep=280, ensemble=2)
    parts = load_stable_diffusion("tiny", prompt="a photo")
    one = ErrorMapBackbone(parts, config, features=["error_map", "error_map-t280-n2"])
    found = one(batch, IDS, ["error_map", "error_map-t280-n2"])
    np.testing.assert_array_equal(found["error_map"], found["error_map-t280-n2"])
    assert one.declared("error_map") == one.declared("error_map-t280-n2")


def test_maps_from_stored_latents_are_those_of_pictures_through_a_rounded_latent(backbone, batch):
    maps = ["error_map-t261-n3", "error_map_signed"]
    config = ErrorMapConfig(latent_dtype="float16")
    parts = load_stable_diffusion("tiny", prompt="a photo")
    from_pictures = ErrorMapBackbone(parts, config, features=maps)
    from_latents = ErrorMapFromLatent(parts, config, features=maps)
    latents = backbone(batch, IDS, ["vae_latent"])["vae_latent"]
    assert latents.dtype == np.float16
    expected = from_pictures(batch, IDS, maps)
    found = from_latents(latents, IDS, maps)
    exact = ErrorMapBackbone(parts, ErrorMapConfig(), features=maps)(batch, IDS, maps)
    for array in maps:
        np.testing.assert_array_equal(found[array], expected[array])
        assert from_latents.declared(array) == from_pictures.declared(array)
        assert 0 < np.abs(found[array] - exact[array]).max() < 0.01 * np.abs(exact[array]).max()
    assert from_latents.declared("vae_latent") == backbone.declared("vae_latent")


def test_compiled_networks_see_one_shape_each_and_give_the_same(backbone, batch, monkeypatch):
    monkeypatch.setattr(numerics, "COMPILER", "eager")  # inductor's is the test marked slow
    monkeypatch.setitem(error_map.UNET_ROWS, "cpu", 6)
    assert_compiled_is_the_same(backbone, batch)


@pytest.mark.slow
def test_compiled_networks_give_the_same(backbone, batch, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setitem(error_map.UNET_ROWS, "cpu", 8)
    assert_compiled_is_the_same(backbone, batch)
    assert any((tmp_path / "inductor").rglob("*.so"))


def assert_compiled_is_the_same(backbone, batch):
    parts = load_stable_diffusion("tiny", prompt="a photo")
    compiled = ErrorMapBackbone(parts, ErrorMapConfig(), features=LOOKS, compiled=True)
    shapes = {"vae": set(), "unet": set()}
    parts.vae.encoder.conv_in.register_forward_hook(
        lambda module, inputs, output: shapes["vae"].add(len(inputs[0]))
    )
    parts.unet.conv_in.register_forward_hook(
        lambda module, inputs, output: shapes["unet"].add(len(inputs[0]))
    )
    for rows in (slice(0, 2), slice(1, 2)):
        found = compiled(batch[rows], IDS[rows], ["error_map"])["error_map"]
        expected = backbone(batch[rows], IDS[rows], ["error_map"])["error_map"]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert shapes == {"vae": {2}, "unet": {error_map.UNET_ROWS["cpu"]}}
    assert compiled.declared("error_map") == backbone.declared("error_map")


def test_a_latent_alone_needs_no_noise(backbone, batch):
    parts = load_stable_diffusion("tiny", prompt="a photo")
    alone = ErrorMapBackbone(parts, ErrorMapConfig(), features=["vae_latent"])
    expected = backbone(batch, IDS, ["vae_latent"])["vae_latent"]
    np.testing.assert_array_equal(alone(batch, IDS, ["vae_latent"])["vae_latent"], expected)


def test_what_decides_a_latent_is_what_happens_before_the_noise():
    parts = load_stable_diffusion("tiny", prompt="a photo")
    declared = [
        ErrorMapBackbone(parts, config, features=["vae_latent"]).declared("vae_latent")
        for config in (ErrorMapConfig(), ErrorMapConfig(timestep=5, ensemble=9, prompt="a photo"))
    ]
    assert declared[0] == declared[1]
    assert not {"timestep", "ensemble", "prompt", "dtype"} & declared[0].keys()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "96ed16e65fb23ee8"),
        ({"dtype": "float16"}, "4eca90520e6fbb12"),
        ({"timestep": 280, "ensemble": 8}, "12502340021805cf"),
    ],
)
def test_fingerprints_of_earlier_stores_still_hold(golden_dir, settings, expected):
    config = ErrorMapConfig(**settings)
    parts = load_stable_diffusion(
        str(golden_dir / "tiny-sd"), prompt=config.prompt, dtype=config.dtype
    )
    assert fingerprint(ErrorMapBackbone(parts, config).declared("error_map")) == expected


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_for_the_unet_alone(backbone, batch, dtype):
    config = ErrorMapConfig(dtype=dtype)
    parts = load_stable_diffusion("tiny", prompt=config.prompt, dtype=dtype)
    half = ErrorMapBackbone(parts, config)
    expected = backbone(batch, IDS, ["error_map"])["error_map"]
    found = half(batch, IDS, ["error_map"])["error_map"]
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.05 * expected.max()
    torch.testing.assert_close(half.posterior(batch), backbone.posterior(batch), rtol=0, atol=0)


def test_the_tiny_network_sees_fine_detail(backbone, batch):
    rows, columns = np.mgrid[:256, :256]
    checks = ((rows + columns) % 2 * 16).astype(np.uint8)[..., None]
    smooth = backbone(batch, IDS, ["error_map"])["error_map"]
    checked = backbone(batch + checks, IDS, ["error_map"])["error_map"]
    assert np.abs(checked - smooth).mean() > 0.05 * smooth.mean()


def test_loading_draws_nothing_from_the_callers_generator(golden_dir):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_stable_diffusion("tiny", prompt="a photo")
    load_stable_diffusion(str(golden_dir / "tiny-sd"), prompt="a photo")
    assert torch.equal(torch.rand(3), expected)


def test_networks_are_frozen_and_what_is_not_needed_is_gone(backbone, golden_dir):
    for spec in ("tiny", str(golden_dir / "tiny-sd")):
        parts = load_stable_diffusion(spec, prompt="a photo")
        assert parts.vae.decoder is None
        for network in (parts.unet, parts.vae):
            assert not network.training
            assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_folder_is_identified_by_its_weights_not_its_path(folder, golden_dir):
    original = load_stable_diffusion(str(golden_dir / "tiny-sd"), prompt="a photo")
    moved = load_stable_diffusion(str(folder), prompt="a photo")
    assert moved.identity == original.identity
    assert len(moved.identity["weights"]["unet"]) == 64
    weights = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    weights["encoder.conv_in.bias"] += 1
    save_file(weights, folder / "vae" / "diffusion_pytorch_model.safetensors")
    changed = load_stable_diffusion(str(folder), prompt="a photo")
    assert changed.identity["weights"]["vae"] != original.identity["weights"]["vae"]
    assert changed.identity["weights"]["unet"] == original.identity["weights"]["unet"]


def test_a_half_precision_file_is_taken_when_it_is_the_only_one(folder):
    expected = load_stable_diffusion(str(folder), prompt="a photo")
    for part, stem in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        path = folder / part / f"{stem}.safetensors"
        halves = {name: tensor.half() for name, tensor in load_file(path).items()}
        save_file(halves, folder / part / f"{stem}.fp16.safetensors", {"format": "pt"})
        path.unlink()
    found = load_stable_diffusion(str(folder), prompt="a photo")
    assert found.unet.dtype == torch.float32
    torch.testing.assert_close(
        found.prompt_embedding, expected.prompt_embedding, rtol=1e-2, atol=1e-2
    )


def test_weights_that_a_file_lacks_are_not_made_up(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["conv_in.bias"], weights["conv_out.bias"]
    save_file(weights, path)
    with pytest.raises(BackboneError) as caught:
        load_stable_diffusion(str(folder), prompt="a photo")
    assert "unet has no weights for conv_in.bias" in str(caught.value)
    assert "unet has no weights for conv_out.bias" in str(caught.value)


def test_a_folder_s_source_loads_from_any_folder(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    parts = load_stable_diffusion(folder.name, prompt="a photo")
    assert parts.source == str(folder)
    monkeypatch.chdir("/")
    assert load_stable_diffusion(parts.source, prompt="a photo").identity == parts.identity


def test_a_torn_file_is_a_backbone_error(folder):
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BackboneError, match="cannot be loaded"):
        load_stable_diffusion(str(folder), prompt="a photo")


def test_parts_that_do_not_belong_together_are_refused():
    unet = SimpleNamespace(in_channels=9, cross_attention_dim=1024)
    vae = SimpleNamespace(latent_channels=4)
    text = SimpleNamespace(hidden_size=768, vocab_size=49408, hidden_act="quick_gelu")
    assert list(fit_faults(unet, vae, text, 49407)) == [
        "the UNet reads 9 channels, the VAE makes 4: this is not a plain text-to-image model",
        "the UNet attends to width 1024, the text encoder makes width 768",
    ]


def test_stable_diffusion_2_must_pad_with_zero():
    unet = SimpleNamespace(in_channels=4, cross_attention_dim=1024)
    vae = SimpleNamespace(latent_channels=4)
    text = SimpleNamespace(hidden_size=1024, vocab_size=49408, hidden_act="gelu")
    assert list(fit_faults(unet, vae, text, 0)) == []
    assert list(fit_faults(unet, vae, text, 49407)) == [
        "the tokenizer pads with id 49407, Stable Diffusion 2 was trained with 0: "
        "copy tokenizer/special_tokens_map.json from the original model"
    ]


def test_another_prediction_type_is_refused(folder):
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "sample"}))
    parts = load_stable_diffusion(str(folder), prompt="a photo")
    with pytest.raises(BackboneError, match="expected epsilon or v_prediction, found sample"):
        ErrorMapBackbone(parts, ErrorMapConfig())


def test_the_hub_is_asked_for_the_named_revision(monkeypatch, golden_dir):
    asked = {}

    def snapshot_download(repository, **options):
        asked.update(options, repository=repository)
        return str(golden_dir / "tiny-sd")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    parts = load_stable_diffusion("someone/model@0123abc", prompt="a photo")
    assert parts.source == "someone/model@0123abc"
    assert (asked["repository"], asked["revision"]) == ("someone/model", "0123abc")
    assert asked["local_files_only"] is False
    assert "unet/diffusion_pytorch_model.safetensors" in asked["allow_patterns"]
    assert load_stable_diffusion("someone/model", prompt="").source == "someone/model"


def test_the_source_of_a_hub_id_names_the_commit_that_was_loaded(monkeypatch, golden_dir, tmp_path):
    asked = []

    def snapshot_download(repository, *, revision, **options):
        asked.append(revision)
        return str(tmp_path / "snapshots/0123abc")

    shutil.copytree(golden_dir / "tiny-sd", tmp_path / "snapshots/0123abc")
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    for spec in ("someone/model", "someone/model@main"):
        parts = load_stable_diffusion(spec, prompt="a photo")
        assert parts.source == "someone/model@0123abc"
    assert asked == [None, "main"]
