"""Weights fetched from a hub, carried in a folder, and looked at where there is no network."""

import json
import shutil

import pytest
import torch
from open_clip import factory
from safetensors.torch import load_file, save_file

from clare_cache.backbones.clip_models import build_clip, load_clip
from clare_cache.backbones.stable_diffusion import load_stable_diffusion
from clare_cache.errors import BackboneError
from clare_cache.fingerprint import file_digest
from clare_cache.workflow.weights import check_weights, fetch_weights
from tests.fake_hub import COMMIT, serve

SD = "someone/tiny-sd"
SMALL = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1},
    "text_cfg": {"width": 16, "heads": 2, "layers": 1},
}
TRAINING = {"hf_hub": "someone/small-clip/", "quick_gelu": True}


@pytest.fixture(autouse=True)
def small_clip(monkeypatch):
    """A model `Small-quickgelu` with one training, `mine`."""
    monkeypatch.setitem(factory._MODEL_CONFIGS, "Small", SMALL)
    monkeypatch.setitem(factory._MODEL_CONFIGS, "Small-quickgelu", SMALL | {"quick_gelu": True})
    monkeypatch.setattr(
        "open_clip.get_pretrained_cfg", lambda name, tag: TRAINING if tag == "mine" else {}
    )


@pytest.fixture
def hub(tmp_path, golden_dir, monkeypatch):
    """What is on the hub, and what was downloaded."""
    folder = tmp_path / "hub"
    shutil.copytree(golden_dir / "tiny-sd", folder / "sd")
    for name in ("unet/diffusion_pytorch_model.bin", "README.md", "v1.ckpt"):
        (folder / "sd" / name).write_bytes(b"not needed")
    clip = folder / "clip"
    clip.mkdir()
    weights = build_clip(SMALL | {"quick_gelu": True}).state_dict()
    save_file({k: v.contiguous() for k, v in weights.items()}, clip / "open_clip_model.safetensors")
    (clip / "open_clip_pytorch_model.bin").write_bytes(b"not needed")
    (clip / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"quick_gelu": True}}))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with serve({SD: folder / "sd", "someone/small-clip": clip}) as (endpoint, asked):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        yield folder, asked


@pytest.fixture
def offline(monkeypatch):
    def cut():
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.delenv("HF_ENDPOINT", raising=False)

    return cut


def test_what_is_fetched_loads_where_there_is_no_network(hub, tmp_path, golden_dir, offline):
    _, asked = hub
    diffusion, clip = fetch_weights(tmp_path / "out", sd=SD, clip="Small-quickgelu:mine")
    offline()
    assert sorted(asked) == sorted(
        [
            *(f"{part}/config.json" for part in ("unet", "vae", "text_encoder")),
            *(f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae")),
            "text_encoder/model.safetensors",
            *(f"tokenizer/{name}" for name in ("merges.txt", "vocab.json")),
            *(f"tokenizer/{name}" for name in ("tokenizer.json", "tokenizer_config.json")),
            "scheduler/scheduler_config.json",
            "open_clip_model.safetensors",
            "open_clip_config.json",
        ]
    )
    folder = tmp_path / "out/tiny-sd"
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert files == {*diffusion.record.files, "weights.json"}
    for name, digest in diffusion.record.files.items():
        assert digest == file_digest(folder / name) == file_digest(golden_dir / "tiny-sd" / name)
    assert (diffusion.option, diffusion.spec) == ("--sd", str(folder))

    found = load_stable_diffusion(diffusion.spec, prompt="a photo")
    here = load_stable_diffusion(str(golden_dir / "tiny-sd"), prompt="a photo")
    assert found.identity == here.identity
    assert found.source == f"{folder}@{COMMIT}"
    assert load_stable_diffusion(found.source, prompt="a photo").source == found.source

    loaded = load_clip(clip.spec)
    assert loaded.source == f"{clip.spec}@{COMMIT}"
    assert load_clip(loaded.source).identity == loaded.identity
    assert [item.faults for item in check_weights([diffusion.spec, clip.spec])] == [(), ()]
    (by_folder,) = check_weights([str(clip.folder)])
    assert (by_folder.spec, by_folder.activation) == (clip.spec, "QuickGELU")
    assert by_folder.revision == COMMIT


def test_a_second_fetch_downloads_nothing_that_is_there(hub, tmp_path):
    _, asked = hub
    fetch_weights(tmp_path, sd=f"{SD}@{COMMIT}")
    before = len(asked)
    (again,) = fetch_weights(tmp_path, sd=f"{SD}@{COMMIT}")
    assert again.record.revision == COMMIT
    assert [name for name in asked[before:] if name.endswith(".safetensors")] == []


def test_a_file_that_arrives_damaged_is_refused_and_removed(hub, tmp_path, monkeypatch):
    lie = {"sha256": "0" * 64, "size": 1, "pointerSize": 1}
    monkeypatch.setattr("tests.fake_hub.listed", lambda path: lie)
    with pytest.raises(BackboneError, match=r"expected SHA-256 0{64}, which the hub lists, found"):
        fetch_weights(tmp_path / "out", clip="Small-quickgelu:mine")
    assert not list((tmp_path / "out").rglob("*.safetensors"))
    assert not list((tmp_path / "out").rglob("weights.json"))


def test_half_precision_is_taken_where_there_is_no_other(hub, tmp_path):
    folder, _ = hub
    for path in list((folder / "sd").rglob("*.safetensors")):
        half = {name: value.half() for name, value in load_file(path).items()}
        save_file(half, path.with_suffix(".fp16.safetensors"))
        path.unlink()
    (fetched,) = fetch_weights(tmp_path / "out", sd=SD)
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in fetched.record.files
    assert load_stable_diffusion(fetched.spec, prompt="a photo").unet.dtype == torch.float32
    assert check_weights([fetched.spec])[0].faults == ()


def test_every_change_to_a_fetched_folder_is_found(hub, tmp_path):
    (fetched,) = fetch_weights(tmp_path / "out", sd=SD)
    weights = fetched.folder / "vae/diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    (found,) = check_weights([fetched.spec])
    (fault,) = found.faults
    assert fault.startswith("vae/diffusion_pytorch_model.safetensors: expected SHA-256 ")


def test_the_attention_names_of_older_files_are_known(golden_dir, tmp_path):
    folder = shutil.copytree(golden_dir / "tiny-sd", tmp_path / "sd")
    path = folder / "vae/diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = {}
    for name, value in load_file(path).items():
        for new, before in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{before}.")
        weights[name] = value
    save_file(weights, path)
    assert check_weights([str(folder)])[0].faults == ()
    here = load_stable_diffusion(str(golden_dir / "tiny-sd"), prompt="a photo")
    found = load_stable_diffusion(str(folder), prompt="a photo")
    for name, value in here.vae.state_dict().items():
        assert torch.equal(found.vae.state_dict()[name], value)


def test_the_commands_print_what_to_type_next(hub, tmp_path, command):
    done = command("weights", "fetch", "--sd", SD, "-o", "out", folder=tmp_path)
    assert done.status == 0
    first, *digests, last = done.out.splitlines()
    assert first == f"out/tiny-sd: {SD}@{COMMIT}"
    assert len(digests) == 11
    assert last == "use it: --sd out/tiny-sd"
    done = command("weights", "check", "out/tiny-sd", folder=tmp_path)
    assert done.status == 0
    assert done.out.startswith(f"out/tiny-sd: predicts v_prediction, revision {COMMIT}, 0 faults\n")
    (tmp_path / "out/tiny-sd/unet/config.json").unlink()
    done = command("weights", "check", "out/tiny-sd", "--json", folder=tmp_path)
    assert done.status == 1
    (found,) = json.loads(done.out)
    assert found["faults"] == ["unet/config.json is missing"]
