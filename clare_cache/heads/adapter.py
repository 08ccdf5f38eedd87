"""A small residual adapter on CLIP's image embedding: Gao et al. 2024 (CLIP-Adapter)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clare_cache.heads.features import Shapes
from clare_cache.heads.options import count, probability
from clare_cache.heads.prompts import CLASS_NAMES, check_joint_space, compare, describe
from clare_cache.heads.protocol import Head, HeadOutput, TextTower


class Adapter(Head):
    """f = normalised [ratio · adapter(x) + (1 − ratio) · x] of the embedding x as it comes;
    logit of a class = scale · f · (text "a {class} photo.", frozen); cross-entropy, mean.

    The adapter narrows x by `reduction` and widens it again, each with a ReLU and without a bias.
    Defaults and texts are those of Khan and Dang-Nguyen 2024 (CLIPping the Deception). `embedding`
    (B, E) is f. The texts are encoded once, when the head is built, and are not in its state.
    """

    family = "adapter"
    stackable = True
    axes = {"clip_embedding": ("channel",)}  # noqa: RUF012
    needs_text = True
    option_rules = {"ratio": probability(0.4), "reduction": count(2)}  # noqa: RUF012
    described: Tensor

    def __init__(self, shapes: Shapes, text: TextTower, *, ratio: float, reduction: int) -> None:
        super().__init__(shapes, {"ratio": ratio, "reduction": reduction})
        width = self.shapes["clip_embedding"][0]
        check_joint_space(self.family, width, text)
        self.adapter = _Bottleneck(width, max(width // reduction, 1))
        # Past nn.Module's bookkeeping: the tower is frozen, shared, and saved nowhere.
        object.__setattr__(self, "_tower", text)
        sentences = [f"a {name} photo." for name in CLASS_NAMES]
        self.register_buffer("described", describe(text, sentences), persistent=False)

    @property
    def text(self) -> TextTower:
        tower: TextTower = self.__dict__["_tower"]
        return tower

    def forward(self, features: Mapping[str, Tensor]) -> HeadOutput:
        (embedding,) = self.read(features)
        mixed = torch.lerp(embedding, self.adapter(embedding), self.options["ratio"])
        image = F.normalize(mixed, dim=1)
        text = self.described.to(image.dtype)
        return HeadOutput(compare(image, text, scale=self.text.logit_scale), image)

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        return F.cross_entropy(output.class_logits, labels.long())


class _Bottleneck(nn.Module):
    """(B, E) → (B, E), non-negative, through a narrow layer."""

    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(width, narrow, bias=False),
            nn.ReLU(),
            nn.Linear(narrow, width, bias=False),
            nn.ReLU(),
        )

    def forward(self, embedding: Tensor) -> Tensor:
        found: Tensor = self.fc(embedding)
        return found
