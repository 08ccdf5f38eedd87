"""The sentences of stage two's training, word for word."""

import pytest
from torch import nn

from clare_cache.data import load
from clare_cache.errors import TrainError
from clare_cache.heads import build_head
from clare_cache.heads.linear import Linear
from clare_cache.train.config import OptimiserConfig
from clare_cache.train.loop import Member, train_members
from clare_cache.train.optimiser import build_optimiser
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
