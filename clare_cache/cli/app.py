"""The console script: exit statuses, one sentence for what went wrong, the line that resumes.

0 done · 1 a check failed or the input is wrong · 2 usage · 3 finished, but some images are in the
ledger · 130 interrupted. The commands are imported inside `main`, so that Ctrl-C during an import
ends like any other.
"""

import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clare_cache.errors import BlockFailed, ClareCacheError, VersionWarning

INTERRUPTED = 130
DEBUG = "--debug"


def main() -> None:
    """Run the command that the arguments name, and exit."""
    arguments = sys.argv[1:]
    # Users' own heads lie where they work; last, so that nothing installed is hidden.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        from clare_cache.cli.commands import app

        with _warnings_in_a_line():
            app(args=[argument for argument in arguments if argument != DEBUG])
    except KeyboardInterrupt:
        _say_interrupted()
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _say_interrupted()
        raise
    except (ClareCacheError, OSError) as error:
        if DEBUG in arguments:
            raise
        _say(f"error: {error if isinstance(error, ClareCacheError) else _sentence(error)}")
        if isinstance(error, OSError | BlockFailed) and "extract" in arguments:
            _say(f"Nothing that was committed is lost. Resume with:\n  {_this_call()}")
        sys.exit(1)


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Our warnings as one sentence, all others as Python shows them."""
    show = warnings.showwarning

    def say(message: Any, category: Any, *where: Any, **more: Any) -> None:
        if issubclass(category, VersionWarning):
            _say(f"warning: {message}")
        else:
            show(message, category, *where, **more)

    warnings.showwarning = say
    try:
        yield
    finally:
        warnings.showwarning = show


def _sentence(error: OSError) -> str:
    """What the operating system refused, where, and what to do."""
    if error.filename is None or error.strerror is None:
        reason = str(error) or type(error).__name__
        return f"{reason}. Check paths, permissions and free disk space."
    # Of a rename, the second is the name that was asked for.
    return (
        f"{error.filename2 or error.filename}: expected to be able to read or write it, found: "
        f"{error.strerror}. Check the path, its permissions and the free disk space."
    )


def _say_interrupted() -> None:
    _say(f"interrupted; nothing that was committed is lost. Resume with:\n  {_this_call()}")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _this_call() -> str:
    return shlex.join(["clare-cache", *sys.argv[1:]])
