"""Folded attention equals attention that projects every key and value."""

import pytest
import torch
from torch.nn import functional as F

from clare_cache.heads.attention import (
    ChannelAlign,
    CrossAttention,
    FoldedAttention,
    MapBiasAttention,
    align_to_patches,
)


def plain_attention(block: FoldedAttention, query, tokens, bias=None):
    """Vaswani et al. 2017 over `tokens` (B, P+1, W), which include mean token and codes."""
    q = block.fc_q(query)[:, None].unflatten(2, (8, -1)).transpose(1, 2)
    k = block.fc_k(tokens).unflatten(2, (8, -1)).transpose(1, 2)
    v = block.fc_v(tokens).unflatten(2, (8, -1)).transpose(1, 2)
    scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
    if bias is not None:
        scores = scores + bias[:, :, None]
    share = block.dropout(scores.softmax(dim=3))
    return block.dropout(block.fc_o((share @ v).flatten(1)))


def with_mean(x):
    """(B, P, C) → (B, P+1, C), the mean first."""
    return torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)


def plain_cross_attention(block: CrossAttention, error, tokens):
    """Every position of the map is widened, though the pooled one alone is used."""
    x = error.transpose(1, 2)[..., None]
    for linear in block.map_proj:
        x = F.conv2d(x, linear.weight[:, :, None, None], linear.bias)
    query = (with_mean(x.flatten(2).transpose(1, 2)) + block.pos_embed_q)[:, 0]
    answer = plain_attention(block.attention, query, with_mean(tokens) + block.pos_embed_kv)
    return block.layer_norm(query + answer)


def plain_map_bias(block: MapBiasAttention, error, tokens):
    all_tokens = with_mean(tokens) + block.positional_embedding
    bias = with_mean(error).transpose(1, 2)
    answer = plain_attention(block.attention, all_tokens[:, 0], all_tokens, bias)
    return block.layer_norm(all_tokens[:, 0] + answer)


@pytest.mark.parametrize(
    ("kind", "plain"),
    [(CrossAttention, plain_cross_attention), (MapBiasAttention, plain_map_bias)],
)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("width", [32, 20])
@pytest.mark.parametrize(
    ("dtype", "on_outputs", "on_gradients"),
    [(torch.float64, 1e-10, 1e-10), (torch.float32, 1e-5, 2e-4)],
)
def test_equals_projecting_every_key_and_value(
    kind, plain, training, width, dtype, on_outputs, on_gradients
):
    torch.manual_seed(0)
    block = kind(9, width, 0.3).to(dtype).train(training)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    error, tokens = torch.rand(4, 9, 8, dtype=dtype), torch.randn(4, 9, width, dtype=dtype)
    weights = torch.randn(4, width, dtype=dtype)
    results = []
    for formulation in (block, lambda e, t: plain(block, e, t)):
        torch.manual_seed(1)  # the same dropout in both
        block.zero_grad()
        output = formulation(error, tokens)
        (output * weights).sum().backward()
        gradients = [p.grad.clone() for p in block.parameters() if p.requires_grad]
        results.append((output.detach(), gradients))
    (found, found_gradients), (expected, expected_gradients) = results
    assert (found - expected).abs().max() < on_outputs * expected.abs().max()
    for a, b in zip(found_gradients, expected_gradients, strict=True):
        assert b.abs().max() > 0
        assert (a - b).abs().max() < on_gradients * b.abs().max()


def test_a_key_bias_changes_nothing_and_is_not_trained():
    block = MapBiasAttention(9, 32, 0.0)
    error, tokens = torch.rand(2, 9, 8), torch.randn(2, 9, 32)
    before = plain_map_bias(block, error, tokens)
    with torch.no_grad():
        block.attention.fc_k.bias.add_(torch.randn(16))
    assert torch.allclose(plain_map_bias(block, error, tokens), before, atol=1e-5)
    assert torch.allclose(block(error, tokens), before, atol=1e-5)
    assert not block.attention.fc_k.bias.requires_grad


def test_cross_attention_sees_only_the_maps_channel_means():
    block = CrossAttention(9, 32, 0.0)
    error, tokens = torch.rand(2, 9, 8), torch.randn(2, 9, 32)
    assert torch.allclose(block(error, tokens), block(error.flip(1), tokens), atol=1e-5)


def test_map_bias_sees_where_the_error_is():
    block = MapBiasAttention(9, 32, 0.0)
    error, tokens = torch.rand(2, 9, 8) * 9, torch.randn(2, 9, 32)
    assert not torch.allclose(block(error, tokens), block(error.flip(1), tokens), atol=1e-2)


def test_alignment_averages_two_by_two_in_row_major_order():
    error_map = torch.arange(2 * 32 * 32, dtype=torch.float32).reshape(1, 2, 32, 32)
    aligned = align_to_patches(error_map, 256)
    assert aligned.shape == (1, 256, 2)
    row, column = 3, 5
    block = error_map[0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
    assert torch.equal(aligned[0, 16 * row + column], block.mean(dim=(1, 2)))


def test_channel_gate_is_half_for_an_empty_map():
    tokens = torch.randn(2, 9, 32)
    found = ChannelAlign(4, 32)(torch.zeros(2, 4, 8, 8), tokens)
    assert torch.allclose(found, tokens.mean(dim=1) / 2)
