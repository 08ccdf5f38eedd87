"""Boxes as weights of patches."""

import pytest
import torch

from clare_cache.heads import VIT_L14_SHAPES, build_head, head_needs
from clare_cache.heads.regions import region_weights
from tests.plain_heads import plain_regions

NONE = [torch.nan] * 4


def test_weights_are_roi_align_of_the_patch_grid():
    torch.manual_seed(0)
    corner = torch.rand(5, 3, 2, dtype=torch.float64) * 0.6
    boxes = torch.cat([corner, corner + torch.rand(5, 3, 2, dtype=torch.float64) * 0.4], dim=2)
    boxes[1, 2], boxes[3, :] = torch.nan, torch.nan
    tokens = torch.randn(5, 6 * 4, 7, dtype=torch.float64)
    found = (region_weights(boxes, (6, 4))[:, None] @ tokens)[:, 0]
    expected = plain_regions(boxes, tokens, (6, 4))
    assert (found - expected).abs().max() < 1e-12


def test_weights_of_every_image_sum_to_one():
    boxes = torch.tensor([[[0, 0, 1, 1], NONE], [NONE, NONE], [[0.9, 0.9, 1.4, 1.2], NONE]])
    assert torch.allclose(region_weights(boxes, (16, 16)).sum(dim=1), torch.ones(3))


def test_a_box_around_one_patch_weighs_that_patch_most():
    row, column = 3, 12
    box = torch.tensor([[[column, row, column + 1, row + 1]]]) / 16
    weights = region_weights(box, (16, 16))[0].unflatten(0, (16, 16))
    assert weights.argmax() == 16 * row + column
    assert weights[row - 1 : row + 2, column - 1 : column + 2].sum() == pytest.approx(1)


def test_an_image_without_boxes_is_its_mean_patch():
    weights = region_weights(torch.full((1, 2, 4), torch.nan), (4, 4))
    assert torch.allclose(weights, torch.full((1, 16), 1 / 16))


def test_regions_widen_the_fused_vector_and_name_their_array(build_text_tower):
    assert head_needs("clare", regions=True) == (*head_needs("clare"), "region_boxes")
    shapes = {**VIT_L14_SHAPES, "region_boxes": (2, 4)}
    head = build_head(
        "clare", shapes=shapes, text=build_text_tower(), prompts="cocoop", regions=True
    )
    rows = {name: torch.rand(2, *shape) for name, shape in shapes.items()}
    assert head(rows).embedding.shape == (2, 4096)
    assert head.prompt_learner.meta_net.linear1.weight.shape == (256, 4096)
