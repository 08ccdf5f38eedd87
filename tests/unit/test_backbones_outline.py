"""What backbones would make, told without loading them: the same as when they are loaded."""

import dataclasses

import pytest
from open_clip import factory
from safetensors.torch import save_file

from clare_cache.backbones import ClipConfig, ErrorMapConfig, single_file
from clare_cache.backbones.architectures import architecture, build_networks
from clare_cache.backbones.clip_models import load_clip
from clare_cache.backbones.numerics import seeded_init
from clare_cache.extraction import BackboneSpec
from clare_cache.extraction.work import describe
from clare_cache.manifest import Manifest
from clare_cache.workflow.demo import GROUP_PATTERN, make_images
from clare_cache.workflow.features import extract
from clare_cache.workflow.manifests import build_manifest
from tests.ldm_layout import in_one_file

MAPS = ("error_map", "error_map_signed-t280-n2", "vae_latent")
CLIP = ("clip_patch_tokens", "clip_block_cls", "clip_embedding")


@pytest.fixture
def spellings(golden_dir, tmp_path, monkeypatch):
    """One of each kind of weights that are files, and those without a file."""
    tiny = architecture("tiny")
    monkeypatch.setattr(single_file, "_configs_of", lambda path, asked: tiny)
    with seeded_init():
        tensors = in_one_file(*build_networks(tiny), open_clip=True)
    save_file({n: v.clone() for n, v in tensors.items()}, tmp_path / "sd.safetensors")
    return {
        "tiny": "tiny",
        "folder": str(golden_dir / "tiny-sd"),
        "file": f"{tmp_path}/sd.safetensors:epsilon",
    }


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("kind", ["tiny", "folder", "file"])
def test_an_outline_declares_what_the_loaded_backbones_declare(spellings, kind, dtype):
    spec = BackboneSpec(
        sd=spellings[kind],
        clip="tiny",
        features=(*MAPS, *CLIP),
        error_map=ErrorMapConfig(size_px=64, dtype=dtype),
        image_tower=ClipConfig(dtype=dtype),
        device="cpu",
    )
    outlined = describe(spec)
    loaded = {
        array.name: (array, backbone.declared(array.name), backbone.source)
        for backbone in spec.load()
        for array in backbone.arrays
    }
    assert outlined.keys() == loaded.keys()
    for name, found in outlined.items():
        assert (found.spec, dict(found.declared), found.source) == loaded[name]


def test_a_clip_file_is_outlined_by_its_digest(tmp_path, monkeypatch):
    small = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1},
        "text_cfg": {"width": 16, "heads": 2, "layers": 1},
    }
    monkeypatch.setitem(factory._MODEL_CONFIGS, "Small", small)
    weights = load_clip("random:Small").model.state_dict()
    path = tmp_path / "small.safetensors"
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    full, empty = (load_clip(f"Small:{path}", empty=empty) for empty in (False, True))
    assert empty.model.visual.conv1.weight.device.type == "meta"
    for field in dataclasses.fields(full):
        if field.name != "model":
            assert getattr(full, field.name) == getattr(empty, field.name)


def test_a_call_that_finds_nothing_to_do_loads_nothing(tmp_path, monkeypatch):
    make_images(tmp_path / "images", per_region=1)
    manifest: Manifest = build_manifest(
        "folder", tmp_path / "images", group_pattern=GROUP_PATTERN
    ).manifest
    asked = {"root": tmp_path / "images", "sd": "tiny", "clip": "tiny", "device": "cpu"}
    first = extract(manifest, tmp_path / "store", **asked)
    assert first.n_decoded == len(manifest.rows)

    def load(spec):
        raise AssertionError("a network was loaded")

    monkeypatch.setattr(BackboneSpec, "load", load)
    again = extract(manifest, tmp_path / "store", **asked)
    assert (again.n_decoded, again.n_settled_before) == (0, first.n_decoded)
