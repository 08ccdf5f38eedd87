"""Other releases of the libraries warn once, and never stop anything."""

import warnings
from dataclasses import replace

import pytest

from clare_cache.errors import StoreError, VersionWarning
from clare_cache.extraction import extract_features
from clare_cache.extraction.versions import present_versions, version_differences
from clare_cache.store import open_store
from clare_cache.store.seal import sealed, unseal
from tests.fake_backbone import FakeBackbone, write_images


def extract(folder, images):
    return extract_features(
        folder / "store",
        images,
        root=folder,
        backbones=[FakeBackbone()],
        features=["mean"],
        block_rows=4,
    )


def pretend(store, **versions):
    for path in (store / "commits/clean/mean").iterdir():
        value = unseal(path.read_bytes())
        path.write_bytes(sealed({**value, "versions": value["versions"] | versions}))


def test_the_same_releases_say_nothing(tmp_path):
    images = write_images(tmp_path, 6)
    extract(tmp_path, images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extract(tmp_path, images)


def test_other_releases_warn_once_and_the_images_are_made(tmp_path):
    images = write_images(tmp_path, 10)
    extract(tmp_path, dict(list(images.items())[:8]))
    pretend(tmp_path / "store", torch="2.0.0", numpy="1.0")
    with pytest.warns(VersionWarning) as caught:
        report = extract(tmp_path, images)
    assert report.n_decoded == 2
    here = present_versions()["torch"]
    assert [str(one.message) for one in caught] == [
        f"store {tmp_path}/store: made with torch 2.0.0, here is {here}. Features may differ in "
        "their last digits; `clare-cache store verify --sample 8` measures it."
    ]


def test_a_store_of_several_releases_is_told_with_all_of_them(tmp_path):
    extract(tmp_path, write_images(tmp_path, 4))
    (record,) = open_store(tmp_path / "store")["clean/mean"].records.values()
    other = replace(record, versions={**record.versions, "pillow": "9.9"})
    here = record.versions["pillow"]
    assert version_differences([record, other]) == [f"made with pillow {here}, 9.9, here is {here}"]
    assert version_differences([replace(record, versions={"gone": "1"})]) == [
        "made with gone 1, here is none"
    ]


@pytest.mark.filterwarnings("default")
def test_the_command_line_says_it_in_a_line(command, tmp_path, monkeypatch):
    def warn(place):
        warnings.warn("made with torch 2.0.0", VersionWarning, stacklevel=1)
        raise StoreError("enough")

    monkeypatch.setattr("clare_cache.store.open_store", warn)
    before = warnings.showwarning
    done = command("store", "status", "store", folder=tmp_path)
    assert done.err == "warning: made with torch 2.0.0\nerror: enough\n"
    assert warnings.showwarning is before
