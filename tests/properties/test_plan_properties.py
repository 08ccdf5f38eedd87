"""Every missing (row, array) is planned once, and nothing else is."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from clare_cache.extraction.plan import plan_blocks

rows = st.integers(0, 60)
settled = st.dictionaries(st.sampled_from("abcd"), st.sets(rows), max_size=4)


@given(st.lists(rows), settled, st.integers(1, 20))
def test_missing_work_is_covered_exactly_once(asked, settled, block_rows):
    tasks = plan_blocks(asked, block_rows=block_rows, settled=settled)
    planned = Counter(
        (row, array) for task in tasks for array, rows in task.missing.items() for row in rows
    )
    missing = {(row, array) for array, done in settled.items() for row in set(asked) - done}
    assert planned == Counter(missing)


@given(st.lists(rows), settled, st.integers(1, 20))
def test_a_task_stays_in_its_block_and_blocks_come_once_ascending(asked, settled, block_rows):
    tasks = plan_blocks(asked, block_rows=block_rows, settled=settled)
    blocks = [task.block for task in tasks]
    assert blocks == sorted(set(blocks))
    for task in tasks:
        assert task.rows == tuple(sorted(set().union(*task.missing.values())))
        assert {row // block_rows for row in task.rows} == {task.block}
        assert all(list(rows) == sorted(set(rows)) for rows in task.missing.values())


@given(st.lists(rows), settled, st.integers(1, 20))
def test_doing_what_was_planned_leaves_nothing_to_plan(asked, settled, block_rows):
    tasks = plan_blocks(asked, block_rows=block_rows, settled=settled)
    done = {array: set(rows) for array, rows in settled.items()}
    for task in tasks:
        for array, rows in task.missing.items():
            done[array] |= set(rows)
    assert plan_blocks(asked, block_rows=block_rows, settled=done) == []
