"""Ctrl-C, crashes and kills in the middle of stage one: the next call ends where one would have."""

import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from clare_cache import files
from clare_cache.extraction import InProcess, extract_features
from clare_cache.store import open_store, verify
from clare_cache.store import writer as store_writer
from clare_cache.store.place import LocalPlace
from tests.fake_backbone import FakeBackbone, bytes_below, make_image, write_images

N_IMAGES, BLOCK_ROWS, BATCH_SIZE = 10, 4, 2
N_CALLS = 5  # two batches in each full block, one in the last
FEATURES = ["mean", "grid"]


@pytest.fixture
def images(tmp_path):
    """Ten images, one of them absent and one with a value that is not finite."""
    images = write_images(tmp_path / "images", N_IMAGES)
    (tmp_path / "images/003.png").unlink()
    return images


POISON = {make_image(7)[0]: ["grid"]}


@pytest.fixture
def extract(tmp_path, images):
    def extract(name, **options):
        backbone = options.pop("backbone", None) or FakeBackbone(poison=POISON)
        return extract_features(
            tmp_path / name,
            images,
            root=tmp_path / "images",
            backbones=[backbone],
            features=FEATURES,
            batch_size=BATCH_SIZE,
            block_rows=BLOCK_ROWS,
            **options,
        )

    return extract


def assert_same_store(one, other):
    """Equal to the byte in everything but the dates and timings of commit records."""
    for folder in ("features.zarr", "ledger"):
        assert bytes_below(one / folder) == bytes_below(other / folder)
    for name in ("index.parquet", "store.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    left, right = open_store(one), open_store(other)
    for key in left:
        for block, record in left[key].records.items():
            again = right[key].records[block]
            assert (record.rows, record.failed) == (again.rows, again.failed)
            assert record.checksums == again.checksums
    assert verify(right) == []


class StopAt:
    """Raises at the n-th call, counted from 0."""

    def __init__(self, n, error=KeyboardInterrupt):
        self.n, self.error = n, error

    def __call__(self, n):
        if n == self.n:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt, TypeError])
@pytest.mark.parametrize("n", range(N_CALLS))
def test_an_interrupted_backbone_costs_at_most_its_block(tmp_path, extract, n, error):
    extract("whole")
    stopped = FakeBackbone(poison=POISON, before_call=StopAt(n, error))
    with pytest.raises(error):
        extract("torn", backbone=stopped)
    found = open_store(tmp_path / "torn")
    committed = set(found["clean/mean"].records)
    assert committed == set(range(n // 2))
    assert verify(found) == []

    resumed = FakeBackbone(poison=POISON)
    report = extract("torn", backbone=resumed)
    rows = found.rows_of(resumed.images_seen)
    assert set(rows // BLOCK_ROWS) == {0, 1, 2} - committed
    assert report.n_settled_before == BLOCK_ROWS * len(committed)
    assert_same_store(tmp_path / "whole", tmp_path / "torn")


class Interrupted(InProcess):
    """Does `n` blocks, then behaves like a user's Ctrl-C."""

    def __init__(self, n):
        self.n = n

    def run(self, work, blocks, *, on_images):
        yield from super().run(work, blocks[: self.n], on_images=on_images)
        raise KeyboardInterrupt


@pytest.mark.parametrize("n", [0, 2, 3])
def test_an_interrupted_executor_keeps_the_blocks_that_were_done(tmp_path, extract, n):
    extract("whole")
    with pytest.raises(KeyboardInterrupt):
        extract("torn", executor=Interrupted(n))
    assert len(open_store(tmp_path / "torn")["clean/grid"].records) == n
    extract("torn")
    assert_same_store(tmp_path / "whole", tmp_path / "torn")


def test_interrupts_one_after_the_other_add_up(tmp_path, extract):
    extract("whole")
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            extract("torn", executor=Interrupted(1))
    backbone = FakeBackbone(poison=POISON)
    extract("torn", backbone=backbone)
    assert backbone.seen == []
    assert_same_store(tmp_path / "whole", tmp_path / "torn")


@pytest.mark.parametrize(
    ("where", "name", "stride"), [(files, "flush", 7), (LocalPlace, "write", 3)]
)
def test_a_stop_at_any_step_of_writing_is_made_good(
    tmp_path, extract, where, name, stride, monkeypatch
):
    extract("whole")
    step = getattr(where, name)
    for n in range(0, 200, stride):
        steps = iter(range(n))

        def stopping(*args, steps=steps, **kwargs):
            if next(steps, None) is None:
                raise KeyboardInterrupt
            return step(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(where, name, stopping)
            try:
                extract(f"torn-{n}")
            except KeyboardInterrupt:
                pass
            else:
                break
        extract(f"torn-{n}")
        assert_same_store(tmp_path / "whole", tmp_path / f"torn-{n}")
    assert n >= 5 * stride


def test_between_two_arrays_of_a_block_the_first_one_stays(tmp_path, extract, monkeypatch):
    write_block = store_writer.StoreWriter.write_block

    def stop_at_grid(self, data, *, versions):
        if (data.array, data.block) == ("grid", 1):
            raise KeyboardInterrupt
        return write_block(self, data, versions=versions)

    with monkeypatch.context() as patch:
        patch.setattr(store_writer.StoreWriter, "write_block", stop_at_grid)
        with pytest.raises(KeyboardInterrupt):
            extract("torn")
    found = open_store(tmp_path / "torn")
    assert (len(found["clean/mean"].records), len(found["clean/grid"].records)) == (2, 1)

    extract("whole")
    backbone = FakeBackbone(poison=POISON)
    extract("torn", backbone=backbone)
    wanted = dict(zip(backbone.wanted, backbone.seen, strict=True))
    assert wanted.keys() == {("grid",), ("mean", "grid")}
    assert_same_store(tmp_path / "whole", tmp_path / "torn")


KILLED = """
    import os, signal, sys
    from clare_cache import files
    from clare_cache.extraction import extract_features
    from tests.fake_backbone import FakeBackbone

    flush = files.flush

    def kill_inside_the_second_record(path):
        if "commits" in path.parts and path.name.startswith(".1."):
            os.kill(os.getpid(), signal.SIGKILL)
        flush(path)

    files.flush = kill_inside_the_second_record
    root, store, *names = sys.argv[1:]
    images = dict((name.split("=")[0], (name.split("=")[1],)) for name in names)
    extract_features(store, images, root=root, backbones=[FakeBackbone()], features=["mean"],
                     batch_size=2, block_rows=4)
"""


def test_a_killed_process_leaves_a_store_that_goes_on(tmp_path):
    images = write_images(tmp_path / "images", 10)
    names = [f"{image_id}={path}" for image_id, (path,) in images.items()]
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(KILLED),
            str(tmp_path / "images"),
            str(tmp_path / "torn"),
            *names,
        ],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert list((tmp_path / "torn/commits").rglob(".1.*.partial.json"))
    found = open_store(tmp_path / "torn")
    assert list(found["clean/mean"].records) == [0]

    resumed = FakeBackbone()
    for name, backbone in (("torn", resumed), ("whole", FakeBackbone())):
        extract_features(
            tmp_path / name,
            images,
            root=tmp_path / "images",
            backbones=[backbone],
            features=["mean"],
            batch_size=2,
            block_rows=4,
        )
    assert np.unique(found.rows_of(resumed.images_seen)).tolist() == [4, 5, 6, 7, 8, 9]
    assert_same_store(tmp_path / "whole", tmp_path / "torn")
