"""One block of images: decoded once, shown to every backbone, kept or put into the ledger."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from clare_cache.errors import ImageError
from clare_cache.extraction.block import Extracted, extract_block
from clare_cache.extraction.decoding import Item, Pictures, load_pixels
from clare_cache.images import decode
from clare_cache.types import Failure
from tests.fake_backbone import CODE, GRID, MEAN, FakeBackbone, make_image, write_images


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def items(tmp_path):
    """Six images; rows count from 10."""
    images = write_images(tmp_path, 6)
    return [Item(10 + n, image_id, paths) for n, (image_id, paths) in enumerate(images.items())]


def run(items, missing, backbones, root, pool, **options):
    """The clean view alone, by array name."""
    options = {"batch_size": 4} | options
    missing = {f"clean/{array}": rows for array, rows in missing.items()}
    found = extract_block(
        items, missing, backbones=backbones, look=Pictures(root), pool=pool, **options
    )
    return Extracted(
        values={key.removeprefix("clean/"): v for key, v in found.values.items()},
        failures={key.removeprefix("clean/"): v for key, v in found.failures.items()},
        n_decoded=found.n_decoded,
        seconds=found.seconds,
    )


def all_rows(items, *arrays):
    return {array: {item.row for item in items} for array in arrays}


def test_every_array_holds_what_the_backbone_makes_of_the_decoded_file(tmp_path, items, pool):
    backbone = FakeBackbone()
    found = run(items, all_rows(items, "mean", "grid", "code"), [backbone], tmp_path, pool)
    assert found.n_decoded == 6
    assert found.failures == {"mean": {}, "grid": {}, "code": {}}
    assert [len(call) for call in backbone.seen] == [4, 2]
    for item in items:
        picture = backbone.preprocess(decode((tmp_path / item.paths[0]).read_bytes()))
        for spec in (MEAN, GRID, CODE):
            value = found.values[spec.name][item.row]
            assert value.dtype == np.dtype(spec.dtype)
            assert np.array_equal(value, backbone.row(spec.name, picture, item.image_id))


def test_one_decode_feeds_every_backbone(tmp_path, items, pool, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        "clare_cache.extraction.decoding.decode", lambda data: decoded.append(data) or decode(data)
    )
    one, other = FakeBackbone(arrays=[MEAN]), FakeBackbone(name="other", arrays=[GRID, CODE])
    found = run(items, all_rows(items, "mean", "grid"), [one, other], tmp_path, pool)
    assert len(decoded) == found.n_decoded == 6
    assert one.images_seen == other.images_seen == [item.image_id for item in items]
    assert set(other.wanted) == {("grid",)}
    assert found.seconds.keys() == {"decode", "counting", "other"}
    assert all(value >= 0 for value in found.seconds.values())


def test_a_backbone_without_missing_arrays_is_not_run(tmp_path, items, pool):
    idle = FakeBackbone(name="idle", arrays=[GRID])
    found = run(items, all_rows(items, "mean"), [idle, FakeBackbone(arrays=[MEAN])], tmp_path, pool)
    assert idle.seen == []
    assert idle.most_waiting == idle._n_waiting == 0
    assert found.values.keys() == {"mean"}


def test_rows_that_are_not_missing_are_not_given(tmp_path, items, pool):
    missing = {"mean": {10, 11}, "grid": {11, 12}}
    found = run(items[:3], missing, [FakeBackbone()], tmp_path, pool)
    assert {array: set(rows) for array, rows in found.values.items()} == missing


@pytest.mark.parametrize(
    ("spoil", "stage", "reason"),
    [
        (lambda path: path.unlink(), "read", "No such file or directory"),
        (lambda path: (path.unlink(), path.mkdir()), "read", "Is a directory"),
        (
            lambda path: path.write_bytes(make_image(77)[1]),
            "read",
            "the file is no longer the one in the manifest: its SHA-256 differs from image_id. "
            "Build the manifest again",
        ),
    ],
)
def test_a_file_that_cannot_be_used_fails_in_every_missing_array(
    tmp_path, items, pool, spoil, stage, reason
):
    spoil(tmp_path / items[1].paths[0])
    missing = {"mean": {10, 11}, "grid": {10}, "code": {11, 12}}
    backbone = FakeBackbone()
    found = run(items[:3], missing, [backbone], tmp_path, pool)
    failure = Failure(items[1].image_id, "001.png", stage, reason)
    assert found.failures == {"mean": {11: failure}, "grid": {}, "code": {11: failure}}
    assert {array: set(rows) for array, rows in found.values.items()} == {
        "mean": {10},
        "grid": {10},
        "code": {12},
    }
    assert found.n_decoded == 2
    assert items[1].image_id not in backbone.images_seen


def test_bytes_that_are_no_picture_fail_at_decode(tmp_path, pool):
    data = make_image(1)[1][:60]
    (tmp_path / "cut.png").write_bytes(data)
    item = Item(0, hashlib.sha256(data).hexdigest(), ("cut.png",))
    found = run([item], {"mean": {0}}, [FakeBackbone()], tmp_path, pool)
    failure = found.failures["mean"][0]
    assert (failure.stage, failure.path) == ("decode", "cut.png")
    assert failure.reason.startswith("damaged or truncated")
    assert found.n_decoded == 0


def test_a_batch_of_bad_images_alone_shows_nothing_to_the_backbone(tmp_path, items, pool):
    for item in items[:4]:
        (tmp_path / item.paths[0]).unlink()
    backbone = FakeBackbone()
    found = run(items, all_rows(items, "mean"), [backbone], tmp_path, pool)
    assert backbone.images_seen == [item.image_id for item in items[4:]]
    assert set(found.failures["mean"]) == {10, 11, 12, 13}


def test_values_that_are_not_finite_fail_in_that_array_alone(tmp_path, items, pool):
    backbone = FakeBackbone(poison={items[2].image_id: ["grid"]})
    found = run(items, all_rows(items, "mean", "grid"), [backbone], tmp_path, pool)
    assert found.failures == {
        "mean": {},
        "grid": {
            12: Failure(items[2].image_id, "002.png", "grid", "1 of 32 values are not finite")
        },
    }
    assert set(found.values["grid"]) == {10, 11, 13, 14, 15}
    assert set(found.values["mean"]) == {10, 11, 12, 13, 14, 15}
    assert found.n_decoded == 6


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_at_most_two_batches_of_pictures_wait(tmp_path, batch_size, workers):
    images = write_images(tmp_path, 12)
    items = [Item(n, image_id, paths) for n, (image_id, paths) in enumerate(images.items())]
    backbone, counted = FakeBackbone(), []
    with ThreadPoolExecutor(workers) as pool:
        found = run(
            items,
            all_rows(items, "mean"),
            [backbone],
            tmp_path,
            pool,
            batch_size=batch_size,
            on_images=counted.append,
        )
    assert backbone.images_seen == [item.image_id for item in items]
    assert backbone.most_waiting <= 2 * batch_size
    assert sum(counted) == found.n_decoded == 12
    assert len(counted) == len(backbone.seen) == -(-12 // batch_size)


def test_no_items_give_nothing(tmp_path, pool):
    found = run([], {"mean": set()}, [FakeBackbone()], tmp_path, pool)
    assert (found.values, found.failures, found.n_decoded) == ({"mean": {}}, {"mean": {}}, 0)


# Where the bytes may lie


def test_the_first_path_that_has_the_image_is_taken(tmp_path):
    image_id, data = make_image(1)
    (tmp_path / "changed.png").write_bytes(make_image(2)[1])
    (tmp_path / "copy.png").write_bytes(data)
    item = Item(0, image_id, ("absent.png", "changed.png", "copy.png"))
    assert np.array_equal(load_pixels(item, tmp_path), decode(data))


def test_without_any_the_first_path_s_problem_is_told(tmp_path):
    (tmp_path / "changed.png").write_bytes(make_image(2)[1])
    with pytest.raises(ImageError) as caught:
        load_pixels(Item(0, make_image(1)[0], ("absent.png", "changed.png")), tmp_path)
    assert str(caught.value) == "read: No such file or directory"
