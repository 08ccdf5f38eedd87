"""Device, precision and seeded initialisation: the few torch settings that backbones share.

Changes no global state that outlives a `with` block, and never seeds the caller's generators.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clare_cache.errors import BackboneError
from clare_cache.fingerprint import fingerprint

RANDOM_SEED = 0
COMPILER = "inductor"


def pick_device(name: str) -> torch.device:
    """The torch device of that name; BackboneError if there is none on this machine.

    `auto` is the GPU if there is one, else the CPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BackboneError(
            f"device {name}: expected cpu, cuda, cuda:N or mps, found an unknown name. "
            "Name one of these with `--device`."
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BackboneError(
            f"device {name}: expected such a GPU, found {torch.cuda.device_count()} on this "
            "machine. Use `--device cpu`, or install a PyTorch build for its GPU."
        )
    return device


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of that name: float32, float16 or bfloat16; tf32 is kept as float32."""
    return {
        "float32": torch.float32,
        "tf32": torch.float32,
        "float16": torch.float16,
        "bfloat16": torch.bfloat16,
    }[name]


@contextmanager
def float32_products(device: torch.device, dtype: str) -> Iterator[None]:
    """A block where a GPU's float32 products are exact for `float32`, else rounded to TF32.

    PyTorch by default rounds convolutions, an error of about 1e-3, and not matrix products;
    asking for `float32` means the reference numbers, asking for less means the speed.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = dtype != "float32"
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def largest_batch(device: torch.device) -> int:
    """Pictures at once beyond which nothing is to be gained: a CPU is busy with a few."""
    return 256 if device.type == "cuda" else 16


def compile_in_place(network: Any) -> None:
    """Has the network compiled when it first meets a shape; every further shape costs as much.

    What is compiled is kept between runs, in `TORCHINDUCTOR_CACHE_DIR` or else in the user's
    cache folder, not in /tmp, which a cluster's jobs do not share.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "clare-cache"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "inductor"))
    network.compile(backend=COMPILER, dynamic=False, fullgraph=True)


def place(network: Any, device: torch.device) -> Any:
    """The network on the device, with its channels last in a GPU's memory, where convolutions are
    faster so; on a CPU that order costs a digit."""
    if device.type == "cuda":
        return network.to(device, memory_format=torch.channels_last)
    return network.to(device)


def padded(rows: Tensor, count: int) -> Tensor:
    """(n, …) → (`count`, …), the first row repeated at the end: a compiled network's one shape."""
    missing = count - len(rows)
    if missing <= 0:
        return rows
    return torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])])


@contextmanager
def full_memory() -> Iterator[None]:
    """A block in which a GPU's full memory is a MemoryError, as the host's is."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from None


@contextmanager
def seeded_init(seed: int = RANDOM_SEED) -> Iterator[None]:
    """A block in which CPU initialisation is a function of `seed`; outside it nothing changes."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would also seed the caller's GPU generators.
        torch.default_generator.manual_seed(seed)
        yield


def on_meta(empty: bool) -> AbstractContextManager[Any]:
    """A block in which networks are built without memory, if that is asked for."""
    return torch.device("meta") if empty else nullcontext()


def random_identity(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """What decides randomly initialised weights, in place of a file's digest."""
    return {
        "architecture": fingerprint(architecture),
        "init": "random",
        "seed": RANDOM_SEED,
        "torch": str(torch.__version__).split("+")[0],
    }
