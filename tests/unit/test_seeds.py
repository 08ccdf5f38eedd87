"""Draws that a new numpy or another machine must not change: the caches depend on them."""

import hashlib

import numpy as np

from clare_cache.seeds import generator_for, seed_for, standard_normal


def test_the_seed_is_the_first_16_bytes_of_a_sha_256():
    digest = hashlib.sha256(b"7\x00name\x00noise/3").digest()
    assert seed_for(7, "name", "noise/3") == int.from_bytes(digest[:16], "little")


def test_golden_draws():
    assert seed_for(0, "a", "noise/0") == 312993506564083245200779837870243801997
    assert generator_for(0, "a", "noise/0").permutation(6).tolist() == [4, 1, 0, 5, 2, 3]
    assert standard_normal(0, "a", "noise/0", (4,)).tolist() == [
        2.0132243633270264,
        -0.6571875214576721,
        0.5480468273162842,
        -0.3673692047595978,
    ]
    assert standard_normal(7, "ff" * 32, "noise/3", (3,)).tolist() == [
        0.6417640447616577,
        -1.0412559509277344,
        -0.1917640119791031,
    ]


def test_draws_have_the_asked_shape_and_type():
    drawn = standard_normal(0, "a", "noise/0", (2, 3))
    assert (drawn.shape, drawn.dtype) == ((2, 3), np.float32)
    assert drawn.ravel()[:4].tolist() == standard_normal(0, "a", "noise/0", (4,)).tolist()


def test_draws_look_normal_and_independent():
    keys = [(0, "a", "noise/0"), (0, "a", "noise/1"), (0, "b", "noise/0"), (1, "a", "noise/0")]
    noise = [standard_normal(*key, (20_000,)) for key in keys]
    assert np.abs(np.mean(noise, axis=1)).max() < 0.04
    assert np.abs(np.std(noise, axis=1) - 1).max() < 0.04
    assert np.abs(np.corrcoef(noise) - np.eye(4)).max() < 0.04


def test_numpy_s_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    standard_normal(0, "a", "noise/0", (10,))
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
