"""The whole way with the store in a bucket: the same features, the same scores as from a folder."""

import json

import numpy as np
import pandas as pd
import pytest

import clare_cache as cc


@pytest.fixture
def url(bucket):
    return f"{bucket}/faces"


def test_the_whole_way_from_a_bucket(command, demo, small_recipe, url, tmp_path):
    asked = ["--root", str(demo.images), "--features", "error_map,clip_embedding"]
    asked += [
        "--sd", "tiny", "--clip", "tiny", "--ensemble", "1", "--block-rows", "32",
        "--codec", "error_map=blosc",
    ]  # fmt: skip
    manifest = str(demo.manifest)

    half = [*asked, "--shard-index", "1", "--num-shards", "2"]
    assert command("extract", manifest, url, *half, folder=tmp_path).status == 0
    done = command("store", "status", url, "--json", folder=tmp_path)
    assert {(a["n_done"], a["n_asked"]) for a in json.loads(done.out)} == {(32, 90)}

    done = command("extract", manifest, url, *asked, folder=tmp_path)
    assert f"{url}: 90 images asked for, 32 were there, 58 extracted now" in done.out
    done = command("extract", manifest, url, *asked, folder=tmp_path)
    assert "90 were there, 0 extracted now" in done.out
    assert url in command("store", "info", url, folder=tmp_path).out
    assert cc.open_store(url)["clean/error_map"].entry.codec == "blosc"
    done = command("store", "verify", url, folder=tmp_path)
    assert done.out == f"{url}: 0 faults\n"
    found, whole = cc.open_store(url), cc.open_store(demo.store)
    for key in ("clean/error_map", "clean/clip_embedding"):
        ids = whole.image_ids
        assert np.array_equal(found[key].by_image_id(ids), whole[key].by_image_id(ids))

    check = ["manifest", "check", manifest, "--root", str(demo.images), "--store"]
    near, expected = (command(*check, str(store), folder=tmp_path) for store in (url, demo.store))
    assert (near.status, near.out) == (expected.status, expected.out.replace(str(demo.store), url))
    assert "compare splits" in near.err

    train = ["train-head", str(small_recipe), "--head", "linear", "--manifest", manifest]
    assert command(*train, "--store", url, folder=tmp_path).status == 0
    assert json.loads((tmp_path / "runs/linear/config.json").read_text())["store"] == url
    assert command("evaluate", "runs/linear", folder=tmp_path).status == 0
    tables = [
        pd.read_parquet(folder / "linear/predictions.parquet")
        for folder in (tmp_path / "runs", demo.runs)
    ]
    assert np.allclose(tables[0]["score"], tables[1]["score"], atol=1e-6)
    pictures = ["-o", "page.html", "--root", str(demo.images)]
    assert command("report", "runs/linear", *pictures, folder=tmp_path).status == 0
    assert url in (tmp_path / "page.html").read_text()
    assert not list(tmp_path.glob("s3*"))
