"""Error map, patch tokens and image embedding fused, compared with learned prompts: CLaRE."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clare_cache.heads.features import Shapes
from clare_cache.heads.fusion import ATTENTION, CHANNEL, FusionHead, square_grid
from clare_cache.heads.options import choice, flag, probability
from clare_cache.heads.prompts import PROMPT_RULES, build_prompts, compare
from clare_cache.heads.protocol import HeadOutput, TextTower
from clare_cache.heads.regions import region_weights


class Clare(FusionHead):
    """f = normalised [image_proj(embedding); attention(error map, patches); channel vector];
    logit of a class = scale · f · (normalised text_proj of its prompt). Cross-entropy, mean.

    `embedding` (B, 3W) is f, W being the width of patch tokens. The channel vector is the mean
    patch gated by the error map (`channel="gate"`, the authors' code) or the error map's own
    (`"path"`, their poster). `regions` appends the mean patch inside `region_boxes` (see
    `region_weights`), so that f has 4W. `train="prompts"` leaves everything but the prompt
    learner at its random start, as the authors' code does; `train="all"` is what their figure
    shows. Widths of the published head (W = 1024) become multiples of W, so that other backbones
    fit.
    """

    family = "clare"
    stackable = True
    needs_text = True
    option_rules = {  # noqa: RUF012
        **PROMPT_RULES,
        "attention": choice(*ATTENTION),
        "channel": choice(*CHANNEL),
        "regions": flag(False),
        "train": choice("prompts", "all"),
        "dropout": probability(0.1),
    }

    def __init__(
        self,
        shapes: Shapes,
        text: TextTower,
        *,
        attention: str,
        channel: str,
        regions: bool,
        train: str,
        dropout: float,
        **prompts: Any,
    ) -> None:
        n_patches, width = shapes["clip_patch_tokens"]
        n_fused = (4 if regions else 3) * width
        learner = build_prompts(text, prompts, condition_width=n_fused)
        super().__init__(shapes, {
            **prompts,
            "n_context": learner.n_context,
            "attention": attention,
            "channel": channel,
            "regions": regions,
            "train": train,
            "dropout": dropout,
        })  # fmt: skip
        self.prompt_learner = learner
        self.image_proj = nn.Linear(shapes["clip_embedding"][0], width)
        self.text_proj = nn.Linear(text.output_width, n_fused)
        self.add_refinement(
            square_grid(n_patches), width, attention=attention, channel=channel, dropout=dropout
        )
        if train == "prompts":
            self.requires_grad_(False)
            learner.requires_grad_(True)

    @classmethod
    def axes_of(cls, options: Mapping[str, Any]) -> Mapping[str, tuple[str, ...]]:
        boxes = {"region_boxes": ("box", "side")} if options["regions"] is True else {}
        return {**cls.axes, **boxes}

    @classmethod
    def faults_of(cls, shapes: Shapes, options: Mapping[str, Any]) -> list[str]:
        faults = super().faults_of(shapes, options)
        n_sides = shapes.get("region_boxes", (1, 4))[-1]
        if options["regions"] is True and n_sides != 4:
            faults.append(f"shapes: expected region_boxes with 4 sides, found {n_sides}")
        return faults

    @property
    def text(self) -> TextTower:
        return self.prompt_learner.tower

    def forward(self, features: Mapping[str, Tensor]) -> HeadOutput:
        error_map, tokens, embedding, *boxes = self.read(features)
        parts = [self.image_proj(embedding), *self.refine(error_map, tokens)]
        if boxes:
            weights = region_weights(boxes[0], self.grid)
            parts.append((weights[:, None] @ tokens).squeeze(1))
        fused = F.normalize(torch.cat(parts, dim=1), dim=1)
        described = self.text_proj(self.prompt_learner(fused))
        return HeadOutput(compare(fused, described, scale=self.text.logit_scale), fused)

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        return F.cross_entropy(output.class_logits, labels.long())
