"""The one loop. A batch is read once and shown to every head; no head sees another's randomness.

Members of equal shapes are trained as one stack (`train.stack`); members of other shapes share the
batch. Each has its own optimiser settings and draws its dropout from a seed of its own, so training
several heads together gives each the numbers that it would get alone: to the bit beside heads of
other shapes, to rounding within a stack. A `BankHead` is shown the data once, in its own order,
before the others, and counts as one epoch.
"""

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from clare_cache.errors import TrainError
from clare_cache.heads.protocol import BankHead
from clare_cache.seeds import generator_for
from clare_cache.train.checkpoint import Checkpoint, Place
from clare_cache.train.config import Selection
from clare_cache.train.masks import Masks
from clare_cache.train.members import Cohort, Member, State, Trained, finish, judge, plateau_of
from clare_cache.train.recording import RECORD_AT
from clare_cache.train.score import Rows, batches_in_order, score_stacks, to_device
from clare_cache.train.stack import Stack, stack_heads
from clare_cache.train.teacher import Teacher
from clare_cache.train.tracking import OnEpoch, ignore_epoch
from clare_cache.types import OnProgress, Progress, ignore_progress

__all__ = ["Member", "Timing", "Trained", "time_steps", "train_members"]

STACK_LIMIT = 16
"""Members in one stack: more would take memory and gain no time."""

LONG_STEP = 0.25
"""Seconds above which arithmetic, and not the host, decides a step's time."""


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
    checkpoint: Checkpoint | None = None,
    deadline: float = math.inf,
    on_epoch: OnEpoch = ignore_epoch,
    on_progress: OnProgress = ignore_progress,
) -> tuple[list[Trained], dict[str, str]]:
    """Train every member for `epochs` passes over `train`; keep each one's best epoch.

    The epoch is chosen by `select` on `validation`, ties by the lower validation loss, and so is
    the decision threshold. A member whose loss stops being finite is retired with a note and the
    others go on. With a `checkpoint` training goes on where it was cut off. At `deadline` (of
    `time.monotonic`) it ends as at the end of an epoch. `on_epoch` hears of each.
    Returns the trained members, and label → reason of those that were retired before they finished
    an epoch. Raises TrainError when a split lacks a class.
    """
    for name, data in (("training", train), ("validation", validation)):
        found = sorted(set(data.labels.tolist()))
        if found != [0, 1]:
            raise TrainError(
                f"{name} data: expected real and fake images, found labels {found} in "
                f"{len(data)} images. Check the manifest's splits."
            )
    states = [State(member) for member in members]
    place = checkpoint.restore(states) if checkpoint is not None else Place()
    banks = [state for state in states if state.is_bank]
    _fill_banks(banks, train, batch_size=batch_size, device=device)
    cohorts = _gather([state for state in states if state.is_live], seed=seed, device=device)
    n_batches = math.ceil(len(train) / batch_size) if cohorts else 0
    for epoch in range(place.epoch, epochs):
        for cohort in cohorts:
            factors = [plateau_of(state).factor for state in cohort.states]
            cohort.teacher.start_epoch(epoch, epochs, n_steps=n_batches, factors=factors)
        skip = place.step if epoch == place.epoch else 0
        if checkpoint is not None and epoch == place.epoch:
            checkpoint.restore_teachers(cohorts)
        is_late = False
        for step, batches in _read(cohorts, train, batch_size, epoch=epoch, skip=skip):
            masks = Masks(f"{epoch}/{step}")
            shown = {order: _on(device, *batch) for order, batch in batches.items()}
            for cohort in cohorts:
                cohort.teacher.step(*shown[cohort.order], masks=masks, number=step)
            on_progress(
                Progress(
                    what="train",
                    done=epoch * n_batches + step + 1,
                    total=epochs * n_batches,
                    unit="step",
                    note=f"epoch {epoch + 1}/{epochs}",
                )
            )
            is_late = time.monotonic() >= deadline
            if is_late:
                break
            if checkpoint is not None and step + 1 < n_batches:
                checkpoint.save_if_due(states, cohorts, Place(epoch, step + 1))
        fresh_banks = [state for state in banks if not state.progress.history]
        _end_epoch(
            cohorts, fresh_banks, validation, epoch=epoch, select=select, device=device
        )  # fmt: skip
        for state in states:
            if state.progress.history and state.progress.history[-1]["epoch"] == epoch + 1:
                reason = on_epoch(state.member.label, state.progress.history[-1])
                state.progress.retired = state.progress.retired or reason or ""
        if is_late:
            _stop(states, f"the time budget ended in epoch {epoch + 1}, step {step + 1}")
        cohorts = _dismiss(cohorts)
        if not cohorts:
            break
        if checkpoint is not None:
            checkpoint.save_if_due(states, cohorts, Place(epoch + 1, 0))
    lost = {s.member.label: s.progress.retired for s in states if not s.progress.best_epoch}
    return [finish(state) for state in states if state.progress.best_epoch], lost


@dataclass(frozen=True)
class Timing:
    """Seconds of one training step of all members, and the number of their stacks."""

    seconds: float
    n_stacks: int


def time_steps(
    members: Sequence[Member],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    batch_size: int,
    device: torch.device | str = "cpu",
    n_steps: int = 3,
    replayed: bool = False,
) -> Timing:
    """The median of a few steps on made-up features of these row shapes. The heads are changed.

    With `replayed` of those after a stack's step was recorded, as most of a training are; where a
    step is so long that recording saves nothing, of the first ones all the same.
    """
    states = [State(member) for member in members]
    cohorts = _gather([s for s in states if s.is_live], seed=0, device=device)
    features = {
        name: torch.rand(batch_size, *shape, device=device) for name, shape in shapes.items()
    }
    labels = torch.arange(batch_size, device=device) % 2
    seconds: list[float] = []
    for step in range(n_steps + 1 + (RECORD_AT if replayed else 0)):
        if step == n_steps + 1 and statistics.median(seconds[1:]) > LONG_STEP:
            break
        began = time.perf_counter()
        masks = Masks(f"0/{step}")
        for cohort in cohorts:
            cohort.teacher.start_epoch(0, 1)
            cohort.teacher.step(features, labels, masks=masks)
            cohort.teacher.end_epoch()
        seconds.append(time.perf_counter() - began)
    # The first step brings allocations that the others do not.
    return Timing(statistics.median(seconds[-n_steps:]), len(cohorts))


def _fill_banks(
    banks: Sequence[State], train: Rows, *, batch_size: int, device: torch.device | str
) -> None:
    for state in banks:
        began = time.perf_counter()
        head = state.member.head.to(device)
        if isinstance(head, BankHead):
            head.remember(train.batch(rows) for rows in batches_in_order(len(train), batch_size))
        state.progress.seconds = time.perf_counter() - began


def _gather(states: Sequence[State], *, seed: int, device: torch.device | str) -> list[Cohort]:
    """Members by stack: those with the same code, shapes and data order."""
    orders = [seed if s.member.order is None else s.member.order for s in states]
    heads = [state.member.head.to(device).train() for state in states]
    cohorts = []
    for positions in stack_heads(heads, together=orders, limit=STACK_LIMIT):
        # Members of one configuration side by side: they share an optimiser.
        known = [states[n].member.optimiser for n in positions]
        positions = sorted(positions, key=lambda n: known.index(states[n].member.optimiser))
        mine = [states[n] for n in positions]
        cohorts.append(Cohort(mine, _teach(mine), orders[positions[0]]))
    return cohorts


def _teach(states: Sequence[State]) -> Teacher:
    members = [state.member for state in states]
    return Teacher(
        [m.head for m in members], [m.optimiser for m in members], [m.seed for m in members]
    )


Batch = tuple[Mapping[str, Tensor], Tensor]


def _read(
    cohorts: Sequence[Cohort], train: Rows, batch_size: int, *, epoch: int, skip: int
) -> Iterator[tuple[int, dict[int, Batch]]]:
    """Step and, by data order, its batch; the first `skip` steps were done before."""
    epochs = {
        order: train.epoch(generator_for(order, "train", f"order/{epoch}"), batch_size)
        for order in dict.fromkeys(cohort.order for cohort in cohorts)
    }
    for step, batches in enumerate(zip(*epochs.values(), strict=True)):
        if step >= skip:
            yield step, dict(zip(epochs, batches, strict=True))


def _on(device: torch.device | str, features: Mapping[str, Tensor], labels: Tensor) -> Batch:
    return to_device(features, device), labels.to(device, non_blocking=True)


def _end_epoch(
    cohorts: Sequence[Cohort],
    banks: Sequence[State],
    validation: Rows,
    *,
    epoch: int,
    select: Selection,
    device: torch.device | str,
) -> None:
    """Scores every member on `validation`, and notes what is to be kept of it."""
    with ExitStack() as averages:
        for cohort in cohorts:
            averages.enter_context(cohort.teacher.averaged())
        stacks = [cohort.teacher.stack for cohort in cohorts]
        stacks += [Stack([state.member.head]) for state in banks]
        scores = score_stacks(stacks, validation, device=device)
        labels = validation.labels.numpy()
        for cohort, log_odds in zip(cohorts, scores, strict=False):
            lessons = cohort.teacher.end_epoch()
            for state, lesson, values in zip(cohort.states, lessons, log_odds, strict=True):
                state.progress.seconds += cohort.teacher.seconds / len(cohort.states)
                state.progress.retired = lesson.burst
                if state.is_live:
                    judge(state, labels, values, epoch=epoch, select=select, lesson=lesson)
            cohort.teacher.seconds = 0.0
        for state, (values,) in zip(banks, scores[len(cohorts) :], strict=True):
            judge(state, labels, values, epoch=epoch, select=select, lesson=None)


def _stop(states: Sequence[State], reason: str) -> None:
    for state in states:
        if state.is_live:
            state.progress.retired, state.progress.is_cut = reason, True


def _dismiss(cohorts: Sequence[Cohort]) -> list[Cohort]:
    """The cohorts without the members that were retired; nobody else's numbers change."""
    kept = []
    for cohort in cohorts:
        live = [n for n, state in enumerate(cohort.states) if state.is_live]
        if len(live) < len(cohort.states) and live:
            memory = [cohort.teacher.optimiser_state(n) for n in live]
            states = [cohort.states[n] for n in live]
            cohort = Cohort(states, _teach(states), cohort.order)
            cohort.teacher.restore_optimiser(memory)
        if live:
            kept.append(cohort)
    return kept
