"""One process at a time changes what a store is to hold. Blocks need no lock: one writer each."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clare_cache.errors import StoreError

LOCK_FILE = "setup.lock"
SECONDS_BETWEEN_TRIES = 0.2
SECONDS_TO_WAIT = 120.0


@contextmanager
def setup_lock(store: Path, *, seconds: float = SECONDS_TO_WAIT) -> Iterator[None]:
    """Hold `setup.lock`, made in one step, which holds on shared file systems too.

    A lock left by a dead process of this machine is taken over, by one of those who wait. Raises
    StoreError when somebody else holds it for longer than `seconds`.
    """
    store.mkdir(parents=True, exist_ok=True)
    path = store / LOCK_FILE
    mine = f"{socket.gethostname()} {os.getpid()}"
    deadline = time.monotonic() + seconds
    while not _made(path, mine):
        if _left_behind(_holder(path)) and _removed(path):
            continue
        if time.monotonic() > deadline:
            raise StoreError(
                f"store {store}: {LOCK_FILE} is held by {_holder(path) or 'an unnamed process'} "
                f"for over {seconds:.0f} s. If that process is gone, remove the file."
            )
        time.sleep(SECONDS_BETWEEN_TRIES)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def is_left_behind(store: Path) -> bool:
    """Whether a dead process of this machine has left its lock."""
    return _left_behind(_holder(store / LOCK_FILE))


def _made(path: Path, holder: str) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as file:
        file.write(holder)
    return True


def _holder(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _left_behind(holder: str) -> bool:
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


def _removed(path: Path) -> bool:
    """Remove the lock of a dead process, and never the one that another waiter made since.

    All who wait for a dead process are on its machine, so that flock, held on the very file that
    is to go, lets one at a time look again and remove it. False where the file cannot be removed.
    """
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()) and _left_behind(file.read()):
                path.unlink()
    except FileNotFoundError:
        return True  # another waiter was faster
    except OSError:
        return False  # somebody else's file, or a file system without flock
    return True
