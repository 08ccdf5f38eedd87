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
from clare_cache.extraction.attempts import LASTING
from clare_cache.extraction.work import ignore_images
from clare_cache.store import open_store, verify
from tests.fake_backbone import FakeBackbone, bytes_below, write_images


class Failing(Exception):
    """Stands for whatever goes wrong in a block."""


class Noting:
    """Does a block by adding a line to a file, so that other processes count too."""

    def __init__(
        self, folder: Path, fails: Mapping[int, type[BaseException]] = {}, n_failures: int = 9
    ) -> None:
        self.folder = folder
        self.fails = fails
        self.n_failures = n_failures

    def __call__(self, block, on_images=ignore_images):
        return self.commit(self.make(block, on_images))

    def make(self, block, on_images=ignore_images):
        with (self.folder / str(block)).open("a") as file:
            file.write("done\n")
        on_images(1)
        if block in self.fails and self.counts()[block] <= self.n_failures:
            raise self.fails[block]("the reason")
        return block

    def commit(self, block):
        return BlockReport(block=block, n_images=1, n_decoded=1, seconds={})

    def counts(self) -> dict[int, int]:
        return {int(p.name): len(p.read_text().splitlines()) for p in self.folder.iterdir()}


class ExecutorContract:
    """Not collected itself: subclasses are, by their name."""

    @pytest.fixture(autouse=True)
    def no_pauses(self, monkeypatch):
        monkeypatch.setattr("clare_cache.extraction.attempts.PAUSES", (0.0, 0.0))

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

    def test_a_call_in_each_process_is_made_at_least_once(self, tmp_path):
        self.make().in_each((tmp_path / "called").touch)
        assert (tmp_path / "called").exists()

    @pytest.mark.parametrize("n_failures", [1, 2])
    def test_a_fault_that_passes_stops_nothing_and_is_told(self, tmp_path, n_failures):
        work, seen = Noting(tmp_path, {1: Failing}, n_failures), []
        reports = list(self.make().run(work, range(3), on_images=seen.append))
        assert work.counts() == {0: 1, 1: 1 + n_failures, 2: 1}
        assert sum(seen) == 3
        notes = {report.block: list(report.notes) for report in reports}
        again = "block 1 was tried again after Failing: the reason"
        assert notes == {0: [], 1: [again] * n_failures, 2: []}

    @pytest.mark.parametrize("error", [Failing, OSError, RuntimeError, MemoryError])
    def test_a_fault_that_stays_stops_the_run_with_its_reason(self, tmp_path, error):
        work = Noting(tmp_path, {1: error})
        with pytest.raises(ExtractError) as caught:
            list(self.make().run(work, range(2)))
        assert str(caught.value) == (
            f"extract: block 1 failed 3 times, last with {error.__name__}: the reason. "
            "What is committed stays; mend the cause and call again."
        )
        assert isinstance(caught.value.__cause__, error)
        assert work.counts()[1] == 3

    @pytest.mark.parametrize("error", LASTING)
    def test_mistakes_of_the_user_and_of_the_program_stop_the_run_at_once(self, tmp_path, error):
        work = Noting(tmp_path, {1: error})
        with pytest.raises(error, match=r"^the reason$"):
            list(self.make().run(work, range(2)))
        assert work.counts()[1] == 1

    def test_the_store_is_whole_after_a_fault_that_passed(self, tmp_path):
        images = write_images(tmp_path / "images", 6)
        for name, source in (("plain", FakeSource()), ("torn", FailingOnce(tmp_path / "failed"))):
            extract_features(
                tmp_path / name,
                images,
                root=tmp_path / "images",
                backbones=source,
                features=["mean", "grid"],
                block_rows=2,
                batch_size=1,
                executor=self.make(),
            )
        assert (tmp_path / "failed").exists()
        assert verify(open_store(tmp_path / "torn")) == []
        assert bytes_below(tmp_path / "plain/features.zarr") == bytes_below(
            tmp_path / "torn/features.zarr"
        )

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


@pytest.mark.parametrize("lasts", [False, True])
def test_a_task_of_a_job_array_tries_its_blocks_again(tmp_path, monkeypatch, lasts):
    """`--shard-index` has no scheduler to do so: the block is tried three times in this process."""
    monkeypatch.setattr("clare_cache.extraction.attempts.PAUSES", (0.0, 0.0))
    images = write_images(tmp_path / "images", 8)
    tried = []

    class Away:
        def load(self):
            return [FakeBackbone(before_call=self.fail)]

        def fail(self, n):
            tried.append(n)
            if lasts or len(tried) <= 2:
                raise OSError("the server is away")

    def extract(shard, source):
        return extract_features(
            tmp_path / "store",
            images,
            root=tmp_path / "images",
            backbones=source,
            features=["mean"],
            block_rows=2,
            batch_size=2,
            shard=shard,
        )

    if lasts:
        with pytest.raises(ExtractError, match="block 1 failed 3 times, last with OSError: the"):
            extract((1, 2), Away())
        assert len(tried) == 3
        return
    report = extract((1, 2), Away())
    assert [note for note in report.notes if "tried again" in note] == [
        "block 1 was tried again after OSError: the server is away"
    ] * 2
    assert len(tried) == 4, "block 1 three times, block 3 once"
    extract((0, 2), FakeSource())
    store = open_store(tmp_path / "store")
    assert verify(store) == []
    assert store["clean/mean"].present.all()


class FakeSource:
    """A `BackboneSource` that travels."""

    def load(self):
        return [FakeBackbone()]


class FailingOnce:
    """The same, but the first worker that is asked for a second batch cannot do it."""

    def __init__(self, failed: Path) -> None:
        self.failed = failed

    def load(self):
        return [FakeBackbone(before_call=self.fail_once)]

    def fail_once(self, n):
        if n == 1 and not self.failed.exists():
            self.failed.touch()
            raise OSError("the server is away")


class TestInProcess(ExecutorContract):
    def make(self):
        return InProcess()

    def test_a_block_that_could_not_be_written_is_not_computed_again(self, tmp_path):
        class Refused(Noting):
            def commit(self, block):
                if refusals:
                    raise refusals.pop()
                return super().commit(block)

        refusals = [OSError("busy"), OSError("busy")]
        work = Refused(tmp_path)
        reports = list(self.make().run(work, range(2)))
        assert work.counts() == {0: 1, 1: 1}
        assert [list(report.notes) for report in reports] == [
            ["block 0 was tried again after OSError: busy"] * 2,
            [],
        ]

    def test_attempts_at_computing_and_writing_are_counted_together(self, tmp_path):
        class Refused(Noting):
            def commit(self, block):
                raise OSError("disk full")

        with pytest.raises(ExtractError, match="block 0 failed 3 times, last with OSError: disk"):
            list(self.make().run(Refused(tmp_path, {0: Failing}, n_failures=2), range(9)))
        assert Noting(tmp_path).counts()[0] == 3

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
        with pytest.raises(ExtractError, match="disk full"):
            list(self.make().run(work, range(9)))
        assert len(work.counts()) == 2

    def test_an_interrupt_stops_the_run_at_once(self, tmp_path):
        work = Noting(tmp_path, {1: KeyboardInterrupt})
        with pytest.raises(KeyboardInterrupt):
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
