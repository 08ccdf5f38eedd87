"""What was asked for, kept in the store: found again by block, named by its content."""

import numpy as np

from clare_cache.extraction.request import read_request, write_request
from clare_cache.store import open_place

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
