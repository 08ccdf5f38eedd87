"""One block of CLIP's text transformer, frozen: the same numbers as open_clip's with less work.

Every text begins with the start token, which sees nothing but itself: its keys and values are
remembered. A block can answer at a few tokens alone. QuickGELU, x · sigmoid(1.702 x), is
silu(1.702 x) / 1.702, and both factors move into the weights, so that one pass computes it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clare_cache.backbones.frozen_linear import FrozenLinear

QUICK = 1.702


class FrozenNorm:
    """A layer norm without gradients for its weights, in the precision of what it is given
    (open_clip's own may compute in float32 whatever that is)."""

    def __init__(self, norm: Any, device: torch.device) -> None:
        self._weight, self._bias = frozen(norm, device)
        self._epsilon: float = norm.eps

    def __call__(self, tokens: Tensor) -> Tensor:
        return F.layer_norm(tokens, self._weight.shape, self._weight, self._bias, self._epsilon)


class FrozenBlock:
    """The weights of an open_clip `ResidualAttentionBlock`, without gradients. W is its width."""

    start: tuple[Tensor, Tensor]
    """Keys and values of the start token, each (1, heads, 1, W / heads); set by `begin`."""

    def __init__(self, block: Any, device: torch.device) -> None:
        self._n_heads: int = block.attn.num_heads
        self._norm = FrozenNorm(block.ln_1, device)
        self._mlp_norm = FrozenNorm(block.ln_2, device)
        weight = block.attn.in_proj_weight.detach().to(device)
        bias = block.attn.in_proj_bias.detach().to(device)
        width = weight.shape[1]
        self._query = FrozenLinear(weight[:width], bias[:width])
        self._key_value = FrozenLinear(weight[width:], bias[width:])
        self._out = FrozenLinear(*frozen(block.attn.out_proj, device))
        # The two activations that CLIP's own towers have.
        self._is_quick = not isinstance(block.mlp.gelu, nn.GELU)
        (widen, bias), narrow = frozen(block.mlp.c_fc, device), frozen(block.mlp.c_proj, device)
        if self._is_quick:
            widen, bias, narrow = widen * QUICK, bias * QUICK, (narrow[0] / QUICK, narrow[1])
        self._widen, self._narrow = FrozenLinear(widen, bias), FrozenLinear(*narrow)

    def begin(self, start: Tensor) -> Tensor:
        """The start token (1, W) before this block → after it; keeps its keys and values."""
        key, value = self._key_value(self._norm(start)).chunk(2, dim=1)
        self.start = self._split(key, 1), self._split(value, 1)
        # A token that sees itself alone gets its own value.
        return self._transform(start + self._out(value))

    def __call__(self, tokens: Tensor, mask: Tensor, *, rows: Tensor | None = None) -> Tensor:
        """Tokens (N · T, W) of N sequences, start tokens left out → after this block, those in
        `rows` alone if given. `mask` (N, 1, asked tokens, 1 + T) is added to attention logits.
        """
        n_sequences, width = len(mask), tokens.shape[1]
        normed = self._norm(tokens)
        key, value = self._key_value(normed).chunk(2, dim=1)
        if rows is not None:
            normed, tokens = normed[rows], tokens[rows]
        query = self._query(normed)
        key, value = (
            torch.cat([start.expand(n_sequences, -1, -1, -1), self._split(part, n_sequences)], 2)
            for start, part in zip(self.start, (key, value), strict=True)
        )
        answer = F.scaled_dot_product_attention(
            self._split(query, n_sequences), key, value, attn_mask=mask.to(tokens.dtype)
        )
        answer = answer.transpose(1, 2).reshape(-1, width)
        return self._transform(tokens + self._out(answer))

    def _transform(self, tokens: Tensor) -> Tensor:
        widened = self._widen(self._mlp_norm(tokens))
        widened = F.silu(widened) if self._is_quick else F.gelu(widened)
        return tokens + self._narrow(widened)

    def _split(self, tokens: Tensor, n_sequences: int) -> Tensor:
        """(N · T, W) → (N, heads, T, W / heads)."""
        tokens = tokens.unflatten(1, (self._n_heads, -1)).unflatten(0, (n_sequences, -1))
        return tokens.transpose(1, 2)


def frozen(module: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """A module's weight and bias on a device, without gradients."""
    return module.weight.detach().to(device), module.bias.detach().to(device)
