"""The members of one training: what is asked of each, how far it is, what became of it.

Choosing the epoch to keep, and the threshold, from validation scores happens here. Knows no data.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clare_cache.heads.protocol import BankHead, Head
from clare_cache.metrics import (
    accuracy_at,
    average_precision,
    choose_threshold,
    fit_temperature,
    roc_auc,
)
from clare_cache.train.config import OptimiserConfig, Selection
from clare_cache.train.score import probability
from clare_cache.train.stopping import Plateau, find_plateau
from clare_cache.train.teacher import Lesson, Teacher


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
    is_cut: bool = False
    """Whether a deadline ended its training."""


@dataclass
class Progress:
    """How far a member is, but for its weights and its optimiser: JSON-able."""

    history: list[dict[str, Any]] = field(default_factory=list)
    best_value: tuple[float, float] | None = None
    best_epoch: int = 0
    best_threshold: float = 0.5
    best_validation: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    retired: str = ""
    is_cut: bool = False


@dataclass
class State:
    """A member, how far it is, and the weights of its best epoch."""

    member: Member
    progress: Progress = field(default_factory=Progress)
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def is_bank(self) -> bool:
        return isinstance(self.member.head, BankHead)

    @property
    def is_live(self) -> bool:
        """Whether more steps can change it."""
        return not self.is_bank and not self.progress.retired


@dataclass
class Cohort:
    """Members trained as one stack, on one data order, in the order of the stack."""

    states: list[State]
    teacher: Teacher
    order: int


def judge(
    state: State,
    labels: NDArray[np.int64],
    log_odds: NDArray[np.float64],
    *,
    epoch: int,
    select: Selection,
    lesson: Lesson | None,
) -> None:
    """Notes an epoch's numbers, and keeps its weights if it is the best by `select` so far."""
    progress = state.progress
    if not np.isfinite(log_odds).all():
        progress.retired = f"scores stopped being finite after epoch {epoch + 1}"
        return
    # Cross-entropy of the two-class softmax, from log-odds alone: log(1 + exp(∓s)).
    signed = np.where(labels == 1, -log_odds, log_odds)
    validation = {
        "val_auc": float(roc_auc(labels, log_odds)),
        "val_ap": float(average_precision(labels, log_odds)),
        "val_loss": float(np.logaddexp(0, signed).mean()),
        "val_accuracy": float(accuracy_at(labels, log_odds, 0.0)),
    }
    line: dict[str, Any] = {"epoch": epoch + 1, **validation}
    if lesson is not None:
        line |= {"train_loss": lesson.train_loss, "lr": lesson.lr}
    progress.history.append(line)
    chosen = {
        "val_auc": validation["val_auc"],
        "val_ap": validation["val_ap"],
        "val_accuracy": validation["val_accuracy"],
        "val_loss": -validation["val_loss"],
        "last": float(epoch),
    }[select]
    # On an easy validation set AUC is 1 from the first epoch; the loss still tells apart.
    value = (chosen, -validation["val_loss"])
    if value > (progress.best_value or (-math.inf, -math.inf)):
        progress.best_value, progress.best_epoch = value, epoch + 1
        if lesson is not None:
            # Not a deep copy, which would copy the whole stack for each of its members.
            weights = state.member.head.state_dict()
            state.best_weights = {name: value.clone() for name, value in weights.items()}
        progress.best_threshold = choose_threshold(labels, probability(log_odds))
        temperature = fit_temperature(labels, log_odds)
        calibrated = {} if math.isnan(temperature) else {"temperature": temperature}
        progress.best_validation = {**validation, **calibrated}
    if plateau_of(state).is_over:
        progress.retired = f"its validation accuracy stopped improving by epoch {epoch + 1}"


def plateau_of(state: State) -> Plateau:
    """What early stopping says of a member's next epoch."""
    config = state.member.optimiser
    if config.early_stopping == "none":
        return Plateau(1.0, False)
    accuracies = [line["val_accuracy"] for line in state.progress.history]
    return find_plateau(accuracies, lr=config.lr)


def finish(state: State) -> Trained:
    """The member with the weights of its best epoch, in evaluation mode."""
    head, progress = state.member.head, state.progress
    for name, tensor in [*head.named_parameters(), *head.named_buffers()]:
        # Their own storage again, no longer rows of a stack.
        tensor.data = state.best_weights.get(name, tensor.data).to(tensor.device).clone()
    head.eval()
    return Trained(
        label=state.member.label,
        head=head,
        optimiser=state.member.optimiser,
        history=tuple(progress.history),
        best_epoch=progress.best_epoch,
        threshold=progress.best_threshold,
        validation=progress.best_validation,
        retired=progress.retired,
        seconds=progress.seconds,
        is_cut=progress.is_cut,
    )
