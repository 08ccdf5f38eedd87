"""Boxes of a manifest → a head that pools regions: trained, scored in views, refused."""

import json
import shutil

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


def test_predict_pools_the_boxes_that_a_table_names(command, boxed, runs):
    """And so scores the images as `evaluate` does, from pictures in place of the store."""
    command("evaluate", "faces", "--view", "clean", folder=runs)
    expected = pd.read_parquet(runs / "faces/predictions.parquet").set_index("path")["score"]
    images = [str(boxed / "images" / path) for path in expected.index]
    boxes = ("--boxes", str(boxed / "boxed.parquet"), "--root", str(boxed / "images"))
    done = command("predict", "faces", *images, *boxes, "--json", folder=runs)
    assert done.status == 0, done.err
    scores = {row["path"]: row["score"] for row in json.loads(done.out)}
    np.testing.assert_allclose(
        [scores[path] for path in images], expected.to_numpy(), rtol=0, atol=2e-3
    )
    other = cc.Manifest.read(boxed / "boxed.parquet").rows[["path"]]
    other.assign(boxes="[[0, 0, 20, 20]]").to_csv(runs / "corner.csv", index=False)
    boxes = ("--boxes", "corner.csv", "--root", str(boxed / "images"))
    moved = command("predict", "faces", *images, *boxes, "--json", folder=runs)
    assert any(abs(row["score"] - scores[row["path"]]) > 1e-6 for row in json.loads(moved.out))


def test_predict_says_which_boxes_it_lacks(command, boxed, runs):
    images = str(boxed / "images")
    done = command("predict", "faces", images, folder=runs)
    assert done.status == 1
    assert done.err == (
        "error: run faces: its head pools regions of the pictures, found no boxes. Name them with "
        "--boxes FILE: a table (.csv, .jsonl, .parquet; a manifest is one) with the columns path "
        "and boxes.\n"
    )
    boxes = str(boxed / "boxed.parquet")
    done = command("predict", "linear", images, "--boxes", boxes, folder=runs)
    assert done.err == (
        f"error: run linear: its head pools no regions, found {boxes}. Leave --boxes out.\n"
    )
    done = command("predict", "faces", images, "--boxes", boxes, folder=runs)
    n_images = len(cc.Manifest.read(boxes))
    assert done.err.startswith(
        f"error: run faces: expected boxes of the {n_images} images in {boxes}, found none; it "
        f"names {runs}/"
    )
    assert done.err.endswith("Say with --root what its paths are relative to.\n")


def test_every_fault_of_a_table_of_boxes_at_once(command, boxed, runs):
    (runs / "bad.csv").write_text(
        'path,boxes\na.png,"[[4, 8, 2, 64]]"\na.png,\nb.png,"[[4, 8, 60, 64]]"\n'
    )
    done = command("predict", "faces", str(boxed / "images"), "--boxes", "bad.csv", folder=runs)
    assert done.err == (
        "error: boxes bad.csv: 2 faults\n"
        "  - path: expected each picture once, found 'a.png' in row 2\n"
        "  - boxes: expected at most 16 boxes [x0, y0, x1, y1] in pixels with x0 < x1 and y0 < y1, "
        "such as [[4, 8, 60.5, 64]], found '[[4, 8, 2, 64]]' in row 1\n"
        "Rows count from 1.\n"
    )
    (runs / "other.csv").write_text("path,box\na.png,\n")
    done = command("predict", "faces", str(boxed / "images"), "--boxes", "other.csv", folder=runs)
    assert done.err == (
        "error: boxes other.csv: 1 fault\n"
        "  - boxes: the column is missing\n"
        "Columns of a table of boxes: path, boxes.\n"
    )


def test_predict_follows_linked_folders_once(command, boxed, runs, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/faces").symlink_to(boxed / "images/test")
    (tmp_path / "linked/round").symlink_to(tmp_path / "linked")
    done = command("predict", str(runs / "linear"), "linked", "--json", folder=tmp_path)
    assert done.status == 0, done.err
    there = sorted((boxed / "images/test").rglob("*.png"))
    assert [row["path"] for row in json.loads(done.out)] == [
        f"linked/faces/{path.relative_to(boxed / 'images/test')}" for path in there
    ]


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


WITHHELD = (
    "run linear: `calibrated` stays empty, probabilities are the head's own. A temperature needs "
    "50 real and 50 fake validation images, some but not most of them on the wrong side of 0.5.\n"
)


def test_predict_tells_the_calibrated_probability_beside_the_heads_own(
    command, boxed, runs, tmp_path
):
    shutil.copytree(runs / "linear", tmp_path / "linear")
    ask = ("predict", "linear", str(boxed / "images"))
    done = command(*ask, "--json", folder=tmp_path)
    assert done.status == 0, done.err
    assert WITHHELD in done.err
    assert {row["calibrated"] for row in json.loads(done.out)} == {None}
    assert WITHHELD not in command(*ask, folder=tmp_path).err
    config = json.loads((runs / "linear/config.json").read_text())
    config["validation"]["temperature"] = 2.5
    (tmp_path / "linear/config.json").write_text(json.dumps(config))
    done = command(*ask, "--json", folder=tmp_path)
    assert WITHHELD not in done.err
    rows = pd.DataFrame(json.loads(done.out))
    expected = expit(logit(rows["score"]) / 2.5)
    np.testing.assert_allclose(rows["calibrated"], expected, rtol=1e-6)
    assert (rows["score"].rank() == rows["calibrated"].rank()).all()
    assert ((rows["score"] > config["threshold"]) == (rows["verdict"] == "fake")).all()
