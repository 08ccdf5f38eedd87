"""What is a number and what is none, in every stored precision."""

import numpy as np
import pytest

from clare_cache.store.finite import are_finite


def test_every_half_precision_number_is_told_as_numpy_tells_it():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    assert np.array_equal(are_finite(every[:, None]), np.isfinite(every))


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_one_value_decides_for_its_row_alone(dtype):
    values = np.ones((4, 3, 5), dtype)
    assert are_finite(values).tolist() == [True] * 4
    if dtype != "int8":
        values[1, 2, 3], values[3, 0, 0] = np.nan, -np.inf
        assert are_finite(values).tolist() == [True, False, True, False]
        assert are_finite(values[:, ::2, ::-1]).tolist() == [True, False, True, False]


def test_no_rows_and_rows_of_nothing():
    assert are_finite(np.empty((0, 3), "float16")).tolist() == []
    assert are_finite(np.empty((2, 0), "float16")).tolist() == [True, True]
