"""Products with frozen weights, held to `torch.nn.functional.linear`."""

import copy

import pytest
import torch
from torch.nn import functional as F

from clare_cache.backbones.frozen_linear import FrozenLinear


@pytest.fixture
def layer() -> FrozenLinear:
    torch.manual_seed(0)
    return FrozenLinear(torch.randn(40, 24), torch.randn(40))


def plain(layer: FrozenLinear, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, layer.weight, layer.bias)


@pytest.mark.parametrize("n_rows", [1, 2, 37])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_and_gradients_are_the_plain_ones(dtype, n_rows):
    torch.manual_seed(0)
    layer = FrozenLinear(torch.randn(40, 24, dtype=dtype), torch.randn(40, dtype=dtype))
    x = torch.randn(n_rows, 24, dtype=dtype, requires_grad=True)
    torch.testing.assert_close(layer(x), plain(layer, x))
    weights = torch.randn(n_rows, 40, dtype=dtype)
    (found,) = torch.autograd.grad((layer(x).sin() * weights).sum(), x)
    (expected,) = torch.autograd.grad((plain(layer, x).sin() * weights).sum(), x)
    torch.testing.assert_close(found, expected)


def test_rows_that_lie_apart_in_memory_are_taken_as_they_are(layer):
    x = torch.randn(24, 37).T
    torch.testing.assert_close(layer(x), plain(layer, x))


def test_members_of_a_sweep_are_one_product(layer):
    x = torch.randn(3, 5, 24)
    torch.testing.assert_close(torch.vmap(layer)(x), plain(layer, x))
    torch.testing.assert_close(torch.vmap(layer, in_dims=1)(x), plain(layer, x.movedim(1, 0)))
    slopes = torch.vmap(torch.func.grad(lambda rows: layer(rows).square().sum()))(x)
    expected = torch.vmap(torch.func.grad(lambda rows: plain(layer, rows).square().sum()))(x)
    torch.testing.assert_close(slopes, expected, rtol=1e-5, atol=1e-4)


def test_a_layer_that_was_used_can_be_copied(layer):
    x = torch.randn(5, 24, requires_grad=True)
    expected = layer(x)
    expected.sum().backward()
    torch.testing.assert_close(copy.deepcopy(layer)(x), expected)


def test_under_autocast_the_product_is_autocasts(layer):
    x = torch.randn(5, 24)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
