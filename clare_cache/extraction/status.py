"""How far a store is, from its requests and commit records alone: any machine can ask, at any time,
without a scheduler.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow.parquet as pq

from clare_cache.store import CommitRecord, Store
from clare_cache.store.reader import request_names

WINDOW_SECONDS = 900.0
"""The rate is that of the last quarter of an hour before the newest commit."""


@dataclass(frozen=True)
class ArrayStatus:
    """Progress of one array: images asked for, in the store, in the ledger; images/s; seconds.

    `images_per_second` is None with fewer than two blocks in the window, `eta_seconds` where
    there is no rate or nothing is left. `newest` is when a block was last committed.
    """

    key: str
    n_asked: int
    n_done: int
    n_failed: int
    images_per_second: float | None
    eta_seconds: float | None
    newest: datetime | None


def read_status(store: Store) -> list[ArrayStatus]:
    """The status of every array, as its commit records say now."""
    asked: set[int] = set()
    for name in request_names(store.place):
        with store.place.open(name) as file:
            asked.update(pq.read_table(file, columns=["row"])["row"].to_pylist())
    return [_status(key, asked, list(store[key].records.values())) for key in store]


def _status(key: str, asked: set[int], records: Sequence[CommitRecord]) -> ArrayStatus:
    done = sum(len(record.rows) for record in records)
    failed = sum(len(record.failed) for record in records)
    rate = _rate(records)
    left = len(asked) - done - failed
    newest = max((_time(record) for record in records), default=None)
    return ArrayStatus(
        key=key,
        n_asked=len(asked),
        n_done=done,
        n_failed=failed,
        images_per_second=rate,
        eta_seconds=left / rate if rate and left > 0 else None,
        newest=newest,
    )


def _rate(records: Sequence[CommitRecord]) -> float | None:
    """Images per second between the first and last commit of the window, all workers together.

    The block that opens the window is not counted: its work lies before it.
    """
    times = sorted((_time(record), len(record.rows) + len(record.failed)) for record in records)
    if not times:
        return None
    last = times[-1][0]
    recent = [(t, n) for t, n in times if (last - t).total_seconds() <= WINDOW_SECONDS]
    span = (last - recent[0][0]).total_seconds()
    return sum(n for _, n in recent[1:]) / span if span > 0 else None


def _time(record: CommitRecord) -> datetime:
    return datetime.fromisoformat(record.finished_at).astimezone(UTC)
