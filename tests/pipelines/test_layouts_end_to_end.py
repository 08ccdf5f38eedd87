"""Every layout goes the whole way of stage one: build, check, extract; stage two loads it."""

from pathlib import Path

import pytest

from clare_cache.backbones import load_backbones
from clare_cache.data import load
from clare_cache.extraction import extract_features
from clare_cache.images import decode, encode_jpeg
from clare_cache.manifest import Manifest
from clare_cache.store import open_store
from clare_cache.workflow.checking import check_manifest
from clare_cache.workflow.demo import make_images
from clare_cache.workflow.features import paths_by_image
from clare_cache.workflow.manifests import build_manifest
from tests.miniatures import MINIATURES

FEATURE = "clip_embedding"


@pytest.fixture(scope="module")
def tiny():
    """The tiny CLIP, loaded once for all layouts."""
    return load_backbones(sd=None, clip="tiny", features=[FEATURE], device="cpu")


@pytest.mark.parametrize("name", MINIATURES)
def test_a_miniature_goes_from_its_tree_to_tensors(name: str, tiny, tmp_path: Path):
    miniature, root = MINIATURES[name], tmp_path / "images"
    miniature.write(root)
    built = build_manifest(miniature.layout, root, **miniature.options(root))
    built.manifest.write(tmp_path / "m.parquet")
    manifest = Manifest.read(tmp_path / "m.parquet")

    report = check_manifest(manifest, root)
    assert report.failing == ()

    extracted = extract_features(
        tmp_path / "store",
        paths_by_image(manifest),
        root=root,
        backbones=tiny,
        features=[FEATURE],
    )
    assert extracted.n_failed == 0
    assert extracted.n_decoded == len(miniature.rows)

    data = load(open_store(tmp_path / "store"), manifest, needs=[FEATURE])
    assert len(data) == len(miniature.rows)
    assert data.labels.tolist() == manifest.rows["label"].tolist()
    features, label = data[manifest.image_ids[-1]]
    assert features[FEATURE].isfinite().all()
    assert int(label) == manifest.rows["label"].iloc[-1]


def test_the_commands_read_pictures_inside_tars(command, tmp_path: Path):
    MINIATURES["webdataset"].write(tmp_path / "images")
    build = command("manifest", "build", "webdataset", "images", "-o", "m.csv", folder=tmp_path)
    assert build.status == 0, build.err
    check = command("manifest", "check", "m.csv", "--root", "images", folder=tmp_path)
    assert check.status == 0, check.out
    audit = command("manifest", "audit", "m.csv", "--root", "images", "--accept", folder=tmp_path)
    assert audit.status == 0, audit.err
    extract = command(
        *("extract", "m.csv", "store", "--root", "images", "--clip", "tiny", "--device", "cpu"),
        *("--features", FEATURE, "--views", "clean,matched-jpeg-q90"),
        folder=tmp_path,
    )
    assert extract.status == 0, extract.err
    assert "5 images asked for, 0 were there, 5 extracted now, 0 in the ledger" in extract.out
    lost = tmp_path / "images/shards/test-000000.tar"
    lost.write_bytes(lost.read_bytes()[:1024])
    check = command("manifest", "check", "m.csv", "--root", "images", folder=tmp_path)
    assert check.status == 1
    assert "shards/test-000000.tar#a/0002.png: there is no such file under images." in check.out


def test_recompressed_copies_across_splits_are_found(tiny, tmp_path: Path):
    root = tmp_path / "images"
    make_images(root, per_region=1)
    originals = sorted((root / "train/real").iterdir())[:3]
    for original in originals:
        copy = root / "test/real" / f"copy-{original.stem}.jpg"
        copy.write_bytes(encode_jpeg(decode(original.read_bytes()), 90))
    manifest = build_manifest("folder", root).manifest
    extract_features(
        tmp_path / "store",
        paths_by_image(manifest),
        root=root,
        backbones=tiny,
        features=[FEATURE],
    )
    report = check_manifest(manifest, root, store=tmp_path / "store")
    assert [fault.kind for fault in report.failing] == ["near-duplicate"] * 3
    for fault, original in zip(report.failing, originals, strict=True):
        assert fault.where == f"test/real/copy-{original.stem}.jpg"
        assert fault.detail.startswith(f"is nearly train/real/{original.name} of train (cosine ")
