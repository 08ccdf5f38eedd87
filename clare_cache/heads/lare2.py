"""Error map and patch tokens of one picture, joined and classified: Luo et al. 2024 (LaRE²)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clare_cache.heads.features import Shapes
from clare_cache.heads.fusion import ATTENTION, CHANNEL, FusionHead, square_grid
from clare_cache.heads.options import choice, probability
from clare_cache.heads.protocol import HeadOutput


class Lare2(FusionHead):
    """logits = fc [embedding; attention(error map, tokens); channel vector]; cross-entropy, mean.

    `features="vit"` takes a ViT's patch tokens and projects its embedding to their width W;
    `"resnet"` takes a CLIP ResNet's layer-3 map as the tokens, the embedding as it is, as
    published. `embedding` of the output is what `fc` sees. The published system also trains CLIP.
    """

    family = "lare2"
    stackable = True
    option_rules = {  # noqa: RUF012
        "features": choice("vit", "resnet"),
        "attention": choice("map_bias", *sorted(ATTENTION.keys() - {"map_bias"})),
        "channel": choice(*CHANNEL),
        "dropout": probability(0.1),
    }

    def __init__(
        self, shapes: Shapes, *, features: str, attention: str, channel: str, dropout: float
    ) -> None:
        super().__init__(shapes, {
            "features": features,
            "attention": attention,
            "channel": channel,
            "dropout": dropout,
        })  # fmt: skip
        n_embedded = shapes["clip_embedding"][0]
        if features == "vit":
            n_patches, width = shapes["clip_patch_tokens"]
            grid = square_grid(n_patches)
            self.image_proj: nn.Module = nn.Linear(n_embedded, width)
            n_embedded = width
        else:
            width, n_rows, n_columns = shapes["clip_layer3_map"]
            grid = (n_rows, n_columns)
            self.image_proj = nn.Identity()
        self.add_refinement(grid, width, attention=attention, channel=channel, dropout=dropout)
        self.fc = nn.Linear(n_embedded + 2 * width, 2)

    @classmethod
    def axes_of(cls, options: Mapping[str, Any]) -> Mapping[str, tuple[str, ...]]:
        if options["features"] != "resnet":
            return cls.axes
        return {
            "error_map": ("channel", "row", "column"),
            "clip_layer3_map": ("channel", "row", "column"),
            "clip_embedding": ("channel",),
        }

    def forward(self, features: Mapping[str, Tensor]) -> HeadOutput:
        error_map, tokens, embedding = self.read(features)
        if tokens.ndim == 4:
            tokens = tokens.flatten(2).transpose(1, 2)
        joined = torch.cat([self.image_proj(embedding), *self.refine(error_map, tokens)], dim=1)
        return HeadOutput(self.fc(joined), joined)

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        return F.cross_entropy(output.class_logits, labels.long())
