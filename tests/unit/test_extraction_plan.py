"""Plans by example."""

from clare_cache.extraction.plan import BlockTask, plan_blocks


def test_a_block_names_the_missing_rows_of_each_array():
    tasks = plan_blocks([5, 0, 1, 2, 5], block_rows=4, settled={"a": {0}, "b": {0, 1, 2, 5}})
    assert tasks == [
        BlockTask(block=0, missing={"a": (1, 2)}),
        BlockTask(block=1, missing={"a": (5,)}),
    ]


def test_the_rows_of_a_task_are_those_of_any_array():
    task = BlockTask(block=0, missing={"a": (3, 7), "b": (1, 3)})
    assert task.rows == (1, 3, 7)


def test_nothing_asked_or_all_settled_needs_no_task():
    assert plan_blocks([], block_rows=4, settled={"a": ()}) == []
    assert plan_blocks([1, 2], block_rows=4, settled={"a": (1, 2, 9)}) == []
    assert plan_blocks([1, 2], block_rows=4, settled={}) == []
