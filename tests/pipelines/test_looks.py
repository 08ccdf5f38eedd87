"""More from one look: maps of several timesteps, latents for later ones, heads that read them."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from clare_cache.evaluate import read_config
from clare_cache.manifest import Manifest
from clare_cache.store import open_store

RECIPE = """
about: {title: another timestep}
head:
  - {family: linear, label: plain, optimiser: {lr: 1.0e-2}}
  - {family: error_map_resnet, label: later, reads: {error_map: error_map-t280-n1}}
train: {epochs: 1, batch_size: 16, validation_fraction: 0.34}
evaluate: {splits: [test], n_resamples: 0}
"""


@pytest.fixture(scope="module")
def store(demo, tmp_path_factory):
    """The demo's store, in a folder of its own."""
    return shutil.copytree(demo.store, tmp_path_factory.mktemp("looks") / "store")


def test_later_timesteps_need_no_images(command, demo, tmp_path):
    rows = Manifest.read(demo.manifest).rows
    Manifest.from_rows(rows.head(6)).write(tmp_path / "some.parquet")
    common = ["extract", "some.parquet", "store", "--sd", "tiny", "--ensemble", "1"]
    features = "vae_latent,error_map-t280,error_map_signed-t280-n2"
    done = command(*common, "--features", features, "--root", str(demo.images), folder=tmp_path)
    assert done.status == 0, done.err
    later = ["--features", "error_map-t280,error_map-t100", "--root", "nowhere"]
    done = command(*common, *later, "--from-latents", folder=tmp_path)
    # The same name cannot stand for the map of the exact and of the rounded latent.
    assert done.status == 1
    assert 'error_map-t280: latent_dtype: asked "float16", found nothing' in done.err
    later[1] = "error_map-t100"
    done = command(*common, *later, "--from-latents", folder=tmp_path)
    assert done.status == 0, done.err
    found = open_store(tmp_path / "store")
    handle = found["clean/error_map-t100"]
    assert (handle.declared["timestep"], handle.declared["latent_dtype"]) == (100, "float16")
    assert handle.present.all()
    done = command(
        *common[:1], "some.parquet", "exact", *common[3:], "--features", "error_map-t100",
        "--root", str(demo.images), folder=tmp_path,
    )  # fmt: skip
    exact = open_store(tmp_path / "exact")["clean/error_map-t100"][:]
    assert 0 < np.abs(handle[:] - exact).max() < 0.02 * exact.max()


def test_a_head_reads_the_map_that_its_recipe_names(command, demo, store, tmp_path):
    done = command(
        "extract", str(demo.manifest), str(store), "--root", str(demo.images), "--sd", "tiny",
        "--features", "error_map-t280-n1", folder=tmp_path,
    )  # fmt: skip
    assert done.status == 0, done.err
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    done = command(
        "train-head", "recipe.yaml", "--store", str(store), "--manifest", str(demo.manifest),
        folder=tmp_path,
    )  # fmt: skip
    assert done.status == 0, done.err
    config = read_config(tmp_path / "runs/later")
    assert config["needs"] == ["error_map-t280-n1"]
    assert config["reads"] == {"error_map": "error_map-t280-n1"}
    assert config["features"]["error_map-t280-n1"]["declared"]["timestep"] == 280
    assert read_config(tmp_path / "runs/plain")["reads"] == {}
    done = command("evaluate", "runs/later", folder=tmp_path)
    assert done.status == 0, done.err
    scored = pd.read_parquet(tmp_path / "runs/later/predictions.parquet")
    image = demo.images / scored["path"].iloc[-1]
    done = command("predict", "runs/later", str(image), "--json", folder=tmp_path)
    assert done.status == 0, done.err
    (row,) = json.loads(done.out)
    assert row["score"] == pytest.approx(scored["score"].iloc[-1], abs=1e-3)


def test_the_run_ends_with_where_the_time_went(command, demo, tmp_path):
    Manifest.from_rows(Manifest.read(demo.manifest).rows.head(5)).write(tmp_path / "some.parquet")
    common = ["extract", "some.parquet", "store", "--sd", "tiny", "--clip", "tiny"]
    more = ["--ensemble", "1", "--features", "error_map,clip_embedding"]
    done = command(*common, *more, "--root", str(demo.images), folder=tmp_path)
    assert done.status == 0, done.err
    for stage in ("decode", "vae", "unet", "clip", "write", "other"):
        assert re.search(rf"│ {stage} +│ +\d+\.\d │ +\d+% │", done.out), done.out
    assert re.search(r"^\d+\.\d images/s after .*; the limit is \w+", done.out, re.MULTILINE)
