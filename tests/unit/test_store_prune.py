"""What is dropped goes records first, whole, and nothing else with it; also after a kill."""

import io
import json

import pytest

from clare_cache.errors import StoreError
from clare_cache.extraction import extract_features
from clare_cache.store import open_store, verify
from clare_cache.store.place import LocalPlace
from clare_cache.store.prune import plan_prune, prune
from tests.fake_backbone import FakeBackbone, bytes_below, make_image, write_images


def make(folder, features=("mean", "grid"), views=("clean", "flip", "noise-s10")):
    images = write_images(folder / "images", 6)
    extract_features(
        folder / "store",
        images,
        root=folder / "images",
        backbones=[FakeBackbone(poison={make_image(1)[0]: ["grid"]})],
        features=features,
        views=views,
        block_rows=4,
    )
    return folder / "store"


@pytest.fixture
def store(tmp_path):
    return make(tmp_path)


def test_an_array_goes_from_every_view(store):
    plan = prune(store, arrays=["grid"])
    assert plan.keys == ("clean/grid", "flip/grid", "noise-s10/grid")
    assert (plan.leftovers, plan.n_rows, plan.nbytes) == ((), 15, 15 * 64)
    assert list(open_store(store)) == ["clean/mean", "flip/mean", "noise-s10/mean"]
    assert open_store(store).ledger() == []
    assert verify(store) == []
    assert not [name for name in bytes_below(store) if "/grid/" in name]


def test_a_view_goes_whole_with_its_group(store):
    prune(store, views=["flip"])
    assert open_store(store).views == ["clean", "noise-s10"]
    assert verify(store) == []
    assert not [name for name in bytes_below(store) if "/flip/" in name]


def test_one_array_of_one_view(store):
    before = bytes_below(store)
    plan = prune(store, arrays=["grid"], views=["flip"])
    assert plan.keys == ("flip/grid",)
    after = bytes_below(store)
    assert before.keys() - after.keys() == set(plan.files)
    assert {n for n in after if after[n] != before[n]} == {"store.json"}


def test_a_plan_changes_nothing(store):
    before = bytes_below(store)
    assert plan_prune(store, views=["flip"]).keys == ("flip/grid", "flip/mean")
    assert bytes_below(store) == before


def test_what_was_dropped_can_be_made_again(store, tmp_path):
    before = bytes_below(store / "features.zarr")
    prune(store, arrays=["grid"])
    make(tmp_path)
    assert bytes_below(store / "features.zarr") == before
    assert verify(store) == []


@pytest.mark.parametrize("steps", range(0, 24, 3))
def test_killed_after_any_step_it_can_be_read_and_goes_on(store, monkeypatch, steps):
    whole = make(store.parent / "other", views=("clean", "noise-s10"))
    n_done = 0

    def stop(act):
        def guarded(*arguments):
            nonlocal n_done
            if arguments[1] != "setup.lock":
                if n_done == steps:
                    raise KeyboardInterrupt
                n_done += 1
            return act(*arguments)

        return guarded

    with monkeypatch.context() as patch:
        patch.setattr(LocalPlace, "delete", stop(LocalPlace.delete))
        patch.setattr(LocalPlace, "write", stop(LocalPlace.write))
        try:
            prune(store, views=["flip"])
        except KeyboardInterrupt:
            kinds = {fault.kind for fault in verify(store)}
            assert kinds <= {"orphan file"}
    found = open_store(store)
    if "flip/mean" in found:
        assert found["flip/mean"].present.sum() <= 6
    if any("/flip/" in name for name in bytes_below(store)):
        prune(store, views=["flip"])
    assert bytes_below(store / "features.zarr") == bytes_below(whole / "features.zarr")
    assert (store / "store.json").read_bytes() == (whole / "store.json").read_bytes()
    assert verify(store) == []


def test_names_that_are_not_there_are_told_at_once(store):
    with pytest.raises(StoreError) as caught:
        prune(store, arrays=["grid", "gird"], views=["blur"])
    assert str(caught.value) == (
        f"prune {store}: 2 faults\n"
        "  - array gird: expected one of grid, mean\n"
        "  - view blur: expected one of clean, flip, noise-s10"
    )
    with pytest.raises(StoreError) as caught:
        prune(store)
    assert str(caught.value) == (
        f"prune {store}: expected --array or --view, found neither. Name one."
    )


def test_the_command_asks_before_and_a_dry_run_only_tells(store, command, monkeypatch):
    folder = store.parent
    done = command("store", "prune", "store", "--view", "flip", "--dry-run", folder=folder)
    n_files = len(plan_prune(store, views=["flip"]).files)
    assert done.status == 0
    assert done.out == (
        f"drops flip/grid\ndrops flip/mean\nstore: 11 rows, 392 B, {n_files} files\n"
    )
    monkeypatch.setattr("sys.stdin", io.StringIO())
    done = command("store", "prune", "store", "--view", "flip", folder=folder)
    assert done.status == 1
    assert "Drop them for good?" in done.err
    assert "flip" in open_store(store).views
    done = command("store", "prune", "store", "--view", "flip", "--yes", "--json", folder=folder)
    assert done.status == 0
    assert json.loads(done.out)["keys"] == ["flip/grid", "flip/mean"]
    assert open_store(store).views == ["clean", "noise-s10"]
