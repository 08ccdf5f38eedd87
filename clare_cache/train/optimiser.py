"""Optimiser and learning rate of one head."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from clare_cache.errors import TrainError
from clare_cache.heads.protocol import Head
from clare_cache.train.config import OptimiserConfig


def learning_rate(
    config: OptimiserConfig, epoch: int, epochs: int, *, step: int = 0, n_steps: int = 1
) -> float:
    """Learning rate of a step of an epoch, both counted from 0.

    Stepped once an epoch it is CoOp's: the cosine runs over the total number of epochs but starts
    after the warm-up, so it never reaches zero: 2e-3 over 5 epochs with one of warm-up gives 1e-5,
    2e-3, 1.809e-3, 1.309e-3, 6.910e-4. Stepped every step, warm-up is a line and the cosine ends
    at zero with the last step.
    """
    if config.update_lr == "step":
        return _rate_of_step(config, epoch * n_steps + step, epochs * n_steps, n_steps=n_steps)
    if epoch < config.warmup_epochs:
        return config.warmup_lr
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "step":
        return config.lr * config.step_factor ** (epoch // config.step_epochs)
    return config.lr * 0.5 * (1 + math.cos(math.pi * (epoch - config.warmup_epochs) / epochs))


def _rate_of_step(config: OptimiserConfig, step: int, n_all: int, *, n_steps: int) -> float:
    n_warm = min(config.warmup_epochs * n_steps, n_all)
    if step < n_warm:
        return config.warmup_lr + (config.lr - config.warmup_lr) * step / n_warm
    if config.schedule == "constant":
        return config.lr
    share = (step - n_warm) / max(n_all - n_warm - 1, 1)
    return config.lr * 0.5 * (1 + math.cos(math.pi * share))


def build_optimiser(
    head: Head, config: OptimiserConfig, *, parameters: Sequence[nn.Parameter] | None = None
) -> torch.optim.Optimizer:
    """The optimiser over exactly the head's trainable parameters, or over those of a stack of such
    heads that stand for them.

    Raises TrainError when a parameter asks for gradients but is not handed over: the published
    CLaRE leaves its fusion layers at their random initial values that way.
    """
    handed = head.trainable_parameters()
    names = {id(p): name for name, p in head.named_parameters() if p.requires_grad}
    left_out = names.keys() - {id(p) for p in handed}
    if left_out or not handed:
        raise TrainError(
            f"head {head.family}: {len(names)} parameters require gradients, "
            f"{len(handed)} reach the optimiser; left out: "
            f"{', '.join(sorted(names[i] for i in left_out)) or 'all'}."
        )
    handed = handed if parameters is None else list(parameters)
    if config.optimiser == "sgd":
        return torch.optim.SGD(
            handed, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
    kind = torch.optim.Adam if config.optimiser == "adam" else torch.optim.AdamW
    return kind(handed, lr=config.lr, weight_decay=config.weight_decay)
