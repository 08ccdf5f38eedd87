"""Stores made apart become the one that would have been made together, in whatever order."""

import json
from itertools import permutations

import numpy as np
import pytest

from clare_cache.errors import StoreError, StoreMismatch
from clare_cache.extraction import extract_features
from clare_cache.store import open_store, verify
from clare_cache.workflow.merge import merge
from tests.fake_backbone import FakeBackbone, bytes_below, make_image, write_images


@pytest.fixture
def root(tmp_path):
    return tmp_path / "images"


def extract(store, images, root, *, features=("mean", "grid"), backbone=None, **options):
    options = {"block_rows": 4} | options
    backbone = backbone or FakeBackbone(poison={make_image(1)[0]: ["grid"]})
    extract_features(store, images, root=root, backbones=[backbone], features=features, **options)
    return store


def part(images, start, stop):
    return dict(list(images.items())[start:stop])


def content(store):
    """Every file but the commit records, which say when they were written."""
    return {n: data for n, data in bytes_below(store).items() if not n.startswith("commits/")}


def test_other_images_of_the_same_arrays(tmp_path, root):
    images = write_images(root, 13)
    (root / "004.png").write_bytes(b"no picture")
    whole = extract(tmp_path / "whole", images, root)
    parts = [
        extract(tmp_path / "b", part(images, 0, 5), root),
        extract(tmp_path / "a", part(images, 5, 9), root),
        extract(tmp_path / "c", part(images, 7, 13), root),
    ]
    for number, order in enumerate(permutations(parts)):
        out = tmp_path / f"out-{number}"
        report = merge(out, order)
        assert content(out) == content(whole)
        assert verify(out) == []
    assert report.arrays == ("clean/grid", "clean/mean")
    assert (report.n_images, report.n_failed) == (13, 2)
    assert (report.n_blocks, report.n_written) == (8, 8)


def test_other_arrays_and_views_of_the_same_images(tmp_path, root):
    images = write_images(root, 6)
    whole = extract(tmp_path / "whole", images, root, views=["clean", "flip"])
    one = extract(tmp_path / "one", images, root, features=["mean"], views=["clean", "flip"])
    other = extract(tmp_path / "other", images, root, features=["grid"], views=["clean", "flip"])
    merge(tmp_path / "out", [one, other])
    assert content(tmp_path / "out") == content(whole)


def test_what_a_lossy_codec_made_is_copied_as_it_is(tmp_path, root):
    images = write_images(root, 9)
    lossy = {"features": ["grid"], "codec": "int8"}
    whole = extract(tmp_path / "whole", images, root, **lossy)
    one = extract(tmp_path / "a", part(images, 0, 5), root, **lossy)
    other = extract(tmp_path / "b", part(images, 5, 9), root, **lossy)
    merge(tmp_path / "out", [one, other])
    assert content(tmp_path / "out") == content(whole)
    assert verify(tmp_path / "out") == []


def test_an_image_that_failed_in_one_store_only_has_its_row(tmp_path, root):
    images = write_images(root, 4)
    one = extract(tmp_path / "one", images, root)
    other = extract(tmp_path / "other", images, root, backbone=FakeBackbone())
    for number, order in enumerate(([one, other], [other, one])):
        out = tmp_path / f"out-{number}"
        merge(out, order)
        assert open_store(out)["clean/grid"].present.all()
        assert open_store(out).ledger() == []


def test_a_merge_that_was_interrupted_goes_on(tmp_path, root, monkeypatch):
    images = write_images(root, 13)
    parts = [
        extract(tmp_path / "a", part(images, 0, 7), root),
        extract(tmp_path / "b", part(images, 7, 13), root),
    ]
    merge(tmp_path / "whole", parts)

    def stop(step):
        if step.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(tmp_path / "out", parts, on_progress=stop)
    assert merge(tmp_path / "out", parts).n_written == 5
    assert merge(tmp_path / "out", parts).n_written == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_merged_store_can_be_extended_and_says_its_versions(tmp_path, root):
    images = write_images(root, 9)
    parts = [
        extract(tmp_path / "a", part(images, 0, 3), root),
        extract(tmp_path / "b", part(images, 3, 6), root),
    ]
    merge(tmp_path / "out", parts)
    backbone = FakeBackbone()
    extract(tmp_path / "out", images, root, backbone=backbone)
    assert len(set(backbone.images_seen)) == 3
    (made, *_) = open_store(tmp_path / "a")["clean/mean"].records.values()
    (record, *_) = open_store(tmp_path / "out")["clean/mean"].records.values()
    assert record.versions == made.versions


def test_blocks_of_another_size(tmp_path, root):
    images = write_images(root, 10)
    parts = [
        extract(tmp_path / "a", part(images, 0, 7), root, block_rows=2),
        extract(tmp_path / "b", part(images, 7, 10), root, block_rows=3),
    ]
    assert merge(tmp_path / "out", parts).n_blocks == 8
    found = open_store(tmp_path / "out")
    assert found.description.block_rows == 3
    whole = open_store(extract(tmp_path / "whole", images, root))
    ids = list(images)
    expected = whole["clean/mean"].by_image_id(ids)
    assert np.array_equal(found["clean/mean"].by_image_id(ids), expected)
    assert merge(tmp_path / "wide", parts, block_rows=64).n_blocks == 2


def test_every_conflict_is_told_at_once_and_nothing_is_made(tmp_path, root):
    images = write_images(root, 3)
    one = extract(tmp_path / "a", images, root)
    other = extract(tmp_path / "b", images, root, backbone=FakeBackbone(factor=2.0))
    with pytest.raises(StoreMismatch) as caught:
        merge(tmp_path / "out", [other, one])
    assert str(caught.value) == (
        "merge: the stores were not made from the same inputs: 2 faults\n"
        f"  - clean/grid: factor: 1.0 in {one}, 2.0 in {other}\n"
        f"  - clean/mean: factor: 1.0 in {one}, 2.0 in {other}\n"
        "Prune the arrays that differ, or merge those stores apart."
    )
    assert not (tmp_path / "out").exists()
    with pytest.raises(StoreError) as caught:
        merge(one, [one, other])
    assert str(caught.value) == (f"merge into {one}: it is one of the stores. Name a new folder.")


def test_the_command(tmp_path, root, command):
    images = write_images(root, 6)
    extract(tmp_path / "a", part(images, 0, 3), root)
    extract(tmp_path / "b", part(images, 3, 6), root)
    done = command("store", "merge", "out", "a", "b", folder=tmp_path)
    assert (done.status, done.out) == (
        0,
        "out: clean/grid, clean/mean of 6 images, 1 in the ledger; 4 of 4 blocks written now\n",
    )
    done = command("store", "merge", "out", "b", "a", "--json", folder=tmp_path)
    assert json.loads(done.out)["n_written"] == 0
