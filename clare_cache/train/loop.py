"""The one loop. A batch is read once and shown to every head; no head sees another's randomness.

Members of equal shapes are trained as one stack (`train.stack`); members of other shapes share the
batch. Each has its own optimiser settings and draws its dropout from a seed of its own, so training
several heads together gives each the numbers that it would get alone: to the bit beside heads of
other shapes, to rounding within a stack. A `BankHead` is shown the data once, in its own order,
before the others, and counts as one epoch.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clare_cache.errors import TrainError
from clare_cache.heads.protocol import BankHead, Head
from clare_cache.metrics import average_precision, choose_threshold, roc_auc
from clare_cache.seeds import generator_for
from clare_cache.train.config import OptimiserConfig, Selection
from clare_cache.train.score import Rows, batches_in_order, probability, score_stacks
from clare_cache.train.stack import Masks, Stack, stack_heads
from clare_cache.train.teacher import Lesson, Teacher
from clare_cache.types import OnProgress, Progress, ignore_progress


@dataclass
class Member:
    """One head in training: `label` names it in the run, `seed` decides its dropout, `order` its
    data order; by default all share the run's."""

    label: str
    head: Head
    optimiser: OptimiserConfig
    seed: int = 0
    order: int | None = None


@dataclass(frozen=True)
class Trained:
    """What became of a member. The head holds the weights of `best_epoch` (counted from 1).

    `threshold` is the probability above which an image counts as fake, chosen on validation.
    `retired` is "" or why training stopped early. `validation` has the best epoch's numbers.
    `seconds` is its share of its stack's time.
    """

    label: str
    head: Head
    optimiser: OptimiserConfig
    history: tuple[Mapping[str, Any], ...]
    best_epoch: int
    threshold: float
    validation: Mapping[str, float]
    retired: str
    seconds: float


@dataclass
class _State:
    member: Member
    history: list[dict[str, Any]] = field(default_factory=list)
    best_value: tuple[float, float] = (-math.inf, -math.inf)
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best_threshold: float = 0.5
    best_validation: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    retired: str = ""

    @property
    def is_bank(self) -> bool:
        return isinstance(self.member.head, BankHead)


@dataclass
class _Class:
    """Members trained as one stack, on one data order."""

    states: list[_State]
    teacher: Teacher
    order: int


def train_members(
    members: Sequence[Member],
    train: Rows,
    validation: Rows,
    *,
    epochs: int,
    batch_size: int,
    seed: int = 0,
    select: Selection = "val_auc",
    device: torch.device | str = "cpu",
    on_progress: OnProgress = ignore_progress,
) -> tuple[list[Trained], dict[str, str]]:
    """Train every member for `epochs` passes over `train`; keep each one's best epoch.

    The epoch is chosen by `select` on `validation`, ties by the lower validation loss, and so is
    the decision threshold. A member whose loss stops being finite is retired with a note and the
    others go on. Returns the trained members, and label → reason of those that were retired
    before they finished an epoch. Raises TrainError when a split lacks a class.
    """
    for name, data in (("training", train), ("validation", validation)):
        found = sorted(set(data.labels.tolist()))
        if found != [0, 1]:
            raise TrainError(
                f"{name} data: expected real and fake images, found labels {found} in "
                f"{len(data)} images. Check the manifest's splits."
            )
    states = [_State(member) for member in members]
    banks = [state for state in states if state.is_bank]
    _fill_banks(banks, train, batch_size=batch_size, device=device)
    classes = _gather([state for state in states if not state.is_bank], seed=seed, device=device)
    n_batches = math.ceil(len(train) / batch_size) if classes else 0
    for epoch in range(epochs):
        for taught in classes:
            taught.teacher.start_epoch(epoch, epochs)
        orders = {
            order: generator_for(order, "train", f"order/{epoch}").permutation(len(train))
            for order in {taught.order for taught in classes}
        }
        for step in range(n_batches):
            masks = Masks(f"{epoch}/{step}")
            for order, images in orders.items():
                rows = images[step * batch_size : (step + 1) * batch_size]
                features, labels = _on(device, *train.batch(rows))
                for taught in classes:
                    if taught.order == order:
                        taught.teacher.step(features, labels, masks=masks)
            on_progress(
                Progress(
                    what="train",
                    done=epoch * n_batches + step + 1,
                    total=epochs * n_batches,
                    unit="step",
                    note=f"epoch {epoch + 1}/{epochs}",
                )
            )
        _end_epoch(
            classes, banks if epoch == 0 else [], validation, epoch=epoch, select=select,
            device=device,
        )  # fmt: skip
        classes = _dismiss(classes)
        if not classes:
            break
    lost = {s.member.label: s.retired for s in states if not s.best_epoch}
    return [_finish(state) for state in states if state.best_epoch], lost


def _fill_banks(
    banks: Sequence[_State], train: Rows, *, batch_size: int, device: torch.device | str
) -> None:
    for state in banks:
        began = time.perf_counter()
        head = state.member.head.to(device)
        assert isinstance(head, BankHead)  # rule-ok: narrows a type
        head.remember(train.batch(rows) for rows in batches_in_order(len(train), batch_size))
        state.seconds = time.perf_counter() - began


def _gather(states: Sequence[_State], *, seed: int, device: torch.device | str) -> list[_Class]:
    """Members by stack: those with the same code, shapes, kind of optimiser and data order."""
    orders = [seed if s.member.order is None else s.member.order for s in states]
    heads = [state.member.head.to(device).train() for state in states]
    classes = []
    for positions in stack_heads(heads, together=orders):
        # Members of one configuration side by side: they share an optimiser.
        known = [states[n].member.optimiser for n in positions]
        positions = sorted(positions, key=lambda n: known.index(states[n].member.optimiser))
        mine = [states[n] for n in positions]
        classes.append(_Class(mine, _teach(mine), orders[positions[0]]))
    return classes


def _teach(states: Sequence[_State]) -> Teacher:
    members = [state.member for state in states]
    return Teacher(
        [m.head for m in members], [m.optimiser for m in members], [m.seed for m in members]
    )


def _on(
    device: torch.device | str, features: Mapping[str, Tensor], labels: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    # In the precision of heads once, not once for each stack.
    moved = {
        name: tensor.to(device, torch.float32 if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in features.items()
    }
    return moved, labels.to(device)


def _end_epoch(
    classes: Sequence[_Class],
    banks: Sequence[_State],
    validation: Rows,
    *,
    epoch: int,
    select: Selection,
    device: torch.device | str,
) -> None:
    """Scores every member on `validation`, and notes what is to be kept of it."""
    stacks = [taught.teacher.stack for taught in classes]
    stacks += [Stack([state.member.head]) for state in banks]
    scores = score_stacks(stacks, validation, device=device)
    labels = validation.labels.numpy()
    for taught, log_odds in zip(classes, scores, strict=False):
        lessons = taught.teacher.end_epoch()
        for state, lesson, values in zip(taught.states, lessons, log_odds, strict=True):
            state.seconds += taught.teacher.seconds / len(taught.states)
            state.retired = lesson.burst
            if not state.retired:
                _judge(state, labels, values, epoch=epoch, select=select, lesson=lesson)
        taught.teacher.seconds = 0.0
    for state, (values,) in zip(banks, scores[len(classes) :], strict=True):
        _judge(state, labels, values, epoch=epoch, select=select, lesson=None)


def _judge(
    state: _State,
    labels: NDArray[np.int64],
    log_odds: NDArray[np.float64],
    *,
    epoch: int,
    select: Selection,
    lesson: Lesson | None,
) -> None:
    if not np.isfinite(log_odds).all():
        state.retired = f"scores stopped being finite after epoch {epoch + 1}"
        return
    # Cross-entropy of the two-class softmax, from log-odds alone: log(1 + exp(∓s)).
    signed = np.where(labels == 1, -log_odds, log_odds)
    validation = {
        "val_auc": float(roc_auc(labels, log_odds)),
        "val_ap": float(average_precision(labels, log_odds)),
        "val_loss": float(np.logaddexp(0, signed).mean()),
    }
    line: dict[str, Any] = {"epoch": epoch + 1, **validation}
    if lesson is not None:
        line |= {"train_loss": lesson.train_loss, "lr": lesson.lr}
    state.history.append(line)
    chosen = {
        "val_auc": validation["val_auc"],
        "val_ap": validation["val_ap"],
        "val_loss": -validation["val_loss"],
        "last": float(epoch),
    }[select]
    # On an easy validation set AUC is 1 from the first epoch; the loss still tells apart.
    value = (chosen, -validation["val_loss"])
    if value > state.best_value:
        state.best_value, state.best_epoch = value, epoch + 1
        if lesson is not None:
            # Not a deep copy, which would copy the whole stack for each of its members.
            weights = state.member.head.state_dict()
            state.best_weights = {name: value.clone() for name, value in weights.items()}
        state.best_threshold = choose_threshold(labels, probability(log_odds))
        state.best_validation = validation


def _dismiss(classes: Sequence[_Class]) -> list[_Class]:
    """The classes without the members that were retired; nobody else's numbers change."""
    kept = []
    for taught in classes:
        live = [n for n, state in enumerate(taught.states) if not state.retired]
        if len(live) < len(taught.states) and live:
            memory = [taught.teacher.optimiser_state(n) for n in live]
            states = [taught.states[n] for n in live]
            taught = _Class(states, _teach(states), taught.order)
            taught.teacher.restore_optimiser(memory)
        if live:
            kept.append(taught)
    return kept


def _finish(state: _State) -> Trained:
    head = state.member.head
    for name, tensor in [*head.named_parameters(), *head.named_buffers()]:
        # Their own storage again, no longer rows of a stack.
        tensor.data = state.best_weights.get(name, tensor.data).clone()
    head.eval()
    return Trained(
        label=state.member.label,
        head=head,
        optimiser=state.member.optimiser,
        history=tuple(state.history),
        best_epoch=state.best_epoch,
        threshold=state.best_threshold,
        validation=state.best_validation,
        retired=state.retired,
        seconds=state.seconds,
    )
