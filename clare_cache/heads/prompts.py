"""Learned prompts for a frozen text tower: Zhou et al. 2022 (CoOp and CoCoOp).

Knows no image array. The tower is causal, so nothing after an end token matters, and what comes
before the class name is the same for every class: all classes' prompts are one short sequence
with a common start, one branch per class, a mask that keeps branches apart, and positions that
repeat. Equal, to rounding, to one padded sequence per class.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from clare_cache.errors import HeadError
from clare_cache.heads.protocol import TextTower

CLASS_NAMES = ("real", "fake")


class PromptLearner(nn.Module):
    """Context vectors before, around or after each class name, then `.` and the end token.

    `ctx` (n_context, W) is drawn from N(0, 0.02²), or is the embedding of the words
    `context_init`, which then decide `n_context`. With `condition_width` (CoCoOp) a two-layer
    net shifts all context vectors by a function of each image's condition vector.
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
    ) -> None:
        super().__init__()
        # Past nn.Module's bookkeeping: the tower is frozen, shared, and saved nowhere.
        object.__setattr__(self, "tower", tower)
        if context_init is None:
            context = torch.randn(n_context, tower.width) * 0.02
        else:
            context = _embed(tower, _tokens(tower, context_init)[1:-1])
            context = context.to(torch.get_default_dtype())
        self.ctx = nn.Parameter(context)
        self.meta_net: nn.Module | None = None
        if condition_width is not None:
            self.meta_net = MetaNet(condition_width, tower.width)
        self._lay_out(class_names, class_position)

    def _lay_out(self, class_names: Sequence[str], class_position: str) -> None:
        """Decide the one sequence: which vector stands where, who sees whom, where to read."""
        n_context = len(self.ctx)
        before = {"end": n_context, "middle": n_context // 2, "front": 0}[class_position]
        context = list(range(n_context))
        ids = [_tokens(self.tower, f"{name}.") for name in class_names]
        # `order` points into [context vectors; start token; each class's name, `.`, end].
        order = [n_context, *context[:before]]
        n_shared, n_used = len(order), n_context + 1
        positions, branch, read = list(range(n_shared)), [-1] * n_shared, []
        for number, (name, tokens) in enumerate(zip(class_names, ids, strict=True)):
            n_name = len(_tokens(self.tower, name)) - 2
            own = list(range(n_used, n_used + len(tokens) - 1))
            steps = [*own[:n_name], *context[before:], *own[n_name:]]
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
        context = self.ctx[None]
        if self.meta_net is not None:
            context = context + self.meta_net(condition)[:, None]
        fixed = self.fixed.to(context.dtype).expand(len(context), -1, -1)
        sequence = torch.cat([context, fixed], dim=1)[:, self.order]
        ends = self.ends.expand(len(context), -1)
        mask = self.mask.to(context.dtype)
        text = self.tower.encode(sequence, ends, positions=self.positions, mask=mask)
        return text.to(context.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PromptLearner":
        if isinstance(self.tower, nn.Module):
            self.tower._apply(fn)
        super()._apply(fn, recurse)
        return self


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
