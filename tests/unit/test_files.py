"""Files that appear whole or not at all."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clare_cache import files
from clare_cache.files import (
    flush,
    member_names,
    read_bytes_at,
    read_json,
    read_parquet,
    split_member,
    sweep,
    write_json,
    write_text,
    write_whole,
)


class Crash(Exception):
    """Stands for whatever stops a process."""


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def stop_halfway(partial):
        partial.write_text('{"new"')
        raise Crash

    with pytest.raises(Crash):
        write_whole(path, stop_halfway)
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_writer_gets_another_name_of_the_same_suffix_in_the_same_folder(tmp_path):
    path, given = tmp_path / "new" / "table.parquet", []

    def write(partial):
        given.append(partial)
        partial.write_bytes(b"x")
        assert not path.exists()

    write_whole(path, write)
    write_whole(path, lambda partial: given.append(partial) or partial.write_bytes(b"y"))
    assert path.read_bytes() == b"y"
    assert given[0] != given[1]
    for partial in given:
        assert partial.parent == path.parent
        assert partial.name.startswith(".")
        assert partial.suffix == ".parquet"


def test_a_partial_that_was_swept_away_is_written_again(tmp_path):
    path, given = tmp_path / "a.txt", []

    def write(partial):
        given.append(partial)
        partial.write_bytes(b"x")
        if len(given) < 3:
            sweep(tmp_path)

    write_whole(path, write, durable=True)
    assert (path.read_bytes(), len(given)) == (b"x", 3)

    with pytest.raises(FileNotFoundError):
        write_whole(path, lambda partial: None)


def test_a_sweep_takes_partial_files_and_no_other(tmp_path):
    for name in (".0.0a1b2c3d.partial.json", "zarr.0a1b.partial", ".a.partial.parquet"):
        (tmp_path / name).write_bytes(b"torn")
    kept = [tmp_path / name for name in ("0.json", ".hidden", "partial.json", "impartial.txt")]
    for path in kept:
        path.write_bytes(b"whole")
    sweep(tmp_path)
    sweep(tmp_path / "absent")
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_durable_flushes_the_data_before_the_rename_and_the_folder_after(tmp_path, monkeypatch):
    path, events = tmp_path / "a.txt", []

    def record(flushed):
        events.append("data" if flushed.parent == tmp_path else flushed)
        assert path.exists() == (flushed == tmp_path)
        flush(flushed)

    monkeypatch.setattr(files, "flush", record)
    write_text(path, "x", durable=True)
    assert events == ["data", tmp_path]


def test_without_durable_nothing_is_flushed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "flush", lambda path: pytest.fail("flushed"))
    write_text(tmp_path / "a.txt", "x")


def test_text_is_utf_8_whatever_the_machine(tmp_path):
    write_text(tmp_path / "a.txt", "4×32×32 …\n")
    assert (tmp_path / "a.txt").read_bytes() == "4×32×32 …\n".encode()


def test_json_round_trips_and_ends_with_a_line_break(tmp_path):
    value = {"name": "Bücher", "rows": [[0, 3]], "nothing": None}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert (tmp_path / "a.json").read_bytes().endswith(b"\n")


def test_nan_is_refused_and_the_old_file_stays(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(tmp_path / "a.json", float("nan"))
    assert json.loads((tmp_path / "a.json").read_text()) == 1


@pytest.fixture
def tar(tmp_path):
    from tests.miniatures.trees import put_tar

    put_tar(tmp_path, "a/s.tar", {"x.png": b"first", "d/y.png": b"second"})
    return tmp_path


def test_members_of_a_tar_are_read_in_place(tar):
    assert read_bytes_at(tar, "a/s.tar#x.png") == b"first"
    assert read_bytes_at(tar, "a/s.tar#d/y.png") == b"second"
    assert member_names(tar / "a/s.tar") == ["x.png", "d/y.png"]
    assert read_bytes_at(tar, "a/s.tar") == (tar / "a/s.tar").read_bytes()


def test_a_member_that_is_not_there(tar):
    with pytest.raises(FileNotFoundError):
        read_bytes_at(tar, "a/s.tar#z.png")
    with pytest.raises(FileNotFoundError):
        read_bytes_at(tar, "b.tar#x.png")
    (tar / "c.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(OSError, match="plain tar"):
        read_bytes_at(tar, "c.tar#x.png")


def test_a_tar_that_changed_is_looked_at_again(tar):
    import os

    from tests.miniatures.trees import put_tar

    assert read_bytes_at(tar, "a/s.tar#x.png") == b"first"
    put_tar(tar, "a/s.tar", {"new": b"longer than before", "x.png": b"third"})
    os.utime(tar / "a/s.tar", ns=(1, 1))
    assert read_bytes_at(tar, "a/s.tar#x.png") == b"third"


def test_each_of_many_tars_is_listed_once_in_whatever_order_images_are_read(tmp_path, monkeypatch):
    import tarfile

    from tests.miniatures.trees import put_tar

    names = [f"{number:03d}.tar" for number in range(100)]
    for name in names:
        put_tar(tmp_path, name, {"x.png": name.encode()})
    listed, plain = [], tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda *given: listed.append(given) or plain(*given))
    for _ in range(2):
        assert [read_bytes_at(tmp_path, f"{n}#x.png") for n in names] == [n.encode() for n in names]
    assert len(listed) == len(names)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.tar#b.png", ("a.tar", "b.png")),
        ("a.tar#b.tar#c", ("a.tar", "b.tar#c")),
        ("a/b#c.png", ("a/b#c.png", "")),
        ("a.tar", ("a.tar", "")),
        ("a.tar#", ("a.tar#", "")),
    ],
)
def test_where_a_tar_ends_and_its_member_begins(path, expected):
    assert split_member(path) == expected


@pytest.mark.parametrize("statistics", [True, False])
def test_rows_of_a_parquet_file_are_found_in_whatever_group_they_lie(tmp_path, statistics):
    table = pa.table({"name": [f"n{k}" for k in range(40)], "row": range(40)})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=7, write_statistics=statistics)
    for first, stop in ((0, 40), (5, 8), (6, 7), (14, 21), (30, 99), (50, 60), (3, 3)):
        with path.open("rb") as file:
            found = read_parquet(file, rows=(first, stop))
        assert found.equals(table.slice(first, max(min(stop, 40) - first, 0)))
    assert read_parquet(path, columns=["row"]).column_names == ["row"]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_parquet_is_read_in_the_calling_thread(tmp_path):
    """One of Arrow's own that still holds what Python owns aborts a process that ends."""
    pq.write_table(pa.table({"row": range(40)}), tmp_path / "a.parquet", row_group_size=7)
    script = """
import os, sys
import pyarrow.compute, pyarrow.parquet
from clare_cache.files import read_frame, read_parquet
before = os.listdir("/proc/self/task")
with open(sys.argv[1], "rb") as file:
    read_parquet(file, rows=(3, 20))
read_frame(sys.argv[1])
assert os.listdir("/proc/self/task") == before
"""
    subprocess.run([sys.executable, "-c", script, tmp_path / "a.parquet"], check=True)
