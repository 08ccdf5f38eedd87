"""Balanced epochs: shares, no image twice before all once, a function of the generator given."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch

from clare_cache.train.sampling import BalancedData

KINDS = ["real"] * 60 + ["gan"] * 30 + ["ldm"] * 10


class Rows:
    """Positions as features."""

    def __init__(self):
        self.rows = pd.DataFrame({"generator": KINDS})
        self.labels = torch.tensor([int(kind != "real") for kind in KINDS])

    def __len__(self):
        return len(KINDS)

    def batch(self, indices):
        return {"position": torch.from_numpy(indices)}, self.labels[torch.from_numpy(indices)]


def epoch(sampling, seed=0, batch_size=32):
    batches = BalancedData(Rows(), sampling).epoch(np.random.default_rng(seed), batch_size)
    return [features["position"].numpy() for features, _ in batches]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [("class", {"real": 50, "gan": 37.5, "ldm": 12.5}),
     ("generator", {"real": 50, "gan": 25, "ldm": 25})],
)  # fmt: skip
def test_shares_of_an_epoch(sampling, expected):
    found = Counter(KINDS[n] for n in np.concatenate(epoch(sampling)))
    assert sum(found.values()) == len(KINDS)
    assert {kind: found[kind] for kind in expected} == pytest.approx(expected, abs=3)
    assert found["real"] == 50


def test_batches_are_mixed_and_full_but_the_last():
    batches = epoch("generator")
    assert [len(batch) for batch in batches] == [32, 32, 32, 4]
    assert all({KINDS[n] for n in batch} == {"real", "gan", "ldm"} for batch in batches[:3])


def test_no_image_comes_again_before_all_others_came():
    times = Counter(np.concatenate(epoch("generator")).tolist())
    assert {times[n] for n in range(60)} == {0, 1}
    assert {times[n] for n in range(90, 100)} == {2, 3}


def test_the_order_is_the_generators():
    one, same, other = (np.concatenate(epoch("class", seed)) for seed in (0, 0, 1))
    assert (one == same).all()
    assert (one != other).any()


def test_all_else_is_the_datas_own():
    data = BalancedData(Rows(), "class")
    assert len(data) == len(KINDS)
    assert data.labels.sum() == 40
    assert data.batch(np.array([3]))[0]["position"].tolist() == [3]
