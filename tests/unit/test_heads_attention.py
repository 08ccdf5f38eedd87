"""Folded attention equals attention that projects every key and value."""

import pytest
import torch

from clare_cache.heads.attention import (
    ChannelAlign,
    ChannelPath,
    CrossAttention,
    CrossAttentionTokens,
    MapBiasAttention,
    align_to_grid,
)
from tests.plain_heads import plain_attention_pool


@pytest.mark.parametrize("kind", [CrossAttention, CrossAttentionTokens, MapBiasAttention])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("width", [32, 20])
@pytest.mark.parametrize(
    ("dtype", "on_outputs", "on_gradients"),
    [(torch.float64, 1e-10, 1e-10), (torch.float32, 1e-5, 2e-4)],
)
def test_equals_projecting_every_key_and_value(
    kind, training, width, dtype, on_outputs, on_gradients
):
    torch.manual_seed(0)
    block = kind(9, width, 0.3).to(dtype).train(training)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    error, tokens = torch.rand(4, 9, 8, dtype=dtype), torch.randn(4, 9, width, dtype=dtype)
    weights = torch.randn(4, width, dtype=dtype)
    results = []
    for formulation in (block, lambda e, t: plain_attention_pool(block, e, t)):
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
    before = plain_attention_pool(block, error, tokens)
    with torch.no_grad():
        block.attention.fc_k.bias.add_(torch.randn(16))
    assert torch.allclose(plain_attention_pool(block, error, tokens), before, atol=1e-5)
    assert torch.allclose(block(error, tokens), before, atol=1e-5)
    assert not block.attention.fc_k.bias.requires_grad


def test_cross_attention_sees_only_the_maps_channel_means():
    block = CrossAttention(9, 32, 0.0)
    error, tokens = torch.rand(2, 9, 8), torch.randn(2, 9, 32)
    assert torch.allclose(block(error, tokens), block(error.flip(1), tokens), atol=1e-5)


@pytest.mark.parametrize("kind", [CrossAttentionTokens, MapBiasAttention])
def test_other_attentions_see_where_the_error_is(kind):
    block = kind(9, 32, 0.0)
    error, tokens = torch.rand(2, 9, 8) * 9, torch.randn(2, 9, 32)
    assert not torch.allclose(block(error, tokens), block(error.flip(1), tokens), atol=1e-2)


def test_all_tokens_ask_with_the_parameters_of_the_pooled_one():
    pooled, all_tokens = CrossAttention(9, 32, 0.0), CrossAttentionTokens(9, 32, 0.0)
    assert all_tokens.load_state_dict(pooled.state_dict())
    one, nine = torch.rand(2, 1, 8), torch.randn(2, 9, 32)
    with torch.no_grad():
        for block in (pooled, all_tokens):
            block.pos_embed_q.copy_(block.pos_embed_q[:1].clone())
    # Where all queries are alike, their mean is the pooled one.
    alike = one.expand(-1, 9, -1)
    assert torch.allclose(pooled(alike, nine), all_tokens(alike, nine), atol=1e-5)


def test_alignment_averages_two_by_two_in_row_major_order():
    error_map = torch.arange(2 * 32 * 32, dtype=torch.float32).reshape(1, 2, 32, 32)
    aligned = align_to_grid(error_map, (16, 16))
    assert aligned.shape == (1, 256, 2)
    row, column = 3, 5
    block = error_map[0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
    assert torch.equal(aligned[0, 16 * row + column], block.mean(dim=(1, 2)))


def test_channel_gate_is_half_for_an_empty_map():
    tokens = torch.randn(2, 9, 32)
    found = ChannelAlign(4, 32)(torch.zeros(2, 4, 8, 8), tokens)
    assert torch.allclose(found, tokens.mean(dim=1) / 2)


def test_alignment_to_fourteen_overlaps_as_adaptive_pooling_does():
    error_map = torch.randn(1, 1, 32, 32)
    aligned = align_to_grid(error_map, (14, 14))
    assert aligned.shape == (1, 196, 1)
    # Bin i of 14 covers floor(32 i / 14) to ceil(32 (i + 1) / 14).
    expected = error_map[0, 0, 2:5, 29:32].mean()
    assert torch.allclose(aligned[0, 14 * 1 + 13, 0], expected)


def test_the_channel_path_is_the_maps_own():
    path, error_map = ChannelPath(4, 32), torch.rand(2, 4, 8, 8)
    found = path(error_map, torch.randn(2, 9, 32))
    assert torch.equal(found, path(error_map, torch.zeros(2, 9, 32)))
    assert found.min() < 0 < found.max()
    gate = ChannelAlign(4, 32)
    gate.load_state_dict(path.state_dict())
    ones = torch.ones(2, 9, 32)
    assert torch.allclose(gate(error_map, ones), found.sigmoid())
