"""The exception tree and the one way to report several faults."""

import inspect

import pytest

from clare_cache import errors
from clare_cache.errors import (
    ClareCacheError,
    ImageError,
    StoreError,
    StoreMismatch,
    VersionWarning,
    raise_faults,
)


def test_every_exception_hangs_in_the_tree_that_the_docstring_draws():
    classes = [c for c in vars(errors).values() if getattr(c, "__module__", "") == errors.__name__]
    classes = [c for c in classes if inspect.isclass(c)]
    assert len(classes) == 13
    for found in classes:
        assert issubclass(found, VersionWarning if found is VersionWarning else ClareCacheError)
        assert found.__name__ in errors.__doc__
    assert issubclass(StoreMismatch, StoreError)


def test_no_fault_raises_nothing():
    raise_faults(StoreError, "store", [], advice="Do this.")


def test_one_fault_is_counted_in_the_singular():
    with pytest.raises(StoreError) as caught:
        raise_faults(StoreError, "store x", ["it is empty"])
    assert str(caught.value) == "store x: 1 fault\n  - it is empty"


def test_all_faults_come_at_once_with_the_advice_last():
    with pytest.raises(ClareCacheError) as caught:
        raise_faults(StoreMismatch, "store x", ["one", "two"], advice="Do this.")
    assert type(caught.value) is StoreMismatch
    assert str(caught.value) == "store x: 2 faults\n  - one\n  - two\nDo this."


def test_an_image_error_keeps_stage_and_reason_apart():
    error = ImageError("decode", "0 bytes")
    assert (error.stage, error.reason, str(error)) == ("decode", "0 bytes", "decode: 0 bytes")
