"""What every place must do with bytes; one class per kind of place."""

import errno
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from unittest.mock import Mock

import numpy as np
import pytest
import zarr

from clare_cache.store import open_place, sweep


class PlaceContract:
    """`place` is empty. A file's name is a path with `/`."""

    def test_what_is_written_is_read(self, place):
        for data in (b"one", b"", b"x" * 100_000):
            place.write("a/b/c", data)
            assert place.read("a/b/c") == data
            assert place.exists("a/b/c")

    def test_what_is_absent(self, place):
        assert not place.exists("a")
        assert place.names() == place.names("a") == place.children("a") == []
        place.delete("a")
        for read in (place.read, lambda name: place.open(name).read()):
            with pytest.raises(FileNotFoundError):
                read("a/b")
        place.write("a/b", b"")
        assert not place.exists("a")

    def test_names_are_listed_in_order_and_children_are_the_first_level(self, place):
        for name in ("b/2/x", "b/1", "a", "b/2/y"):
            place.write(name, b"")
        assert place.names() == ["a", "b/1", "b/2/x", "b/2/y"]
        assert place.names("b/2") == ["b/2/x", "b/2/y"]
        assert place.children() == ["a", "b"]
        assert place.children("b") == ["1", "2"]

    def test_deleting(self, place):
        place.write("a/b", b"")
        place.write("a/c", b"")
        place.delete("a/b")
        assert place.names() == ["a/c"]

    def test_a_part_is_read_without_the_rest(self, place):
        place.write("f", bytes(range(256)) * 1000)
        with place.open("f") as file:
            assert file.seek(-2, 2) == 255_998
            assert file.read() == b"\xfe\xff"
            file.seek(257)
            assert (file.read(3), file.tell()) == (b"\x01\x02\x03", 260)

    def test_one_of_many_makes_a_file(self, place):
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda n: place.make("lock", b"%d" % n), range(8)))
        assert made.count(True) == 1
        assert place.read("lock") == b"%d" % made.index(True)

    def test_one_of_many_swaps_a_file(self, place):
        place.write("lock", b"dead")
        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(lambda n: place.swap("lock", b"dead", b"%d" % n), range(8)))
        assert done.count(True) == 1
        assert place.read("lock") == b"%d" % done.index(True)
        assert not place.swap("lock", b"dead", b"late")
        assert not place.swap("absent", b"dead", b"late")

    def test_it_travels(self, place):
        place.write("a", b"x")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            assert pool.submit(place.read, "a").result() == b"x"
        assert open_place(str(place.resolve())).read("a") == b"x"
        assert open_place(place) is place

    def test_zarr_reads_and_writes_it(self, place):
        with place.speaking():
            group = zarr.open_group(place.zarr_store("z", read_only=False), mode="a")
            array = group.create_array("v/x", shape=(3, 2), chunks=(2, 2), dtype="f4")
            array[:] = np.arange(6).reshape(3, 2)
            place.flush("z/v/x/zarr.json")
            found = zarr.open_array(place.zarr_store("z", read_only=True), path="v/x", mode="r")
            assert np.array_equal(found[1:], [[2, 3], [4, 5]])
            with pytest.raises(ValueError, match="read-only"):
                found[:] = 0
        assert "z/v/x/c/0/0" in place.names()
        assert place.children() == ["z"]


class TestLocalPlace(PlaceContract):
    @pytest.fixture
    def place(self, tmp_path):
        return open_place(tmp_path / "store")

    def test_what_killed_writers_left_is_swept_and_nothing_else(self, place):
        place.write("c/0.json", b"whole")
        for name in ("c/.0.0a1b2c3d.partial.json", "c/d/.1.0a1b2c3d.partial"):
            place.make(name, b"half")
        assert place.partials("c") == ["c/.0.0a1b2c3d.partial.json"]
        sweep(place, "c")
        assert place.names() == ["c/0.json", "c/d/.1.0a1b2c3d.partial"]

    def test_a_made_file_is_whole_from_its_first_moment(self, place, monkeypatch):
        monkeypatch.setattr(os, "link", Mock(side_effect=OSError(errno.EIO, "killed here")))
        with pytest.raises(OSError, match="killed here"):
            place.make("a", b"whole")
        assert place.names() == []

    def test_one_of_many_makes_a_file_where_no_file_has_two_names(self, place, monkeypatch):
        monkeypatch.setattr(os, "link", Mock(side_effect=OSError(errno.EPERM, "no links")))
        assert place.make("a", b"1")
        assert not place.make("a", b"2")
        assert (place.read("a"), place.names()) == (b"1", ["a"])

    def test_a_file_url_is_a_folder(self, tmp_path):
        open_place(tmp_path).write("a", b"x")
        assert open_place(f"file://{tmp_path}").read("a") == b"x"


class TestObjectPlace(PlaceContract):
    @pytest.fixture
    def place(self, bucket):
        return open_place(f"{bucket}/folder/store")
