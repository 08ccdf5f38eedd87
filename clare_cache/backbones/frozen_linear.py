"""Linear layers whose weights never change, as fast as the processor allows.

PyTorch multiplies float32 matrices with MKL, which on AMD's processors leaves half of every
512-bit register unused. oneDNN, which PyTorch has too, fills them, and wants the weights laid out
in its own way: worth doing once for weights that stay. Same products in float32, summed in
another order.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class FrozenLinear:
    """x (N, I) → x Wᵀ + b (N, O), differentiable in x alone. W is (O, I), b is (O,).

    On CPUs with 512-bit registers a float32 W is kept once more in oneDNN's layout, and from the
    first gradient on its transpose too.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = weight.detach()
        self.bias = None if bias is None else bias.detach()
        self._laid_out: Tensor | None = None
        self._transposed: FrozenLinear | None = None
        self._is_packed = (
            weight.device.type == "cpu"
            and weight.dtype == torch.float32
            and torch.backends.mkldnn.is_available()
            and "AVX512" in torch.backends.cpu.get_cpu_capability()
        )

    def __call__(self, x: Tensor) -> Tensor:
        if not self._is_packed or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return F.linear(x, self.weight, self.bias)
        product: Tensor = _Product.apply(x, self)
        return product

    def __getstate__(self) -> dict[str, Any]:
        """Without oneDNN's layouts, which cannot be copied."""
        return self.__dict__ | {"_laid_out": None, "_transposed": None}

    @property
    def transposed(self) -> "FrozenLinear":
        """What takes the product's gradient to x's."""
        if self._transposed is None:
            self._transposed = FrozenLinear(self.weight.T, None)
        return self._transposed

    def multiply(self, x: Tensor) -> Tensor:
        """oneDNN's product, of which autograd knows nothing."""
        if self._laid_out is None:
            weight = self.weight.contiguous()
            self._laid_out = torch.ops.mkldnn._reorder_linear_weight(weight)
        found: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._laid_out, self.bias, "none", [], ""
        )
        return found


class _Product(torch.autograd.Function):
    """What autograd and vmap have to know about `FrozenLinear.multiply`."""

    @staticmethod
    def forward(x: Tensor, layer: FrozenLinear) -> Tensor:
        return layer.multiply(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, FrozenLinear], output: Tensor) -> None:
        ctx.layer = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Product.apply(gradient, ctx.layer.transposed), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int, None], x: Tensor, layer: FrozenLinear
    ) -> tuple[Tensor, int]:
        x = x.movedim(in_dims[0], 0)
        return _Product.apply(x.flatten(0, 1), layer).unflatten(0, x.shape[:2]), 0
