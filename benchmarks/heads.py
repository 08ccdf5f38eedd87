"""Milliseconds an image of every head, forward and backward, beside its plain formulation.

The plain formulations are the tests' references: a padded prompt per class and image through
open_clip's own transformer, every key and value projected. CoCoOp's authors encode the prompts of
one image after the other; that is measured too. Widths are ViT-L/14's and the text tower has its
12 layers, of random weights. All forms of a step alternate, so that whatever else the machine does
meets each.
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
from tests.open_clip_text import OpenClipText
from tests.plain_heads import plain_attention_pool, plain_logits, plain_text

Step = Callable[[], torch.Tensor]
Rows = dict[str, torch.Tensor]
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
HEADS: list[tuple[str, dict[str, Any], int, bool]] = [
    ("clare", {"prompts": "cocoop", "attention": "cross_attention", **CLARE}, 8, True),
    ("clare", {"prompts": "cocoop", "attention": "map_bias", **CLARE}, 8, True),
    ("clare", {"prompts": "coop", "attention": "cross_attention", **CLARE}, 16, True),
    ("clare", {"prompts": "coop", "attention": "map_bias", **CLARE}, 16, True),
    ("clare", {"prompts": "coop", "attention": "cross_attention_tokens", **CLARE}, 16, True),
    ("prompt_tuning", {"prompts": "cocoop"}, 8, True),
    ("prompt_tuning", {"prompts": "coop"}, 16, True),
    ("adapter", {}, 64, True),
    ("lare2", {}, 16, True),
    ("lare2", {"features": "resnet"}, 16, True),
    ("rine", {"depth": 4, "width": 1024}, 64, True),
    ("rine", {"depth": 4, "width": 128}, 64, True),
    ("rine", {"depth": 2, "width": 1024}, 64, True),
    ("linear", {}, 256, False),
    ("linear_probe", {}, 256, False),
    ("error_map_resnet", {}, 64, False),
]
"""Family, options, batch, whether it has a shortcut."""
UNUSED = 5_120
"""Parameters of a layer that CLaRE's and LaRE²'s code makes and never uses."""
PUBLISHED: list[tuple[str, dict[str, Any], str, int]] = [
    ("clare", {"prompts": "cocoop", "attention": "cross_attention"}, "", 6_972_104 - UNUSED),
    ("clare", {"prompts": "cocoop", "attention": "map_bias"}, "", 6_402_024 - UNUSED),
    ("clare", {"attention": "cross_attention"}, "attn_pool", 2_935_008),
    ("clare", {"attention": "map_bias"}, "attn_pool", 2_364_928),
    ("clare", {}, "image_proj", 787_456),
    ("clare", {}, "text_proj", 2_362_368),
    ("clare", {}, "channel_align", 131_584),
    ("clare", {}, "map_proj", 40),
    ("clare", {"prompts": "cocoop"}, "prompt_learner", 750_528),
    ("clare", {"prompts": "coop"}, "prompt_learner", 12_288),
    *(
        ("rine", {"depth": depth, "width": width}, "", n)
        for depth, sizes in (
            (1, (183_937, 466_177, 1_325_569, 4_224_001)),
            (2, (216_961, 597_761, 1_850_881, 6_323_201)),
            (4, (283_009, 860_929, 2_901_505, 10_521_601)),
        )
        for width, n in zip((128, 256, 512, 1024), sizes, strict=True)
    ),
    ("linear", {}, "", 769),
]
"""Family, options, part ("" for the whole head), number of parameters that its authors' code has
(LaRE² and CLIPping publish none)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--knn-bank", type=int, default=50_000, help="images in each bank")
    parser.add_argument("--parts", action="store_true", help="measure the shortcuts alone")
    given = parser.parse_args()
    device = torch.device(given.device)
    model = build_clip(CLIP_CONFIG)
    text = ClipTextTower(model, {"weights": "random"}, device=given.device)
    whole = OpenClipText(model.to(device))
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, float32")
    print(f"medians of {given.repeats} alternating steps, ms an image, forward and backward; plain "
          "in one batch, and one image after the other where authors do that")  # fmt: skip
    print()
    measure_parts(text, whole, device, given.repeats)
    if given.parts:
        return
    print()
    measure_heads(text, whole, device, given.repeats)
    print()
    measure_knn(device, given.knn_bank)
    print()
    count_parameters(text)


def measure_parts(
    text: ClipTextTower, whole: OpenClipText, device: torch.device, repeats: int
) -> None:
    """The two shortcuts alone."""
    print(heading("part", "target"))
    n_images = 16
    learner = PromptLearner(text, n_context=16, condition_width=3072).to(device)
    condition = torch.randn(n_images, 3072, device=device)

    def plain(given: torch.Tensor) -> torch.Tensor:
        return plain_text(learner, given, class_position="end", tower=whole)

    seconds = alternate(
        lambda: backward(learner, learner(condition)),
        lambda: backward(learner, plain(condition)),
        lambda: backward(learner, torch.cat([plain(one) for one in condition.split(1)])),
        repeats=repeats,
        device=device,
    )
    show("CoCoOp prompts", n_images, seconds, end="10")
    tokens = torch.randn(n_images, 256, 1024, device=device)
    error = torch.rand(n_images, 256, 8, device=device)
    for kind in (CrossAttention, MapBiasAttention):
        block = kind(256, 1024, 0.1).to(device)
        seconds = alternate(
            lambda b=block: backward(b, b(error, tokens)),
            lambda b=block: backward(b, plain_attention_pool(b, error, tokens)),
            repeats=repeats,
            device=device,
        )
        show(f"folded attention, {kind.__name__}", n_images, seconds, end="8")


def measure_heads(
    text: ClipTextTower, whole: OpenClipText, device: torch.device, repeats: int
) -> None:
    """Whole training steps."""
    print(heading("head", "parameters"))
    for family, options, n_images, has_shortcut in HEADS:
        shapes = RN50_SHAPES if options.get("features") == "resnet" else VIT_L14_SHAPES
        head = build_head(family, shapes=shapes, text=text, **options).to(device).train()
        rows = {n: torch.rand(n_images, *shapes[n], device=device) for n in head.needs}
        labels = torch.arange(n_images, device=device) % 2

        def plain(*parts: Rows, h: Head = head, y: torch.Tensor = labels) -> torch.Tensor:
            logits = torch.cat([plain_logits(h, part, tower=whole) for part in parts])
            return backward(h, F.cross_entropy(logits, y))

        steps: list[Step] = [lambda h=head, r=rows, y=labels: backward(h, h.loss(h(r), y))]
        if has_shortcut:
            steps.append(lambda p=plain, r=rows: p(r))
        if options.get("prompts") == "cocoop":
            single = [{n: a[i : i + 1] for n, a in rows.items()} for i in range(n_images)]
            steps.append(lambda p=plain, s=single: p(*s))
        seconds = alternate(*steps, repeats=repeats, device=device)
        told = " ".join(f"{n}={v}" for n, v in options.items() if n != "train")
        show(f"{family} {told}", n_images, seconds, end=f"{size_of(head):,}")
        del head, rows, steps, plain
        gc.collect()


def count_parameters(text: ClipTextTower) -> None:
    """Beside what the authors' code has."""
    print(f"{'parameters of':62} {'found':>11} {'published':>11}")
    for family, options, part, published in PUBLISHED:
        head = build_head(family, text=text, **options)
        found = size_of(head.get_submodule(part))
        told = " ".join([f"{family} {part}".strip(), *(f"{n}={v}" for n, v in options.items())])
        print(f"{told:62} {found:>11,} {published:>11,}{'' if found == published else '  DIFFERS'}")


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


def size_of(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def heading(name: str, end: str) -> str:
    columns = f"{'fast':>9} {'plain':>9} {'ratio':>7} {'1 by 1':>9} {'ratio':>7}"
    return f"{name:62} {'batch':>5} {columns}  {end:>10}"


def show(name: str, n_images: int, seconds: Sequence[float], *, end: str) -> None:
    """A row: the fast step, and each plain one with its ratio."""
    fast, *plain = seconds
    compared = "".join(f" {1e3 * slow / n_images:9.2f} {slow / fast:6.1f}×" for slow in plain)
    compared += f" {'–':>9} {'–':>7}" * (2 - len(plain))
    print(f"{name:62} {n_images:5} {1e3 * fast / n_images:9.3f}{compared}  {end:>10}", flush=True)


if __name__ == "__main__":
    main()
