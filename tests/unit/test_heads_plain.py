"""Every head with a shortcut equals its plain formulation, for every option."""

import pytest
import torch

from clare_cache.heads import build_head
from tests.plain_heads import plain_logits

SHAPES = {
    "error_map": (4, 8, 8),
    "clip_patch_tokens": (9, 32),
    "clip_layer3_map": (32, 3, 4),
    "clip_block_cls": (5, 24),
    "clip_embedding": (80,),
    "region_boxes": (3, 4),
}
BOXES = [
    [[0.1, 0.2, 0.5, 0.9], [0, 0, 1, 1], [torch.nan] * 4],
    [[0.7, 0.7, 0.75, 0.8], [torch.nan] * 4, [0.0, 0.0, 0.1, 0.1]],
    [[torch.nan] * 4] * 3,
    [[0.3, 0.3, 0.6, 0.6]] * 3,
]
PROMPTS = [
    {"prompts": prompts, "class_position": position, "class_specific": specific, "n_context": 5}
    for prompts in ("coop", "cocoop")
    for position in ("end", "middle", "front")
    for specific in (False, True)
]
REFINEMENTS = [
    {"attention": attention, "channel": channel}
    for attention in ("cross_attention", "cross_attention_tokens", "map_bias")
    for channel in ("gate", "path")
]
HEADS = [
    *(("prompt_tuning", options) for options in PROMPTS),
    ("prompt_tuning", {"context_init": "a photo of a", "class_specific": True}),
    *(("clare", {"train": "all", **options}) for options in PROMPTS),
    *(("clare", {"train": "all", "prompts": "cocoop", **options}) for options in REFINEMENTS),
    ("clare", {"prompts": "cocoop", "train": "prompts"}),
    ("clare", {"prompts": "cocoop", "train": "all", "regions": True}),
    *(("lare2", {"features": kind, **options})
      for kind in ("vit", "resnet") for options in REFINEMENTS),
    ("adapter", {}),
    *(("rine", {"aggregation": kind, "width": 8})
      for kind in ("importance", "mean", "last", "pyramid")),
]  # fmt: skip


def name_of(case) -> str:
    family, options = case
    return "-".join([family, *(f"{key}={value}" for key, value in options.items())])


@pytest.mark.parametrize(("family", "options"), HEADS, ids=map(name_of, HEADS))
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize(
    ("dtype", "on_outputs", "on_gradients"),
    [(torch.float64, 1e-10, 1e-10), (torch.float32, 1e-5, 2e-4)],
    ids=["float64", "float32"],
)
def test_outputs_and_gradients_are_the_plain_ones(
    family, options, training, dtype, on_outputs, on_gradients, build_text_tower
):
    tower = build_text_tower(output_width=SHAPES["clip_embedding"][0]).to(dtype)
    head = build_head(family, shapes=SHAPES, text=tower, **options).to(dtype).train(training)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            # As large as after training, so that every part matters.
            parameter.add_(torch.randn_like(parameter) * (1 if name.endswith("ctx") else 0.2))
    features = {name: torch.randn(4, *shape, dtype=dtype) for name, shape in SHAPES.items()}
    features["region_boxes"] = torch.tensor(BOXES, dtype=dtype)
    labels = torch.tensor([0, 1, 1, 0])
    results = []
    for formulation in (
        lambda rows: head(rows).class_logits,
        lambda rows: plain_logits(head, rows),
    ):
        torch.manual_seed(1)  # the same dropout in both
        head.zero_grad()
        logits = formulation(features)
        torch.nn.functional.cross_entropy(logits, labels).backward()
        results.append((logits.detach(), {n: p.grad.clone() for n, p in head.named_parameters()
                                          if p.requires_grad}))  # fmt: skip
    (found, found_gradients), (expected, expected_gradients) = results
    assert (found - expected).abs().max() < on_outputs * expected.abs().max()
    for name, gradient in expected_gradients.items():
        assert gradient.abs().max() > 0, name
        difference = (found_gradients[name] - gradient).abs().max()
        assert difference < on_gradients * gradient.abs().max(), name
