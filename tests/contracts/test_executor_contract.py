"""What every executor owes stage one. A new one inherits `ExecutorContract` in one line."""

from collections import Counter

import pytest

from clare_cache.extraction import Executor, InProcess, extract_features
from clare_cache.extraction.plan import BlockTask
from clare_cache.extraction.run import BlockReport
from clare_cache.store import open_store, verify
from tests.fake_backbone import FakeBackbone, bytes_below, write_images


class Failing(Exception):
    """Stands for whatever goes wrong in a block."""


def make_tasks(n_blocks):
    return [BlockTask(view="clean", block=n, missing={"mean": (n,)}) for n in range(n_blocks)]


def make_report(task):
    return BlockReport(block=task.block, n_images=1, n_decoded=1, seconds={})


class ExecutorContract:
    """Not collected itself: subclasses are, by their name."""

    def make(self) -> Executor:
        raise NotImplementedError

    @pytest.mark.parametrize("n_blocks", [0, 1, 7])
    def test_every_task_is_done_exactly_once_and_reported(self, n_blocks):
        done = []
        tasks = make_tasks(n_blocks)
        reports = list(self.make().run(lambda t: done.append(t.block) or make_report(t), tasks))
        assert Counter(done) == Counter(range(n_blocks))
        assert sorted(report.block for report in reports) == list(range(n_blocks))

    def test_an_executor_can_be_used_again(self):
        executor = self.make()
        for _ in range(2):
            assert len(list(executor.run(make_report, make_tasks(3)))) == 3

    @pytest.mark.parametrize("error", [Failing, KeyboardInterrupt])
    def test_what_goes_wrong_in_a_block_is_not_swallowed(self, error):
        def work(task):
            if task.block == 1:
                raise error
            return make_report(task)

        with pytest.raises(error):
            list(self.make().run(work, make_tasks(3)))

    def test_the_store_is_the_one_that_the_plain_loop_makes(self, tmp_path):
        images = write_images(tmp_path / "images", 9)
        (tmp_path / "images/004.png").unlink()
        for name, executor in (("plain", None), ("tested", self.make())):
            extract_features(
                tmp_path / name,
                images,
                root=tmp_path / "images",
                backbones=[FakeBackbone()],
                features=["mean", "grid"],
                block_rows=2,
                executor=executor,
            )
        assert verify(open_store(tmp_path / "tested")) == []
        for folder in ("features.zarr", "ledger"):
            assert bytes_below(tmp_path / "plain" / folder) == bytes_below(
                tmp_path / "tested" / folder
            )


class TestInProcess(ExecutorContract):
    def make(self):
        return InProcess()

    def test_blocks_come_in_order_and_one_at_a_time(self):
        events = []
        run = self.make().run(lambda t: events.append(t.block) or make_report(t), make_tasks(3))
        for report in run:
            events.append(f"report {report.block}")
        assert events == [0, "report 0", 1, "report 1", 2, "report 2"]
