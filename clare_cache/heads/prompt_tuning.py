"""CLIP's image embedding compared with learned prompts, nothing else: Zhou et al. 2022 (CoOp and
CoCoOp), Khan and Dang-Nguyen 2024 (CLIPping the Deception)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from clare_cache.heads.features import Shapes
from clare_cache.heads.prompts import PROMPT_RULES, build_prompts, check_joint_space, compare
from clare_cache.heads.protocol import Head, HeadOutput, TextTower


class PromptTuning(Head):
    """logit of a class = scale · f · (its prompt, normalised), f the normalised embedding;
    cross-entropy, mean. The prompts alone are trained.

    CoCoOp's net sees f. CLIPping puts the class name first (`class_position="front"`).
    """

    family = "prompt_tuning"
    stackable = True
    axes = {"clip_embedding": ("channel",)}  # noqa: RUF012
    needs_text = True
    option_rules = PROMPT_RULES

    def __init__(self, shapes: Shapes, text: TextTower, **prompts: Any) -> None:
        width = shapes["clip_embedding"][0]
        check_joint_space(self.family, width, text)
        learner = build_prompts(text, prompts, condition_width=width)
        super().__init__(shapes, {**prompts, "n_context": learner.n_context})
        self.prompt_learner = learner

    @property
    def text(self) -> TextTower:
        return self.prompt_learner.tower

    def forward(self, features: Mapping[str, Tensor]) -> HeadOutput:
        (embedding,) = self.read(features)
        image = F.normalize(embedding, dim=1)
        text = self.prompt_learner(image)
        return HeadOutput(compare(image, text, scale=self.text.logit_scale))

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        return F.cross_entropy(output.class_logits, labels.long())
