"""Randomness as a function of identity, for any identity."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clare_cache.seeds import generator_for, seed_for, standard_normal

names = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
keys = st.tuples(st.integers(-(2**63), 2**63), names, names)


@given(keys, keys)
def test_seeds_are_equal_exactly_when_the_identities_are(one, other):
    assert (seed_for(*one) == seed_for(*other)) == (one == other)


@given(st.lists(keys, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_a_draw_does_not_depend_on_the_draws_before_it(wanted, random):
    in_order = {key: standard_normal(*key, (5,)) for key in wanted}
    random.shuffle(wanted)
    for key in wanted:
        assert np.array_equal(standard_normal(*key, (5,)), in_order[key])


@given(keys, st.integers(1, 50))
def test_orders_are_permutations(key, n):
    assert sorted(generator_for(*key).permutation(n)) == list(range(n))
