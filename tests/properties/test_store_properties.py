"""Any sequence of commits against a plain dictionary of what should be there."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from clare_cache.store import ArrayEntry, BlockData, create_store, open_store, verify
from clare_cache.store.schema import CHUNK_NBYTES, chunk_rows_for, from_ranges, to_ranges
from clare_cache.types import ArraySpec, Failure

BLOCK_ROWS, N_IMAGES = 4, 10
SPEC = ArraySpec("vector", (2,), ("number",), "float32", "two numbers")

rows_of_a_block = st.integers(0, 2).flatmap(
    lambda block: st.tuples(
        st.just(block),
        st.dictionaries(
            st.integers(block * BLOCK_ROWS, min(block * BLOCK_ROWS + 3, N_IMAGES - 1)),
            st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
            min_size=1,
        ),
    )
)


@settings(max_examples=25, deadline=None)
@given(st.lists(rows_of_a_block, max_size=6))
def test_commits_add_up_and_the_last_word_counts(commits):
    with tempfile.TemporaryDirectory() as folder:
        store = create_store(folder, block_rows=BLOCK_ROWS)
        store.add_images(f"{number:064x}" for number in range(N_IMAGES))
        store.declare([ArrayEntry("clean", SPEC, 0, {"weights": "w"})])
        expected, failed = {}, set()
        for block, outcome in commits:
            good = {row: value for row, value in outcome.items() if value is not None}
            bad = {row: Failure(f"{row:064x}", "", "decode", "") for row in outcome.keys() - good}
            store.write_block(
                BlockData(
                    view="clean",
                    array="vector",
                    block=block,
                    rows=np.array(sorted(good), np.int64),
                    values=np.array([[good[row]] * 2 for row in sorted(good)], "float32").reshape(
                        -1, 2
                    ),
                    failed=bad,
                ),
                versions={},
            )
            expected |= good
            failed = (failed | bad.keys()) - expected.keys()

        found = open_store(Path(folder))
        handle = found["clean/vector"]
        assert np.flatnonzero(handle.present).tolist() == sorted(expected)
        assert {int(line.image_id, 16) for line in found.ledger()} == failed
        assert {row for record in handle.records.values() for row in record.failed} == failed
        rows = list(expected)
        values = np.array([[expected[row]] * 2 for row in rows], "float32").reshape(-1, 2)
        assert np.array_equal(handle.by_image_id([f"{row:064x}" for row in rows]), values)
        assert np.isnan(handle[:][~handle.present]).all()
        assert verify(found) == []


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sets(st.integers(0, 40), max_size=8), min_size=1, max_size=4), st.integers(1, 6))
def test_rows_are_given_once_and_batches_of_images_share_no_block(batches, block_rows):
    with tempfile.TemporaryDirectory() as folder:
        store = create_store(folder, block_rows=block_rows)
        rows, blocks = {}, []
        for batch in batches:
            ids = {f"{number:064x}" for number in batch}
            n_new = store.add_images(ids)
            new = sorted(ids - rows.keys())
            assert n_new == len(new)
            given_rows = store.store.rows_of(new).tolist()
            assert given_rows == [given_rows[0] + n for n in range(n_new)]
            rows |= dict(zip(new, given_rows, strict=True))
            blocks.append({row // block_rows for row in given_rows})
        found = open_store(Path(folder))
        assert found.rows_of(list(rows)).tolist() == list(rows.values())
        assert sum(map(len, blocks)) == len(set().union(*blocks))


@given(st.integers(1, 600), st.integers(1, 40 * 2**20))
def test_chunks_divide_blocks_and_stay_below_their_limit(block_rows, row_nbytes):
    spec = ArraySpec("a", (row_nbytes,), ("byte",), "int8", "")
    rows = chunk_rows_for(spec, block_rows)
    assert block_rows % rows == 0
    assert rows == 1 or rows * row_nbytes <= CHUNK_NBYTES
    larger = [n for n in range(rows + 1, block_rows + 1) if block_rows % n == 0]
    assert all(n * row_nbytes > CHUNK_NBYTES for n in larger)


@given(st.sets(st.integers(0, 300)))
def test_ranges_come_back(rows):
    ascending = tuple(sorted(rows))
    assert from_ranges(to_ranges(ascending)) == ascending
