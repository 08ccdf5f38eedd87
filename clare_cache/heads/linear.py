"""Linear probes on CLIP's image embedding: Ojha et al. 2023 (UniversalFakeDetect) with one logit,
Khan and Dang-Nguyen 2024 (CLIPping the Deception) with two."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from clare_cache.heads.features import Shapes
from clare_cache.heads.protocol import Head, HeadOutput


class Linear(Head):
    """logit = w · x + b on the embedding as it comes, not normalised; binary cross-entropy."""

    family = "linear"
    stackable = True
    axes = {"clip_embedding": ("channel",)}  # noqa: RUF012

    def __init__(self, shapes: Shapes) -> None:
        super().__init__(shapes, {})
        self.fc = nn.Linear(self.shapes["clip_embedding"][0], 1)
        nn.init.normal_(self.fc.weight, std=0.02)

    def forward(self, features: Mapping[str, Tensor]) -> HeadOutput:
        (embedding,) = self.read(features)
        return HeadOutput.from_score(self.fc(embedding).squeeze(1))

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(output.score, labels.to(output.score.dtype))


class LinearProbe(Head):
    """logits = W x + b, one for each class, on the embedding as it comes; cross-entropy, mean."""

    family = "linear_probe"
    stackable = True
    axes = {"clip_embedding": ("channel",)}  # noqa: RUF012

    def __init__(self, shapes: Shapes) -> None:
        super().__init__(shapes, {})
        self.fc = nn.Linear(self.shapes["clip_embedding"][0], 2)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, features: Mapping[str, Tensor]) -> HeadOutput:
        (embedding,) = self.read(features)
        return HeadOutput(self.fc(embedding))

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        return F.cross_entropy(output.class_logits, labels.long())
