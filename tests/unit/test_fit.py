"""Why a store does not fit, in sentences: all of them, and warnings apart."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from clare_cache.backbones.config import ClipConfig
from clare_cache.extraction import versions
from clare_cache.manifest import Manifest
from clare_cache.recipe import read_recipe
from clare_cache.store import ArrayEntry, create_store, open_store
from clare_cache.types import ArraySpec
from clare_cache.workflow.fit import (
    compare,
    request_of_options,
    request_of_recipe,
    request_of_store,
)
from tests.small_store import VECTOR, block, entry, image_ids, make_store, write_all

EMBEDDING = ArraySpec("clip_embedding", (3,), ("channel",), "float16", "a vector")
DECLARED = {
    "weights": "w",
    "geometry": "center-crop",
    "dtype": "float32",
    "stored_dtype": "float16",
}


@pytest.fixture
def store(tmp_path):
    """Ten images with the vectors of nine; one is in the ledger."""
    writer = make_store(tmp_path / "store", specs=(VECTOR,))
    write_all(writer, VECTOR, 8)
    writer.write_block(block(VECTOR, [8], failed=[9]), versions={})
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def _these_versions(monkeypatch):
    monkeypatch.setattr(versions, "present_versions", lambda: {"zarr": "3"})


def sentences(found):
    return [("warning: " if one.warning else "") + str(one) for one in found]


def test_a_store_fits_itself(store):
    opened = open_store(store)
    assert compare(opened, request_of_store(opened)) == []


def test_another_store_that_holds_more(store, tmp_path):
    other = make_store(tmp_path / "other", n_images=12, specs=(VECTOR,))
    other.declare([entry(VECTOR, "flip"), replace(entry(), spec=replace(VECTOR, name="more"))])
    write_all(other, VECTOR, 12)
    found = compare(open_store(store), request_of_store(open_store(tmp_path / "other")))
    assert (
        sentences(found)
        == [
            "view flip is missing, found clean",
            "array clean/more is missing, found clean/vector",
            f"clean/vector lacks 2 of 12 images, the first is {image_ids(10)[0]}",
            "warning: clean/vector: 1 of 12 images are in the ledger, the first is 9.png "
            "(decode: no picture)",
        ]
        or sentences(found)[1:] == []
    )
    assert [one.kind for one in found] == ["view", "array", "image", "ledger"]


def test_another_store_of_other_inputs(store, tmp_path):
    other = create_store(tmp_path / "other", block_rows=4)
    other.declare([entry(VECTOR, "clean", weights="v", size_px=8, steps=3)])
    found = compare(open_store(store), request_of_store(open_store(tmp_path / "other")))
    assert sentences(found) == [
        "clean/vector: steps: asked 3, found nothing",
        'clean/vector: weights: asked "v", found "w"',
    ]


def test_other_versions_only_warn(store, monkeypatch):
    opened = open_store(store)
    monkeypatch.setattr(versions, "present_versions", lambda: {"torch": "2.15"})
    (record, *_) = opened["clean/vector"].records.values()
    handle = opened["clean/vector"]
    handle.records[0] = replace(record, versions={"torch": "2.6"})
    monkeypatch.setattr(type(opened), "__getitem__", lambda self, key: handle)
    found = compare(opened, request_of_store(opened))
    assert sentences(found) == ["warning: made with torch 2.6, here is 2.15"]


@pytest.fixture
def clip_store(tmp_path):
    writer = create_store(tmp_path / "clip", block_rows=4)
    writer.declare([ArrayEntry("clean", EMBEDDING, 0, DECLARED)])
    writer.add_images(image_ids(0, 1))
    return tmp_path / "clip"


def test_the_options_of_extract(clip_store):
    def asked(**options):
        request = request_of_options(features=["clip_embedding"], **options)
        return sentences(compare(open_store(clip_store), request))

    assert asked() == []
    assert asked(image_tower=ClipConfig(geometry="squash", dtype="float16")) == [
        'clean/clip_embedding: dtype: asked "float16", found "float32"',
        'clean/clip_embedding: geometry: asked "squash", found "center-crop"',
    ]
    assert asked(views=["clean", "jpeg-q50"]) == ["view jpeg-q50 is missing, found clean"]


def test_defaults_that_are_not_declared_and_settings_of_other_arrays_fit(tmp_path):
    """As the backbones declare: None for a default, nothing for what does not concern an array."""
    from clare_cache.backbones.config import ErrorMapConfig

    embedding = {**DECLARED, "tap": None, "normalise": None, "png_through_jpeg": None}
    maps = {
        "size_px": 256,
        "timestep": 280,
        "ensemble": 4,
        "seed": 0,
        "dtype": "float16",
        "vae_dtype": None,
        "latent_dtype": None,
        "prompt": "a photo",
    }
    spec = replace(EMBEDDING, name="error_map-t280")
    writer = create_store(tmp_path / "s", block_rows=4)
    writer.declare(
        [ArrayEntry("clean", EMBEDDING, 0, embedding), ArrayEntry("clean", spec, 0, maps)]
    )
    names = ["clip_embedding", "error_map-t280"]
    half = ErrorMapConfig(dtype="float16")
    assert compare(writer.store, request_of_options(features=names, error_map=half)) == []
    other = replace(half, latent_dtype="float16", vae_dtype="float32", ensemble=8)
    request = request_of_options(
        features=names,
        error_map=other,
        image_tower=ClipConfig(normalise="half", tap="block_output"),
    )
    assert sentences(compare(writer.store, request)) == [
        'clean/clip_embedding: normalise: asked "half", found "model"',
        "clean/error_map-t280: ensemble: asked 8, found 4",
        'clean/error_map-t280: latent_dtype: asked "float16", found "float32"',
        'clean/error_map-t280: vae_dtype: asked "float32", found "tf32"',
    ]


def test_the_images_of_a_manifest(clip_store):
    manifest = Manifest.from_rows(
        pd.DataFrame({"image_id": image_ids(0, 5), "path": ["a.png", "b.png"], "label": [0, 1]})
    )
    request = request_of_options(features=["clip_embedding"], manifest=manifest)
    assert sentences(compare(open_store(clip_store), request)) == [
        "clean/clip_embedding lacks 2 of 2 images, the first is a.png"
    ]


def test_a_recipe_asks_for_what_its_heads_need_with_the_settings_that_it_states(
    clip_store, tmp_path
):
    (tmp_path / "r.yaml").write_text(
        "about: {title: ours}\n"
        "backbones: {image_tower: {geometry: squash, dtype: bfloat16}}\n"
        "head: [{family: linear}, {family: rine}]\n"
    )
    request = request_of_recipe(read_recipe(tmp_path / "r.yaml"))
    assert sentences(compare(open_store(clip_store), request)) == [
        "array clean/clip_block_cls is missing, found clean/clip_embedding",
        'clean/clip_embedding: geometry: asked "squash", found "center-crop"',
    ]


def test_the_command(store, clip_store, tmp_path, command):
    done = command("store", "diff", "store", "clip", folder=tmp_path)
    assert done.status == 1
    assert done.out == (
        "array clean/clip_embedding is missing, found clean/vector\nstore: does not fit\n"
    )
    done = command("store", "diff", "clip", "--features", "clip_embedding", folder=tmp_path)
    assert (done.status, done.out) == (0, "clip: fits\n")
    options = ["--features", "clip_embedding", "--geometry", "squash", "--json"]
    done = command("store", "diff", "clip", *options, folder=tmp_path)
    told = json.loads(done.out)
    assert (done.status, told["fits"]) == (1, False)
    assert told["misfits"][0]["kind"] == "declared"
    done = command("store", "diff", "clip", "store", "--recipe", "x", folder=tmp_path)
    assert done.status == 2
    assert "expected another store or --recipe, found both" in done.err
