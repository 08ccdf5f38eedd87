"""Orders of an epoch: every image once, whole units read together, mixed like a full shuffle."""

import numpy as np
import pytest

from clare_cache.data.orders import full_shuffle, pool_size, pooled_shuffle


def drawn(units, *, seed=0, batch_size=8, pool_rows=64):
    return list(
        pooled_shuffle(
            np.asarray(units),
            np.random.default_rng(seed),
            batch_size=batch_size,
            pool_rows=pool_rows,
        )
    )


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 100, 257])
@pytest.mark.parametrize("pool_rows", [1, 64, 10_000])
def test_every_image_once_in_full_batches(n, pool_rows):
    steps = drawn(np.arange(n) // 16, pool_rows=pool_rows)
    whole = list(full_shuffle(n, np.random.default_rng(0), 8))
    assert [len(step.positions_out) for step in steps] == [len(batch) for batch in whole]
    for batches in (whole, [step.positions_out for step in steps]):
        assert sorted(np.concatenate([*batches, np.empty(0, int)])) == list(range(n))


@pytest.mark.parametrize("seed", range(5))
def test_slots_hold_what_entered_until_it_leaves(seed):
    generator = np.random.default_rng(seed)
    units = generator.integers(0, 30, 400)
    held = {}
    for step in drawn(units, seed=seed, batch_size=16, pool_rows=100):
        for position, slot in zip(step.positions_in, step.slots_in, strict=True):
            assert slot not in held
            assert slot < step.n_slots
            held[slot] = position
        leaving = [held.pop(slot) for slot in step.slots_out]
        assert leaving == step.positions_out.tolist()
    assert not held


def test_units_enter_whole_and_one_after_the_other():
    units = np.random.default_rng(1).permutation(np.repeat(np.arange(20), 16))
    entered = np.concatenate([units[step.positions_in] for step in drawn(units)])
    assert len(np.flatnonzero(np.diff(entered))) == 19


def test_the_seed_decides_and_nothing_else():
    units = np.arange(300) // 16
    one, same, other = (
        [step.positions_out.tolist() for step in drawn(units, seed=seed)] for seed in (3, 3, 4)
    )
    assert one == same != other


def test_a_pool_has_room_for_a_batch_and_a_unit_and_never_more_than_all():
    assert pool_size(1, batch_size=8, largest=16, n=1000) == 24
    assert pool_size(500, batch_size=8, largest=16, n=1000) == 500
    assert pool_size(5000, batch_size=8, largest=16, n=1000) == 1000


def shares(batches, values):
    return np.array([values[batch].mean() for batch in batches if len(batch) == 64])


def test_streamed_batches_are_as_mixed_as_those_of_a_full_shuffle():
    """Rows lie in order of the hash of their images: shares of fake and of a rare generator vary
    between batches as they do in a full shuffle, within 4 standard errors of a variance."""
    n, generator = 20_000, np.random.default_rng(0)
    labels = generator.random(n) < 0.5
    rare = generator.random(n) < 0.03
    for values in (labels, rare):
        pooled, full = [], []
        for seed in range(4):
            steps = drawn(np.arange(n) // 16, seed=seed, batch_size=64, pool_rows=1024)
            pooled.append(shares([step.positions_out for step in steps], values))
            full.append(shares(full_shuffle(n, np.random.default_rng(seed), 64), values))
        pooled_shares, full_shares = np.concatenate(pooled), np.concatenate(full)
        expected = values.mean() * (1 - values.mean()) / 64
        error = 4 * expected * np.sqrt(2 / len(pooled_shares)) * 1.5  # rare: heavier than normal
        assert abs(pooled_shares.var() - expected) < error
        assert abs(full_shares.var() - expected) < error
        assert abs(pooled_shares.mean() - values.mean()) < 1e-3


def test_where_every_chunk_has_one_label_a_pool_of_many_chunks_still_mixes():
    """The worst store: chunks of one label each. The variance of a batch's share grows by no more
    than batch / chunks in the pool, as for draws without replacement from that many chunks."""
    n = 40_000
    units = np.arange(n) // 16
    labels = np.random.default_rng(0).permutation(units.max() + 1)[units] % 2 == 0
    found = []
    for seed in range(4):
        steps = drawn(units, seed=seed, batch_size=64, pool_rows=64 * 16 * 4)
        found.append(shares([step.positions_out for step in steps], labels))
    variance = np.concatenate(found).var() / (0.25 / 64)
    assert 1 < variance < 1 + 2 * 64 / (64 * 4)
