"""What every executor owes stage one. A new one inherits `ExecutorContract` in one line."""

import threading
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest

from clare_cache.errors import ExtractError
from clare_cache.extraction import (
    BlockReport,
    Executor,
    InProcess,
    OnDask,
    extract_features,
)
from clare_cache.extraction.work import ignore_images
from clare_cache.store import open_store, verify
from tests.fake_backbone import FakeBackbone, bytes_below, write_images


class Failing(Exception):
    """Stands for whatever goes wrong in a block."""


class Noting:
    """Does a block by adding a line to a file, so that other processes count too."""

    def __init__(self, folder: Path, fails: Mapping[int, type[BaseException]] = {}) -> None:
        self.folder = folder
        self.fails = fails

    def __call__(self, block, on_images=ignore_images):
        return self.commit(self.make(block, on_images))

    def make(self, block, on_images=ignore_images):
        with (self.folder / str(block)).open("a") as file:
            file.write("done\n")
        if block in self.fails:
            raise self.fails[block]
        on_images(1)
        return block

    def commit(self, block):
        return BlockReport(block=block, n_images=1, n_decoded=1, seconds={})

    def counts(self) -> dict[int, int]:
        return {int(p.name): len(p.read_text().splitlines()) for p in self.folder.iterdir()}


class ExecutorContract:
    """Not collected itself: subclasses are, by their name."""

    def make(self) -> Executor:
        raise NotImplementedError

    @pytest.mark.parametrize("n_blocks", [0, 1, 23])
    def test_every_block_is_done_exactly_once_and_reported(self, tmp_path, n_blocks):
        work = Noting(tmp_path)
        seen = []
        reports = list(self.make().run(work, range(n_blocks), on_images=seen.append))
        assert work.counts() == dict.fromkeys(range(n_blocks), 1)
        assert sorted(report.block for report in reports) == list(range(n_blocks))
        assert sum(seen) == n_blocks

    def test_an_executor_can_be_used_again(self, tmp_path):
        executor = self.make()
        for _ in range(2):
            assert len(list(executor.run(Noting(tmp_path), range(3)))) == 3

    def test_a_call_gives_the_result(self):
        assert self.make().call(divmod, 7, 2) == (3, 1)

    def test_a_mistake_of_the_user_is_not_swallowed(self, tmp_path):
        with pytest.raises(ExtractError):
            list(self.make().run(Noting(tmp_path, {1: ExtractError}), range(3)))

    def test_the_store_is_the_one_that_the_plain_loop_makes(self, tmp_path):
        images = write_images(tmp_path / "images", 9)
        (tmp_path / "images/004.png").unlink()
        for name, executor in (("plain", None), ("tested", self.make())):
            extract_features(
                tmp_path / name,
                images,
                root=tmp_path / "images",
                backbones=FakeSource(),
                features=["mean", "grid"],
                block_rows=2,
                executor=executor,
            )
        assert verify(open_store(tmp_path / "tested")) == []
        for folder in ("features.zarr", "ledger"):
            assert bytes_below(tmp_path / "plain" / folder) == bytes_below(
                tmp_path / "tested" / folder
            )


class FakeSource:
    """A `BackboneSource` that travels."""

    def load(self):
        return [FakeBackbone()]


class TestInProcess(ExecutorContract):
    def make(self):
        return InProcess()

    def test_what_a_file_system_refuses_is_tried_three_times_and_nothing_else(self, tmp_path):
        for error, n_tries in ((OSError, 3), (Failing, 1)):
            folder = tmp_path / error.__name__
            folder.mkdir()
            work = Noting(folder, {1: error})
            with pytest.raises(error):
                list(self.make().run(work, range(3)))
            assert work.counts() == {0: 1, 1: n_tries}

    def test_a_file_system_that_answers_again_stops_nothing(self, tmp_path, monkeypatch):
        work, refusals = Noting(tmp_path), [OSError(), OSError()]
        commit = work.commit

        def refused_twice(block):
            if refusals:
                raise refusals.pop()
            return commit(block)

        monkeypatch.setattr(work, "commit", refused_twice)
        assert [report.block for report in self.make().run(work, range(2))] == [0, 1]

    def test_blocks_come_in_order_and_one_is_written_while_the_next_is_made(self, tmp_path):
        work = Noting(tmp_path)
        for position, report in enumerate(self.make().run(work, range(3))):
            assert report.block == position
            assert work.counts() == dict.fromkeys(range(min(position + 2, 3)), 1)

    @pytest.mark.parametrize("error", [None, KeyboardInterrupt])
    def test_a_block_that_was_made_is_committed_whatever_comes_after(self, tmp_path, error):
        class Slow(Noting):
            def commit(self, block):
                assert threading.current_thread() is not threading.main_thread()
                committing.set()
                assert made_next.wait(20)
                committed.append(block)
                return super().commit(block)

            def make(self, block, on_images=ignore_images):
                if block == 1:
                    assert committing.wait(20)
                    made_next.set()
                return super().make(block, on_images)

        committing, made_next, committed = threading.Event(), threading.Event(), []
        work = Slow(tmp_path, {1: error} if error else {})
        with pytest.raises(error) if error else nullcontext():
            list(self.make().run(work, range(2)))
        assert committed == ([0] if error else [0, 1])

    def test_a_write_that_fails_stops_the_run(self, tmp_path):
        class Full(Noting):
            def commit(self, block):
                raise OSError("disk full")

        work = Full(tmp_path)
        with pytest.raises(OSError, match="disk full"):
            list(self.make().run(work, range(9)))
        assert len(work.counts()) == 2

    @pytest.mark.parametrize("error", [Failing, KeyboardInterrupt])
    def test_what_goes_wrong_stops_the_run_at_once(self, tmp_path, error):
        work = Noting(tmp_path, {1: error})
        with pytest.raises(error):
            list(self.make().run(work, range(3)))
        assert work.counts() == {0: 1, 1: 1}


class TestOnDask(ExecutorContract):
    @pytest.fixture(autouse=True)
    def client(self):
        from distributed import Client

        with Client(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as client:
            self.found = client
            yield

    def make(self):
        return OnDask(self.found)

    def test_a_block_that_fails_is_tried_three_times_and_stops_the_run(self, tmp_path):
        work = Noting(tmp_path, {1: Failing})
        with pytest.raises(ExtractError, match="block 1 failed 3 times, last with Failing: "):
            list(self.make().run(work, range(3)))
        assert work.counts()[1] == 3
