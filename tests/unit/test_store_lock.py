"""The setup lock: one holder at a time, taken over from the dead, never from the living."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from clare_cache.errors import StoreError
from clare_cache.store import place, setup_lock
from clare_cache.store.lock import LOCK_FILE
from clare_cache.store.place import LocalPlace


def test_one_holder_at_a_time(tmp_path):
    inside = []

    def enter(number):
        with setup_lock(LocalPlace(tmp_path)):
            inside.append(number)
            assert len(inside) == 1
            inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(24)))
    assert not (tmp_path / LOCK_FILE).exists()


def test_the_lock_is_let_go_when_something_goes_wrong(tmp_path):
    with pytest.raises(ValueError, match="wrong"), setup_lock(LocalPlace(tmp_path)):
        raise ValueError("wrong")
    with setup_lock(LocalPlace(tmp_path), seconds=0):
        pass


@pytest.fixture(scope="module")
def dead():
    """The holder's line of a process that is gone."""
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    return f"{socket.gethostname()} {done.stdout.strip()}"


def test_a_lock_of_a_dead_process_is_taken_over(tmp_path, dead):
    (tmp_path / LOCK_FILE).write_text(dead)
    with setup_lock(LocalPlace(tmp_path), seconds=5):
        assert (tmp_path / LOCK_FILE).read_text() == f"{socket.gethostname()} {os.getpid()}"


@pytest.mark.parametrize("holder", ["elsewhere 1", f"{socket.gethostname()} 1"])
def test_a_lock_of_the_living_or_of_another_machine_is_respected(tmp_path, holder):
    (tmp_path / LOCK_FILE).write_text(holder)
    with pytest.raises(StoreError) as caught, setup_lock(LocalPlace(tmp_path), seconds=0):
        pass
    assert str(caught.value) == (
        f"store {tmp_path}: setup.lock is held by {holder} for over 0 s. "
        "If that process is gone, remove the file."
    )
    assert (tmp_path / LOCK_FILE).read_text() == holder


@pytest.mark.parametrize("newer", ["elsewhere 1", None])
def test_a_waiter_does_not_take_the_lock_that_another_one_made_since(
    tmp_path, monkeypatch, dead, newer
):
    path = tmp_path / LOCK_FILE
    path.write_text(dead)

    def another_is_faster(file, operation):
        path.unlink()
        path.write_text(newer or dead)

    monkeypatch.setattr(place.fcntl, "flock", another_is_faster)
    assert not LocalPlace(tmp_path).swap(LOCK_FILE, dead.encode(), b"me 1")
    assert path.read_text() == (newer or dead)


def test_many_waiters_for_a_dead_process_enter_one_at_a_time(tmp_path, dead):
    inside, entered = [], []

    def enter(number):
        with setup_lock(LocalPlace(tmp_path)):
            inside.append(number)
            entered.append(number)
            assert len(inside) == 1
            inside.remove(number)

    (tmp_path / LOCK_FILE).write_text(dead)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(8)))
    assert sorted(entered) == list(range(8))


def test_a_lock_that_cannot_be_changed_is_waited_for(tmp_path, monkeypatch, dead):
    (tmp_path / LOCK_FILE).write_text(dead)

    def refuse(file, operation):
        raise OSError("no locks here")

    monkeypatch.setattr(place.fcntl, "flock", refuse)
    with (
        pytest.raises(StoreError, match="If that process is gone"),
        setup_lock(LocalPlace(tmp_path), seconds=0),
    ):
        pass
