"""One process at a time changes what a store is to hold. Blocks need no lock: one writer each."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from clare_cache.errors import StoreError
from clare_cache.store.place import Place

LOCK_FILE = "setup.lock"
SECONDS_BETWEEN_TRIES = 0.2
SECONDS_TO_WAIT = 120.0


@contextmanager
def setup_lock(place: Place, *, seconds: float = SECONDS_TO_WAIT) -> Iterator[None]:
    """Hold `setup.lock`, made in one step, which holds on shared file systems and object stores.

    A lock left by a dead process of this machine is taken over, by one of those who wait. Raises
    StoreError when somebody else holds it for longer than `seconds`.
    """
    mine = f"{socket.gethostname()} {os.getpid()}"
    deadline = time.monotonic() + seconds
    while not place.make(LOCK_FILE, mine.encode()):
        holder = _holder(place)
        if _is_gone(holder) and place.swap(LOCK_FILE, holder.encode(), mine.encode()):
            break
        if time.monotonic() > deadline:
            raise StoreError(
                f"store {place}: {LOCK_FILE} is held by {holder or 'an unnamed process'} "
                f"for over {seconds:.0f} s. If that process is gone, remove the file."
            )
        time.sleep(SECONDS_BETWEEN_TRIES)
    try:
        yield
    finally:
        place.delete(LOCK_FILE)


def is_left_behind(place: Place) -> bool:
    """Whether a dead process of this machine has left its lock."""
    return _is_gone(_holder(place))


def _holder(place: Place) -> str:
    try:
        return place.read(LOCK_FILE).decode()
    except FileNotFoundError:
        return ""


def _is_gone(holder: str) -> bool:
    host, _, process = holder.partition(" ")
    if host != socket.gethostname() or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
