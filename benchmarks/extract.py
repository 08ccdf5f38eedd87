"""Stage one beside a loop written the way the published extractor works, on one machine in one run.

The loop takes one image at a time in float32 and encodes the prompt each time; it makes the same
error maps and, like the detectors that use them, CLIP's embedding. Networks of full size with
random weights: `random:sd21` and `random:ViT-L-14`. With `--device cuda` also the share of the
floor, the error of half precision against CPU float32, and memory.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from clare_cache.backbones import ClipConfig, ErrorMapConfig
from clare_cache.backbones.clip_models import load_clip
from clare_cache.backbones.numerics import float32_products, seeded_init, torch_dtype
from clare_cache.backbones.stable_diffusion import (
    RANDOM_SPECS,
    architecture,
    build_networks,
    schedule_from,
)
from clare_cache.images import encode_jpeg
from clare_cache.manifest import Manifest
from clare_cache.store import open_store
from clare_cache.workflow.features import extract
from clare_cache.workflow.manifests import build_manifest

FEATURES = ("error_map", "clip_block_cls", "clip_embedding")
VAE_GFLOP, UNET_GFLOP, CLIP_GFLOP = 273, 181, 162
"""One image: VAE encoding at 256 px, one UNet pass at 32×32 latents, CLIP ViT-L/14."""
PICTURE_PX = 512
CLIP_MEAN, CLIP_STD = (0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)


def write_pictures(folder: Path, n_images: int) -> Manifest:
    """JPEG files of 512 px, smooth and noisy parts mixed, and their manifest."""
    for label in ("real", "fake"):
        (folder / label).mkdir(parents=True)
    for number in range(n_images):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (16, 16, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((PICTURE_PX, PICTURE_PX)), np.int16)
        noisy = smooth + rng.integers(-9, 10, smooth.shape)
        data = encode_jpeg(np.clip(noisy, 0, 255).astype(np.uint8), 92)
        (folder / ("real", "fake")[number % 2] / f"{number:05d}.jpg").write_bytes(data)
    return build_manifest("folder", folder).manifest


class PublishedLoop:
    """One image after the other, all in float32, nothing kept from one image to the next."""

    def __init__(self, device: str, draws: int, timestep: int, sd: str, clip: str) -> None:
        configs = architecture(RANDOM_SPECS[sd])
        with seeded_init():
            networks = build_networks(configs)
        self.device, self.draws = torch.device(device), draws
        self.unet, self.vae, self.text = (n.eval().to(self.device) for n in networks)
        self.visual = load_clip(clip).image_backbone(ClipConfig(), device=device)._visual
        kept = float(schedule_from(configs["scheduler"])[timestep])
        self.signal, self.noise = kept**0.5, (1 - kept) ** 0.5
        self.step = torch.tensor(timestep, device=self.device)
        self.mean = torch.tensor(CLIP_MEAN, device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(CLIP_STD, device=self.device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def look(self, path: Path, out: Path) -> None:
        """An image file → a file with its error map and embedding."""
        from open_clip import tokenize

        with Image.open(path) as file:
            image = file.convert("RGB")
        ids = tokenize(["a photo"]).to(self.device)
        prompt = self.text(ids).last_hidden_state.repeat(self.draws, 1, 1)
        pixels = (self._tensor(image.resize((256, 256))) - 0.5) * 2
        latent = self.vae.encode(pixels).latent_dist.sample() * self.vae.config.scaling_factor
        latents = latent.repeat(self.draws, 1, 1, 1)
        noise = torch.randn_like(latents)
        noised = self.signal * latents + self.noise * noise
        target = self.signal * noise - self.noise * latents
        found = self.unet(noised, self.step, encoder_hidden_states=prompt).sample
        error = (found.float() - target.float()).square().mean(dim=0)
        size = self.visual.image_size[0]
        edge = (PICTURE_PX - size) // 2
        crop = self._tensor(image.crop((edge, edge, edge + size, edge + size)))
        embedding = self.visual((crop - self.mean) / self.std)
        torch.save((error.cpu(), embedding.cpu()), out)

    def _tensor(self, image: Image.Image) -> torch.Tensor:
        array = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        return array.to(self.device).float() / 255


def time_loop(told: argparse.Namespace, manifest: Manifest, root: Path) -> float:
    """Images per second of the loop; a GPU is warmed up by the first image."""
    loop = PublishedLoop(told.device, told.draws, told.timestep, told.sd, told.clip)
    paths = list(manifest.rows["path"].iloc[: told.loop_images])
    if told.device != "cpu":
        loop.look(root / paths[0], root.parent / "first.pt")
    began = time.perf_counter()
    for number, path in enumerate(paths):
        loop.look(root / path, root.parent / f"{number}.pt")
    return len(paths) / (time.perf_counter() - began)


def run_stage_one(
    told: argparse.Namespace,
    manifest: Manifest,
    root: Path,
    store: Path,
    *,
    dtype: str,
    device: str,
    batch_size: Any = 16,
) -> Any:
    return extract(
        manifest,
        store,
        root=root,
        features=FEATURES,
        sd=told.sd,
        clip=told.clip,
        error_map=ErrorMapConfig(timestep=told.timestep, ensemble=told.draws, dtype=dtype),
        image_tower=ClipConfig(dtype=dtype, stored_dtype="float32"),
        device=device,
        batch_size=batch_size,
        workers=told.workers,
        compiled=told.compile and device == told.device,
    )


def ceiling(device: torch.device, dtype: str) -> float:
    """FLOP/s of a large matrix product in this precision, the best of five."""
    size = 8192 if device.type == "cuda" else 2048
    kind = torch_dtype(dtype)
    left, right = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    best = float("inf")
    with float32_products(device, dtype):
        for _ in range(6):
            if device.type == "cuda":
                torch.cuda.synchronize()
            began = time.perf_counter()
            for _ in range(4):
                left @ right
            if device.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - began)
    return 4 * 2 * size**3 / best


def floor_rate(told: argparse.Namespace) -> float:
    """Images per second that the measured ceilings would allow; prints the ceilings."""
    device = torch.device(told.device)
    vae = ErrorMapConfig(dtype=told.dtype).vae_arithmetic
    ceilings = {dtype: ceiling(device, dtype) for dtype in dict.fromkeys([told.dtype, vae])}
    for dtype, flops in ceilings.items():
        print(f"matrix products in {dtype}: {flops / 1e12:.2f} TFLOP/s")
    rest = (told.draws * UNET_GFLOP + CLIP_GFLOP) / ceilings[told.dtype]
    return 1e-9 / (VAE_GFLOP / ceilings[vae] + rest)


def differences_to_cpu(
    told: argparse.Namespace, manifest: Manifest, root: Path, store: Path
) -> dict[str, float]:
    """Relative L2 difference of each array to CPU float32, on the first few images."""
    few = Manifest.from_rows(manifest.rows.head(told.compare))
    exact = store.with_name("exact")
    run_stage_one(told, few, root, exact, dtype="float32", device="cpu")
    found = {}
    for name in FEATURES:
        here, there = (
            open_store(s)[f"clean/{name}"].by_image_id(few.image_ids).astype(np.float64)
            for s in (store, exact)
        )
        found[name] = float(np.linalg.norm(here - there) / np.linalg.norm(there))
    return found


@dataclass(frozen=True)
class Measured:
    """Images per second of the stage, of the published loop, and of the floor; how it was."""

    rate: float
    loop_rate: float
    floor_rate: float
    notes: tuple[str, ...]
    first_seconds: float
    differences: dict[str, float]


def measure(told: argparse.Namespace, folder: Path) -> Measured:
    """The loop, then the stage, in one run; prints what it does."""
    on_gpu, images = told.device != "cpu", folder / "images"
    manifest = write_pictures(images, told.images)
    loop_rate = time_loop(told, manifest, images)
    print(
        f"published way: {loop_rate:.3f} images/s, {told.loop_images} images, float32", flush=True
    )
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    given = {"dtype": told.dtype, "device": told.device}
    notes, first, batch_size = (), 0.0, told.batch_size
    if on_gpu or told.compile:
        # Loading, compiling and trying out batches are paid once for any number of images.
        began = time.perf_counter()
        few = Manifest.from_rows(manifest.rows.head(told.warm_images))
        notes = run_stage_one(
            told, few, images, folder / "first", batch_size=batch_size, **given
        ).notes
        first = time.perf_counter() - began
        print(f"before: {first:.1f} s for {len(few)} images; {'; '.join(notes)}", flush=True)
    store = folder / "store"
    report = run_stage_one(told, manifest, images, store, batch_size=batch_size, **given)
    rate = report.images_per_second
    print(f"clare-cache:   {rate:.3f} images/s, {report.n_decoded} images, {told.dtype}")
    spent = {n: s for n, s in report.seconds.items() if n not in ("total", "load", "plan")}
    for stage, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"  {stage:7} {seconds:8.1f} s {seconds / sum(spent.values()):5.0%}")
    print(f"ratio: {rate / loop_rate:.2f}")
    floor = floor_rate(told)
    print(f"floor: {floor:.2f} images/s; reached {rate / floor:.0%} of it, decode and write in")
    differences = {}
    if on_gpu:
        peak = torch.cuda.max_memory_allocated() / 2**30
        print(f"GPU memory: {peak:.1f} GiB at most", flush=True)
    if told.compare:
        differences = differences_to_cpu(told, manifest, images, store)
        for name, error in differences.items():
            print(f"{name}: {told.dtype} on {told.device} differs from CPU float32 by {error:.1e}")
    return Measured(rate, loop_rate, floor, notes, first, differences)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, with defaults for the device."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="", help="default: float32 on a CPU, else float16")
    parser.add_argument("--images", type=int, default=0, help="default: 2 on a CPU, else 1024")
    parser.add_argument("--loop-images", type=int, default=0, help="default: 2 on a CPU, else 32")
    parser.add_argument("--warm-images", type=int, default=256, help="images before, on a GPU")
    parser.add_argument("--compare", type=int, default=-1,
                        help="images made on the CPU too; default: 4, on a CPU none")  # fmt: skip
    parser.add_argument("--batch-size", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--timestep", type=int, default=200)
    parser.add_argument("--sd", default="random:sd21", choices=RANDOM_SPECS)
    parser.add_argument("--clip", default="random:ViT-L-14")
    told = parser.parse_args(arguments)
    on_cpu = told.device == "cpu"
    told.dtype = told.dtype or ("float32" if on_cpu else "float16")
    told.images = told.images or (2 if on_cpu else 1024)
    told.compare = (0 if on_cpu else 4) if told.compare < 0 else told.compare
    told.loop_images = told.loop_images or (2 if on_cpu else 32)
    if told.batch_size != "auto":
        told.batch_size = int(told.batch_size)
    return told


def main(arguments: Sequence[str] | None = None) -> None:
    told = parse(arguments)
    with tempfile.TemporaryDirectory() as name:
        measure(told, Path(name))


if __name__ == "__main__":
    main()
