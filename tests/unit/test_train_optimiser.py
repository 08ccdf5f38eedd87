"""Learning rates as published, and no parameter that trains in name only."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from clare_cache.errors import TrainError
from clare_cache.heads import build_head
from clare_cache.heads.linear import Linear
from clare_cache.train.config import OptimiserConfig, TrainConfig
from clare_cache.train.optimiser import build_optimiser, learning_rate

SHAPES = {"clip_embedding": (6,)}


def rates(epochs, **settings):
    config = OptimiserConfig(**settings)
    return [learning_rate(config, epoch, epochs) for epoch in range(epochs)]


COOP = {"lr": 2e-3, "schedule": "cosine", "warmup_epochs": 1, "warmup_lr": 1e-5}


def test_coop_s_five_epochs():
    assert rates(5, **COOP) == pytest.approx([1e-5, 2e-3, 1.809e-3, 1.309e-3, 6.910e-4], abs=5e-7)


def test_coop_s_cosine_never_starts_in_two_epochs():
    assert rates(2, **COOP) == [1e-5, 2e-3]


def test_a_warm_up_as_long_as_the_training_is_all_there_is():
    assert rates(3, **{**COOP, "warmup_epochs": 3}) == [1e-5] * 3


def test_constant_rates():
    assert rates(3) == [1e-3] * 3
    assert rates(3, lr=0.5, warmup_epochs=2, warmup_lr=0.1) == [0.1, 0.1, 0.5]


def test_cosine_without_warm_up_starts_at_the_full_rate_and_falls():
    found = rates(4, lr=1.0, schedule="cosine")
    assert found == pytest.approx([1.0, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_rine_s_fifteen_epochs_fall_to_a_tenth_twice():
    found = rates(15, schedule="step", step_epochs=5, step_factor=0.1)
    assert found == pytest.approx([1e-3] * 5 + [1e-4] * 5 + [1e-5] * 5)


def test_every_step_a_line_then_a_cosine_that_ends_at_zero():
    config = OptimiserConfig(
        lr=1.0, schedule="cosine", update_lr="step", warmup_epochs=1, warmup_lr=0.2
    )
    found = [
        learning_rate(config, epoch, 3, step=step, n_steps=4)
        for epoch in range(3)
        for step in range(4)
    ]
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[4:] == sorted(found[4:], reverse=True)
    assert found[-1] == pytest.approx(0, abs=1e-12)
    assert found[7] + found[8] == pytest.approx(1.0)


def test_every_step_constant_after_the_warm_up():
    config = OptimiserConfig(lr=1.0, update_lr="step", warmup_epochs=1, warmup_lr=0.5)
    assert [learning_rate(config, e, 2, step=s, n_steps=2) for e in (0, 1) for s in (0, 1)] == [
        0.5, 0.75, 1.0, 1.0
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "kind", "expected"),
    [
        ({}, torch.optim.Adam, {"lr": 1e-3, "weight_decay": 0, "betas": (0.9, 0.999)}),
        ({"optimiser": "adamw", "weight_decay": 0.1}, torch.optim.AdamW, {"weight_decay": 0.1}),
        (
            {"optimiser": "sgd", "lr": 2e-3, "momentum": 0.9, "weight_decay": 5e-4},
            torch.optim.SGD,
            {"lr": 2e-3, "momentum": 0.9, "weight_decay": 5e-4, "dampening": 0, "nesterov": False},
        ),
    ],
)
def test_optimisers_have_the_settings_asked_for(settings, kind, expected):
    head = build_head("linear", shapes=SHAPES)
    optimiser = build_optimiser(head, OptimiserConfig(**settings))
    assert type(optimiser) is kind
    (group,) = optimiser.param_groups
    assert {name: group[name] for name in expected} == expected
    assert {id(p) for p in group["params"]} == {id(p) for p in head.parameters()}


class Hiding(Linear):
    """Has a trainable layer that the optimiser is not given: the published CLaRE's mistake."""

    def __init__(self) -> None:
        super().__init__(SHAPES)
        self.fusion = nn.Linear(2, 2)

    def trainable_parameters(self):
        return list(self.fc.parameters())


def test_a_parameter_that_would_never_move_is_refused():
    with pytest.raises(TrainError, match=r"left out: fusion\.bias, fusion\.weight\.$"):
        build_optimiser(Hiding(), OptimiserConfig())


def test_a_frozen_parameter_need_not_be_handed_over():
    head = Hiding()
    head.fusion.requires_grad_(False)
    optimiser = build_optimiser(head, OptimiserConfig())
    assert len(optimiser.param_groups[0]["params"]) == 2


def test_a_head_with_nothing_to_train_is_refused():
    head = build_head("linear", shapes=SHAPES).requires_grad_(False)
    with pytest.raises(TrainError, match="0 parameters require gradients, 0 reach the optimiser"):
        build_optimiser(head, OptimiserConfig())


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 0},
        {"lr": -1},
        {"lr": "fast"},
        {"weight_decay": -1},
        {"momentum": 1},
        {"warmup_epochs": -1},
        {"clip_norm": 0},
        {"optimiser": "lion"},
        {"schedule": "linear"},
        {"learning_rate": 1},
    ],
)
def test_settings_are_checked_when_made(settings):
    with pytest.raises(ValidationError):
        OptimiserConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 0},
        {"batch_size": 1},
        {"seed": -1},
        {"validation_fraction": 0},
        {"validation_fraction": 1},
        {"select": "test_auc"},
        {"epoch": 1},
    ],
)
def test_training_settings_are_checked_when_made(settings):
    with pytest.raises(ValidationError):
        TrainConfig(**settings)
