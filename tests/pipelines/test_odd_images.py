"""Damaged and unusual files: extracted right, or in the ledger with the reason. Never replaced."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

import clare_cache as cc
from clare_cache.backbones import ErrorMapConfig, load_backbones
from clare_cache.train.score import predict_rows
from clare_cache.workflow.features import extract
from clare_cache.workflow.manifests import build_manifest

FEATURES = ["error_map", "clip_embedding"]


def test_every_odd_image_is_extracted_right_or_in_the_ledger(odd_images, tmp_path: Path):
    folder = tmp_path / "images"
    (folder / "real").mkdir(parents=True)
    expected = odd_images(folder / "real")
    built = build_manifest("folder", folder)
    usable = {name for name, odd in expected.items() if odd.pixels is not None}
    config = ErrorMapConfig(ensemble=1)
    done = extract(
        built.manifest,
        tmp_path / "store",
        root=folder,
        features=FEATURES,
        sd="tiny",
        clip="tiny",
        error_map=config,
        device="cpu",
    )

    listed = {Path(path).name for path in built.manifest.rows["path"]}
    assert listed == set(expected), "no file may be lost between the folder and the manifest"
    reasons = {Path(line.path).name: line.reason for line in done.failures}
    for name in set(expected) - usable:
        wanted = expected[name].reason
        assert reasons[name] == wanted or reasons[name].startswith(wanted.rstrip("…")), name
    assert set(reasons) == set(expected) - usable

    # What is in the store was made from the right picture: the backbone gives it again.
    store = cc.open_store(tmp_path / "store")
    backbones = load_backbones(sd="tiny", clip="tiny", features=FEATURES, error_map=config)
    by_name = {Path(r.path).name: r for r in built.manifest.rows.itertuples()}
    for name in sorted(usable):
        image_id, odd = by_name[name].image_id, expected[name]
        if odd.tolerance:
            continue
        for backbone in backbones:
            spec = next(s for s in backbone.arrays if s.name in FEATURES)
            picture = backbone.preprocess(odd.pixels.astype(np.uint8))[None]
            again = backbone(picture, [image_id], [spec.name])[spec.name]
            kept = store[f"clean/{spec.name}"].by_image_id([image_id])
            np.testing.assert_allclose(
                kept.astype(np.float32), again.astype(np.float32), rtol=2e-3, atol=2e-3
            )

    # And its numbers state their coverage.
    data = cc.load(store, built.manifest, needs=["clip_embedding"])
    rows = predict_rows(built.manifest, data, np.zeros(len(data)))
    assert int(rows["score"].isna().sum()) == len(expected) - len(usable)
    assert (rows.loc[rows["score"].isna(), "missing"] != "").all()


def test_a_file_that_changed_since_the_manifest_is_not_used(tmp_path: Path, odd_images):
    folder = tmp_path / "images"
    (folder / "real").mkdir(parents=True)
    expected = odd_images(folder / "real")
    name = next(n for n, odd in expected.items() if odd.pixels is not None)
    for path in (folder / "real").iterdir():
        if path.name != name:
            path.unlink()
    manifest = build_manifest("folder", folder).manifest
    path = folder / manifest.rows["path"][0]
    path.write_bytes(path.read_bytes() + b"\0")
    assert hashlib.sha256(path.read_bytes()).hexdigest() != manifest.image_ids[0]
    done = extract(manifest, tmp_path / "s", root=folder, features=["clip_embedding"], clip="tiny")
    assert done.n_decoded == 0
    assert [line.stage for line in done.failures] == ["read"]
    assert "no longer the one in the manifest" in done.failures[0].reason
    assert isinstance(built_table(tmp_path / "s"), pd.DataFrame)


def built_table(store: Path) -> pd.DataFrame:
    """The index survives although nothing could be extracted."""
    return pd.read_parquet(store / "index.parquet")
