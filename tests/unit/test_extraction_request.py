"""What was asked for, kept in the store: found again by block, named by its content."""

from clare_cache.extraction.request import read_request, write_request
from clare_cache.store import open_place

PATHS = {7: ("a.png",), 300: ("b/c.png", "other/c.png"), 2: ("ü d.png",), 511: ("e.png",)}


def test_a_block_finds_its_rows_and_all_their_paths(tmp_path):
    place = open_place(tmp_path)
    name = write_request(place, PATHS)
    assert read_request(place, name, first=0, stop=256) == {2: PATHS[2], 7: PATHS[7]}
    assert read_request(place, name, first=256, stop=512) == {300: PATHS[300], 511: PATHS[511]}
    assert read_request(place, name, first=512, stop=768) == {}


def test_the_same_question_is_the_same_file(tmp_path):
    place = open_place(tmp_path)
    name = write_request(place, PATHS)
    before = (tmp_path / name).stat().st_mtime_ns
    assert write_request(place, dict(reversed(PATHS.items()))) == name
    assert (tmp_path / name).stat().st_mtime_ns == before
    assert write_request(place, PATHS | {2: ("f.png",)}) != name
    assert len(place.names("requests")) == 2
