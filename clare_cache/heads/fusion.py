"""What LaRE² and CLaRE share: an error map that refines a grid of patch tokens in two ways.

Knows neither prompts nor classes.
"""

from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor, nn

from clare_cache.heads.attention import (
    N_HEADS,
    ChannelAlign,
    ChannelPath,
    CrossAttention,
    CrossAttentionTokens,
    MapBiasAttention,
    align_to_grid,
)
from clare_cache.heads.features import Shapes
from clare_cache.heads.protocol import Head

ATTENTION: dict[str, type[nn.Module]] = {
    "cross_attention": CrossAttention,
    "cross_attention_tokens": CrossAttentionTokens,
    "map_bias": MapBiasAttention,
}
CHANNEL: dict[str, type[nn.Module]] = {"gate": ChannelAlign, "path": ChannelPath}


class FusionHead(Head):
    """A head over `error_map`, `clip_patch_tokens` (P, W) on a square grid, `clip_embedding`."""

    axes = {  # noqa: RUF012
        "error_map": ("channel", "row", "column"),
        "clip_patch_tokens": ("patch", "channel"),
        "clip_embedding": ("channel",),
    }
    grid: tuple[int, int]

    @classmethod
    def faults_of(cls, shapes: Shapes, options: Mapping[str, Any]) -> list[str]:
        faults = super().faults_of(shapes, options)
        n_patches = shapes.get("clip_patch_tokens", (1,))[0]
        if "clip_patch_tokens" in cls.axes_of(options) and isqrt(n_patches) ** 2 != n_patches:
            faults.append(
                f"shapes: expected clip_patch_tokens on a square grid, found {n_patches} patches"
            )
        return faults

    def add_refinement(
        self, grid: tuple[int, int], width: int, *, attention: str, channel: str, dropout: float
    ) -> None:
        """Makes `map_proj`, `attn_pool` and `channel_align` for patch tokens of this grid."""
        n_channels = self.shapes["error_map"][0]
        self.grid = grid
        self.map_proj = nn.Linear(n_channels, N_HEADS)
        self.attn_pool = ATTENTION[attention](grid[0] * grid[1], width, dropout)
        self.channel_align = CHANNEL[channel](n_channels, width)
        if attention == "map_bias":
            # A constant per attention head, which the softmax does not see.
            self.map_proj.bias.requires_grad_(False)

    def refine(self, error_map: Tensor, tokens: Tensor) -> list[Tensor]:
        """error_map (B, C, H, W), tokens (B, P, W) → two vectors (B, W): where, and which
        channels."""
        error = self.map_proj(align_to_grid(error_map, self.grid))
        return [self.attn_pool(error, tokens), self.channel_align(error_map, tokens)]


def square_grid(n_patches: int) -> tuple[int, int]:
    """Rows and columns of a ViT's patches."""
    return isqrt(n_patches), isqrt(n_patches)
