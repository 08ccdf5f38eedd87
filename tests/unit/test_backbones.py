"""The door to the backbones: what is loaded, and what is not."""

import subprocess
import sys

import pytest
import torch

from clare_cache.backbones import ErrorMapConfig, backbone_of, load_backbones
from clare_cache.backbones.numerics import float32_products, full_memory, seeded_init

HEAVY = ("torch", "diffusers", "transformers", "open_clip", "PIL")


def test_importing_the_package_loads_no_network_library():
    code = (
        "import sys, clare_cache.backbones\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("features", "names"),
    [
        (["error_map"], ["error_map"]),
        (["clip_embedding", "clip_block_cls"], ["clip"]),
        (["clip_patch_tokens", "error_map"], ["error_map", "clip"]),
        ([], []),
    ],
)
def test_only_needed_backbones_are_loaded(features, names):
    sd = "tiny" if "error_map" in names else "no/such/folder"
    clip = "tiny" if "clip" in names else "no:such"
    found = load_backbones(sd=sd, clip=clip, features=features)
    assert [backbone.name for backbone in found] == names
    made = {spec.name for backbone in found for spec in backbone.arrays}
    assert made >= set(features)
    assert {backbone_of(name) for name in made} == set(names)


def test_options_reach_the_backbone():
    config = ErrorMapConfig(size_px=128, timestep=280)
    (backbone,) = load_backbones(sd="tiny", clip=None, features=["error_map"], error_map=config)
    assert backbone.arrays[0].shape == (4, 16, 16)
    assert backbone.declared("error_map")["timestep"] == 280


@pytest.mark.parametrize(
    ("dtype", "allowed"), [("float32", False), ("tf32", True), ("float16", True)]
)
def test_products_are_rounded_in_the_block_alone_and_only_if_allowed(dtype, allowed):
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    with float32_products(torch.device("cuda"), dtype):
        assert (cudnn.allow_tf32, matmul.allow_tf32) == (allowed, allowed)
    assert (cudnn.allow_tf32, matmul.allow_tf32) == before
    with float32_products(torch.device("cpu"), dtype):
        assert (cudnn.allow_tf32, matmul.allow_tf32) == before


def test_a_full_gpu_is_a_memory_error():
    with pytest.raises(MemoryError, match="tried to allocate"), full_memory():
        raise torch.OutOfMemoryError("CUDA out of memory, tried to allocate 2 GiB")
    with pytest.raises(RuntimeError, match="other"), full_memory():
        raise RuntimeError("other")


def test_seeded_init_repeats_itself_and_hides_itself():
    torch.manual_seed(9)
    expected = torch.rand(2)
    torch.manual_seed(9)
    draws = []
    for _ in range(2):
        with seeded_init():
            draws.append(torch.rand(2))
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(torch.rand(2), expected)
