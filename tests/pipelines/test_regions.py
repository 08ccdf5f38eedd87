"""Boxes of a manifest → a head that pools regions: trained, scored in views, refused."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

import clare_cache as cc
from clare_cache.backbones.config import ErrorMapConfig
from clare_cache.recipe import read_recipe
from clare_cache.store import open_store
from clare_cache.workflow.demo import GROUP_PATTERN, make_images
from clare_cache.workflow.manifests import build_manifest
from clare_cache.workflow.training import train_head

RECIPE = """
about: {title: regions}
backbones: {sd: tiny, clip: tiny, error_map: {ensemble: 1}}
head:
  - {family: clare, label: faces, options: {prompts: coop, n_context: 4, regions: true}}
  - {family: linear}
train: {epochs: 1, batch_size: 16, validation_fraction: 0.34}
evaluate: {splits: [test], n_resamples: 20}
"""


@pytest.fixture(scope="module")
def boxed(tmp_path_factory):
    """A few images with a box each but the first, and their features in three views."""
    folder = tmp_path_factory.mktemp("regions")
    make_images(folder / "images", per_region=1)
    built = build_manifest("folder", folder / "images", group_pattern=GROUP_PATTERN)
    rows = built.manifest.rows
    rows = rows.assign(boxes=[None, *([[[8.0, 16.0, 40.0, 64.0]]] * (len(rows) - 1))])
    manifest = cc.Manifest.from_rows(rows)
    manifest.write(folder / "boxed.parquet")
    (folder / "regions.yaml").write_text(RECIPE)
    cc.extract(
        manifest,
        folder / "store",
        root=folder / "images",
        features=["error_map", "clip_patch_tokens", "clip_embedding"],
        views=["clean", "flip", "aug-000"],
        sd="tiny",
        clip="tiny",
        error_map=ErrorMapConfig(ensemble=1),
        device="cpu",
    )
    return folder


@pytest.fixture(scope="module")
def runs(boxed):
    train_head(
        read_recipe(boxed / "regions.yaml"), store=boxed / "store",
        manifest=boxed / "boxed.parquet", out=boxed / "runs", device="cpu",
    )  # fmt: skip
    return boxed / "runs"


def test_boxes_reach_the_head_where_the_view_moved_them(boxed):
    store, manifest = open_store(boxed / "store"), cc.Manifest.read(boxed / "boxed.parquet")
    size_px = store["clean/clip_patch_tokens"].declared["size_px"]
    side = manifest.rows["width"].iloc[0]
    assert store["clean/clip_patch_tokens"].declared["geometry"] == "center-crop"
    needs = ["clip_patch_tokens", "region_boxes"]
    clean = cc.load(store, manifest, needs=needs)
    features, _ = clean.batch(np.array([0, 1]))
    assert clean.shapes["region_boxes"] == (16, 4)
    assert features["region_boxes"][0].isnan().all()
    assert features["region_boxes"][1, 1:].isnan().all()
    border = (size_px - side) // 2
    expected = (np.array([8, 16, 40, 64]) + border) / size_px
    assert features["region_boxes"][1, 0].numpy() == pytest.approx(expected)
    flipped = cc.load(store, manifest, needs=needs, view="flip").batch(np.array([1]))[0]
    left, top, right, bottom = expected
    found = flipped["region_boxes"][0, 0].numpy()
    assert found == pytest.approx([1 - right, top, 1 - left, bottom], abs=1e-6)


def test_a_head_with_regions_is_trained_and_scored_where_boxes_follow(command, runs):
    done = command("evaluate", "faces", folder=runs)
    assert done.status == 0, done.err
    found = pd.read_parquet(runs / "faces/predictions.parquet")
    assert set(found["view"]) == {"clean", "flip"}
    assert found["score"].notna().all()
    declared = json.loads((runs / "faces/config.json").read_text())["features"]["region_boxes"]
    assert declared["declared"]["from"] == "manifest"
    command("evaluate", "linear", folder=runs)
    assert "aug-000" in set(pd.read_parquet(runs / "linear/predictions.parquet")["view"])


def test_views_that_chance_decides_are_refused_where_asked_for(command, runs):
    done = command("evaluate", "faces", "--view", "aug-000", folder=runs)
    assert done.status == 1
    assert done.err == (
        "error: region pooling: view: aug-000: boxes cannot follow it, chance decides where it "
        "moves a picture. Choose other views with --view, or a head without regions.\n"
    )


def test_predict_has_no_boxes(command, boxed, runs):
    done = command("predict", "faces", str(boxed / "images"), folder=runs)
    assert done.status == 1
    assert done.err == (
        "error: run faces: its head pools regions, whose boxes a manifest names; predict has "
        "images alone. Write a manifest with boxes, `extract` it and use "
        "`clare-cache evaluate --manifest`.\n"
    )


def test_manifests_without_boxes_or_sizes_are_refused(command, boxed, tmp_path):
    rows = cc.Manifest.read(boxed / "boxed.parquet").rows
    rows.drop(columns="boxes").to_parquet(tmp_path / "bare.parquet")
    rows.drop(columns="width").to_parquet(tmp_path / "unsized.parquet")
    train = ("train-head", str(boxed / "regions.yaml"), "--store", str(boxed / "store"))
    done = command(*train, "--manifest", "bare.parquet", folder=tmp_path)
    assert done.status == 1
    assert "column boxes: expected boxes, found none in " in done.err
    done = command(*train, "--manifest", "unsized.parquet", folder=tmp_path)
    assert done.status == 1
    assert "columns width and height: expected both beside boxes, found none in " in done.err
    assert done.err.endswith("in the manifest, or set `regions: false`.\n")


def test_predict_tells_the_calibrated_probability_beside_the_heads_own(command, boxed, runs):
    done = command("predict", "linear", str(boxed / "images"), "--json", folder=runs)
    assert done.status == 0, done.err
    rows = pd.DataFrame(json.loads(done.out))
    config = json.loads((runs / "linear/config.json").read_text())
    temperature = config["validation"]["temperature"]
    expected = expit(logit(rows["score"]) / temperature)
    np.testing.assert_allclose(rows["calibrated"], expected, rtol=1e-6)
    assert (rows["score"].rank() == rows["calibrated"].rank()).all()
    assert ((rows["score"] > config["threshold"]) == (rows["verdict"] == "fake")).all()
