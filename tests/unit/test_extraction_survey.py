"""What is still to be made of a store and of one shard: the rows that `plan_blocks` names."""

import numpy as np
import pytest

from clare_cache.extraction.plan import plan_blocks
from clare_cache.extraction.survey import survey
from clare_cache.store import StoreWriter
from tests.small_store import BLOCK_ROWS, GRID, VECTOR, block, make_store

KEYS = [("clean", "vector"), ("clean", "grid")]


@pytest.fixture
def writer(tmp_path):
    writer = make_store(tmp_path, n_images=19)
    for spec, rows, failed in (
        (VECTOR, [0, 1, 2], [3]),
        (VECTOR, [8, 9, 10, 11], []),
        (VECTOR, [16, 17], []),
        (GRID, [0, 1, 2, 3], []),
        (GRID, [8, 9], [10]),
    ):
        writer.write_block(block(spec, rows, failed=failed), versions={})
    return writer


@pytest.mark.parametrize("retry_failed", [False, True])
@pytest.mark.parametrize("shard", [None, (0, 2), (1, 2), (3, 7), (6, 7)])
@pytest.mark.parametrize("asked", [range(19), [18, 3, 9, 10], []])
def test_it_finds_what_the_plan_of_every_block_finds(writer, asked, shard, retry_failed):
    settled = {
        array: {
            row
            for record in writer.records("clean", array).values()
            for row in (*record.rows, *(() if retry_failed else record.failed))
        }
        for _, array in KEYS
    }
    tasks = plan_blocks(list(asked), block_rows=BLOCK_ROWS, settled=settled)
    mine = [t for t in tasks if shard is None or t.block % shard[1] == shard[0]]
    found = survey(writer, np.array(asked, np.int64), KEYS, shard=shard, retry_failed=retry_failed)
    assert found.blocks == [task.block for task in mine]
    assert found.lacking.tolist() == [row for task in mine for row in task.rows]
    of_shard = [row for row in asked if shard is None or row // BLOCK_ROWS % shard[1] == shard[0]]
    assert found.asked.tolist() == sorted(of_shard)


def test_a_shard_reads_the_records_of_its_own_blocks_alone(writer, tmp_path):
    for array in ("vector", "grid"):
        (tmp_path / f"commits/clean/{array}/2.json").write_text("{torn")
    found = survey(StoreWriter(tmp_path), np.arange(19), KEYS, shard=(1, 2), retry_failed=False)
    assert found.blocks == [1, 3]
