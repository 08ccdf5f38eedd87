"""How long the first steps take: `--help`, and extraction with the `tiny` backbones."""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from clare_cache.workflow.demo import GROUP_PATTERN, make_images
from clare_cache.workflow.features import extract
from clare_cache.workflow.manifests import build_manifest

REPEATS = 7


def seconds_of(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def measure_start() -> None:
    commands = {
        "bare interpreter": ("-c", "pass"),
        "clare-cache --help": ("-m", "clare_cache", "--help"),
        "import torch": ("-c", "import torch"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(REPEATS):
        for name, arguments in commands.items():
            seconds[name].append(seconds_of(*arguments))
    for name, values in seconds.items():
        print(f"{name:20} {statistics.median(values):6.2f} s  (median of {REPEATS})")


def measure_extraction() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        n_images = make_images(root / "images", per_region=16)
        manifest = build_manifest("folder", root / "images", group_pattern=GROUP_PATTERN).manifest
        for attempt in ("cold", "warm", "again"):
            store = root / ("store-warm" if attempt == "again" else f"store-{attempt}")
            report = extract(
                manifest, store, root=root / "images", sd="tiny", clip="tiny", device="cpu"
            )
            parts = ", ".join(
                f"{name} {value:.2f}" for name, value in report.seconds.items() if name != "total"
            )
            print(
                f"extract {attempt:6} {n_images} images, {report.n_decoded} decoded, "
                f"{report.images_per_second:6.1f} images/s, {report.seconds['total']:.2f} s"
                + (f": {parts}" if parts else "")
            )


def measure_nothing_to_do() -> None:
    """CPU seconds of a call of `extract` that finds all there, and of its imports alone."""
    libraries = "import torch, open_clip; from diffusers import AutoencoderKL, DDPMScheduler"
    libraries += ", UNet2DConditionModel; from transformers import CLIPTextModel"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_images(root / "images", per_region=1)
        manifest = build_manifest("folder", root / "images", group_pattern=GROUP_PATTERN).manifest
        call = ["-m", "clare_cache", "extract", str(manifest.write(root / "m.csv"))]
        call += [str(root / "store"), "--root", str(root / "images"), "--sd", "tiny"]
        call += ["--clip", "tiny", "--device", "cpu"]
        seconds_of(*call)
        for name, arguments in (("extract, all there", call), ("its libraries", ["-c", libraries])):
            values = [_cpu_seconds_of(*arguments) for _ in range(3)]
            print(f"{name:20} {statistics.median(values):6.2f} s of CPU  (median of 3)")


def _cpu_seconds_of(*arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds_of(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    measure_start()
    measure_nothing_to_do()
    measure_extraction()
