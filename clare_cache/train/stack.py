"""Heads of one shape as one: their weights side by side, one forward for all of them.

`torch.vmap` runs the head's own code over the stacked weights. What is the same for all members
(the batch, frozen weights that are equal, a dropout mask of one seed) stays single and is computed
once. Dropout masks are drawn here, from each member's own seed, so a member in a stack meets the
masks that it would meet alone. Knows no optimiser and no loop.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from clare_cache.heads.protocol import Head
from clare_cache.train.masks import Masks
from clare_cache.train.recording import Found, Recorder


class Stack:
    """Heads whose code and shapes are the same, sharing storage with the stacked weights.

    While stacked, the heads' own parameters are views: they always have the current values, which
    an optimiser changes through `trainable`, name → (n, *shape), one leaf tensor for all members.
    A single head is a stack without any stacking.
    """

    def __init__(self, heads: Sequence[Head]) -> None:
        self.heads = list(heads)
        self.trainable: dict[str, Tensor] = {}
        self._each: dict[str, Tensor] = {}
        self._template = _WithLoss(self.heads[0])
        self._recorders: dict[tuple[Any, ...], Recorder] = {}
        if len(self.heads) == 1:
            self.trainable = {
                name: value
                for name, value in self.heads[0].named_parameters()
                if value.requires_grad
            }
        else:
            self._bind()

    def __len__(self) -> int:
        return len(self.heads)

    def _bind(self) -> None:
        persistent = self.heads[0].state_dict().keys()
        owned = [dict(_tensors(head)) for head in self.heads]
        for name, first in owned[0].items():
            values = [tensors[name] for tensors in owned]
            may_change = first.requires_grad or (
                not isinstance(first, nn.Parameter) and name in persistent
            )
            if not may_change and all(torch.equal(first, value) for value in values[1:]):
                for value in values[1:]:
                    value.data = first.data
                continue
            stacked = torch.stack([value.detach() for value in values])
            for value, row in zip(values, stacked, strict=True):
                value.data = row
            if first.requires_grad:
                self.trainable[name] = stacked.requires_grad_()
            else:
                self._each[name] = stacked

    def learn(
        self,
        features: Mapping[str, Tensor],
        labels: Tensor,
        *,
        is_live: Tensor,
        seeds: Sequence[int],
        masks: Masks,
        shares: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor | None]]:
        """Each member's training loss (n,) on one batch, and by parameter the gradients (n, *shape)
        of those that are live (n,) and whose loss is finite; None for a parameter without any.
        The gradients of a single head have its own shapes. `shares` (n,) is label smoothing, see
        `losses`; `seeds` must be the same in every call.
        """
        rows = {name: features[name] for name in self.heads[0].needs if name in features}
        parts = (self.trainable, self._each, rows)
        names = [list(part) for part in parts]

        def step(given: Sequence[Tensor], masks: Masks) -> Found:
            rest = iter(given)
            trainable, each, rows = ({name: next(rest) for name in part} for part in names)
            labels, is_live, *shares = rest
            losses = self._losses(
                {**trainable, **each}, rows, labels, *shares, seeds=seeds, masks=masks
            )
            found = losses.detach()
            total = torch.where(is_live & found.isfinite(), losses, 0).sum()
            weights = list(trainable.values())
            gradients = torch.autograd.grad(total, weights, allow_unused=True)
            return [found, *map(_laid_out, gradients, weights)]

        given = [*(value for part in parts for value in part.values()), labels, is_live]
        given += [shares] if shares is not None else []
        if len(self) == 1:
            found = step(given, masks)
        else:
            shown = (*rows.values(), labels)
            kind = tuple((tensor.shape, tensor.stride(), tensor.dtype) for tensor in shown)
            found = self._recorders.setdefault(kind, Recorder(step))(given, masks)
        losses, *gradients = found
        return cast(Tensor, losses), dict(zip(self.trainable, gradients, strict=True))

    def losses(
        self,
        features: Mapping[str, Tensor],
        labels: Tensor,
        *,
        seeds: Sequence[int],
        masks: Masks,
        smoothing: Sequence[float] = (),
    ) -> Tensor:
        """Each member's training loss (n,) on one batch, its dropout drawn from its seed. Each
        moves its share `smoothing` of every label to the other class (none: 0)."""
        shares = torch.tensor(smoothing, device=labels.device) if any(smoothing) else None
        weights = {**self.trainable, **self._each}
        return self._losses(weights, features, labels, shares, seeds=seeds, masks=masks)

    def _losses(
        self,
        weights: Mapping[str, Tensor],
        features: Mapping[str, Tensor],
        labels: Tensor,
        shares: Tensor | None = None,
        *,
        seeds: Sequence[int],
        masks: Masks,
    ) -> Tensor:
        with _Dropout(seeds, masks, is_stacked=len(self) > 1):
            if len(self) == 1:
                loss: Tensor = self._template(features, labels, shares)
                return loss.view(1)
            return self._map(
                weights,
                lambda call: call(
                    features, labels, None if shares is None else shares[_Dropout.member]
                ),
            )

    def scores(self, features: Mapping[str, Tensor]) -> Tensor:
        """Each member's log-odds of "fake" (n, B), in evaluation mode."""
        if len(self) == 1:
            return self.heads[0](features).score[None]
        with _Dropout((), None, is_stacked=True):
            weights = {**self.trainable, **self._each}
            return self._map(weights, lambda call: call(features, None, None))

    def _map(
        self, stacked: Mapping[str, Tensor], ask: Callable[[Callable[..., Tensor]], Tensor]
    ) -> Tensor:
        def one(values: Mapping[str, Tensor], member: Tensor) -> Tensor:
            _Dropout.member = member
            weights = {f"head.{name}": value for name, value in values.items()}
            return ask(lambda *given: functional_call(self._template, weights, given))

        members = torch.arange(len(self), device=next(iter(stacked.values())).device)
        # vmap has no rule for the fused attention of CPUs, and falls back to a loop.
        with sdpa_kernel(SDPBackend.MATH):
            found: Tensor = torch.vmap(one, randomness="error")(stacked, members)
        return found


def stack_heads(
    heads: Sequence[Head], *, together: Sequence[object] | None = None, limit: int = 0
) -> list[list[int]]:
    """Positions of heads that can be one Stack, in order of first appearance.

    Heads that differ in `together` are never stacked; `limit` is the most that may be (0: any).
    """
    found: dict[tuple[Any, ...], list[list[int]]] = defaultdict(lambda: [[]])
    for position, head in enumerate(heads):
        apart = None if together is None else together[position]
        groups = found[(_kind(head), position if not head.stackable else None, apart)]
        if limit and len(groups[-1]) == limit:
            groups.append([])
        groups[-1].append(position)
    return sorted(group for groups in found.values() for group in groups)


def _laid_out(gradient: Tensor | None, weights: Tensor) -> Tensor | None:
    """In memory as the weights are: there optimisers are fastest."""
    if gradient is None or gradient.stride() == weights.stride():
        return gradient
    return torch.empty_like(weights).copy_(gradient)


def _kind(head: Head) -> tuple[object, ...]:
    """Equal for heads that are the same but for the values of their tensors."""
    options = {k: v for k, v in head.options.items() if k not in head.stackable_options}
    layout = tuple(
        (name, tuple(value.shape), value.dtype, value.device, value.requires_grad)
        for name, value in _tensors(head)
    )
    shapes = json.dumps([options, head.shapes], sort_keys=True, default=str)
    return type(head), shapes, layout, id(head.text), head.training


def _tensors(head: nn.Module) -> list[tuple[str, Tensor]]:
    return [*head.named_parameters(), *head.named_buffers()]


class _WithLoss(nn.Module):
    """A head and its loss behind one `forward`, which `functional_call` needs."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(
        self, features: Mapping[str, Tensor], labels: Tensor | None, smoothing: Tensor | None
    ) -> Tensor:
        output = self.head(features)
        found: Tensor = output.score if labels is None else self.head.loss(output, labels)
        if labels is not None and smoothing is not None:
            # Cross-entropy is linear in its target; a contrastive term sees which labels are
            # alike, and that stays.
            found = torch.lerp(found, self.head.loss(output, 1 - labels), smoothing.to(found.dtype))
        return found


class _Dropout(TorchFunctionMode):
    """While active, dropout draws from `Masks`, and stacked linear maps are one product."""

    member: Tensor
    """Within vmap: the member's position, a batched tensor."""

    def __init__(self, seeds: Sequence[int], masks: Masks | None, *, is_stacked: bool) -> None:
        super().__init__()
        self._seeds = seeds
        self._masks = masks
        self._is_stacked = is_stacked
        self._n_calls = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func is F.dropout:
            return self._dropout(*args, **given)
        if func is F.scaled_dot_product_attention and given.get("dropout_p", 0.0) > 0:
            return self._attend(*args, **given)
        if func is F.linear and self._is_stacked:
            return self._linear(*args, **given)
        return func(*args, **given)

    def _dropout(
        self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0 or self._masks is None:
            return input
        number, self._n_calls = self._n_calls, self._n_calls + 1
        if not self._is_stacked:
            return input * self._masks.draw(self._seeds[0], number, input.shape, p, input)
        draw = _Draw(self._masks, self._seeds, number, p)
        return cast(Tensor, _StackedDropout.apply(input, _Dropout.member, draw))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, *, dropout_p: float) -> Tensor:
        """Written out, because the fused kernels draw masks of their own."""
        scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
        return self._dropout(scores.softmax(dim=-1), dropout_p) @ value

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return cast(Tensor, _StackedLinear.apply(input, weight, bias, _Dropout.member))


class _Draw:
    """Which mask: what `Masks.draw` needs beside the shape."""

    def __init__(self, masks: Masks, seeds: Sequence[int], number: int, p: float) -> None:
        self._masks, self._seeds, self._number, self._p = masks, seeds, number, p

    def __call__(self, shape: torch.Size, like: Tensor) -> tuple[Tensor, bool]:
        """The mask (*shape) and False if all members share it, else (n, *shape) and True."""
        drawn = {
            seed: self._masks.draw(seed, self._number, shape, self._p, like)
            for seed in dict.fromkeys(self._seeds)
        }
        if len(drawn) == 1:
            return next(iter(drawn.values())), False
        return torch.stack([drawn[seed] for seed in self._seeds]), True


class _VmapOnly(torch.autograd.Function):
    """What these functions compute is in their `vmap`, below which autograd sees plain products.

    Their argument `member` is always batched, so that `vmap` is always asked.
    """

    @staticmethod
    def forward(*given: Any) -> Tensor:
        raise RuntimeError("a function of vmap was called outside it")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None: ...

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError("a function of vmap was called outside it")


class _StackedDropout(_VmapOnly):
    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], input: Tensor, member: Tensor, draw: _Draw
    ) -> tuple[Tensor, int | None]:
        dim = in_dims[0]
        rows = input if dim is None else input.movedim(dim, 0)
        mask, is_each = draw(rows.shape if dim is None else rows.shape[1:], input)
        return rows * mask, None if dim is None and not is_each else 0


class _StackedLinear(_VmapOnly):
    """vmap's own rule copies the input for every member; these are one matrix product."""

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        member: Tensor,
    ) -> tuple[Tensor, int | None]:
        at, of_weight, of_bias, _ = in_dims
        if of_weight is None and of_bias is None:
            rows = input if at is None else input.movedim(at, 0)
            return F.linear(rows, weight, bias), None if at is None else 0
        n = info.batch_size
        weight = weight.expand(n, -1, -1) if of_weight is None else weight.movedim(of_weight, 0)
        if bias is not None:
            bias = bias.expand(n, -1) if of_bias is None else bias.movedim(of_bias, 0)
        if at is None:
            # One product with the weights of all members below one another.
            flat = F.linear(input, weight.flatten(0, 1), None if bias is None else bias.flatten())
            return flat.unflatten(-1, (n, -1)), flat.ndim - 1
        rows = input.movedim(at, 0)
        flat = rows.reshape(n, -1, rows.shape[-1])
        if bias is None:
            out = torch.bmm(flat, weight.transpose(1, 2))
        else:
            out = torch.baddbmm(bias[:, None], flat, weight.transpose(1, 2))
        return out.view(*rows.shape[:-1], -1), 0
