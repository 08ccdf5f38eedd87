"""Error map, patch tokens and image embedding fused, compared with learned prompts: CLaRE."""

from collections.abc import Mapping
from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clare_cache.heads.attention import (
    N_HEADS,
    ChannelAlign,
    CrossAttention,
    MapBiasAttention,
    align_to_patches,
)
from clare_cache.heads.features import Shapes
from clare_cache.heads.options import choice, count, probability, words
from clare_cache.heads.prompts import PromptLearner
from clare_cache.heads.protocol import Head, HeadOutput, TextTower

ATTENTION = {"cross_attention": CrossAttention, "map_bias": MapBiasAttention}


class Clare(Head):
    """f = normalised [image_proj(embedding); attention(error map, patches); gated mean patch];
    logit of a class = scale · f · (normalised text_proj of its prompt). Cross-entropy, mean.

    `embedding` (B, 3W) is f, W being the width of patch tokens. `train="prompts"` leaves
    everything but the prompt learner at its random start, as the authors' code does;
    `train="all"` is what their figure shows. Widths of the published head (W = 1024) become
    multiples of W, so that other backbones fit.
    """

    family = "clare"
    axes = {  # noqa: RUF012
        "error_map": ("channel", "row", "column"),
        "clip_patch_tokens": ("patch", "channel"),
        "clip_embedding": ("channel",),
    }
    needs = tuple(axes)
    needs_text = True
    option_rules = {  # noqa: RUF012
        "prompts": choice("coop", "cocoop"),
        "attention": choice(*ATTENTION),
        "n_context": count(16),
        "context_init": words(),
        "train": choice("prompts", "all"),
        "dropout": probability(0.1),
    }

    def __init__(
        self,
        shapes: Shapes,
        text: TextTower,
        *,
        prompts: str,
        attention: str,
        n_context: int,
        context_init: str | None,
        train: str,
        dropout: float,
    ) -> None:
        n_channels = shapes["error_map"][0]
        n_patches, width = shapes["clip_patch_tokens"]
        learner = PromptLearner(
            text,
            n_context=n_context,
            context_init=context_init,
            condition_width=3 * width if prompts == "cocoop" else None,
        )
        super().__init__(shapes, {
            "prompts": prompts,
            "attention": attention,
            "n_context": len(learner.ctx),
            "context_init": context_init,
            "train": train,
            "dropout": dropout,
        })  # fmt: skip
        self.prompt_learner = learner
        self.image_proj = nn.Linear(shapes["clip_embedding"][0], width)
        self.text_proj = nn.Linear(text.output_width, 3 * width)
        self.map_proj = nn.Linear(n_channels, N_HEADS)
        self.attn_pool = ATTENTION[attention](n_patches, width, dropout)
        self.channel_align = ChannelAlign(n_channels, width)
        if attention == "map_bias":
            # A constant per attention head, which the softmax does not see.
            self.map_proj.bias.requires_grad_(False)
        if train == "prompts":
            self.requires_grad_(False)
            learner.requires_grad_(True)

    @classmethod
    def faults_of(cls, shapes: Shapes) -> list[str]:
        faults = super().faults_of(shapes)
        n_patches = shapes.get("clip_patch_tokens", (1,))[0]
        if isqrt(n_patches) ** 2 != n_patches:
            faults.append(
                f"shapes: expected clip_patch_tokens on a square grid, found {n_patches} patches"
            )
        return faults

    @property
    def text(self) -> TextTower:
        return self.prompt_learner.tower

    def forward(self, features: Mapping[str, Tensor]) -> HeadOutput:
        error_map, tokens, embedding = self.read(features)
        error = self.map_proj(align_to_patches(error_map, tokens.shape[1]))
        parts = [
            self.image_proj(embedding),
            self.attn_pool(error, tokens),
            self.channel_align(error_map, tokens),
        ]
        fused = F.normalize(torch.cat(parts, dim=1), dim=1)
        described = F.normalize(self.text_proj(self.prompt_learner(fused)), dim=2)
        logits = self.text.logit_scale * (described @ fused[:, :, None]).squeeze(2)
        return HeadOutput(logits, fused)

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        return F.cross_entropy(output.class_logits, labels.long())
