"""A checkpoint in one file: the same networks as its folder, and nothing guessed."""

import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from clare_cache.backbones import ErrorMapConfig, single_file
from clare_cache.backbones.architectures import architecture, build_networks
from clare_cache.backbones.diffusers_folder import read_folder
from clare_cache.backbones.error_map import ErrorMapBackbone
from clare_cache.backbones.numerics import seeded_init
from clare_cache.backbones.single_file import (
    ARCHITECTURES,
    SingleFile,
    parse_single_file,
    read_single_file,
    single_file_faults,
)
from clare_cache.backbones.stable_diffusion import _assemble, load_stable_diffusion
from clare_cache.fingerprint import file_digest
from tests.ldm_layout import in_one_file

PROMPT = "a photo"


@pytest.fixture(scope="module")
def folder(golden_dir):
    return golden_dir / "tiny-sd"


@pytest.fixture(scope="module")
def of_folder(folder):
    return read_folder(folder, prompt=PROMPT, dtype="float32", asked="tiny")


@pytest.fixture(scope="module")
def configs(folder):
    """The folder's configurations, which no shape of a tiny model tells."""
    names = {part: f"{part}/config.json" for part in ("unet", "vae", "text_encoder")}
    names["scheduler"] = "scheduler/scheduler_config.json"
    return {part: json.loads((folder / name).read_text()) for part, name in names.items()}


@pytest.fixture(scope="module")
def checkpoint(of_folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("single") / "tiny.safetensors"
    parts = of_folder.unet, of_folder.vae, of_folder.text_encoder
    tensors = in_one_file(*parts, open_clip=True)
    save_file({name: value.clone() for name, value in tensors.items()}, path)
    return path


def test_one_file_gives_the_networks_and_maps_of_its_folder(checkpoint, configs, of_folder):
    prediction_type = "epsilon"  # the folder's own is v_prediction
    file = SingleFile(checkpoint, prediction_type)
    found = read_single_file(file, prompt=PROMPT, dtype="float32", asked="x", configs=configs)
    for part in ("unet", "vae", "text_encoder"):
        expected = getattr(of_folder, part).state_dict()
        weights = getattr(found, part).state_dict()
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[key], expected[key]) for key in expected)
    assert found.weights == {"checkpoint": file_digest(checkpoint)}
    assert found.scheduler["prediction_type"] == prediction_type

    # The tiny folder has a tokenizer of its own; every real one is open_clip's.
    scheduler = {**of_folder.scheduler, "prediction_type": prediction_type}
    same_prompt = replace(found, prompt_ids=of_folder.prompt_ids)
    picture = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    maps = []
    for parts in (same_prompt, replace(of_folder, scheduler=scheduler)):
        loaded = _assemble(_copied(parts), prompt=PROMPT, source="x")
        backbone = ErrorMapBackbone(loaded, ErrorMapConfig(size_px=64))
        maps.append(backbone(picture, ["a" * 64], ["error_map"])["error_map"])
    assert np.array_equal(*maps)


def _copied(parts):
    """`_assemble` takes the VAE's decoder away, and these parts are looked at by other tests."""
    return replace(parts, vae=deepcopy(parts.vae))


def test_its_source_loads_it_again_from_any_folder(tmp_path, monkeypatch):
    tiny = architecture("tiny")
    monkeypatch.setattr(single_file, "_configs_of", lambda path, asked: tiny)
    with seeded_init():
        tensors = in_one_file(*build_networks(tiny), open_clip=True)
    save_file({name: value.clone() for name, value in tensors.items()}, tmp_path / "a.safetensors")
    monkeypatch.chdir(tmp_path)
    found = load_stable_diffusion("a.safetensors:v_prediction", prompt=PROMPT)
    assert found.source == f"{tmp_path}/a.safetensors:v_prediction"
    monkeypatch.chdir("/")
    again = load_stable_diffusion(found.source, prompt=PROMPT)
    assert again.identity == found.identity
    assert torch.equal(again.prompt_embedding, found.prompt_embedding)
    assert found.identity["weights"] == {"checkpoint": file_digest(tmp_path / "a.safetensors")}
    assert (found.prediction_type, found.identity["prediction_type"]) == ("v_prediction",) * 2


@pytest.mark.parametrize("name", ARCHITECTURES.values())
def test_the_published_architectures_are_told_by_their_shapes(name, tmp_path):
    """Names and shapes alone, at full size: the header of a file without its numbers."""
    with torch.device("meta"):
        networks = build_networks(architecture(name))
    tensors = in_one_file(*networks, open_clip=name == "sd21")
    path = write_header(tmp_path / f"{name}.safetensors", tensors)
    assert single_file_faults(path, asked=name) == []
    missing = next(key for key in tensors if key.endswith("in_layers.0.weight"))
    path = write_header(path, {k: v for k, v in tensors.items() if k != missing})
    assert len(single_file_faults(path, asked=name)) == 1


def write_header(path, tensors):
    """A sparse safetensors file of these shapes: the length that it says, and no blocks on disk."""
    header, position = {}, 0
    for name, value in tensors.items():
        end = position + 2 * value.numel()
        header[name] = {
            "dtype": "F16",
            "shape": list(value.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + position)
    return path


@pytest.mark.parametrize(
    ("spec", "path", "prediction_type"),
    [
        ("v2-1_768-ema-pruned.safetensors", "v2-1_768-ema-pruned.safetensors", None),
        ("a/b.safetensors:epsilon", "a/b.safetensors", "epsilon"),
        ("A.CKPT:v_prediction", "A.CKPT", "v_prediction"),
    ],
)
def test_spellings_of_a_file(spec, path, prediction_type):
    file = parse_single_file(spec)
    assert (str(file.path), file.prediction_type) == (path, prediction_type)


@pytest.mark.parametrize("spec", ["tiny", "random:sd21", "a/folder", "someone/model@main"])
def test_spellings_of_no_file(spec):
    assert parse_single_file(spec) is None


def test_stable_diffusion_1_pads_with_the_end_token_and_2_with_zero(checkpoint, configs):
    ids = {}
    for activation in ("quick_gelu", "gelu"):
        text = configs["text_encoder"] | {"hidden_act": activation}
        file = SingleFile(checkpoint, "epsilon")
        parts = read_single_file(
            file,
            prompt=PROMPT,
            dtype="float32",
            asked="x",
            configs=configs | {"text_encoder": text},
        )
        ids[activation] = parts.prompt_ids[0].tolist()
    assert ids["gelu"][:4] == ids["quick_gelu"][:4] == [49406, 320, 1125, 49407]
    assert set(ids["gelu"][4:]) == {0}
    assert set(ids["quick_gelu"][4:]) == {49407}
