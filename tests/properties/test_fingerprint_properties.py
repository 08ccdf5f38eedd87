"""Cache validity is equality of declared inputs, for any inputs."""

import json
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from clare_cache.fingerprint import canonical_json, differences, fingerprint

scalars = (
    st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
values = st.recursive(
    scalars | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
declared = st.dictionaries(st.text(max_size=4), values, max_size=5)


def shuffled(value, seed):
    """The same mapping, inserted in another order at every depth."""
    if isinstance(value, dict):
        items = list(value.items())
        random.Random(seed).shuffle(items)
        return {key: shuffled(item, seed + 1) for key, item in items}
    return [shuffled(item, seed) for item in value] if isinstance(value, list) else value


@settings(max_examples=50)
@given(declared, st.integers(0, 9))
def test_insertion_order_does_not_count(value, seed):
    assert fingerprint(shuffled(value, seed)) == fingerprint(value)


@settings(max_examples=50)
@given(declared, st.text(max_size=4))
def test_an_option_added_as_none_orphans_nothing(value, key):
    if key not in value:
        assert fingerprint({**value, key: None}) == fingerprint(value)


@settings(max_examples=50)
@given(declared)
def test_what_store_json_gives_back_has_the_same_fingerprint(value):
    assert fingerprint(json.loads(json.dumps(value))) == fingerprint(value)


@settings(max_examples=50)
@given(declared, declared)
def test_a_fingerprint_differs_exactly_when_there_is_a_phrase_for_it(one, other):
    assert (fingerprint(one) == fingerprint(other)) == (differences(one, other) == [])
    assert (canonical_json(one) == canonical_json(other)) == (differences(one, other) == [])


@settings(max_examples=50)
@given(declared)
def test_a_mapping_does_not_differ_from_itself(value):
    assert differences(value, shuffled(value, 3)) == []
