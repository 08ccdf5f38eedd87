"""Class tokens of all CLIP blocks, weighted by trained importance: Koutlis et al. 2024 (RINE)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clare_cache.heads.features import Shapes
from clare_cache.heads.losses import supervised_contrastive
from clare_cache.heads.options import choice, count, probability, weight
from clare_cache.heads.protocol import Head, HeadOutput


class Rine(Head):
    """Projection of each block's class token, softmax over blocks per feature, second projection,
    three-layer classifier. `embedding` (B, width) is the second projection, non-negative.

    `depth` and `width` are the paper's q and d', `contrastive_weight` its ξ. Parameter names are
    those of the authors' checkpoints. `aggregation` says how blocks become one vector: the
    trained `importance` of the paper, or what its ablations put in its place: the plain `mean`,
    the `last` block alone, a feature `pyramid` (decision 7). Only `importance` has `alpha`.
    """

    family = "rine"
    axes = {"clip_block_cls": ("block", "channel")}  # noqa: RUF012
    option_rules = {  # noqa: RUF012
        "depth": count(2),
        "width": count(1024),
        "contrastive_weight": weight(0.2),
        "aggregation": choice("importance", "mean", "last", "pyramid"),
        "dropout": probability(0.5),
    }

    stackable = True
    stackable_options = ("contrastive_weight",)
    xi: Tensor

    def __init__(
        self,
        shapes: Shapes,
        *,
        depth: int,
        width: int,
        contrastive_weight: float,
        aggregation: str,
        dropout: float,
    ) -> None:
        super().__init__(shapes, {
            "depth": depth,
            "width": width,
            "contrastive_weight": contrastive_weight,
            "aggregation": aggregation,
            "dropout": dropout,
        })  # fmt: skip
        self.register_buffer("xi", torch.tensor(float(contrastive_weight)), persistent=False)
        n_blocks, clip_width = self.shapes["clip_block_cls"]
        if aggregation == "importance":
            self.alpha = nn.Parameter(torch.randn(1, n_blocks, width))
        self.proj1: nn.Module
        if aggregation == "pyramid":
            self.proj1 = _Pyramid(n_blocks, clip_width, width, dropout)
        else:
            self.proj1 = _projection(clip_width, width, depth=depth, dropout=dropout)
        self.proj2 = _projection(width, width, depth=depth, dropout=dropout)
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(width, 1),
        )  # fmt: skip

    def forward(self, features: Mapping[str, Tensor]) -> HeadOutput:
        (tokens,) = self.read(features)
        embedding = self._aggregate(tokens)
        return HeadOutput.from_score(self.head(embedding).squeeze(1), embedding)

    def _aggregate(self, tokens: Tensor) -> Tensor:
        """(B, blocks, channels) → (B, width)."""
        embedding: Tensor
        match self.options["aggregation"]:
            case "importance":
                embedding = self.proj2((self.alpha.softmax(dim=1) * self.proj1(tokens)).sum(dim=1))
            case "mean":
                embedding = self.proj2(self.proj1(tokens).mean(dim=1))
            case "last":
                embedding = self.proj2(self.proj1(tokens[:, -1]))
            case _:
                embedding = self.proj2(self.proj1(tokens)).mean(dim=1)
        return embedding

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """Binary cross-entropy *summed* over the batch plus ξ times the contrastive *mean*, as the
        authors' code has it; the paper's formula states no reduction."""
        target = labels.to(output.score.dtype)
        loss = F.binary_cross_entropy_with_logits(output.score, target, reduction="sum")
        if output.embedding is None:
            return loss
        return loss + self.xi * supervised_contrastive(output.embedding, labels)


class _Pyramid(nn.Module):
    """Each block's own linear map, summed from the last block down to it: (B, blocks, width).

    Lin et al. 2017, section 3, where every level has one position, so that nothing is upsampled.
    """

    def __init__(self, n_blocks: int, n_in: int, n_out: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.weight = nn.Parameter(torch.empty(n_blocks, n_out, n_in))
        self.bias = nn.Parameter(torch.empty(n_blocks, n_out))
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -(n_in**-0.5), n_in**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        lateral = torch.einsum("bnc,nwc->bnw", self.dropout(tokens), self.weight) + self.bias
        return lateral.flip(1).cumsum(dim=1).flip(1)


def _projection(n_in: int, n_out: int, *, depth: int, dropout: float) -> nn.Sequential:
    """Dropout on the input, then `depth` times linear, ReLU, dropout."""
    layers: list[nn.Module] = [nn.Dropout(dropout)]
    for layer in range(depth):
        layers += [nn.Linear(n_out if layer else n_in, n_out), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)
