"""Clocks that leap forward and back: the store does not notice, the rate stays a sane number."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from clare_cache.errors import StoreError
from clare_cache.extraction.status import read_status
from clare_cache.store import open_place, open_store, setup_lock, writer
from tests.faults.killed_runs import assert_same_store, extract_into, write_damaged_images

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LEAPS = {
    "a day ahead, then right again": [0, 1, 1440, 3, 4, 5, 6, 7],
    "an hour back": [0, 1, 2, 3, -57, -56, -55, -54],
    "a day ahead for good": [0, 1, 2, 1443, 1444, 1445, 1446, 1447],
    "to and fro": [0, -600, 1, 900, 2, -3, 86_400, 3],
}
"""Minutes from noon at each commit."""


@pytest.fixture
def asked(tmp_path):
    return write_damaged_images(tmp_path / "images", 14), tmp_path / "images"


def leap(monkeypatch, minutes):
    moments = iter(minutes)

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return NOON + timedelta(minutes=next(moments))

    monkeypatch.setattr(writer, "datetime", Clock)


@pytest.mark.parametrize("name", LEAPS)
def test_a_store_and_its_status_survive_a_clock_that_jumps(tmp_path, asked, monkeypatch, name):
    extract_into(tmp_path / "whole", *asked)
    leap(monkeypatch, LEAPS[name])
    extract_into(tmp_path / "leapt", *asked)
    assert_same_store(tmp_path / "leapt", tmp_path / "whole")
    for status in read_status(open_store(tmp_path / "leapt"), now=NOON + timedelta(minutes=8)):
        assert (status.n_asked, status.n_done + status.n_failed) == (14, 14)
        assert status.images_per_second is None or 0 < status.images_per_second < 1000
        assert status.eta_seconds is None


def test_a_machine_whose_clock_is_ahead_does_not_hide_the_others(tmp_path, asked, monkeypatch):
    """Four blocks of two arrays: each block's two commits have one moment, the third's is ahead."""
    leap(monkeypatch, [0, 0, 1, 1, 5000, 5000, 3, 3])
    extract_into(tmp_path / "store", *asked)
    for status in read_status(open_store(tmp_path / "store"), now=NOON + timedelta(minutes=4)):
        assert status.images_per_second == (4 + 2) / 180


def test_one_who_asks_with_a_late_clock_gets_the_same_rate(tmp_path, asked, monkeypatch):
    leap(monkeypatch, [0, 0, 1, 1, 2, 2, 3, 3])
    extract_into(tmp_path / "store", *asked)
    store = open_store(tmp_path / "store")
    right, late = (
        read_status(store, now=NOON + timedelta(minutes=minutes)) for minutes in (4, -100_000)
    )
    assert [s.images_per_second for s in late] == [s.images_per_second for s in right]


def test_whoever_waits_for_the_lock_does_not_look_at_the_clock(tmp_path, monkeypatch):
    place = open_place(tmp_path)
    place.write("setup.lock", b"another-machine 1")
    moments = iter([0.0, 1e9, -1e9, 5.0, *range(10**6)])
    monkeypatch.setattr(time, "time", lambda: next(moments))
    began = time.monotonic()
    held = pytest.raises(StoreError, match="is held by another-machine 1 for over 1 s")
    with held, setup_lock(place, seconds=1.0):
        pass
    assert 1.0 <= time.monotonic() - began < 60
