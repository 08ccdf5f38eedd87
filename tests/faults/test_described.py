"""`store.json` fits the files that it describes at every moment, and says one thing in the end."""

import pytest

from clare_cache.store import StoreWriter, create_store, verify
from clare_cache.store.place import LocalPlace
from clare_cache.store.reader import read_description
from tests.fake_backbone import bytes_below
from tests.small_store import BLOCK_ROWS, GRID, VECTOR, entry, image_ids


class Crash(Exception):
    """Stands for whatever stops a process."""


STEPS = (
    lambda path: create_store(path, block_rows=BLOCK_ROWS),
    lambda path: StoreWriter(path).add_images(image_ids(*range(6))),
    lambda path: StoreWriter(path).declare([entry(VECTOR), entry(GRID)]),
    lambda path: StoreWriter(path).add_images(image_ids(*range(20, 30))),
    lambda path: StoreWriter(path).declare([entry(VECTOR, "flip")]),
)


def crash_at(monkeypatch, n):
    """Let the n-th write of a file, counted from 0, not happen."""
    write, done = LocalPlace.write, iter(range(n))

    def guarded(self, name, data):
        if next(done, None) is None:
            raise Crash
        write(self, name, data)

    monkeypatch.setattr(LocalPlace, "write", guarded)


@pytest.mark.parametrize("step", range(1, len(STEPS)))
@pytest.mark.parametrize("n", range(7))
def test_a_description_fits_at_every_moment_and_is_settled_by_the_next_run(
    tmp_path, monkeypatch, step, n
):
    for act in STEPS:
        act(tmp_path / "whole")
    for act in STEPS[:step]:
        act(tmp_path / "torn")
    with monkeypatch.context() as patch:
        crash_at(patch, n)
        try:
            STEPS[step](tmp_path / "torn")
        except Crash:
            kinds = {fault.kind for fault in verify(tmp_path / "torn")}
            assert kinds <= {"orphan file"}
    for act in STEPS[step:]:
        act(tmp_path / "torn")
    assert bytes_below(tmp_path / "torn") == bytes_below(tmp_path / "whole")
    checksums = read_description(LocalPlace(tmp_path / "torn")).checksums
    assert {len(found) for found in checksums.values()} == {1}
    assert verify(tmp_path / "torn") == []
