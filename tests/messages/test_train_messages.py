"""The sentences of stage two's training, word for word."""

import pytest
from torch import nn

from clare_cache.cli.board import show_plan
from clare_cache.data import load
from clare_cache.errors import TrainError
from clare_cache.heads import build_head
from clare_cache.heads.linear import Linear
from clare_cache.train.config import OptimiserConfig
from clare_cache.train.loop import Member, train_members
from clare_cache.train.optimiser import build_optimiser
from clare_cache.workflow.training import Plan
from tests.feature_data import make_manifest, make_store

SHAPES = {"clip_embedding": (6,)}


@pytest.fixture
def data(tmp_path):
    """Builds the data of some of 30 images."""
    store = make_store(tmp_path, range(30))
    return lambda numbers: load(store, make_manifest(numbers), needs=["clip_embedding"])


class Hiding(Linear):
    def __init__(self) -> None:
        super().__init__(SHAPES)
        self.fusion = nn.Linear(2, 2)

    def trainable_parameters(self):
        return list(self.fc.parameters())


def message_of(act) -> str:
    with pytest.raises(TrainError) as caught:
        act()
    return str(caught.value)


def train(head, training, validation):
    return train_members(
        [Member("probe", head, OptimiserConfig())], training, validation, epochs=2, batch_size=8
    )


def test_parameters_that_the_optimiser_does_not_get():
    assert message_of(lambda: build_optimiser(Hiding(), OptimiserConfig())) == (
        "head linear: 4 parameters require gradients, 2 reach the optimiser; "
        "left out: fusion.bias, fusion.weight."
    )


def test_nothing_to_train():
    head = build_head("linear", shapes=SHAPES).requires_grad_(False)
    assert message_of(lambda: build_optimiser(head, OptimiserConfig())) == (
        "head linear: 0 parameters require gradients, 0 reach the optimiser; left out: all."
    )


def test_a_split_with_one_class(data):
    head = build_head("linear", shapes=SHAPES)
    assert message_of(lambda: train(head, data(range(10)), data(range(10, 20, 2)))) == (
        "validation data: expected real and fake images, found labels [0] in 5 images. "
        "Check the manifest's splits."
    )
    assert message_of(lambda: train(head, data([]), data(range(10)))) == (
        "training data: expected real and fake images, found labels [] in 0 images. "
        "Check the manifest's splits."
    )


def test_a_sweep_that_was_cut_off_and_changed_says_what_becomes_of_each_head(capsys):
    many = tuple(f"rine-{n}" for n in range(8))
    show_plan(Plan(finished=("a", "b"), going_on=("c",), starting=many, waiting=("d",)))
    assert capsys.readouterr().err == (
        "2 heads finished already, not trained again\n"
        "1 head cut off before, going on: c\n"
        "8 heads from the start: rine-0, rine-1, rine-2, rine-3, rine-4, rine-5 and 2 more\n"
        "1 head cut off before and not asked for now, kept in .training below --out: d. "
        "Delete it to give them up.\n"
    )
    show_plan(Plan(finished=(), going_on=(), starting=many, waiting=()))
    assert not capsys.readouterr().err
