"""Everything that was promised of a GPU, measured in one command, within a time that is lent.

Stages run one after the other, each in a process of its own with a limit of its own, so that one
that fails or is cut off costs no other. Each figure is written to `results.jsonl` as soon as it is
known; what stages print goes to `log.txt`. `--small` runs all of it on a CPU with small networks
and few images, which tests the script and measures nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import decode, extract, precision, sweep
from clare_cache.backbones import ErrorMapConfig
from clare_cache.backbones.error_map import ErrorMapBackbone
from clare_cache.backbones.stable_diffusion import load_stable_diffusion
from clare_cache.data import load
from clare_cache.data.rows import ResidentRows
from clare_cache.manifest import Manifest
from clare_cache.store import ArrayEntry, open_store
from clare_cache.train.config import OptimiserConfig
from clare_cache.train.numerics import numerics

ROWS = (16, 64, 128, 256, 512)
CLARE_BATCHES = (32, 128)


@dataclass(frozen=True)
class Figure:
    """A number, its unit, and what was asked for."""

    name: str
    found: float
    unit: str
    asked: str = ""


@dataclass(frozen=True)
class Told:
    """Where to measure, and whether only to try out the script."""

    device: str
    small: bool

    @property
    def sd(self) -> str:
        return "tiny" if self.small else "random:sd21"

    @property
    def clip(self) -> str:
        return "tiny" if self.small else "random:ViT-L-14"

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"


Measure = Callable[[Told, Path], Iterator[Figure]]


def ceilings(told: Told, folder: Path) -> Iterator[Figure]:
    # Without a GPU half precision takes minutes.
    for dtype in ("float32", "tf32", *(("float16", "bfloat16") if told.on_gpu else ())):
        found = extract.ceiling(torch.device(told.device), dtype)
        yield Figure(f"matrix products in {dtype}", found / 1e12, "TFLOP/s")


def unet_rows(told: Told, folder: Path) -> Iterator[Figure]:
    """Noised latents a call: how many fill the GPU, and whether the host keeps up."""
    config = ErrorMapConfig(dtype="float16" if told.on_gpu else "float32")
    parts = load_stable_diffusion(told.sd, prompt=config.prompt, dtype=config.dtype)
    backbone = ErrorMapBackbone(parts, config, device=told.device)
    step = torch.full((), 200, dtype=torch.int64, device=told.device)
    for n_rows in ROWS[:2] if told.small else ROWS:
        latents = torch.randn(n_rows, 4, 32, 32, device=told.device)
        with torch.inference_mode():
            backbone._predict(latents, step)
            wait(told)
            began = time.perf_counter()
            for _ in range(3):
                backbone._predict(latents, step)
            host = time.perf_counter() - began
            wait(told)
            spent = time.perf_counter() - began
        yield Figure(f"UNet, {n_rows} rows a call", 3 * n_rows / spent, "rows/s")
        yield Figure(f"UNet, {n_rows} rows a call, the host's share", 100 * host / spent, "%")
        yield from memory(told, f"UNet, {n_rows} rows a call")


def stage_one(told: Told, folder: Path, *more: str) -> Iterator[Figure]:
    """Images a second beside the published loop and the floor, decode and writing included."""
    arguments = ["--device", told.device, "--sd", told.sd, "--clip", told.clip, *more]
    if told.small:
        arguments += ["--images", "8", "--loop-images", "1", "--compare", "2"]
        arguments += ["--warm-images", "4"]
    name = "stage one, compiled" if "--compile" in more else "stage one"
    found = extract.measure(extract.parse(arguments), folder)
    yield Figure(name, found.rate, "images/s")
    yield Figure(f"{name}, published loop", found.loop_rate, "images/s")
    yield Figure(f"{name} / published loop", found.rate / found.loop_rate, "times", "20 or more")
    share = 100 * found.rate / found.floor_rate
    yield Figure(f"{name}, share of the floor", share, "%", "45 or more")
    yield Figure(f"{name}, before the first image", found.first_seconds, "s")
    yield from memory(told, name)
    for note in found.notes:
        numbers = [int(word) for word in note.split() if word.isdigit()]
        yield Figure(f"{name}: {note}", float(numbers[0]) if numbers else float("nan"), "")
    rounding = f"rounding alone: {precision.EXPECTED['clip']['float16']:.1e}"
    for array, error in found.differences.items():
        asked = rounding if array.startswith("clip") else "imitated: 7e-4"
        yield Figure(f"{name}, {array} against CPU float32", error, "relative L2", asked)


def compiled(told: Told, folder: Path) -> Iterator[Figure]:
    # One batch size: every further shape would be compiled too.
    yield from stage_one(told, folder, "--compile", "--batch-size", "4" if told.small else "64")


def rine(told: Told, folder: Path) -> Iterator[Figure]:
    """The 48-point grid over 144,000 images, reading included, against its largest member alone."""
    given = argparse.Namespace(
        device=told.device, fraction=0.0001 if told.small else 1.0, rine_batch=sweep.BATCH
    )
    made = time.perf_counter()
    train, validation, _ = sweep._data(folder, [sweep.BLOCK_CLS], sweep.RINE_IMAGES, given)
    print(f"store made in {time.perf_counter() - made:.0f} s: {train.residence}", flush=True)
    manifest = Manifest.from_rows(train.rows)
    del train
    began = time.perf_counter()
    train = load(open_store(folder), manifest, needs=["clip_block_cls"], device=told.device)
    wait(told)
    reading = time.perf_counter() - began
    yield Figure(f"RINE, {len(train):,} images: reading ({train.residence.kind})", reading, "s")
    points = sweep.itertools.product((0.1, 0.2, 0.4, 0.8), (1, 2, 4), (128, 256, 512, 1024))
    grid = list(points)
    largest = [(0.2, 4, 1024)]
    if told.small:
        grid, largest = grid[:2], grid[:1]
    few = sweep._data(folder / "few", [sweep.BLOCK_CLS], 300, given)[:2]
    for kind in ("tf32", "float32"):
        with numerics(kind, deterministic=False, device=told.device):
            for members in (largest, grid):
                sweep._train(sweep._rine_members(members), *few, sweep.BATCH, told.device)
            together, alone = (
                sweep._train(
                    sweep._rine_members(members), train, validation, sweep.BATCH, told.device
                ).wall
                for members in (grid, largest)
            )
        name = f"RINE, {len(grid)} members, {kind}"
        yield Figure(f"{name}, reading included", together + reading, "s", "under 60 on an H200")
        yield Figure(f"{name} / largest alone", together / alone, "times", "5 or less")
        yield from memory(told, name)


class OnDevice:
    """Made-up rows of CLaRE's arrays in a device's memory: what a resident store comes to."""

    def __init__(self, n: int, device: str) -> None:
        self.labels = torch.arange(n) % 2
        tensors = {
            spec.name: torch.empty(
                n, *spec.shape, dtype=getattr(torch, spec.dtype), device=device
            ).uniform_()
            for spec in sweep.CLARE_ARRAYS
        }
        entries = {spec.name: ArrayEntry("clean", spec, 0, {}) for spec in sweep.CLARE_ARRAYS}
        self._rows = ResidentRows(tensors, entries, n=n)
        self.once = self._rows.once

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: np.ndarray) -> tuple[dict[str, Tensor], Tensor]:
        return self._rows.batch(indices), self.labels[torch.from_numpy(np.asarray(indices))]

    def epoch(
        self, generator: np.random.Generator, batch_size: int
    ) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        for positions, features in self._rows.epoch(generator, batch_size):
            yield features, self.labels[torch.from_numpy(positions)]


def clare(told: Told, folder: Path) -> Iterator[Figure]:
    """One CoCoOp epoch over 42,000 images that are in the GPU's memory."""
    n_images = 16 if told.small else sweep.CLARE_IMAGES
    train, validation = OnDevice(n_images, told.device), OnDevice(16, told.device)
    text = sweep._text_tower(told.device)
    settings = [OptimiserConfig(optimiser="sgd", lr=2e-3)]
    kinds = ("tf32", "bfloat16", "float32")
    for kind in kinds[:1] if told.small else kinds:
        for batch in (8,) if told.small else CLARE_BATCHES:
            members = sweep._clare_members("cocoop", settings, text)
            with numerics(kind, deterministic=False, device=told.device):
                sweep._train(members, validation, validation, batch, told.device)
                spent = sweep._train(members, train, validation, batch, told.device)
            name = f"CLaRE CoCoOp epoch, {n_images:,} images, batch {batch}, {kind}"
            yield Figure(name, spent.wall, "s", "under 10")
    yield from memory(told, "CLaRE CoCoOp")


def heads(told: Told, folder: Path) -> Iterator[Figure]:
    """Every head beside its plain form; its table is in the log."""
    more = ["--help"] if told.small else ["--repeats", "3"]
    yield from command("heads", "-m", "benchmarks.heads", "--device", told.device, *more)


def precisions(told: Told, folder: Path) -> Iterator[Figure]:
    """TF32, float16 and bfloat16 against float32 on this device; the table is in the log."""
    networks = ["--sd", told.sd, "--clip", told.clip, "--images", "1" if told.small else "4"]
    yield from command("precision", "-m", "benchmarks.precision", "--device", told.device,
                       *networks)  # fmt: skip


def tests(told: Told, folder: Path) -> Iterator[Figure]:
    """The tests that need a card, goldens among them; on a CPU they are only collected."""
    more = ["-m", "gpu", "-p", "no:cacheprovider", "--timeout", "120"]
    more += ["--collect-only", "-q"] if not told.on_gpu else []
    # What needs packages that are not there is left out, and told in the log.
    more += ["--continue-on-collection-errors"]
    yield from command("tests on a GPU", "-m", "pytest", *more, "tests/unit", "tests/golden")


def decoding(told: Told, folder: Path) -> Iterator[Figure]:
    """How many images a second the host can read, decode and prepare."""
    items = decode.write_images(folder, 32 if told.small else 512, 512)
    n_cores = len(os.sched_getaffinity(0))
    try:
        for kind in decode.DECODE_IN:
            for workers in dict.fromkeys([1, max(1, n_cores // 2), n_cores]):
                rate = decode.rate(items, folder, kind, workers, busy=False)
                name = f"decoding of {n_cores} cores, {workers} {kind}"
                yield Figure(name, rate, "images/s", "above stage one")
    finally:
        decode.close_processes()


STAGES: dict[str, tuple[Measure, int]] = {
    "ceilings": (ceilings, 60),
    "stage-one": (stage_one, 270),
    "rine": (rine, 420),
    "clare": (clare, 150),
    "tests": (tests, 150),
    "unet-rows": (unet_rows, 90),
    "compiled": (compiled, 330),
    "precision": (precisions, 120),
    "heads": (heads, 120),
    "decoding": (decoding, 60),
}
"""Name → what it measures and the seconds that it may take, the most important first."""


def command(name: str, *arguments: str) -> Iterator[Figure]:
    """Runs Python in another process, its output to this one's; the figure is its exit status."""
    began = time.perf_counter()
    status = subprocess.run([sys.executable, *arguments], check=False).returncode
    yield Figure(f"{name}: exit status", status, "", "0")
    yield Figure(f"{name}: time", time.perf_counter() - began, "s")


def wait(told: Told) -> None:
    if told.on_gpu:
        torch.cuda.synchronize()


def memory(told: Told, name: str) -> Iterator[Figure]:
    """The most that the stage has taken so far, where there is a GPU."""
    if told.on_gpu:
        yield Figure(f"{name}, GPU memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")


def run_one(stage: str, told: Told, results: Path) -> None:
    """One stage, here; every figure is on the disk before the next is measured."""
    with tempfile.TemporaryDirectory() as folder, results.open("a", encoding="utf-8") as file:
        for figure in STAGES[stage][0](told, Path(folder)):
            file.write(json.dumps({"stage": stage, **asdict(figure)}) + "\n")
            file.flush()
            os.fsync(file.fileno())
            print(show(figure), flush=True)


def show(figure: Figure) -> str:
    asked = f"   asked: {figure.asked}" if figure.asked else ""
    return f"{figure.name:70} {figure.found:12.4g} {figure.unit}{asked}"


def run_all(stages: Sequence[str], told: Told, out: Path, *, minutes: float) -> int:
    """Every stage in a process of its own; what went wrong is a line of the results."""
    out.mkdir(parents=True, exist_ok=True)
    results, end, failed = out / "results.jsonl", time.monotonic() + 60 * minutes, 0
    for stage in stages:
        limit = min(STAGES[stage][1], end - time.monotonic())
        print(f"--- {stage}, at most {max(limit, 0):.0f} s", flush=True)
        began = time.monotonic()
        status = (
            run_process(stage, told, out, results, limit=limit) if limit > 5 else "no time left"
        )
        failed += bool(status)
        n_lines = len(results.read_text().splitlines()) if results.exists() else 0
        print(
            f"    {time.monotonic() - began:.0f} s, {n_lines} figures so far {status}", flush=True
        )
        if status:
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"stage": stage, "error": status}) + "\n")
    for line in results.read_text(encoding="utf-8").splitlines():
        read = json.loads(line)
        stage = read.pop("stage")
        print(f"{stage:10} " + (read.get("error") or show(Figure(**read))))
    return failed


def run_process(stage: str, told: Told, out: Path, results: Path, *, limit: float) -> str:
    """ "" or why the stage did not end well; its output goes to the log."""
    again = ["--only", stage, "--out", str(out), "--device", told.device]
    again += ["--small"] if told.small else []
    with (out / "log.txt").open("a", encoding="utf-8") as log:
        log.write(f"--- {stage}\n")
        log.flush()
        # A session of its own, so that what the stage started ends with it.
        child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu", *again],
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            status = child.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, 9)
            child.wait()
            return f"cut off after {limit:.0f} s"
    return f"failed, exit status {status}; see log.txt" if status else ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", help=f"default: all of {', '.join(STAGES)}")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--device", default="", help="default: cuda, with --small cpu")
    parser.add_argument("--minutes", type=float, default=30, help="for all stages together")
    parser.add_argument("--small", action="store_true", help="try out the script on a CPU")
    parser.add_argument("--only", choices=STAGES, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    told = Told(given.device or ("cpu" if given.small else "cuda"), given.small)
    if unknown := [stage for stage in given.stages if stage not in STAGES]:
        parser.error(f"unknown stages: {', '.join(unknown)}; known: {', '.join(STAGES)}")
    if given.only:
        run_one(given.only, told, given.out / "results.jsonl")
        return 0
    return run_all(given.stages or list(STAGES), told, given.out, minutes=given.minutes)


if __name__ == "__main__":
    sys.exit(main())
