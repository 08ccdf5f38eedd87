"""How an error map looks at CLIP's patch tokens: queries over T = [mean(F); F] + codes.

Knows nothing of prompts or classes. For a single query q, since q · (W x) = (Wᵀ q) · x and
Σ a (W x) = W (Σ a x), neither keys nor values are ever projected per token, and the mean token is
never formed; all of it exact. With as many queries as tokens folding costs more than it saves.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

N_HEADS = 8


class _Projections(nn.Module):
    """The four maps of attention with 8 heads, each width/16 wide, at least 1: 64 for ViT-L/14."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        inner = N_HEADS * max(width // 16, 1)
        self.fc_q = nn.Linear(width, inner)
        self.fc_k = nn.Linear(width, inner)
        self.fc_v = nn.Linear(width, inner)
        self.fc_o = nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.fc_q, self.fc_k, self.fc_v, self.fc_o):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        # It adds the same to every score of a head, so the softmax does not see it. The published
        # weights have it; nothing can train it.
        self.fc_k.bias.requires_grad_(False)


class FoldedAttention(_Projections):
    """Multi-head attention of a single query over [mean token; tokens] + position codes."""

    def forward(
        self, query: Tensor, tokens: Tensor, codes: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        """query (B, W), tokens (B, P, W), codes (P+1, W), bias on scores (B, 8, P+1) → (B, W)."""
        q = self.fc_q(query).unflatten(1, (N_HEADS, -1))
        key = self.fc_k.weight.unflatten(0, (N_HEADS, -1))
        folded = torch.einsum("bhk,hkw->bhw", q, key) * q.shape[2] ** -0.5
        of_patches = folded @ tokens.transpose(1, 2)
        scores = torch.cat([of_patches.mean(dim=2, keepdim=True), of_patches], dim=2)
        scores = scores + folded @ codes.T
        if bias is not None:
            scores = scores + bias
        share = self.dropout(scores.softmax(dim=2))
        of_patches = share[:, :, 1:] + share[:, :, :1] / tokens.shape[1]
        mixed = of_patches @ tokens + share @ codes
        value = self.fc_v.weight.unflatten(0, (N_HEADS, -1))
        # Dropout makes the shares sum to something else than 1, which the value bias feels.
        value_bias = self.fc_v.bias.unflatten(0, (N_HEADS, -1)) * share.sum(dim=2, keepdim=True)
        answer = torch.einsum("bhw,hvw->bhv", mixed, value) + value_bias
        return self.dropout(self.fc_o(answer.flatten(1)))


class TokenAttention(_Projections):
    """Multi-head attention of many queries over [mean token; tokens] + position codes."""

    def forward(self, projected: Tensor, tokens: Tensor, codes: Tensor) -> Tensor:
        """Queries after `fc_q` (B, Q, 8·V), tokens (B, P, W), codes (P+1, W) → (B, Q, W)."""
        tokens = with_mean(tokens) + codes
        key = tokens @ self.fc_k.weight.T
        q, k, v = (
            part.unflatten(2, (N_HEADS, -1)).transpose(1, 2)
            for part in (projected, key, self.fc_v(tokens))
        )
        dropped = self.dropout.p if self.training else 0.0
        answer = F.scaled_dot_product_attention(q, k, v, dropout_p=dropped)
        return self.dropout(self.fc_o(answer.transpose(1, 2).flatten(2)))


class CrossAttention(nn.Module):
    """The pooled error map asks, patch tokens answer; the residual is the query (B, W).

    Five affine maps without a non-linearity between them widen the map, so its mean is taken
    first: the answer depends on the map through its channel means alone.
    """

    attention_kind: type[_Projections] = FoldedAttention

    def __init__(self, n_patches: int, width: int, dropout: float) -> None:
        super().__init__()
        widths = [N_HEADS, 32, 64, 128, 256, width]
        # Linear, not 1x1 convolution: the same numbers, but never rounded to TF32 on a GPU.
        self.map_proj = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))
        self.pos_embed_q = nn.Parameter(torch.randn(n_patches + 1, width) / width**0.5)
        self.pos_embed_kv = nn.Parameter(torch.randn(n_patches + 1, width) / width**0.5)
        self.attention = self.attention_kind(width, dropout)
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, error: Tensor, tokens: Tensor) -> Tensor:
        """error (B, P, 8) on the patch grid, tokens (B, P, W) → (B, W)."""
        query = self.map_proj(error.mean(dim=1)) + self.pos_embed_q[0]
        return self.layer_norm(query + self.attention(query, tokens, self.pos_embed_kv))


class CrossAttentionTokens(CrossAttention):
    """Every error-map token asks, patch tokens answer; mean over the answers (B, W).

    The same parameters as `CrossAttention`, whose other queries are asked too: what the figure of
    the paper draws. The queries are the pooled map and its P positions; each answer has its query
    as residual and is normalised before the mean.
    """

    attention_kind = TokenAttention

    def forward(self, error: Tensor, tokens: Tensor) -> Tensor:
        """error (B, P, 8) on the patch grid, tokens (B, P, W) → (B, W)."""
        error = with_mean(error)
        # Five affine maps are one, and the query projection composes with it: both are applied to
        # the 8 unit vectors rather than to every token.
        bias = self.map_proj(error.new_zeros(N_HEADS))
        unit = torch.eye(N_HEADS, dtype=error.dtype, device=error.device)
        weight = self.map_proj(unit) - bias
        codes = bias + self.pos_embed_q
        projected = error @ (weight @ self.attention.fc_q.weight.T) + self.attention.fc_q(codes)
        answer = self.attention(projected, tokens, self.pos_embed_kv)
        answers: Tensor = self.layer_norm(error @ weight + codes + answer)
        return answers.mean(dim=1)


class MapBiasAttention(nn.Module):
    """The mean patch token asks; the error map shifts each head's scores. (B, W), Luo et al. 2024
    (LaRE², error-guided spatial refinement)."""

    def __init__(self, n_patches: int, width: int, dropout: float) -> None:
        super().__init__()
        codes = torch.randn(n_patches + 1, width) / width**0.5
        self.positional_embedding = nn.Parameter(codes)
        self.attention = FoldedAttention(width, dropout)
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, error: Tensor, tokens: Tensor) -> Tensor:
        """error (B, P, 8) on the patch grid, tokens (B, P, W) → (B, W)."""
        bias = with_mean(error).transpose(1, 2)
        query = tokens.mean(dim=1) + self.positional_embedding[0]
        answer = self.attention(query, tokens, self.positional_embedding, bias)
        return self.layer_norm(query + answer)


class ChannelAlign(nn.Module):
    """The mean patch token, each channel gated by the error map's channel means: (B, W)."""

    def __init__(self, n_map_channels: int, width: int) -> None:
        super().__init__()
        hidden = max(width // 8, 1)
        self.fc = nn.Sequential(
            nn.Linear(n_map_channels, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, width, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, error_map: Tensor, tokens: Tensor) -> Tensor:
        """error_map (B, C, H, W), tokens (B, P, W) → (B, W)."""
        gate: Tensor = self.fc(error_map.mean(dim=(2, 3)))
        return tokens.mean(dim=1) * gate


class ChannelPath(nn.Module):
    """The error map's channel means through two layers, whatever the patch tokens: (B, W).

    What the poster of CLaRE describes: a path of its own beside the image, not a gate on it.
    """

    def __init__(self, n_map_channels: int, width: int) -> None:
        super().__init__()
        hidden = max(width // 8, 1)
        self.fc = nn.Sequential(
            nn.Linear(n_map_channels, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, width, bias=False),
        )

    def forward(self, error_map: Tensor, tokens: Tensor) -> Tensor:
        """error_map (B, C, H, W), tokens (B, P, W), which are not looked at → (B, W)."""
        found: Tensor = self.fc(error_map.mean(dim=(2, 3)))
        return found


def align_to_grid(error_map: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, C, H, W) averaged onto a grid of patches, row-major: (B, rows · columns, C)."""
    return F.adaptive_avg_pool2d(error_map, grid).flatten(2).transpose(1, 2)


def with_mean(tokens: Tensor) -> Tensor:
    """(B, P, C) → (B, P+1, C), the mean first."""
    return torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
