"""What a training step costs the host, by part: heads so narrow that arithmetic takes no time.

On a GPU that is faster than the host can ask it, these milliseconds are a step's time. One thread
on a CPU; there an operation's own few microseconds are included, where a GPU's driver takes its
own. The first column has `torch.vmap` find a stack's operations anew in every step, the second
replays the recorded list, in the same run.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from benchmarks import sweep
from clare_cache.data import FeatureData
from clare_cache.heads import build_head
from clare_cache.train import loop, recording, stack
from clare_cache.train.config import OptimiserConfig
from clare_cache.train.loop import Member, train_members
from clare_cache.train.masks import Masks
from clare_cache.types import ArraySpec, Progress

SHAPE = (2, 8)
TOKENS = ArraySpec("clip_block_cls", SHAPE, ("block", "channel"), "float16", "made up")
EMBEDDING = ArraySpec("clip_embedding", (8,), ("channel",), "float16", "made up")
BATCH = 4
GRID = list(itertools.product((0.1, 0.2, 0.4, 0.8), (1, 2, 4), (4, 5, 6, 8)))
"""RINE's 4 loss weights × 3 depths × 4 widths, the widths as narrow as can be."""
PARTS = ("batch", "masks", "forward and loss", "backward", "replay", "optimiser", "rest", "step")
NEVER = 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200, help="timed, of each")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"1 thread, torch {torch.__version__}, {given.steps} steps, medians, ms a step")
    with tempfile.TemporaryDirectory(prefix="clare-cache-host-") as folder:
        n = BATCH * (given.steps + 2 * recording.RECORD_AT)
        size = argparse.Namespace(fraction=1.0, clare_batch=BATCH, device="cpu")
        data = sweep._data(Path(folder) / "store", [TOKENS, EMBEDDING], n, size)
        for what, members in (
            ("RINE, the largest member alone", lambda: _rine([(0.2, 4, 8)])),
            ("RINE, 48 members, 12 stacks", lambda: _rine(GRID)),
            ("linear, 16 members, 1 stack", _linear),
        ):
            _show(
                what, *(_time(members(), *data[:2], at=at) for at in (NEVER, recording.RECORD_AT))
            )


def _rine(points: Sequence[tuple[float, int, int]]) -> list[Member]:
    shapes = {"clip_block_cls": SHAPE}
    return [
        Member(
            f"rine-{xi}-{depth}-{width}",
            build_head(
                "rine", shapes=shapes, depth=depth, width=width, contrastive_weight=xi, seed=1
            ),
            OptimiserConfig(lr=1e-3),
        )
        for xi, depth, width in points
    ]


def _linear() -> list[Member]:
    return [
        Member(f"linear-{n}", build_head("linear", shapes={"clip_embedding": (8,)}, seed=n),
               OptimiserConfig(lr=1e-3))
        for n in range(16)
    ]  # fmt: skip


class Clock:
    """Seconds of named parts, each without those within it, step by step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self._spent: dict[str, float] = defaultdict(float)
        self._within: list[float] = []
        self._last = time.perf_counter()

    def times(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._within.append(0.0)
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                whole = time.perf_counter() - began
                self._spent[part] += whole - self._within.pop()
                if self._within:
                    self._within[-1] += whole

        return call

    def end_step(self, progress: Progress) -> None:
        if progress.what != "train":
            return
        now = time.perf_counter()
        whole = now - self._last
        self._spent["rest"] += whole - sum(self._spent.values())
        self.steps.append({**self._spent, "step": whole})
        self._spent.clear()
        self._last = time.perf_counter()


def _time(
    members: Sequence[Member], train: FeatureData, validation: FeatureData, *, at: int
) -> dict[str, float]:
    """Median milliseconds of each part, of steps after the recorded one."""
    clock = Clock()
    with _timed(clock), _put(recording, "RECORD_AT", at):
        train_members(
            members, train, validation, epochs=1, batch_size=BATCH, on_progress=clock.end_step
        )
    steps = clock.steps[2 * recording.RECORD_AT :]
    return {part: 1e3 * statistics.median(s.get(part, 0.0) for s in steps) for part in PARTS}


@contextmanager
def _timed(clock: Clock) -> Iterator[None]:
    read = loop._read

    def batches(*args: Any, **kwargs: Any) -> Iterator[Any]:
        rest = read(*args, **kwargs)
        done = object()
        following = clock.times("batch", lambda: next(rest, done))
        while (found := following()) is not done:
            yield found

    timed = [
        (loop, "_on", "batch"), (Masks, "draw", "masks"), (torch.autograd, "grad", "backward"),
        (stack.Stack, "learn", "forward and loss"), (recording.GraphModule, "__call__", "replay"),
        (torch.optim.Adam, "step", "optimiser"),
    ]  # fmt: skip
    with _put(loop, "_read", batches):
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in timed]
        for owner, name, part in timed:
            setattr(owner, name, clock.times(part, getattr(owner, name)))
        try:
            yield
        finally:
            for owner, name, function in before:
                setattr(owner, name, function)


@contextmanager
def _put(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _show(what: str, plain: dict[str, float], replayed: dict[str, float]) -> None:
    print(f"{what}\n  {'':18} {'anew':>8} {'replayed':>9}", flush=True)
    for part in PARTS:
        print(f"  {part:18} {plain[part]:8.2f} {replayed[part]:9.2f}")
    print(f"  {plain['step'] / replayed['step']:.1f} times as fast", flush=True)


if __name__ == "__main__":
    main()
