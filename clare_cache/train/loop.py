"""The one loop. A batch is read once and shown to every head; no head sees another's randomness.

Each member has its own optimiser and draws its dropout from a seed of its own, so training
several heads together gives each the numbers that it would get alone. A `BankHead` is shown the
data once, in its own order, before the others, and counts as one epoch.
"""

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clare_cache.errors import TrainError
from clare_cache.heads.protocol import BankHead, Head
from clare_cache.metrics import average_precision, choose_threshold, roc_auc
from clare_cache.seeds import generator_for, seed_for
from clare_cache.train.config import OptimiserConfig, Selection
from clare_cache.train.optimiser import build_optimiser, learning_rate
from clare_cache.train.score import Rows, batches_in_order, probability, score
from clare_cache.types import OnProgress, Progress, ignore_progress


@dataclass
class Member:
    """One head in training: `label` names it in the run, `seed` decides its dropout."""

    label: str
    head: Head
    optimiser: OptimiserConfig
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """What became of a member. The head holds the weights of `best_epoch` (counted from 1).

    `threshold` is the probability above which an image counts as fake, chosen on validation.
    `retired` is "" or why training stopped early. `validation` has the best epoch's numbers.
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
    optimiser: torch.optim.Optimizer | None
    """None for a BankHead."""
    history: list[dict[str, Any]] = field(default_factory=list)
    best_value: tuple[float, float] = (-math.inf, -math.inf)
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best_threshold: float = 0.5
    best_validation: dict[str, float] = field(default_factory=dict)
    loss_sum: float = 0.0
    n_steps: int = 0
    seconds: float = 0.0
    retired: str = ""

    @property
    def is_live(self) -> bool:
        """Whether another epoch can change it."""
        return not self.retired and not (self.optimiser is None and self.history)


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
    states = [_start(member, train, batch_size=batch_size, device=device) for member in members]
    taught = [(state, state.optimiser) for state in states if state.optimiser is not None]
    n_batches = math.ceil(len(train) / batch_size) if taught else 0
    for epoch in range(epochs):
        for state, optimiser in taught:
            state.loss_sum, state.n_steps = 0.0, 0
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(state.member.optimiser, epoch, epochs)
        order = generator_for(seed, "train", f"order/{epoch}").permutation(len(train))
        for step in range(n_batches):
            features, labels = train.batch(order[step * batch_size : (step + 1) * batch_size])
            features = {name: tensor.to(device) for name, tensor in features.items()}
            labels = labels.to(device)
            for state, optimiser in taught:
                if not state.retired:
                    _step(state, optimiser, features, labels, epoch=epoch, step=step)
            on_progress(
                Progress(
                    what="train",
                    done=epoch * n_batches + step + 1,
                    total=epochs * n_batches,
                    unit="step",
                    note=f"epoch {epoch + 1}/{epochs}",
                )
            )
        _validate(states, validation, epoch=epoch, select=select, device=device)
        if not any(state.is_live for state in states):
            break
    lost = {s.member.label: s.retired for s in states if not s.best_epoch}
    return [_finish(state) for state in states if state.best_epoch], lost


def _start(member: Member, train: Rows, *, batch_size: int, device: torch.device | str) -> _State:
    head = member.head.to(device).train()
    if not isinstance(head, BankHead):
        return _State(member, build_optimiser(head, member.optimiser))
    began = time.perf_counter()
    head.remember(train.batch(rows) for rows in batches_in_order(len(train), batch_size))
    return _State(member, None, seconds=time.perf_counter() - began)


def _step(
    state: _State,
    optimiser: torch.optim.Optimizer,
    features: Mapping[str, Tensor],
    labels: Tensor,
    *,
    epoch: int,
    step: int,
) -> None:
    began = time.perf_counter()
    member = state.member
    device = next(member.head.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        _seed(device, seed_for(member.seed, "train", f"dropout/{epoch}/{step}") % 2**63)
        loss = member.head.loss(member.head(features), labels)
    if not torch.isfinite(loss):
        state.retired = f"loss became {loss.item()} in epoch {epoch + 1}, step {step + 1}"
        return
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    if member.optimiser.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(
            member.head.trainable_parameters(), member.optimiser.clip_norm
        )
    optimiser.step()
    state.loss_sum += loss.item()
    state.n_steps += 1
    state.seconds += time.perf_counter() - began


def _seed(device: torch.device, seed: int) -> None:
    """Seed one device's generator; torch.manual_seed would seed all GPUs, used or not."""
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def _validate(
    states: Sequence[_State],
    data: Rows,
    *,
    epoch: int,
    select: Selection,
    device: torch.device | str,
) -> None:
    live = [state for state in states if state.is_live]
    labels = data.labels.numpy()
    for state, log_odds in zip(
        live, score([s.member.head for s in live], data, device=device), strict=True
    ):
        if not np.isfinite(log_odds).all():
            state.retired = f"scores stopped being finite after epoch {epoch + 1}"
            continue
        # Cross-entropy of the two-class softmax, from log-odds alone: log(1 + exp(∓s)).
        signed = np.where(labels == 1, -log_odds, log_odds)
        validation = {
            "val_auc": float(roc_auc(labels, log_odds)),
            "val_ap": float(average_precision(labels, log_odds)),
            "val_loss": float(np.logaddexp(0, signed).mean()),
        }
        line: dict[str, Any] = {"epoch": epoch + 1, **validation}
        if state.optimiser is not None:
            line["train_loss"] = state.loss_sum / max(state.n_steps, 1)
            line["lr"] = state.optimiser.param_groups[0]["lr"]
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
            if state.optimiser is not None:
                state.best_weights = copy.deepcopy(state.member.head.state_dict())
            state.best_threshold = choose_threshold(labels, probability(log_odds))
            state.best_validation = validation


def _finish(state: _State) -> Trained:
    head = state.member.head
    if state.optimiser is not None:
        head.load_state_dict(state.best_weights)
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
