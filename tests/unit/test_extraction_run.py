"""Stage one as a whole: only what is missing is made, and the bytes do not depend on how."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from clare_cache.errors import ExtractError, StoreMismatch
from clare_cache.extraction import InProcess, extract_features
from clare_cache.images import decode
from clare_cache.store import open_store, verify
from tests.fake_backbone import (
    CODE,
    GRID,
    MEAN,
    FakeBackbone,
    bytes_below,
    make_image,
    write_images,
)

FEATURES = ["mean", "grid"]


@pytest.fixture
def root(tmp_path):
    return tmp_path / "images"


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def extract(store, images, root, *, backbones=None, features=FEATURES, **options):
    options = {"block_rows": 4, "batch_size": 3} | options
    backbones = [FakeBackbone()] if backbones is None else backbones
    return extract_features(
        store, images, root=root, backbones=backbones, features=features, **options
    )


def expected(root, images, array):
    backbone = FakeBackbone()
    rows = []
    for image_id, paths in images.items():
        pixels = backbone.preprocess(decode((root / paths[-1]).read_bytes()))
        rows.append(backbone.row(array, pixels, image_id))
    return np.stack(rows)


def test_threads_of_a_worker_compute_one_block_at_a_time(store, root, monkeypatch):
    images = write_images(root, 8)
    inside, most = [], []

    def note(n):
        inside.append(n)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()

    class Threads(InProcess):
        def run(self, work, blocks, *, on_images):
            with ThreadPoolExecutor(4) as pool:
                yield from pool.map(work, blocks)

    extract(store, images, root, backbones=[FakeBackbone(before_call=note)], block_rows=2,
            executor=Threads())  # fmt: skip
    assert most == [1] * 4
    assert verify(open_store(store)) == []


# What is made


def test_every_image_gets_its_row_and_the_report_adds_up(store, root):
    images = write_images(root, 10)
    report = extract(store, images, root)
    found = open_store(store)
    for array in FEATURES:
        values = found[f"clean/{array}"].by_image_id(list(images))
        assert np.array_equal(values, expected(root, images, array))
    assert verify(found) == []
    assert (report.n_images, report.n_settled_before, report.n_decoded) == (10, 0, 10)
    assert (report.n_failed, report.failures, report.store) == (0, (), str(store))
    assert report.seconds.keys() == {
        "total", "load", "plan", "decode", "counting", "other", "write",
    }  # fmt: skip
    assert report.beside.keys() == {"decode", "write"}
    assert all(0 <= value <= report.seconds["total"] for value in report.seconds.values())
    working = report.seconds["total"] - report.seconds["load"]
    assert report.images_per_second == 10 / working


def test_only_the_asked_features_are_made_and_declared(store, root):
    backbone = FakeBackbone()
    extract(store, write_images(root, 3), root, backbones=[backbone], features=["grid"])
    assert list(open_store(store)) == ["clean/grid"]
    assert set(backbone.wanted) == {("grid",)}
    entry = open_store(store)["clean/grid"].entry
    assert entry.declared == backbone.declared("grid")
    assert entry.source == "fake weights"
    assert entry.spec == GRID


def test_commit_records_say_with_which_libraries(store, root):
    extract(store, write_images(root, 1), root)
    (record,) = open_store(store)["clean/mean"].records.values()
    assert {"clare-cache", "numpy", "pillow", "torch", "zarr"} <= record.versions.keys()


def test_the_same_image_under_two_paths_is_looked_at_once(store, root):
    images = write_images(root, 3)
    image_id, data = make_image(1)
    (root / "copy.png").write_bytes(data)
    images[image_id] = ("001.png", "copy.png")
    backbone = FakeBackbone()
    report = extract(store, images, root, backbones=[backbone])
    assert sorted(backbone.images_seen) == sorted(images)
    assert (report.n_images, report.n_decoded, open_store(store).n_rows) == (3, 3, 3)


def test_a_missing_first_path_falls_back_to_the_second(store, root):
    images = write_images(root, 3)
    image_id, _ = make_image(1)
    images[image_id] = ("gone.png", "001.png")
    assert extract(store, images, root).failures == ()
    assert np.array_equal(
        open_store(store)["clean/mean"].by_image_id(list(images)), expected(root, images, "mean")
    )


# What is not made again


def test_a_second_call_decodes_nothing_and_changes_no_byte(store, root):
    images = write_images(root, 6)
    (root / "002.png").write_bytes(b"no picture")
    first = extract(store, images, root)
    before = bytes_below(store)
    shutil.rmtree(root)
    backbone = FakeBackbone()
    report = extract(store, images, root, backbones=[backbone])
    assert backbone.seen == []
    assert (report.n_images, report.n_settled_before, report.n_decoded) == (6, 6, 0)
    assert report.failures == first.failures
    assert report.n_failed == 1
    assert bytes_below(store) == before


def test_more_images_cost_only_themselves(store, root):
    images = write_images(root, 6)
    extract(store, images, root)
    before = bytes_below(store / "features.zarr")
    more = write_images(root, 3, start=20)
    for path in list(images.values()):
        (root / path[0]).unlink()
    backbone = FakeBackbone()
    report = extract(store, images | more, root, backbones=[backbone])
    assert sorted(backbone.images_seen) == sorted(more)
    assert (report.n_images, report.n_settled_before, report.n_decoded) == (9, 6, 3)
    assert report.failures == ()
    found = open_store(store)
    assert np.array_equal(found["clean/mean"].by_image_id(list(more)), expected(root, more, "mean"))
    after = bytes_below(store / "features.zarr")
    chunks = [name for name in before if "/c/" in name]
    assert {name: after[name] for name in chunks} == {name: before[name] for name in chunks}
    assert verify(found) == []


def test_more_features_cost_only_themselves(store, root):
    images = write_images(root, 6)
    extract(store, images, root, features=["mean"])
    before = bytes_below(store / "features.zarr/clean/mean")
    backbone = FakeBackbone()
    report = extract(store, images, root, backbones=[backbone], features=["mean", "grid"])
    assert set(backbone.wanted) == {("grid",)}
    assert (report.n_settled_before, report.n_decoded) == (0, 6)
    assert bytes_below(store / "features.zarr/clean/mean") == before
    assert np.array_equal(
        open_store(store)["clean/grid"].by_image_id(list(images)), expected(root, images, "grid")
    )


def test_a_part_of_the_images_first_and_the_rest_later_gives_the_same_rows(store, root):
    images = write_images(root, 7)
    extract(store, images, root, features=["mean"])
    some = dict(list(images.items())[::2])
    extract(store, some, root, features=["grid"])
    assert open_store(store)["clean/grid"].present.sum() == 4
    extract(store, images, root, features=["grid"])
    found = open_store(store)
    assert np.array_equal(
        found["clean/grid"].by_image_id(list(images)), expected(root, images, "grid")
    )
    assert verify(found) == []


def test_more_views_cost_only_themselves(store, root):
    images = write_images(root, 3)
    extract(store, images, root)
    before = bytes_below(store / "features.zarr/clean")
    backbone = FakeBackbone()
    report = extract(store, images, root, backbones=[backbone], views=["clean", "flip"])
    assert len(backbone.images_seen) == report.n_decoded == 3
    assert open_store(store).views == ["clean", "flip"]
    assert bytes_below(store / "features.zarr/clean") == before


def test_other_inputs_are_refused_before_any_image_is_read(store, root):
    images = write_images(root, 3)
    extract(store, images, root)
    before = bytes_below(store)
    backbone = FakeBackbone(factor=2.0)
    with pytest.raises(StoreMismatch, match=r"clean/grid: factor: asked 2\.0, found 1\.0"):
        extract(store, write_images(root, 2, start=5), root, backbones=[backbone])
    assert backbone.seen == []
    assert bytes_below(store) == before


# Images that cannot be used


def test_a_bad_image_has_a_line_for_every_array_and_no_row(store, root):
    images = write_images(root, 6)
    (root / "002.png").write_bytes(b"no picture")
    (root / "004.png").unlink()
    report = extract(store, images, root)
    found = open_store(store)
    assert sorted((line.path, line.array, line.stage, line.view) for line in report.failures) == [
        (path, array, "read", "clean")
        for path in ("002.png", "004.png")
        for array in sorted(FEATURES)
    ]
    assert list(report.failures) == found.ledger()
    assert (report.n_failed, report.n_decoded) == (2, 4)
    bad = found.rows_of([make_image(2)[0], make_image(4)[0]])
    for array in FEATURES:
        handle = found[f"clean/{array}"]
        assert not handle.present[bad].any()
        assert np.isnan(handle[:][bad]).all()
        good = {i: p for i, p in images.items() if p[0] not in ("002.png", "004.png")}
        assert np.array_equal(handle.by_image_id(list(good)), expected(root, good, array))


def test_values_that_are_not_finite_leave_the_other_arrays_alone(store, root):
    images = write_images(root, 5)
    bad = make_image(3)[0]
    report = extract(store, images, root, backbones=[FakeBackbone(poison={bad: ["grid"]})])
    (line,) = report.failures
    assert (line.image_id, line.array, line.stage) == (bad, "grid", "grid")
    assert line.reason == "1 of 32 values are not finite"
    found = open_store(store)
    row = found.rows_of([bad])[0]
    assert found["clean/mean"].present[row]
    assert not found["clean/grid"].present[row]
    assert np.isnan(found["clean/grid"][row]).all()


def test_the_report_tells_of_asked_images_alone(store, root):
    images = write_images(root, 4)
    (root / "002.png").unlink()
    extract(store, images, root)
    good = {i: p for i, p in images.items() if p != ("002.png",)}
    assert extract(store, good, root).failures == ()


# What the bytes do not depend on


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 1},
        {"batch_size": 100, "workers": 4},
        {"batch_size": 2, "workers": 1},
    ],
)
def test_batch_size_and_workers_do_not_change_a_byte(tmp_path, root, options):
    images = write_images(root, 9)
    (root / "005.png").unlink()
    extract(tmp_path / "a", images, root)
    extract(tmp_path / "b", images, root, **options)
    for folder in ("features.zarr", "ledger"):
        assert bytes_below(tmp_path / "a" / folder) == bytes_below(tmp_path / "b" / folder)
    assert (tmp_path / "a/index.parquet").read_bytes() == (
        tmp_path / "b/index.parquet"
    ).read_bytes()


def test_the_order_of_images_and_their_paths_does_not_change_a_byte(tmp_path, root):
    images = write_images(root, 9)
    extract(tmp_path / "a", images, root)
    moved = {}
    for number, image_id in enumerate(reversed(images)):
        (root / images[image_id][0]).rename(root / f"moved-{number}.png")
        moved[image_id] = (f"moved-{number}.png",)
    extract(tmp_path / "b", moved, root)
    assert bytes_below(tmp_path / "a/features.zarr") == bytes_below(tmp_path / "b/features.zarr")


def test_one_backbone_for_all_arrays_or_one_for_each_gives_the_same_bytes(tmp_path, root):
    images = write_images(root, 5)
    extract(tmp_path / "a", images, root, features=["mean", "grid", "code"])
    apart = [FakeBackbone(arrays=[spec]) for spec in (CODE, MEAN, GRID)]
    extract(tmp_path / "b", images, root, backbones=apart, features=["mean", "grid", "code"])
    assert bytes_below(tmp_path / "a/features.zarr") == bytes_below(tmp_path / "b/features.zarr")


# Progress and odd calls


def test_progress_counts_the_images_to_be_done(store, root):
    images = write_images(root, 4)
    extract(store, images, root)
    seen = []
    extract(store, images | write_images(root, 6, start=10), root, on_progress=seen.append)
    assert {(p.what, p.total, p.unit) for p in seen} == {("extract", 6, "image")}
    assert seen[-1].done == 6
    assert all(earlier.done < later.done for earlier, later in pairwise(seen))


def test_no_images_make_an_empty_store(store, root):
    report = extract(store, {}, root)
    assert (report.n_images, report.n_decoded, report.n_failed) == (0, 0, 0)
    assert list(open_store(store)) == ["clean/grid", "clean/mean"]


def test_a_store_keeps_its_block_size(store, root):
    images = write_images(root, 6)
    extract(store, images, root, block_rows=2)
    extract(store, images | write_images(root, 1, start=10), root, block_rows=None)
    assert open_store(store).description.block_rows == 2
    assert sorted(open_store(store)["clean/mean"].records) == [0, 1, 2, 3]


def test_failed_images_are_tried_again_only_on_request(store, root):
    images = write_images(root, 10)
    gone = [root / paths[0] for paths in list(images.values())[2:9:3]]
    kept = {path: path.read_bytes() for path in gone}
    for path in gone:
        path.unlink()
    assert extract(store, images, root).n_failed == 3
    for path, data in kept.items():
        path.write_bytes(data)
    again = extract(store, images, root)
    assert (again.n_decoded, again.n_failed) == (0, 3)
    retried = extract(store, images, root, retry_failed=True)
    assert (retried.n_decoded, retried.n_failed) == (3, 0)
    whole = store.with_name("whole")
    extract(whole, images, root)
    assert bytes_below(store / "features.zarr") == bytes_below(whole / "features.zarr")
    assert not list((store / "ledger").rglob("*.json"))


def test_a_wrong_root_fills_no_ledger(store, root, tmp_path):
    images = write_images(root, 10)
    with pytest.raises(ExtractError, match=r"of 10 tried none is there, for example \d+\.png"):
        extract(store, images, tmp_path / "imagse")
    assert open_store(store).ledger() == []
    assert extract(store, images, root).n_decoded == 10


@pytest.mark.parametrize("n_shards", [2, 3, 5])
def test_shards_together_make_the_store_of_one_run(tmp_path, root, n_shards):
    images = write_images(root, 19)
    extract(tmp_path / "one", images, root)
    decoded = [
        extract(tmp_path / "many", images, root, shard=(i, n_shards)).n_decoded
        for i in reversed(range(n_shards))
    ]
    assert sum(decoded) == 19
    assert bytes_below(tmp_path / "one/features.zarr") == bytes_below(
        tmp_path / "many/features.zarr"
    )


def test_a_block_that_another_run_has_done_is_not_done_again(store, root):
    images = write_images(root, 10)
    backbone = FakeBackbone()

    class Late(InProcess):
        def run(self, work, blocks, *, on_images):
            extract(store, images, root)
            yield from super().run(work, blocks, on_images=on_images)

    report = extract(store, images, root, backbones=[backbone], executor=Late())
    assert report.n_decoded == 0
    assert report.n_failed == 0


def test_what_a_worker_left_that_died_while_others_went_on_is_swept(store, root):
    class OneDies(InProcess):
        def run(self, work, blocks, *, on_images):
            yield from super().run(work, blocks, on_images=on_images)
            for folder in ("commits/clean/mean", "ledger/clean/mean"):
                (store / folder).mkdir(parents=True, exist_ok=True)
                (store / folder / ".0.0123abcd.partial.json").write_text("{")

    images = write_images(root, 3)
    extract(store, images, root, executor=OneDies())
    assert list(store.rglob("*.partial*")) == []


def test_one_decode_serves_every_view_and_each_view_its_own_picture(store, root, monkeypatch):
    images = write_images(root, 5)
    decoded = []
    monkeypatch.setattr(
        "clare_cache.extraction.decoding.decode", lambda data: decoded.append(data) or decode(data)
    )
    report = extract(store, images, root, views=["clean", "flip", "noise-s20"])
    assert len(decoded) == report.n_decoded == 5
    found = open_store(store)
    assert found.views == ["clean", "flip", "noise-s20"]
    clean, flip, noise = (found[f"{view}/grid"].by_image_id(list(images)) for view in found.views)
    for image_id, paths in images.items():
        seen = decode((root / paths[0]).read_bytes())[:, ::-1]
        backbone = FakeBackbone()
        row = backbone.row("grid", backbone.preprocess(np.ascontiguousarray(seen)), image_id)
        assert np.array_equal(found["flip/grid"].by_image_id([image_id])[0], row)
    assert not np.array_equal(clean, flip)
    assert not np.array_equal(clean, noise)
    assert found["flip/grid"].declared["view"] == {"name": "flip", "rule": 1}
    assert "view" not in found["clean/grid"].declared


def test_a_view_that_an_image_has_not_costs_no_other_view(store, root):
    images = write_images(root, 3)
    report = extract(store, images, root, views=["clean", "tencrop-0"], features=["mean"])
    assert {(line.view, line.stage) for line in report.failures} == {("tencrop-0", "view")}
    assert report.n_failed == 3
    assert open_store(store)["clean/mean"].present.sum() == 3
    assert open_store(store)["tencrop-0/mean"].present.sum() == 0


def test_images_that_are_done_need_not_be_below_the_root(store, root, tmp_path):
    images = write_images(root, 10)
    extract(store, images, root)
    shutil.rmtree(root)
    more = write_images(tmp_path / "elsewhere", 2, start=90)
    report = extract(store, images | more, tmp_path / "elsewhere")
    assert (report.n_settled_before, report.n_decoded, report.n_failed) == (10, 2, 0)
