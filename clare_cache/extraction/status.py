"""How far a store is, from its requests and commit records alone: any machine can ask, at any time,
without a scheduler.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from clare_cache.files import read_parquet
from clare_cache.store import CommitRecord, Store
from clare_cache.store.records import check_request, each_record, request_names

WINDOW_SECONDS = 900.0
"""The rate is that of the last quarter of an hour before the newest commit."""

TOLERATED = timedelta(minutes=1)
"""So far the clocks of a cluster may differ."""


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


def read_status(store: Store, *, now: datetime | None = None) -> list[ArrayStatus]:
    """The status of every array, as its commit records say now.

    Raises StoreError for a request or a record that is not as it was written.
    """
    asked = np.unique(np.concatenate([*_asked_rows(store), np.empty(0, np.int64)]))
    now = now or datetime.now(UTC)
    return [
        _status(key, len(asked), each_record(store.place, store[key].entry), now) for key in store
    ]


def _asked_rows(store: Store) -> Iterator[NDArray[np.int64]]:
    for name in request_names(store.place):
        check_request(store.place, name)
        with store.place.open(name) as file:
            yield read_parquet(file, columns=["row"])["row"].to_numpy()


def _status(key: str, n_asked: int, records: Iterable[CommitRecord], now: datetime) -> ArrayStatus:
    done, failed = 0, 0
    commits: list[tuple[datetime, int]] = []
    for record in records:  # one at a time: there may be a hundred thousand
        done += len(record.rows)
        failed += len(record.failed)
        commits.append((_time(record), len(record.rows) + len(record.failed)))
    rate = _rate(commits, now)
    left = n_asked - done - failed
    return ArrayStatus(
        key=key,
        n_asked=n_asked,
        n_done=done,
        n_failed=failed,
        images_per_second=rate,
        eta_seconds=left / rate if rate and left > 0 else None,
        newest=max((time for time, _ in commits), default=None),
    )


def _rate(commits: Sequence[tuple[datetime, int]], now: datetime) -> float | None:
    """Images per second between the first and last commit of the window, all workers together.

    The block that opens the window is not counted: its work lies before it. Commits in the future
    are of machines whose clocks are ahead; they would hide all others, and are left out.
    """
    times = sorted(commit for commit in commits if commit[0] <= now + TOLERATED) or sorted(commits)
    if not times:
        return None
    last = times[-1][0]
    recent = [(t, n) for t, n in times if (last - t).total_seconds() <= WINDOW_SECONDS]
    span = (last - recent[0][0]).total_seconds()
    return sum(n for _, n in recent[1:]) / span if span > 0 else None


def _time(record: CommitRecord) -> datetime:
    return datetime.fromisoformat(record.finished_at).astimezone(UTC)
