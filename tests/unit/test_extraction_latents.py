"""Error maps of later timesteps from stored latents: the images need not be there any more."""

import shutil

import numpy as np
import pytest

from clare_cache.errors import ExtractError, StoreMismatch
from clare_cache.extraction import extract_features
from clare_cache.store import open_store
from clare_cache.types import ArraySpec, Failure
from tests.fake_backbone import make_image, write_images

LATENT = ArraySpec("vae_latent", (2, 2), ("row", "column"), "float16", "four pixels")
MAP = ArraySpec("error_map-t9", (2, 2), ("row", "column"), "float32", "three times the latent")


class FakeVae:
    """Pictures → four of their pixels."""

    name, source, arrays, largest_batch = "error_map", "fake weights", (LATENT,), 0

    def __init__(self, seed=0) -> None:
        self.seed = seed

    def declared(self, array):
        return {"quantity": array, "seed": self.seed}

    def preprocess(self, pixels):
        return pixels[:2, :2]

    def upload(self, batch):
        return batch

    def take_seconds(self):
        return {}

    def __call__(self, batch, image_ids, wanted):
        return {"vae_latent": batch[..., 0].astype(np.float16)}


class FakeUnet(FakeVae):
    """Latents → three times as much. Pictures have no business here."""

    arrays = (MAP, LATENT)

    def preprocess(self, pixels):
        raise AssertionError("a picture was shown")

    def __call__(self, batch, image_ids, wanted):
        assert batch.dtype == np.float16
        assert wanted == (MAP.name,)
        return {MAP.name: batch.astype(np.float32) * 3}


def extract(store, images, root, backbone, **options):
    options = {"block_rows": 4, "batch_size": 3} | options
    features = [backbone.arrays[0].name]
    return extract_features(
        store, images, root=root, backbones=[backbone], features=features, **options
    )


def again(store, images, root, **options):
    return extract(store, images, root, FakeUnet(), from_latents=True, **options)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "images"


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def test_maps_are_made_of_every_view_without_the_images(store, root):
    images, views = write_images(root, 10), ("clean", "flip")
    extract(store, images, root, FakeVae(), views=views)
    shutil.rmtree(root)
    report = again(store, images, root, views=views)
    assert (report.n_decoded, report.n_failed) == (10, 0)
    found = open_store(store)
    for view in views:
        latents = found[f"{view}/vae_latent"].by_image_id(list(images))
        maps = found[f"{view}/error_map-t9"].by_image_id(list(images))
        np.testing.assert_array_equal(maps, latents.astype(np.float32) * 3)
    assert not np.array_equal(found["clean/error_map-t9"][:], found["flip/error_map-t9"][:])
    assert again(store, images, root, views=views).n_decoded == 0


def test_an_image_without_a_latent_keeps_its_reason(store, root):
    images = write_images(root, 6)
    (root / "002.png").unlink()
    extract(store, images, root, FakeVae())
    report = again(store, images, root)
    assert (report.n_decoded, report.n_failed) == (6, 1)
    (line,) = open_store(store).ledger("clean", ["error_map-t9"])
    assert Failure(line.image_id, line.path, line.stage, line.reason) == Failure(
        make_image(2)[0], "002.png", "read", "No such file or directory"
    )


def test_latents_that_are_not_there_stop_the_run(store, root):
    extract(store, write_images(root, 6), root, FakeVae())
    with pytest.raises(ExtractError) as caught:
        again(store, write_images(root, 9), root)
    assert str(caught.value) == (
        f"store {store}: --from-latents needs clean/vae_latent for 9 images, 3 have none. "
        "Extract vae_latent for them first, from the images."
    )


def test_latents_made_otherwise_stop_the_run(store, root):
    images = write_images(root, 2)
    extract(store, images, root, FakeVae(seed=1))
    with pytest.raises(StoreMismatch) as caught:
        again(store, images, root)
    assert str(caught.value) == (
        f"store {store}: --from-latents needs other latents than it holds\n"
        "  - clean/vae_latent: seed: asked 0, found 1\n"
        "Ask for what they were made with, or extract from the images."
    )
