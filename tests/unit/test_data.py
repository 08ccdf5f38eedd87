"""Manifest ⋈ store: the rows that are there, in the manifest's order, and why others are not."""

import itertools

import numpy as np
import pytest
import torch

from clare_cache.data import load, residence
from clare_cache.data.residence import choose_residence
from clare_cache.errors import StoreError, TrainError
from clare_cache.store import ArrayEntry, BlockData, StoreWriter, open_store
from clare_cache.types import ArraySpec
from tests.feature_data import (
    BLOCK_CLS,
    EMBEDDING,
    feature_rows,
    image_id,
    make_manifest,
    make_store,
)

NEEDS = ["clip_embedding", "clip_block_cls"]
NUMBERS = [30, 3, 21, 8, 14, 5, 2, 33, 17, 20]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """40 images; 8 and 17 have no embedding."""
    return make_store(tmp_path_factory.mktemp("store"), range(40), failed=[8, 17])


@pytest.fixture(params=[True, False], ids=["resident", "streamed"])
def resident(request):
    return request.param


def test_rows_labels_and_features_come_in_manifest_order(store, resident):
    found = load(store, make_manifest(NUMBERS), needs=NEEDS, resident=resident)
    kept = [n for n in NUMBERS if n not in (8, 17)]
    assert found.resident == resident
    assert len(found) == 8
    assert found.rows["image_id"].tolist() == [image_id(n) for n in kept]
    assert found.labels.dtype == torch.int64
    assert found.labels.tolist() == [n % 2 for n in kept]
    features, labels = found.batch(np.arange(8))
    assert list(features) == NEEDS
    for name, tensor in features.items():
        assert tensor.dtype == torch.float16
        assert np.array_equal(tensor.numpy(), feature_rows(name, kept))
    assert labels.tolist() == found.labels.tolist()


def test_missing_images_keep_their_place_and_reason(store):
    found = load(store, make_manifest(NUMBERS), needs=NEEDS)
    assert [(m.position, m.image_id, m.reason) for m in found.missing] == [
        (3, image_id(8), "decode: no picture 8"),
        (8, image_id(17), "decode: no picture 17"),
    ]
    assert len(found) + len(found.missing) == len(NUMBERS)


def test_an_image_is_missing_only_where_a_needed_array_is(store):
    found = load(store, make_manifest(NUMBERS), needs=["clip_block_cls"])
    assert (len(found), found.missing) == (10, ())


def test_resident_and_streamed_give_equal_batches(store):
    manifest = make_manifest(NUMBERS)
    one = load(store, manifest, needs=NEEDS, resident=True)
    other = load(store, manifest, needs=NEEDS, resident=False)
    for indices in ([0], [7, 0, 3], [5, 5, 1], []):
        (left, a), (right, b) = (d.batch(np.array(indices, np.int64)) for d in (one, other))
        assert torch.equal(a, b)
        assert len(a) == len(indices)
        for name in NEEDS:
            assert torch.equal(left[name], right[name])


def test_a_batch_can_be_changed_without_changing_the_data(store, resident):
    found = load(store, make_manifest(NUMBERS), needs=NEEDS, resident=resident)
    features, labels = found.batch(np.array([0, 1]))
    features["clip_embedding"].zero_()
    labels.zero_()
    again, labels_again = found.batch(np.array([0, 1]))
    assert again["clip_embedding"].abs().sum() > 0
    assert labels_again.tolist() == [0, 1]


def test_one_image_by_position_or_by_id(store, resident):
    found = load(store, make_manifest(NUMBERS), needs=NEEDS, resident=resident)
    for key in (1, image_id(3), -7, np.int64(1)):
        features, label = found[key]
        assert label == 1
        assert np.array_equal(features["clip_block_cls"], feature_rows("clip_block_cls", [3])[0])
    for key in (8, -9):
        with pytest.raises(IndexError, match="of 8"):
            found[key]
    with pytest.raises(KeyError):
        found[image_id(8)]


@pytest.mark.parametrize("wrong", [8, -1])
def test_positions_beyond_the_data_are_an_error(store, resident, wrong):
    found = load(store, make_manifest(NUMBERS), needs=NEEDS, resident=resident)
    with pytest.raises(IndexError):
        found.batch(np.array([0, wrong, 1]))


def test_an_image_twice_in_the_manifest_is_there_twice(store, resident):
    found = load(store, make_manifest([5, 4, 5]), needs=NEEDS, resident=resident)
    features, labels = found.batch(np.arange(3))
    assert labels.tolist() == [1, 0, 1]
    assert found.rows["path"].tolist() == ["0/5.png", "1/4.png", "2/5.png"]
    assert torch.equal(features["clip_embedding"][0], features["clip_embedding"][2])
    twice_missing = load(store, make_manifest([8, 1, 8]), needs=NEEDS, resident=resident)
    assert [m.position for m in twice_missing.missing] == [0, 2]


def test_data_works_in_torch_s_own_loader(store, resident):
    found = load(store, make_manifest(NUMBERS), needs=NEEDS, resident=resident)
    ((features, labels),) = torch.utils.data.DataLoader(found, batch_size=8)
    expected, _ = found.batch(np.arange(8))
    assert torch.equal(features["clip_embedding"], expected["clip_embedding"])
    assert torch.equal(labels, found.labels)


def test_shapes_and_fingerprints_are_those_of_the_needed_arrays(store):
    found = load(store, make_manifest([1]), needs=["clip_embedding"])
    assert found.shapes == {"clip_embedding": EMBEDDING.shape}
    handle = store["clean/clip_embedding"]
    assert found.fingerprints == {
        "clip_embedding": {"fingerprint": handle.fingerprint, "declared": handle.declared}
    }
    assert load(store, make_manifest([1]), needs=NEEDS).shapes["clip_block_cls"] == BLOCK_CLS.shape


def test_no_rows_are_no_error(store, resident):
    found = load(store, make_manifest([]), needs=NEEDS, resident=resident)
    features, labels = found.batch(np.empty(0, np.int64))
    assert len(found) == len(labels) == len(features["clip_embedding"]) == 0
    only_missing = load(store, make_manifest([8]), needs=NEEDS, resident=resident)
    assert (len(only_missing), len(only_missing.missing)) == (0, 1)


@pytest.mark.parametrize(("available", "expected"), [(1000, True), (900, False)])
def test_arrays_stay_in_ram_when_they_take_less_than_half_of_it(
    store, monkeypatch, available, expected
):
    row_nbytes = EMBEDDING.row_nbytes + BLOCK_CLS.row_nbytes
    assert row_nbytes * 11 == 462

    class Memory:
        pass

    memory = Memory()
    memory.available = available
    monkeypatch.setattr(residence.psutil, "virtual_memory", lambda: memory)
    numbers = range(20, 31)
    assert load(store, make_manifest(numbers), needs=NEEDS).resident == expected


def test_images_that_were_never_extracted_are_an_error(store):
    with pytest.raises(TrainError, match=f"2 were never extracted, the first is {image_id(90)}"):
        load(store, make_manifest([1, 90, 8, 91]), needs=NEEDS)


def test_rows_without_a_commit_were_never_extracted(tmp_path):
    store = make_store(tmp_path, range(4), names="clip_embedding")
    StoreWriter(tmp_path).declare([ArrayEntry("clean", BLOCK_CLS, 0, {"weights": "w"})])
    assert len(load(store, make_manifest([1, 2]), needs=["clip_embedding"])) == 2
    with pytest.raises(TrainError, match="2 images, 2 were never extracted"):
        load(open_store(tmp_path), make_manifest([1, 2]), needs=NEEDS)


def test_arrays_that_the_store_lacks_are_an_error(store):
    with pytest.raises(StoreError, match="array clean/error_map was asked for, found"):
        load(store, make_manifest([1]), needs=["error_map"])
    with pytest.raises(StoreError, match="array flip/clip_embedding was asked for"):
        load(store, make_manifest([1]), needs=["clip_embedding"], view="flip")


def test_committed_rows_that_a_lost_file_made_nan_are_an_error(tmp_path, resident):
    store = make_store(tmp_path, range(40))
    (tmp_path / "features.zarr/clean/clip_embedding/c/1/0").unlink()
    with pytest.raises(StoreError) as caught:
        load(store, make_manifest([3, 20, 5, 17]), needs=NEEDS, resident=resident).batch(
            np.array([0, 1, 2, 3])
        )
    assert str(caught.value) == (
        f"store {tmp_path}: 2 of 4 rows of clean/clip_embedding that were committed read as NaN "
        f"or infinity, the first is of image {image_id(20)}. Run `clare-cache store verify`."
    )


# Whole passes


def test_an_epoch_shows_every_image_once_with_its_own_features_and_label(store, resident):
    found = load(store, make_manifest(NUMBERS), needs=NEEDS, resident=resident)
    kept = [n for n in NUMBERS if n not in (8, 17)]
    by_row = {feature_rows("clip_block_cls", [n]).tobytes(): n for n in kept}
    seen = []
    for features, labels in found.epoch(np.random.default_rng(0), 3):
        numbers = [by_row[row.numpy().tobytes()] for row in features["clip_block_cls"]]
        assert labels.tolist() == [n % 2 for n in numbers]
        embeddings = features["clip_embedding"].numpy()
        assert np.array_equal(embeddings, feature_rows("clip_embedding", numbers))
        seen.append(numbers)
    assert [len(numbers) for numbers in seen] == [3, 3, 2]
    assert sorted(itertools.chain(*seen)) == sorted(kept)
    again = [labels.tolist() for _, labels in found.epoch(np.random.default_rng(0), 3)]
    assert again == [[n % 2 for n in numbers] for numbers in seen]
    assert list(itertools.chain(*seen)) != kept


def test_a_resident_epoch_is_the_generator_s_permutation(store):
    found = load(store, make_manifest(NUMBERS), needs=NEEDS, resident=True)
    (whole,) = [features for features, _ in found.epoch(np.random.default_rng(5), 100)]
    expected, _ = found.batch(np.random.default_rng(5).permutation(8))
    assert torch.equal(whole["clip_block_cls"], expected["clip_block_cls"])


def test_once_through_says_which_images_they_are(store, resident):
    found = load(store, make_manifest(NUMBERS), needs=NEEDS, resident=resident)
    parts = list(found.once(3))
    assert sorted(np.concatenate([positions for positions, _ in parts])) == list(range(8))
    for positions, features in parts:
        expected, _ = found.batch(positions)
        assert torch.equal(features["clip_embedding"], expected["clip_embedding"])


def test_an_epoch_can_be_left_in_the_middle(store, resident):
    found = load(store, make_manifest(NUMBERS), needs=NEEDS, resident=resident)
    for _ in found.epoch(np.random.default_rng(0), 2):
        break
    assert sum(len(labels) for _, labels in found.epoch(np.random.default_rng(0), 2)) == 8


def test_what_goes_wrong_in_the_reading_thread_is_raised_in_the_loop(tmp_path):
    store = make_store(tmp_path, range(40))
    found = load(store, make_manifest(range(40)), needs=NEEDS, resident=False)
    (tmp_path / "features.zarr/clean/clip_embedding/c/1/0").unlink()
    with pytest.raises(StoreError, match="read as NaN or infinity"):
        list(found.epoch(np.random.default_rng(0), 4))


@pytest.mark.parametrize("needs", [["error_map"], ["clip_embedding", "error_map"]])
def test_mapped_arrays_are_streamed_alone_and_with_decoded_ones(tmp_path, needs):
    pages = ArraySpec("error_map", (4, 8, 64), ("channel", "row", "column"), "float16", "a page")
    writer = StoreWriter(make_store(tmp_path, range(40)).place)
    writer.declare([ArrayEntry("clean", pages, 0, {"weights": "w"})])
    rows = np.random.default_rng(0).standard_normal((40, 4, 8, 64)).astype("float16")
    for start in range(0, 40, 16):
        part = np.arange(start, min(start + 16, 40))
        writer.write_block(
            BlockData("clean", "error_map", start // 16, part, rows[part]), versions={}
        )
    store = open_store(tmp_path)
    assert store["clean/error_map"].is_mapped
    assert not store["clean/clip_embedding"].is_mapped
    found = load(store, make_manifest(range(40)), needs=needs, resident=False)
    epoch = [(f, labels.tolist()) for f, labels in found.epoch(np.random.default_rng(0), 7)]
    once = [(f, [n % 2 for n in positions]) for positions, f in found.once(7)]
    for batches in (epoch, once):
        seen = []
        for features, labels in batches:
            for n, label in enumerate(labels):
                row = features["error_map"][n].numpy()
                (number,) = np.flatnonzero((rows == row).all((1, 2, 3)))
                assert label == number % 2
                if "clip_embedding" in needs:
                    own = feature_rows("clip_embedding", [number])[0]
                    assert np.array_equal(features["clip_embedding"][n].numpy(), own)
                seen.append(number)
        assert sorted(seen) == list(range(40))


def test_an_array_that_stops_being_mapped_within_an_epoch_loses_no_image(tmp_path):
    """A chunk file that cannot be mapped goes through Zarr from then on, not through a pool that
    lacks the images that entered before."""
    pages = ArraySpec("error_map", (4, 8, 64), ("channel", "row", "column"), "float16", "a page")
    writer = StoreWriter(make_store(tmp_path, range(40)).place)
    writer.declare([ArrayEntry("clean", pages, 0, {"weights": "w"})])
    rows = np.random.default_rng(0).standard_normal((40, 4, 8, 64)).astype("float16")
    for start in range(0, 40, 16):
        part = np.arange(start, min(start + 16, 40))
        block = BlockData("clean", "error_map", start // 16, part, rows[part])
        writer.write_block(block, versions={})
    found = load(
        open_store(tmp_path), make_manifest(range(40)), needs=["error_map"], resident=False
    )
    seen = []
    for n, (features, _) in enumerate(found.epoch(np.random.default_rng(0), 7)):
        if n == 1:
            found._handles["error_map"].__dict__["_mapped"] = None
        seen += [
            np.flatnonzero((rows == row).all((1, 2, 3))).item()
            for row in features["error_map"].numpy()
        ]
    assert sorted(seen) == list(range(40))


@pytest.mark.parametrize(
    ("free", "available", "resident", "kind", "why"),
    [
        (300, 10_000, None, "gpu", "140 bytes resident on cuda:0, 300 bytes free"),
        (200, 10_000, None, "ram", "140 bytes resident in RAM, 10 kB free"),
        (300, 10_000, True, "ram", "140 bytes resident in RAM, 10 kB free"),
        (200, 200, None, "streamed", "through a pool of 10 images, 200 bytes RAM free"),
        (300, 10_000, False, "streamed", "140 bytes streamed through a pool of 10 images"),
    ],
)
def test_the_gpu_first_then_ram_then_the_disk(monkeypatch, free, available, resident, kind, why):
    class Memory:
        pass

    memory = Memory()
    memory.available = available
    monkeypatch.setattr(residence.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10_000))
    found = choose_residence(
        row_nbytes=14, n_rows=10, device=torch.device("cuda:0"), resident=resident
    )
    assert found.kind == kind
    assert why in str(found)
    assert found.pinned == (kind != "gpu")
