"""Looking after stores on the command line, with the loading code of real networks: in a folder
and in a bucket.
"""

import json

import pytest

from clare_cache.manifest import Manifest
from clare_cache.store import open_place, open_store

EXTRACT = ("--sd", "tiny", "--clip", "tiny", "--features", "error_map,clip_embedding")
EXTRACT += ("--ensemble", "1", "--device", "cpu", "--block-rows", "16", "--views", "clean,flip")


@pytest.fixture(params=["folder", "bucket"])
def where(request, tmp_path):
    """What the names of stores begin with."""
    return "" if request.param == "folder" else f"{request.getfixturevalue('bucket')}/"


def test_stores_are_joined_mended_compared_and_pruned(command, demo, where, tmp_path):
    rows = Manifest.read(demo.manifest).rows
    for name, part in (("a", rows[:20]), ("b", rows[15:32])):
        Manifest.from_rows(part).write(tmp_path / f"{name}.csv")
        done = command(
            "extract",
            f"{name}.csv",
            f"{where}{name}",
            "--root",
            str(demo.images),
            *EXTRACT,
            folder=tmp_path,
        )
        assert done.status == 0

    out = f"{where}out"
    done = command("store", "merge", out, f"{where}b", f"{where}a", folder=tmp_path)
    assert done.status == 0
    assert " of 32 images, 0 in the ledger; 8 of 8 blocks written now" in done.out
    done = command("store", "diff", out, f"{where}a", folder=tmp_path)
    assert (done.status, done.out) == (0, f"{out}: fits\n")
    done = command("store", "diff", f"{where}a", out, folder=tmp_path)
    assert done.status == 1
    assert "clean/error_map lacks 12 of 32 images, the first is " in done.out

    place = open_place(out if where else tmp_path / "out")
    before = {name: place.read(name) for name in place.names()}
    damaged = (
        "features.zarr/flip/error_map/c/0/0/0/0",
        "features.zarr/clean/clip_embedding/c/1/0",
        "store.json",
    )
    for name in damaged:
        place.write(name, before[name][:-3])
    assert command("store", "verify", out, folder=tmp_path).status == 1
    repair = ("store", "repair", out, "--root", str(demo.images), "--device", "cpu")
    done = command(*repair, "--dry-run", folder=tmp_path)
    assert done.status == 1
    assert "would mend damaged store description: store.json" in done.out
    done = command(*repair, folder=tmp_path)
    assert (done.status, done.out) == (
        0,
        f"{out}: 3 faults found, 0 left, 32 images looked at again\n",
    )
    assert {name: place.read(name) for name in place.names()} == before

    sample = ("--sample", "3", "--root", str(demo.images), "--device", "cpu", "--json")
    done = command("store", "verify", out, *sample, folder=tmp_path)
    assert done.status == 0
    told = json.loads(done.out)
    assert told["faults"] == []
    assert {one["key"]: one["n_rows"] for one in told["sample"]} == {
        "clean/clip_embedding": 3,
        "clean/error_map": 3,
        "flip/clip_embedding": 3,
        "flip/error_map": 3,
    }
    assert all(one["is_within"] for one in told["sample"])
    elsewhere = ("--sample", "1", "--root", "nowhere", "--device", "cpu")
    done = command("store", "verify", out, *elsewhere, folder=tmp_path)
    assert done.status == 1
    assert "clean/error_map: no image could be made again. Correct --root.\n" in done.out

    done = command("store", "export", out, "vectors", "--manifest", "a.csv", folder=tmp_path)
    assert done.status == 0
    done = command("store", "prune", out, "--view", "flip", "--yes", folder=tmp_path)
    assert done.status == 0
    assert open_store(place).views == ["clean"]
    assert not [name for name in place.names() if "/flip/" in name]
    assert command("store", "verify", out, folder=tmp_path).out == f"{out}: 0 faults\n"
