"""What is still to be made of an extraction, from the commit records.

Arrays of one number a row, and one record in memory at a time: millions of images are surveyed by
the run that hands out blocks, and by each of a thousand tasks of a job array, which reads the
records of its own blocks alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clare_cache.extraction.versions import warn_of_other_versions
from clare_cache.extraction.work import settled_rows
from clare_cache.store import CommitRecord, StoreWriter


@dataclass(frozen=True, eq=False)
class Survey:
    """`asked` are the rows asked for, ascending; `lacking` those that any array lacks."""

    asked: NDArray[np.int64]
    lacking: NDArray[np.int64]
    block_rows: int

    @property
    def blocks(self) -> list[int]:
        """The blocks in which something is to be made, ascending."""
        return np.unique(self.lacking // self.block_rows).tolist()


def survey(
    writer: StoreWriter,
    asked: NDArray[np.int64],
    keys: Sequence[tuple[str, str]],
    *,
    shard: tuple[int, int] | None,
    retry_failed: bool,
) -> Survey:
    """What the arrays `keys`, (view, name), lack of the rows `asked`, or of those in the blocks of
    one shard (i, n). Warns when they were made with other libraries."""
    asked = np.sort(asked)
    block_rows = writer.description.block_rows
    blocks = None
    if shard is not None:
        asked = asked[(asked // block_rows) % shard[1] == shard[0]]
        blocks = np.unique(asked // block_rows).tolist()
    is_lacking = np.zeros(len(asked), bool)
    made_with: dict[tuple[tuple[str, str], ...], CommitRecord] = {}
    for view, array in keys:
        is_settled = np.zeros(int(asked[-1]) + 1 if len(asked) else 0, bool)
        for record in writer.each_record(view, array, blocks):
            made_with.setdefault(tuple(sorted(record.versions.items())), record)
            rows = np.array(settled_rows(record, retry_failed=retry_failed), np.int64)
            is_settled[rows[rows < len(is_settled)]] = True
        is_lacking |= ~is_settled[asked]
    warn_of_other_versions(writer.place, made_with.values())
    return Survey(asked, asked[is_lacking], block_rows)
