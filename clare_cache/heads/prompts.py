"""Learned prompts for a frozen text tower: Zhou et al. 2022 (CoOp and CoCoOp).

Knows no image array. The tower is causal, so nothing after an end token matters, and what comes
before the class name is the same for every class: all classes' prompts are one short sequence
with a common start, one branch per class, a mask that keeps branches apart, and positions that
repeat. Equal, to rounding, to one padded sequence per class.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clare_cache.errors import HeadError
from clare_cache.heads.options import Option, choice, count, flag, words
from clare_cache.heads.protocol import TextTower

CLASS_NAMES = ("real", "fake")
PROMPT_RULES: dict[str, Option] = {
    "prompts": choice("coop", "cocoop"),
    "n_context": count(16),
    "context_init": words(),
    "class_position": choice("end", "middle", "front"),
    "class_specific": flag(False),
}
"""Options of every head that learns prompts; `build_prompts` reads them."""


class PromptLearner(nn.Module):
    """Context vectors before, around or after each class name, then `.` and the end token.

    `ctx` (n_context, W), or (n_classes, n_context, W) if `class_specific`, is drawn from
    N(0, 0.02²), or is the embedding of the words `context_init`, which then decide `n_context`.
    With `condition_width` (CoCoOp) a two-layer net shifts all context vectors by a function of
    each image's condition vector.
    """

    tower: TextTower
    fixed: Tensor
    mask: Tensor
    order: Tensor
    positions: Tensor
    ends: Tensor

    def __init__(
        self,
        tower: TextTower,
        *,
        n_context: int,
        context_init: str | None = None,
        condition_width: int | None = None,
        class_names: Sequence[str] = CLASS_NAMES,
        class_position: str = "end",
        class_specific: bool = False,
    ) -> None:
        super().__init__()
        # Past nn.Module's bookkeeping: the tower is frozen, shared, and saved nowhere.
        object.__setattr__(self, "tower", tower)
        copies = (len(class_names),) if class_specific else ()
        if context_init is None:
            context = torch.randn(*copies, n_context, tower.width) * 0.02
        else:
            context = _embed(tower, _tokens(tower, context_init)[1:-1])
            context = context.to(torch.get_default_dtype()).repeat(*copies, 1, 1)
        self.ctx = nn.Parameter(context)
        self.meta_net: nn.Module | None = None
        if condition_width is not None:
            self.meta_net = MetaNet(condition_width, tower.width)
        self._kept: tuple[nn.Parameter, int, Tensor] | None = None
        self._lay_out(class_names, class_position)

    @property
    def n_context(self) -> int:
        """Context vectors in one prompt."""
        return self.ctx.shape[-2]

    def _lay_out(self, class_names: Sequence[str], class_position: str) -> None:
        """Decide the one sequence: which vector stands where, who sees whom, where to read."""
        n_context, is_shared = self.n_context, self.ctx.ndim == 2
        n_before = {"end": n_context, "middle": n_context // 2, "front": 0}[class_position]
        ids = [_tokens(self.tower, f"{name}.") for name in class_names]
        # `order` points into [context vectors; start token; each class's name, `.`, end].
        n_used = self.ctx.shape[:-1].numel()
        order = [n_used, *range(n_before if is_shared else 0)]
        n_used += 1
        n_shared = len(order)
        positions, branch, read = list(range(n_shared)), [-1] * n_shared, []
        for number, (name, tokens) in enumerate(zip(class_names, ids, strict=True)):
            n_name = len(_tokens(self.tower, name)) - 2
            first = 0 if is_shared else number * n_context
            context = list(range(first, first + n_context))
            own = list(range(n_used, n_used + len(tokens) - 1))
            steps = [*own[:n_name], *context[n_before:], *own[n_name:]]
            if not is_shared:
                steps = [*context[:n_before], *steps]
            order += steps
            positions += range(n_shared, n_shared + len(steps))
            branch += [number] * len(steps)
            read.append(len(order) - 1)
            n_used += len(own)
        if len(order) > self.tower.context_length:
            raise HeadError(
                f"prompts with {n_context} context vectors: expected at most "
                f"{self.tower.context_length} tokens, found {len(order)} in the sequence that all "
                "class names share. Use fewer context vectors."
            )
        of = torch.tensor(branch)
        later = torch.ones(len(of), len(of), dtype=torch.bool).triu(1)
        apart = (of[:, None] != of[None, :]) & (of[None, :] >= 0)
        mask = torch.zeros(len(of), len(of)).masked_fill(later | apart, -torch.inf)
        fixed = _embed(self.tower, torch.cat([ids[0][:1], *(tokens[1:] for tokens in ids)]))
        self.register_buffer("fixed", fixed, persistent=False)
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("order", torch.tensor(order), persistent=False)
        self.register_buffer("positions", torch.tensor(positions), persistent=False)
        self.register_buffer("ends", torch.tensor(read), persistent=False)

    def forward(self, condition: Tensor | None = None) -> Tensor:
        """Text features (N, n_classes, E), not normalised: N is 1, or with a condition (B, C) B."""
        context = self.ctx.flatten(0, -2)[None]
        if self.meta_net is not None:
            return self._encode(context + self.meta_net(condition)[:, None])
        if self.training or torch.is_grad_enabled() or not isinstance(self.ctx, nn.Parameter):
            return self._encode(context)
        # At evaluation the text is the same for every batch. In-place changes raise the version.
        kept, version = self._kept, self.ctx._version
        if kept is None or kept[0] is not self.ctx or kept[1] != version:
            kept = self._kept = (self.ctx, version, self._encode(context))
        return kept[2]

    def _encode(self, context: Tensor) -> Tensor:
        """Context vectors (N, n, W) of all prompts → text features (N, n_classes, E)."""
        fixed = self.fixed.to(context.dtype).expand(len(context), -1, -1)
        sequence = torch.cat([context, fixed], dim=1)[:, self.order]
        ends = self.ends.expand(len(context), -1)
        mask = self.mask.to(context.dtype)
        text = self.tower.encode(sequence, ends, positions=self.positions, mask=mask)
        return text.to(context.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PromptLearner":
        self._kept = None
        if isinstance(self.tower, nn.Module):
            self.tower._apply(fn)
        super()._apply(fn, recurse)
        return self


def build_prompts(
    tower: TextTower, options: Mapping[str, Any], *, condition_width: int
) -> PromptLearner:
    """The learner that `PROMPT_RULES` describe; CoCoOp conditions on that many channels."""
    given = {name: options[name] for name in PROMPT_RULES if name != "prompts"}
    conditional = options["prompts"] == "cocoop"
    return PromptLearner(tower, condition_width=condition_width if conditional else None, **given)


def compare(image: Tensor, text: Tensor, *, scale: float) -> Tensor:
    """Logits (B, K) of images (B, D), which are unit vectors, for texts (1 or B, K, D), which
    need not be."""
    logits: Tensor = scale * (F.normalize(text, dim=2) @ image[:, :, None]).squeeze(2)
    return logits


def describe(tower: TextTower, texts: Sequence[str]) -> Tensor:
    """Text features (1, K, E) of whole sentences, not normalised, on the CPU."""
    ids = tower.tokenize(texts)
    end = (ids != 0).sum(dim=1) - 1
    n_tokens = int(end.max()) + 1
    with torch.no_grad():
        text = tower.encode(tower.embed(ids[:, :n_tokens]), end[:, None])
    return text.transpose(0, 1).cpu()


def check_joint_space(family: str, width: int, tower: TextTower) -> None:
    """Raises HeadError unless embeddings of this width can be compared with the tower's texts."""
    if width != tower.output_width:
        raise HeadError(
            f"head {family}: expected clip_embedding as wide as the text tower's output, "
            f"{tower.output_width}, found {width}. Use embeddings and text tower of one CLIP."
        )


class MetaNet(nn.Module):
    """One shift (B, W) of the context vectors per image, from its condition vector (B, C)."""

    def __init__(self, condition_width: int, width: int) -> None:
        super().__init__()
        hidden = max(condition_width // 16, 1)
        self.linear1 = nn.Linear(condition_width, hidden)
        self.linear2 = nn.Linear(hidden, width)

    def forward(self, condition: Tensor) -> Tensor:
        shift: Tensor = self.linear2(self.linear1(condition).relu())
        return shift


def _tokens(tower: TextTower, text: str) -> Tensor:
    """Ids of a text from its start to its end token, padding cut off."""
    ids = tower.tokenize([text])[0]
    return ids[: int(ids.nonzero()[-1]) + 1]


def _embed(tower: TextTower, ids: Tensor) -> Tensor:
    """A copy of token embeddings (T, W) on the CPU, where heads are built."""
    return tower.embed(ids).detach().cpu().clone()
