"""Seconds inside each network, on the host or on a GPU, without stopping the GPU for it."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch


class Stopwatch:
    """Times named stretches of work on one device.

    A GPU works behind the host's back: events mark the begin and end of a stretch in its queue, and
    are read in `take`, after the results have come to the host.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._events: list[tuple[str, Any, Any]] = []

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Adds the time of the block to `name`, unless the block raises."""
        if self._device.type != "cuda":
            began = time.perf_counter()
            yield
            self._seconds[name] += time.perf_counter() - began
            return
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        stream = torch.cuda.current_stream(self._device)
        begin.record(stream)
        yield
        end.record(stream)
        self._events.append((name, begin, end))

    def take(self) -> Mapping[str, float]:
        """Seconds by name since the last call; waits for what the GPU has not finished."""
        for name, begin, end in self._events:
            end.synchronize()
            self._seconds[name] += begin.elapsed_time(end) / 1000
        found, self._seconds, self._events = self._seconds, defaultdict(float), []
        return found
