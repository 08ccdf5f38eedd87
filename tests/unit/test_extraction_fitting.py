"""Batches that adapt to memory: halved, redone, told; and tried out beforehand."""

import numpy as np
import pytest

from clare_cache.errors import ExtractError
from clare_cache.extraction import extract_features
from clare_cache.extraction.fitting import choose_batch_size, look_at
from tests.fake_backbone import FakeBackbone, bytes_below, make_image, write_images


class Small(FakeBackbone):
    """Has room for `room` pictures at once; `tried` are the sizes it was asked for."""

    def __init__(self, room: int, **options) -> None:
        super().__init__(**options)
        self.room, self.tried = room, []

    def __call__(self, batch, image_ids, wanted):
        self.tried.append(len(batch))
        if len(batch) > self.room:
            raise MemoryError("CUDA out of memory")
        return super().__call__(batch, image_ids, wanted)


def test_a_batch_is_halved_redone_and_stays_small():
    backbone, notes = Small(room=3), []
    pictures = np.arange(10 * 8 * 8 * 3, dtype=np.uint8).reshape(10, 8, 8, 3)
    ids = [make_image(n)[0] for n in range(10)]
    found = look_at(backbone, pictures, ids, ["mean", "code"], notes=notes)
    expected = FakeBackbone()(pictures, ids, ["mean", "code"])
    assert found.keys() == expected.keys()
    for array, values in expected.items():
        np.testing.assert_array_equal(found[array], values)
    assert backbone.tried == [10, 5, 3, 3, 3, 1]
    look_at(backbone, pictures[:4], ids[:4], ["mean"], notes=notes)
    assert backbone.tried[6:] == [3, 1]
    assert notes == [
        "fake: 10 images at once do not fit into memory, 5 from now on",
        "fake: 5 images at once do not fit into memory, 3 from now on",
    ]


def test_one_picture_that_does_not_fit_ends_the_run(tmp_path):
    images = write_images(tmp_path / "images", 3)
    with pytest.raises(ExtractError) as caught:
        extract_features(
            tmp_path / "store",
            images,
            root=tmp_path / "images",
            backbones=[Small(room=0)],
            features=["mean"],
        )
    assert str(caught.value) == (
        "extract: fake does not fit into memory, not even for one image. "
        "Free the device's memory, choose half precision with --dtype, or --device cpu."
    )


def test_a_run_that_ran_out_of_memory_gives_the_same_store_and_says_so(tmp_path):
    images = write_images(tmp_path / "images", 9)
    reports = {}
    for name, backbone in (("plain", FakeBackbone()), ("small", Small(room=2))):
        reports[name] = extract_features(
            tmp_path / name,
            images,
            root=tmp_path / "images",
            backbones=[backbone],
            features=["mean", "grid"],
            block_rows=4,
            batch_size=4,
        )
    assert reports["plain"].notes == ()
    assert reports["small"].notes == (
        "fake: 4 images at once do not fit into memory, 2 from now on",
    )
    assert backbone.tried == [4, 2, 2, 2, 2, 1]
    folder = "features.zarr"
    assert bytes_below(tmp_path / "plain" / folder) == bytes_below(tmp_path / "small" / folder)


@pytest.mark.parametrize(("room", "largest", "expected"), [(40, 256, 32), (999, 64, 64)])
def test_a_batch_grows_while_it_fits(monkeypatch, room, largest, expected):
    # Each picture costs less the more there are: always worthwhile.
    clock = iter(np.arange(1000.0))
    monkeypatch.setattr("clare_cache.extraction.fitting.time.perf_counter", lambda: next(clock))
    backbone = Small(room=room)
    backbone.largest_batch = largest
    assert choose_batch_size([backbone], ["mean"]) == expected


def test_a_batch_that_brings_nothing_is_not_taken(monkeypatch):
    clock = iter([0, 1, 1, 2, 2, 4, 4, 6])
    monkeypatch.setattr("clare_cache.extraction.fitting.time.perf_counter", lambda: next(clock))
    backbone = Small(room=999)
    backbone.largest_batch = 256
    assert choose_batch_size([backbone], ["mean"]) == 16
    assert backbone.tried == [16, 16, 32, 32]


def test_nothing_is_tried_where_batches_bring_nothing(tmp_path):
    backbone = Small(room=999)
    extract_features(
        tmp_path / "store",
        write_images(tmp_path / "images", 3),
        root=tmp_path / "images",
        backbones=[backbone],
        features=["mean"],
        batch_size="auto",
    )
    assert backbone.tried == [3]
