"""Precision and determinism of training, for as long as a `with` lasts."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from clare_cache.train.config import Precision


@contextmanager
def numerics(
    precision: Precision, *, deterministic: bool, device: torch.device | str
) -> Iterator[None]:
    """Products in float32, in TF32, or in bfloat16 with float32 weights, sums and losses.

    On a CPU there is neither TF32 nor a gain from bfloat16: everything stays float32. With
    `deterministic` an operation that has no deterministic kernel is an error.
    """
    on_gpu = torch.device(device).type == "cuda"
    before = torch.get_float32_matmul_precision()
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    if deterministic and on_gpu:
        # cuBLAS asks for this, and torch refuses to compute without it.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with ExitStack() as stack:
        stack.callback(torch.set_float32_matmul_precision, before)
        stack.callback(torch.use_deterministic_algorithms, was_deterministic)
        torch.set_float32_matmul_precision("high" if on_gpu and precision != "float32" else before)
        torch.use_deterministic_algorithms(deterministic or was_deterministic)
        if on_gpu and precision == "bfloat16":
            stack.enter_context(torch.autocast("cuda", torch.bfloat16))
        yield
