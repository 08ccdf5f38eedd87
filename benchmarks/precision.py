"""What precision does to error maps and CLIP arrays, beside float32, on the same images and noise.

On a CPU tf32 is imitated: the factors of every product are rounded to ten bits of mantissa, as a
GPU's tensor cores do. Random weights of full size by default; trained ones
have outliers, so measure once with yours (`--sd FOLDER --clip MODEL:FILE`).
"""

import argparse
import copy
import gc
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from clare_cache.backbones import ClipConfig, ErrorMapConfig
from clare_cache.backbones.clip_models import load_clip
from clare_cache.backbones.error_map import ErrorMapBackbone
from clare_cache.backbones.numerics import torch_dtype
from clare_cache.backbones.stable_diffusion import load_stable_diffusion
from clare_cache.seeds import standard_normal
from clare_cache.types import ImageId

EXPECTED = {
    "unet": {"tf32": 0.7e-3, "float16": 1.4e-3, "bfloat16": 1.3e-2},
    "vae": {"tf32": 0.98e-3},
    "clip": {"tf32": 0.5e-3, "float16": 1.5e-3, "bfloat16": 1.2e-2},
}
"""Relative L2 error of each network's output by rounding alone, as found for random weights when
every operation was rounded in turn: what an implementation should come near."""

TF32_MANTISSA_BITS = 10
FACTORS = {
    "linear": (0, 1),
    "addmm": (1, 2),
    "mm": (0, 1),
    "bmm": (0, 1),
    "baddbmm": (1, 2),
    "matmul": (0, 1),
    "conv2d": (0, 1),
    "convolution": (0, 1),
    "scaled_dot_product_attention": (0, 1, 2),
    "_scaled_dot_product_flash_attention_for_cpu": (0, 1, 2),
    "_scaled_dot_product_attention_math": (0, 1, 2),
}
"""Products by the operations that make them, with the places of the factors."""
CLIP_ARRAYS = ("clip_patch_tokens", "clip_block_cls", "clip_embedding")


def pictures(n_images: int, size_px: int) -> NDArray[np.uint8]:
    """(n, size, size, 3): smooth and noisy parts mixed."""
    found = []
    for number in range(n_images):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (16, 16, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((size_px, size_px)), np.int16)
        found.append(np.clip(smooth + rng.integers(-9, 10, smooth.shape), 0, 255))
    return np.stack(found).astype(np.uint8)


def to_tf32(values: Tensor) -> Tensor:
    """Float32 rounded to the nearest number with ten bits of mantissa."""
    dropped = 23 - TF32_MANTISSA_BITS
    bits = values.contiguous().view(torch.int32)
    return ((bits + (1 << (dropped - 1))) >> dropped << dropped).view(torch.float32)


class RoundedOperands(TorchDispatchMode):
    """While it is on, the two factors of every product of float32 tensors are rounded to TF32."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        factors = FACTORS.get(func.overloadpacket.__name__, ())
        rounded = [
            to_tf32(value) if place in factors and value.dtype == torch.float32 else value
            for place, value in enumerate(args)
        ]
        return func(*rounded, **(kwargs or {}))


def imitated_tf32(device: torch.device) -> AbstractContextManager[Any]:
    """A block whose products are rounded as TF32's are; a GPU needs no imitation."""
    # The fast path of attention is one operation that no mode sees into.
    torch.backends.mha.set_fastpath_enabled(False)
    return nullcontext() if device.type == "cuda" else RoundedOperands()


def relative(found: Tensor, expected: Tensor) -> float:
    """|found − expected| / |expected|, L2 over everything."""
    found, expected = found.double(), expected.double()
    return float((found - expected).norm() / expected.norm())


def show(array: str, dtype: str, error: float, expected: float | None) -> None:
    beside = "" if expected is None else f"   rounding alone {expected:.1e}"
    print(f"  {array:22} {dtype:9} {error:.1e}{beside}", flush=True)


def measure_error_maps(told: argparse.Namespace) -> None:
    config = ErrorMapConfig(timestep=told.timestep, ensemble=told.draws)
    parts = load_stable_diffusion(told.sd, prompt=config.prompt)
    exact = ErrorMapBackbone(parts, config, device=told.device)
    batch = pictures(told.images, config.size_px)
    mean, _ = exact.posterior(batch)
    rounded = ErrorMapBackbone(parts, replace(config, vae_dtype="tf32"), device=told.device)
    with imitated_tf32(exact.device):
        error = relative(rounded.posterior(batch)[0], mean)
    print(f"{told.images} images, {told.draws} draws, t={told.timestep}; relative L2 error:")
    show("VAE latent mean", "tf32", error, EXPECTED["vae"]["tf32"])
    latents = mean * exact.scaling_factor
    shape = (told.images, told.draws, *latents.shape[1:])
    noise = torch.from_numpy(standard_normal(0, "precision", "noise", shape)).to(exact.device)
    expected = exact.errors(latents, noise, told.timestep)
    kept = float(parts.alphas_cumprod[told.timestep])
    velocity = kept**0.5 * noise - (1 - kept) ** 0.5 * latents[:, None]
    target = noise if parts.prediction_type == "epsilon" else velocity
    for dtype in told.dtypes:
        gc.collect()
        unet = parts.unet
        if dtype != "tf32":
            unet = nn.Module.to(copy.deepcopy(unet), torch_dtype(dtype))
        backbone = ErrorMapBackbone(
            replace(parts, unet=unet), replace(config, dtype=dtype), device=told.device
        )
        with imitated_tf32(exact.device) if dtype == "tf32" else nullcontext():
            found = backbone.errors(latents, noise, told.timestep)
        error = relative(found + target, expected + target)
        show("UNet output", dtype, error, EXPECTED["unet"][dtype])
        show("error_map_signed", dtype, relative(found.mean(1), expected.mean(1)), None)
        maps = [errors.square().mean(1) for errors in (found, expected)]
        show("error_map", dtype, relative(*maps), None)
        show("error_map, image mean", dtype, relative(*(m.mean((1, 2, 3)) for m in maps)), None)


def measure_clip(told: argparse.Namespace) -> None:
    batch = pictures(told.images, 224)
    ids = [ImageId(f"{n:064x}") for n in range(told.images)]
    expected: dict[str, NDArray[np.generic]] = {}
    for dtype in ("float32", *told.dtypes):
        gc.collect()
        config = ClipConfig(dtype=dtype, stored_dtype="float32")
        backbone = load_clip(told.clip).image_backbone(config, device=told.device)
        with imitated_tf32(backbone.device) if dtype == "tf32" else nullcontext():
            found = backbone(batch, ids, CLIP_ARRAYS)
        expected = expected or found
        if dtype != "float32":
            for name in CLIP_ARRAYS:
                pair = (torch.from_numpy(values[name]) for values in (found, expected))
                show(name, dtype, relative(*pair), EXPECTED["clip"][dtype])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--timestep", type=int, default=200)
    parser.add_argument("--dtypes", nargs="+", default=["tf32", "float16", "bfloat16"])
    parser.add_argument("--networks", nargs="+", default=["sd", "clip"], choices=["sd", "clip"])
    parser.add_argument("--sd", default="random:sd21")
    parser.add_argument("--clip", default="random:ViT-L-14")
    told = parser.parse_args(arguments)
    if "sd" in told.networks:
        measure_error_maps(told)
    if "clip" in told.networks:
        measure_clip(told)


if __name__ == "__main__":
    main()
