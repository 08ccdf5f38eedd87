"""Settings of precision last as long as the `with`, and change nothing on a CPU."""

import pytest
import torch

from clare_cache.train.numerics import numerics


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_a_cpu_computes_in_float32(precision):
    torch.manual_seed(0)
    left, right = torch.randn(2, 8, 8)
    expected = left @ right
    with numerics(precision, deterministic=False, device="cpu"):
        found = left @ right
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_settings_are_what_they_were_also_after_an_error():
    def fail():
        assert torch.are_deterministic_algorithms_enabled()
        raise KeyError

    with pytest.raises(KeyError), numerics("tf32", deterministic=True, device="cpu"):
        fail()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.gpu
def test_a_gpu_multiplies_in_bfloat16_and_keeps_weights_in_float32():
    layer = torch.nn.Linear(8, 8, device="cuda")
    with numerics("bfloat16", deterministic=False, device="cuda"):
        assert layer(torch.randn(2, 8, device="cuda")).dtype == torch.bfloat16
        assert torch.get_float32_matmul_precision() == "high"
    assert layer.weight.dtype == torch.float32
