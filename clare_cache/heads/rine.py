"""Class tokens of all CLIP blocks, weighted by trained importance: Koutlis et al. 2024 (RINE)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clare_cache.heads.features import Shapes
from clare_cache.heads.losses import supervised_contrastive
from clare_cache.heads.options import count, probability, weight
from clare_cache.heads.protocol import Head, HeadOutput


class Rine(Head):
    """Projection of each block's class token, softmax over blocks per feature, second projection,
    three-layer classifier. `embedding` (B, width) is the second projection, non-negative.

    `depth` and `width` are the paper's q and d', `contrastive_weight` its ξ. Parameter names are
    those of the authors' checkpoints.
    """

    family = "rine"
    axes = {"clip_block_cls": ("block", "channel")}  # noqa: RUF012
    needs = tuple(axes)
    option_rules = {  # noqa: RUF012
        "depth": count(2),
        "width": count(1024),
        "contrastive_weight": weight(0.2),
        "dropout": probability(0.5),
    }

    def __init__(
        self,
        shapes: Shapes,
        *,
        depth: int,
        width: int,
        contrastive_weight: float,
        dropout: float,
    ) -> None:
        super().__init__(shapes, {
            "depth": depth,
            "width": width,
            "contrastive_weight": contrastive_weight,
            "dropout": dropout,
        })  # fmt: skip
        n_blocks, clip_width = self.shapes["clip_block_cls"]
        self.alpha = nn.Parameter(torch.randn(1, n_blocks, width))
        self.proj1 = _projection(clip_width, width, depth=depth, dropout=dropout)
        self.proj2 = _projection(width, width, depth=depth, dropout=dropout)
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(width, 1),
        )  # fmt: skip

    def forward(self, features: Mapping[str, Tensor]) -> HeadOutput:
        (tokens,) = self.read(features)
        importance = self.alpha.softmax(dim=1)
        embedding = self.proj2((importance * self.proj1(tokens)).sum(dim=1))
        return HeadOutput.from_score(self.head(embedding).squeeze(1), embedding)

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """Binary cross-entropy *summed* over the batch plus ξ times the contrastive *mean*, as the
        authors' code has it; the paper's formula states no reduction."""
        target = labels.to(output.score.dtype)
        loss = F.binary_cross_entropy_with_logits(output.score, target, reduction="sum")
        xi = self.options["contrastive_weight"]
        if xi == 0 or output.embedding is None:
            return loss
        return loss + xi * supervised_contrastive(output.embedding, labels)


def _projection(n_in: int, n_out: int, *, depth: int, dropout: float) -> nn.Sequential:
    """Dropout on the input, then `depth` times linear, ReLU, dropout."""
    layers: list[nn.Module] = [nn.Dropout(dropout)]
    for layer in range(depth):
        layers += [nn.Linear(n_out if layer else n_in, n_out), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)
