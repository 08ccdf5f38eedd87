"""Loaded by dask in worker processes of this machine: Ctrl-C is for the main process alone."""

import signal


def dask_setup(worker: object) -> None:
    """Called in a worker's main thread as it starts.

    A terminal sends Ctrl-C to every process. The main one closes the workers; a worker that also
    stopped by itself would print a traceback over the line that says how to resume.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
