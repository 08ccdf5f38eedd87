"""One spelling, one hash, and a phrase for each difference."""

import hashlib

import numpy as np
import pytest

from clare_cache.fingerprint import canonical_json, differences, file_digest, fingerprint


def test_the_hash_is_of_the_canonical_json():
    declared = {"timestep": 200, "prompt": "a photo", "size_px": 256}
    assert canonical_json(declared) == '{"prompt":"a photo","size_px":256,"timestep":200}'
    assert fingerprint(declared) == "de843a68ebdb9529"
    assert fingerprint({}) == "44136fa355b3678a"


def test_key_order_tuples_and_absent_options_do_not_count():
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint(
        {"b": {"d": 3, "c": 2}, "a": 1}
    )
    assert fingerprint({"a": (1, 2)}) == fingerprint({"a": [1, 2]})
    assert fingerprint({"a": 1, "added_later": None}) == fingerprint({"a": 1})
    assert fingerprint({"a": {"b": 1, "c": None}}) == fingerprint({"a": {"b": 1}})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {"a": "1"}),
        ({"a": True}, {"a": 1}),
        ({"a": 0}, {}),
        ({"a": ""}, {}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": [None]}, {"a": []}),
        ({"a": {"b": 1}}, {"a.b": 1}),
    ],
)
def test_what_differs_has_another_hash_and_a_phrase(one, other):
    assert fingerprint(one) != fingerprint(other)
    assert differences(one, other)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_without_a_json_spelling_are_refused(value):
    with pytest.raises(ValueError, match="Out of range float values"):
        fingerprint({"a": [value]})


@pytest.mark.parametrize("value", [np.int64(1), b"x", {1, 2}, object()])
def test_types_that_json_cannot_hold_are_refused(value):
    with pytest.raises(TypeError, match="not JSON serializable"):
        fingerprint({"a": value})


def test_differences_in_words():
    asked = {"timestep": 200, "vae": {"dtype": "float32", "tiled": None}, "prompt": "a photo"}
    found = {"timestep": 280, "vae": {"dtype": "float16"}, "seed": 0}
    assert differences(asked, found) == [
        'prompt: asked "a photo", found nothing',
        "seed: asked nothing, found 0",
        "timestep: asked 200, found 280",
        'vae.dtype: asked "float32", found "float16"',
    ]


def test_no_difference_between_spellings_of_one_value():
    assert differences({"a": (1, 2), "b": None}, {"a": [1, 2]}) == []


def test_a_file_s_digest_is_that_of_its_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 300_000)
    assert file_digest(tmp_path / "a") == hashlib.sha256(b"x" * 300_000).hexdigest()
