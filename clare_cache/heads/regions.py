"""Boxes in a picture → a weight for each patch. Knows no head, and not where boxes come from."""

import torch
from torch import Tensor

SAMPLES = 28


def region_weights(boxes: Tensor, grid: tuple[int, int]) -> Tensor:
    """Weights (B, rows · columns), each row summing to 1, whose weighted mean of patch tokens is
    the mean over an image's boxes of RoI-align (He et al. 2017) averaged over each box.

    `boxes` (B, n, 4) are left, top, right, bottom as fractions of the picture that the patches
    cover, so that the grid alone decides the spatial scale; a row of NaN is no box. Each box is
    sampled at 28 × 28 points, two a side for each of 14 bins. An image without boxes weighs all
    patches alike.
    """
    is_box = ~boxes.isnan().any(dim=2)
    left, top, right, bottom = boxes.nan_to_num().clamp(0, 1).unbind(dim=2)
    down, across = _share(top, bottom, grid[0]), _share(left, right, grid[1])
    weights = torch.einsum("bn,bnr,bnc->brc", is_box.to(boxes.dtype), down, across).flatten(1)
    n_boxes = is_box.sum(dim=1, keepdim=True)
    alike = torch.full_like(weights, 1 / weights.shape[1])
    return torch.where(n_boxes > 0, weights / n_boxes.clamp(min=1), alike)


def _share(start: Tensor, stop: Tensor, n_cells: int) -> Tensor:
    """Of intervals within 0..1 (B, n), how much of a linear interpolation at evenly spread points
    falls on each of `n_cells` cells: (B, n, n_cells)."""
    centre = (torch.arange(SAMPLES, device=start.device, dtype=start.dtype) + 0.5) / SAMPLES
    points = start[..., None] + (stop - start)[..., None] * centre
    # A cell's value stands at its middle; beyond the outermost middles it is constant.
    points = (points * n_cells - 0.5).clamp(0, n_cells - 1)
    cells = torch.arange(n_cells, device=start.device, dtype=start.dtype)
    return (1 - (points[..., None] - cells).abs()).clamp(min=0).mean(dim=2)
