"""The setup lock: one holder at a time, taken over from the dead, never from the living."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from clare_cache.errors import StoreError
from clare_cache.store import setup_lock
from clare_cache.store.lock import LOCK_FILE


def test_one_holder_at_a_time(tmp_path):
    inside = []

    def enter(number):
        with setup_lock(tmp_path):
            inside.append(number)
            assert len(inside) == 1
            inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(24)))
    assert not (tmp_path / LOCK_FILE).exists()


def test_the_lock_is_let_go_when_something_goes_wrong(tmp_path):
    with pytest.raises(ValueError, match="wrong"), setup_lock(tmp_path):
        raise ValueError("wrong")
    with setup_lock(tmp_path, seconds=0):
        pass


def test_a_lock_of_a_dead_process_is_taken_over(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    (tmp_path / LOCK_FILE).write_text(f"{socket.gethostname()} {done.stdout.strip()}")
    with setup_lock(tmp_path, seconds=5):
        assert (tmp_path / LOCK_FILE).read_text() == f"{socket.gethostname()} {os.getpid()}"


@pytest.mark.parametrize("holder", ["elsewhere 1", f"{socket.gethostname()} 1"])
def test_a_lock_of_the_living_or_of_another_machine_is_respected(tmp_path, holder):
    (tmp_path / LOCK_FILE).write_text(holder)
    with pytest.raises(StoreError) as caught, setup_lock(tmp_path, seconds=0):
        pass
    assert str(caught.value) == (
        f"store {tmp_path}: setup.lock is held by {holder} for over 0 s. "
        "If that process is gone, remove the file."
    )
    assert (tmp_path / LOCK_FILE).read_text() == holder
