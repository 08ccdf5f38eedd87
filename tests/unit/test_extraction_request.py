"""What was asked for, kept in the store: found again by block, named by its content."""

import numpy as np
import pytest

from clare_cache.errors import StoreError
from clare_cache.extraction import extract_features
from clare_cache.extraction.request import read_request, write_request
from clare_cache.extraction.status import read_status
from clare_cache.store import open_place, open_store, verify
from tests.fake_backbone import FakeBackbone, write_images

PATHS = {2: ("ü d.png",), 7: ("a.png",), 300: ("b/c.png", "other/c.png"), 511: ("e.png",)}


def write(place, paths, **options):
    return write_request(place, np.array(list(paths)), list(paths.values()), **options)


def test_a_block_finds_its_rows_and_all_their_paths(tmp_path):
    place = open_place(tmp_path)
    name = write(place, PATHS)
    assert read_request(place, name, first=0, stop=256) == {2: PATHS[2], 7: PATHS[7]}
    assert read_request(place, name, first=256, stop=512) == {300: PATHS[300], 511: PATHS[511]}
    assert read_request(place, name, first=512, stop=768) == {}


def test_the_same_question_is_the_same_file(tmp_path):
    place = open_place(tmp_path)
    name = write(place, PATHS)
    before = (tmp_path / name).stat().st_mtime_ns
    assert write(place, dict(PATHS)) == name
    assert (tmp_path / name).stat().st_mtime_ns == before
    assert write(place, PATHS | {2: ("f.png",)}) != name
    assert len(place.names("requests")) == 2


def test_what_a_killed_run_left_is_cleared_away_by_one_of_the_tasks(tmp_path):
    place = open_place(tmp_path)
    left = tmp_path / "requests/.0a1b.0a1b2c3d.partial.parquet"
    left.parent.mkdir()
    left.write_bytes(b"PAR")
    write(place, PATHS, clear=False)
    assert left.exists()
    write(place, PATHS)
    assert not left.exists()


# Altered in place, as bytes on a disk are


def alter(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("position", [5, -5, -40])
def test_a_worker_refuses_an_altered_request(tmp_path, position):
    place = open_place(tmp_path)
    name = write(place, PATHS)
    alter(tmp_path / name, position)
    with pytest.raises(StoreError, match="it was altered"):
        read_request(place, name, first=0, stop=256)


def test_extract_writes_an_altered_request_anew_and_says_so(tmp_path):
    images = write_images(tmp_path / "images", 6)
    asked = {
        "root": tmp_path / "images",
        "backbones": [FakeBackbone()],
        "features": ["mean"],
        "block_rows": 2,
    }
    store = tmp_path / "store"
    assert extract_features(store, images, **asked, shard=(0, 3)).notes == ()
    (request,) = (store / "requests").iterdir()
    whole = request.read_bytes()
    alter(request, len(whole) // 2)
    with pytest.raises(StoreError) as caught:
        read_status(open_store(store))
    assert str(caught.value).startswith(
        f"store {store}: expected requests/{request.name} to be named by its content, found "
        "content of requests/"
    )
    assert str(caught.value).endswith(
        ".parquet: it was altered. Call `clare-cache extract` again as before, which writes it "
        "anew."
    )
    report = extract_features(store, images, **asked)
    assert report.notes == (f"requests/{request.name} was altered, and is written anew",)
    assert request.read_bytes() == whole
    assert verify(open_store(store)) == []
    assert [one.n_asked for one in read_status(open_store(store))] == [6]
