"""Milliseconds an image of every head, forward and backward, beside its plain formulation.

The plain formulations are the tests' references: a padded prompt per class and image, every key
and value projected. Widths are ViT-L/14's and the text tower has its 12 layers, of random weights.
Fast and plain steps alternate, so that whatever else the machine does meets both.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from clare_cache.backbones.clip_models import build_clip
from clare_cache.backbones.text import ClipTextTower
from clare_cache.heads import RN50_SHAPES, VIT_L14_SHAPES, Head, build_head
from clare_cache.heads.attention import CrossAttention, MapBiasAttention
from clare_cache.heads.prompts import PromptLearner
from tests.plain_heads import plain_attention_pool, plain_logits, plain_text

Step = Callable[[], torch.Tensor]
CLIP_CONFIG = {
    "embed_dim": 768,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 28, "patch_size": 14, "width": 64, "layers": 1},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 768,
        "heads": 12,
        "layers": 12,
    },
}
CLARE = {"train": "all"}
HEADS: list[tuple[str, dict[str, Any], int, bool, str]] = [
    ("clare", {"prompts": "cocoop", "attention": "cross_attention", **CLARE}, 4, True, "6,966,984"),
    ("clare", {"prompts": "cocoop", "attention": "map_bias", **CLARE}, 4, True, "6,396,904"),
    ("clare", {"prompts": "coop", "attention": "cross_attention", **CLARE}, 16, True, ""),
    ("clare", {"prompts": "coop", "attention": "map_bias", **CLARE}, 16, True, ""),
    ("clare", {"prompts": "coop", "attention": "cross_attention_tokens", **CLARE}, 16, True, ""),
    ("prompt_tuning", {"prompts": "cocoop"}, 4, True, ""),
    ("prompt_tuning", {"prompts": "coop"}, 16, True, "12,288"),
    ("adapter", {}, 64, True, ""),
    ("lare2", {}, 16, True, ""),
    ("lare2", {"features": "resnet"}, 16, True, ""),
    ("rine", {"depth": 4, "width": 1024}, 64, True, "10.52 M"),
    ("rine", {"depth": 4, "width": 128}, 64, True, "0.28 M"),
    ("rine", {"depth": 2, "width": 1024}, 64, True, "6.32 M"),
    ("linear", {}, 256, False, "769"),
    ("linear_probe", {}, 256, False, "1,538"),
    ("error_map_resnet", {}, 64, False, ""),
]
"""Family, options, batch, whether it has a shortcut, published number of parameters (CLaRE's
without the 5,120 of its unused layer)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--knn-bank", type=int, default=50_000, help="images in each bank")
    given = parser.parse_args()
    device = torch.device(given.device)
    text = ClipTextTower(build_clip(CLIP_CONFIG), {"weights": "random"}, device=given.device)
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, float32")
    print(f"medians of {given.repeats} alternating steps, ms an image, forward and backward")
    print()
    measure_parts(text, device, given.repeats)
    print()
    measure_heads(text, device, given.repeats)
    print()
    measure_knn(device, given.knn_bank)


def measure_parts(text: ClipTextTower, device: torch.device, repeats: int) -> None:
    """The two shortcuts alone."""
    print(f"{'part':34} {'batch':>5} {'fast':>9} {'plain':>9} {'ratio':>7}  target")
    n_images = 16
    learner = PromptLearner(text, n_context=16, condition_width=3072).to(device)
    condition = torch.randn(n_images, 3072, device=device)
    fast, plain = alternate(
        lambda: backward(learner, learner(condition)),
        lambda: backward(learner, plain_text(learner, condition, class_position="end")),
        repeats=repeats,
        device=device,
    )
    show("CoCoOp prompts", n_images, fast, plain, end="  10")
    n_images = 16
    tokens = torch.randn(n_images, 256, 1024, device=device)
    error = torch.rand(n_images, 256, 8, device=device)
    for kind in (CrossAttention, MapBiasAttention):
        block = kind(256, 1024, 0.1).to(device)
        fast, plain = alternate(
            lambda b=block: backward(b, b(error, tokens)),
            lambda b=block: backward(b, plain_attention_pool(b, error, tokens)),
            repeats=repeats,
            device=device,
        )
        show(f"folded attention, {kind.__name__}", n_images, fast, plain, end="  8")


def measure_heads(text: ClipTextTower, device: torch.device, repeats: int) -> None:
    """Whole training steps."""
    print(f"{'head':62} {'batch':>5} {'fast':>9} {'plain':>9} {'ratio':>7}  "
          f"{'parameters':>11}  published")  # fmt: skip
    for family, options, n_images, has_shortcut, published in HEADS:
        shapes = RN50_SHAPES if options.get("features") == "resnet" else VIT_L14_SHAPES
        head = build_head(family, shapes=shapes, text=text, **options).to(device).train()
        rows = {n: torch.rand(n_images, *shapes[n], device=device) for n in head.needs}
        labels = torch.arange(n_images, device=device) % 2
        steps: list[Step] = [lambda h=head, r=rows, y=labels: backward(h, h.loss(h(r), y))]
        if has_shortcut:
            steps.append(
                lambda h=head, r=rows, y=labels: backward(h, F.cross_entropy(plain_logits(h, r), y))
            )
        seconds = alternate(*steps, repeats=repeats, device=device)
        told = " ".join(f"{n}={v}" for n, v in options.items() if n != "train")
        size = sum(p.numel() for p in head.parameters())
        show(f"{family} {told}", n_images, *seconds, end=f"  {size:>11,}  {published}", width=62)
        del head, rows, steps
        gc.collect()


def measure_knn(device: torch.device, n_bank: int) -> None:
    """Queries against two banks; there is nothing to train."""
    n_queries = 256
    head: Head = build_head("knn", k=9).to(device).eval()
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(2 * n_bank, 768, generator=generator)
    began = time.perf_counter()
    head.remember([({"clip_embedding": bank}, torch.arange(2 * n_bank) % 2)])
    fitted = time.perf_counter() - began
    queries = {"clip_embedding": torch.randn(n_queries, 768, device=device)}
    with torch.inference_mode():
        (seconds,) = alternate(lambda: head(queries).score, repeats=3, device=device)
    print(f"knn k=9: banks of {n_bank:,} real and {n_bank:,} fake kept in {fitted:.2f} s, "
          f"{1e3 * seconds / n_queries:.3f} ms a query (exact, batch {n_queries})")  # fmt: skip


def backward(module: torch.nn.Module, output: torch.Tensor) -> torch.Tensor:
    """One step without the optimiser: gradients of the sum, then forgotten."""
    output.sum().backward()
    module.zero_grad(set_to_none=True)
    return output


def alternate(*steps: Step, repeats: int, device: torch.device) -> Sequence[float]:
    """Median seconds of each step, run in turn `repeats` times after a warm-up."""
    found: list[list[float]] = [[] for _ in steps]
    for repeat in range(repeats + 1):
        for step, seconds in zip(steps, found, strict=True):
            wait_for(device)
            began = time.perf_counter()
            step()
            wait_for(device)
            if repeat:
                seconds.append(time.perf_counter() - began)
    return [statistics.median(seconds) for seconds in found]


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def show(
    name: str, n_images: int, fast: float, plain: float | None = None, *, end: str, width: int = 34
) -> None:
    compared = f"{'–':>9} {'–':>7}"
    if plain is not None:
        compared = f"{1e3 * plain / n_images:9.2f} {plain / fast:6.1f}×"
    print(f"{name:{width}} {n_images:5} {1e3 * fast / n_images:9.3f} {compared}{end}", flush=True)


if __name__ == "__main__":
    main()
