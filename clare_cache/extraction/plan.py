"""Which rows of which blocks are still to be made. Pure: sets in, tasks out."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class BlockTask:
    """One block: for each array (`<view>/<array>`) the rows asked for and not there yet."""

    block: int
    missing: Mapping[str, tuple[int, ...]]

    @property
    def rows(self) -> tuple[int, ...]:
        """Every row that has to be looked at, ascending."""
        return tuple(sorted({row for rows in self.missing.values() for row in rows}))


def plan_blocks(
    asked: Sequence[int], *, block_rows: int, settled: Mapping[str, Collection[int]]
) -> list[BlockTask]:
    """Tasks that cover each missing (row, array) exactly once, blocks ascending.

    `settled` names, for every array asked for, the rows that need no work: those with data and
    those in the ledger.
    """
    blocks: dict[int, dict[str, list[int]]] = {}
    for array, done in settled.items():
        done = set(done)
        for row in sorted(set(asked)):
            if row not in done:
                blocks.setdefault(row // block_rows, {}).setdefault(array, []).append(row)
    return [
        BlockTask(block=block, missing={a: tuple(r) for a, r in arrays.items()})
        for block, arrays in sorted(blocks.items())
    ]
