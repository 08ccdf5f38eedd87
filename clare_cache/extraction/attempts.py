"""What becomes of a block that failed: one rule for every executor.

A fault that may pass (a file system that did not answer, a worker that died, a device that was
full) is tried again. What is wrong with one image never comes here: it is in the ledger.
"""

from collections import defaultdict

from clare_cache.errors import BlockFailed, ClareCacheError

PAUSES = (1.0, 5.0)
"""Seconds before the second and the third attempt: file servers come back after such times."""

ATTEMPTS = 1 + len(PAUSES)
"""So often a block is tried before its failure stops the run."""

LASTING = (ClareCacheError, TypeError, AttributeError, NameError, NotImplementedError)
"""These stop the run at once, as they are: a mistake of the user, which is a sentence already, and
mistakes in the program, which would be made again and want their traceback. Other exceptions of
Python (RuntimeError, ValueError, OSError …) are also what libraries raise for a busy device, a
file that is half there or a server that is away."""


class Attempts:
    """What went wrong so far in each block of a run, in words: an error holds on to its arrays."""

    def __init__(self) -> None:
        self._errors = defaultdict[int, list[str]](list)

    def are_left(self, block: int, error: BaseException) -> bool:
        """Whether the block, which failed with `error` now, is to be tried again."""
        self._errors[block].append(f"{type(error).__name__}: {error}")
        return len(self._errors[block]) < ATTEMPTS

    def pause(self, block: int) -> float:
        """Seconds to wait before the block is tried next."""
        return (0.0, *PAUSES)[len(self._errors[block])]

    def reason(self, block: int) -> BlockFailed:
        """Why the run stops, after the last attempt."""
        return BlockFailed(
            f"extract: block {block} failed {ATTEMPTS} times, last with "
            f"{self._errors[block][-1]}. What is committed stays; mend the cause and call "
            "again."
        )

    def notes(self, block: int) -> tuple[str, ...]:
        """What to tell of a block that was done in the end."""
        return tuple(f"block {block} was tried again after {e}" for e in self._errors[block])
