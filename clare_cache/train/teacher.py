"""A stack of heads with the optimisers of its members. Knows no data and no epochs to choose from.

Members of equal `OptimiserConfig` share one torch optimiser over their rows of the stacked
parameters: optimisers work element by element, so each member gets what it would get alone.
Clipping, which does not, is done here for each member.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from clare_cache.heads.protocol import Head
from clare_cache.train.config import OptimiserConfig
from clare_cache.train.masks import Masks
from clare_cache.train.optimiser import build_optimiser, learning_rate
from clare_cache.train.stack import Stack

AVERAGE = "average"
"""Name of the average weights in an optimiser's memory."""


@dataclass(frozen=True)
class _Group:
    """Members first..last−1 of a stack: one configuration, one optimiser."""

    first: int
    last: int
    config: OptimiserConfig
    optimiser: torch.optim.Optimizer
    parameters: Mapping[str, nn.Parameter]
    """Name → (members, *shape), sharing storage with the stack."""


@dataclass(frozen=True)
class Lesson:
    """What an epoch did to one member: mean loss over its finite steps; `burst` is "" or how its
    loss stopped being finite."""

    train_loss: float
    lr: float
    burst: str


class Teacher:
    """Trains a stack. Members of equal configurations must stand side by side."""

    def __init__(
        self, heads: Sequence[Head], configs: Sequence[OptimiserConfig], seeds: Sequence[int]
    ) -> None:
        self.stack = Stack(heads)
        self.seconds = 0.0
        self._configs, self._seeds = list(configs), list(seeds)
        self._smoothing = [config.label_smoothing for config in configs]
        # Members whose rate may fall at different times cannot share an optimiser.
        edges = [
            n
            for n in range(1, len(configs))
            if configs[n] != configs[n - 1] or configs[n].early_stopping != "none"
        ]
        self._groups = [
            self._group(first, last)
            for first, last in zip([0, *edges], [*edges, len(configs)], strict=True)
        ]

    def _group(self, first: int, last: int) -> _Group:
        is_stacked = len(self.stack) > 1
        parameters = {
            name: nn.Parameter(tensor.detach()[first:last] if is_stacked else tensor.detach()[None])
            for name, tensor in self.stack.trainable.items()
        }
        config = self._configs[first]
        optimiser = build_optimiser(
            self.stack.heads[first], config, parameters=list(parameters.values())
        )
        return _Group(first, last, config, optimiser, parameters)

    def start_epoch(
        self, epoch: int, epochs: int, *, n_steps: int = 1, factors: Sequence[float] = ()
    ) -> None:
        """Begins an epoch counted from 0, and forgets the losses of the last. `factors` are by
        what early stopping multiplies each member's rate."""
        self._rate = partial(learning_rate, epoch=epoch, epochs=epochs, n_steps=n_steps)
        self._factors = list(factors) or [1.0] * len(self.stack)
        device = next(iter(self.stack.trainable.values())).device
        n = len(self.stack)
        self._epoch = epoch
        self._shares = None
        if any(self._smoothing):
            self._shares = torch.tensor(self._smoothing).to(device, non_blocking=True)
        self._loss_sum = torch.zeros(n, device=device)
        self._n_finite = torch.zeros(n, device=device)
        self._is_live = torch.ones(n, dtype=torch.bool, device=device)
        self._last_loss = torch.zeros(n, device=device)

    def step(
        self, features: Mapping[str, Tensor], labels: Tensor, *, masks: Masks, number: int = 0
    ) -> None:
        """Step `number` of the epoch, of every member on one batch. A member whose loss is not
        finite stands still from then on, as far as its momentum lets it; nothing of it is kept."""
        began = time.perf_counter()
        for group in self._groups:
            for options in group.optimiser.param_groups:
                options["lr"] = self._factors[group.first] * self._rate(group.config, step=number)
        losses, gradients = self.stack.learn(
            features,
            labels,
            is_live=self._is_live,
            seeds=self._seeds,
            masks=masks,
            shares=self._shares,
        )
        # No `.item()` here: on a GPU it would wait for each stack in turn.
        self._last_loss = torch.where(self._is_live, losses, self._last_loss)
        self._is_live = self._is_live & losses.isfinite()
        self._loss_sum += torch.where(self._is_live, losses, 0)
        self._n_finite += self._is_live
        for group in self._groups:
            self._hand_gradients(group, gradients)
            if group.config.clip_norm is not None:
                _clip(list(group.parameters.values()), group.config.clip_norm)
            group.optimiser.step()
            if group.config.average is not None:
                _average(group, group.config.average)
        self.seconds += time.perf_counter() - began

    def _hand_gradients(self, group: _Group, gradients: Mapping[str, Tensor | None]) -> None:
        for name, parameter in group.parameters.items():
            gradient = gradients[name]
            if gradient is None:
                parameter.grad = None
            elif len(self.stack) > 1:
                parameter.grad = gradient[group.first : group.last]
            else:
                parameter.grad = gradient[None]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """For as long as it lasts, members that average their weights have the average."""
        own: list[tuple[Tensor, Tensor]] = []
        for group in self._groups:
            for parameter in group.parameters.values():
                average = group.optimiser.state[parameter].get(AVERAGE)
                if average is not None:
                    own.append((parameter, parameter.detach().clone()))
                    _overwrite(parameter, average)
        try:
            yield
        finally:
            for changed, weights in own:
                _overwrite(changed, weights)

    def end_epoch(self) -> list[Lesson]:
        """What became of each member in this epoch."""
        lessons = []
        for number, (loss_sum, n_finite, is_live, last) in enumerate(
            zip(
                self._loss_sum.tolist(),
                self._n_finite.tolist(),
                self._is_live.tolist(),
                self._last_loss.tolist(),
                strict=True,
            )
        ):
            burst = "" if is_live else (
                f"loss became {last} in epoch {self._epoch + 1}, step {int(n_finite) + 1}"
            )  # fmt: skip
            rate = self._of(number).optimiser.param_groups[0]["lr"]
            lessons.append(Lesson(loss_sum / max(n_finite, 1), rate, burst))
        return lessons

    def _of(self, member: int) -> _Group:
        return next(g for g in self._groups if g.first <= member < g.last)

    def optimiser_state(self, member: int) -> dict[str, Tensor]:
        """What the optimiser remembers of a member, by parameter and name: copies."""
        group = self._of(member)
        found = {}
        for name, parameter in group.parameters.items():
            for key, value in group.optimiser.state[parameter].items():
                if isinstance(value, Tensor):
                    own = value[member - group.first] if value.ndim else value
                    found[f"{name}/{key}"] = own.detach().clone()
        return found

    def restore_optimiser(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Gives every member what `optimiser_state` had found of it."""
        for group in self._groups:
            mine = states[group.first : group.last]
            for name, parameter in group.parameters.items():
                prefix = f"{name}/"
                for key in (k for k in mine[0] if k.startswith(prefix)):
                    values = [state[key] for state in mine]
                    is_own = values[0].ndim or key.endswith(("momentum_buffer", AVERAGE))
                    # Adam's count of steps is one for all, and stays with the host, which reads it.
                    group.optimiser.state[parameter][key.removeprefix(prefix)] = (
                        torch.stack(values).to(parameter.device) if is_own else values[0].cpu()
                    )

    def lesson_state(self, member: int) -> Tensor:
        """What the begun epoch has noted of a member: (4,)."""
        parts = (self._loss_sum, self._n_finite, self._is_live, self._last_loss)
        return torch.stack([part[member].float() for part in parts])

    def restore_lessons(self, states: Sequence[Tensor]) -> None:
        """Gives every member what `lesson_state` had found of it."""
        device = self._loss_sum.device
        loss_sum, n_finite, is_live, last = torch.stack(list(states)).to(device).unbind(dim=1)
        self._loss_sum, self._n_finite, self._last_loss = loss_sum, n_finite, last
        self._is_live = is_live > 0


def _overwrite(parameter: Tensor, values: Tensor) -> None:
    # Not through `.data`, which would hide the change from texts that are kept at evaluation.
    with torch.no_grad():
        parameter.copy_(values)


def _average(group: _Group, decay: float) -> None:
    """Moves the average towards the weights. It lies with the optimiser's memory, so that it goes
    wherever that goes; torch's optimisers want to find theirs empty before the first step."""
    for parameter in group.parameters.values():
        if parameter.grad is None:
            continue
        state = group.optimiser.state[parameter]
        if AVERAGE in state:
            state[AVERAGE].lerp_(parameter.detach(), 1 - decay)
        else:
            state[AVERAGE] = parameter.detach().clone()


def _clip(parameters: Sequence[nn.Parameter], max_norm: float) -> None:
    """Scales each member's gradients (n, …) so that their common L2 norm is at most `max_norm`."""
    there = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
    norms = torch.stack([grad.flatten(1).norm(dim=1) for _, grad in there]).norm(dim=0)
    # As torch.nn.utils.clip_grad_norm_ does, with its guard against a norm of zero.
    scale = (max_norm / (norms + 1e-6)).clamp(max=1)
    for parameter, grad in there:
        # Not in place: two parameters may share one gradient.
        parameter.grad = grad * scale.view(-1, *[1] * (grad.ndim - 1))
