"""Images made again: equal on a sound store, and what differs is told with its size."""

import pytest

from clare_cache.errors import StoreError
from clare_cache.extraction import extract_features
from clare_cache.store import open_store
from clare_cache.workflow.sample import compare_sample
from tests.fake_backbone import FakeBackbone, make_image, write_images


@pytest.fixture
def root(tmp_path):
    return tmp_path / "images"


@pytest.fixture
def store(tmp_path, root):
    images = write_images(root, 10)
    extract_features(
        tmp_path / "store",
        images,
        root=root,
        backbones=[FakeBackbone(poison={make_image(1)[0]: ["grid"]})],
        features=["mean", "grid"],
        views=["clean", "flip"],
        block_rows=4,
    )
    return open_store(tmp_path / "store")


class Off(FakeBackbone):
    """Declares what the other does, and makes something else by one part in a hundred."""

    def row(self, array, pixels, image_id):
        return super().row(array, pixels, image_id) * 1.01


def compare(store, n, backbone=None, **options):
    return compare_sample(
        store, n, load_backbones=lambda e: [backbone or FakeBackbone()], **options
    )


def test_a_sound_store_is_made_again_exactly(store, root):
    backbone, seen = FakeBackbone(), []
    found = compare(store, 4, backbone, root=root, on_progress=seen.append)
    assert {one.key for one in found} == {"clean/mean", "clean/grid", "flip/mean", "flip/grid"}
    assert all(one.is_within and one.largest_error == 0 for one in found)
    assert {one.n_rows for one in found if one.key.endswith("mean")} == {4}
    assert len(set(backbone.images_seen)) == 4
    assert (seen[-1].what, seen[-1].done, seen[-1].total) == ("compare", 4, 4)


def test_what_differs_is_told_with_its_size(store, root):
    found = {one.key: one for one in compare(store, 100, Off(), root=root)}
    assert found["clean/mean"].largest_error == pytest.approx(0.01, rel=1e-3)
    assert found["clean/mean"].tolerance == 1e-3
    assert not found["clean/mean"].is_within
    assert found["clean/grid"].tolerance == 1e-2  # stored in half precision
    assert found["clean/mean"].n_rows == 10
    assert found["clean/grid"].n_rows == 9  # the tenth is in the ledger
    assert compare(store, 3, Off(), root=root, tolerance=0.02)[0].is_within


def test_an_image_that_is_gone_is_told(store, root):
    for path in root.iterdir():
        path.unlink()
    (one, *_) = compare(store, 2, root=root)
    assert (one.n_rows, one.is_within) == (0, False)
    assert all(reason.endswith("read: No such file or directory") for reason in one.reasons)


def test_a_store_without_requests_needs_a_manifest(store, root):
    for path in (store.place.root / "requests").iterdir():
        path.unlink()
    with pytest.raises(StoreError) as caught:
        compare(store, 2, root=root)
    assert str(caught.value) == (
        f"store {store.place}: to make images again, expected rows whose images a request or "
        "manifest names, found none. Name the manifest with --manifest."
    )
