"""The arrays a head is given → checked tensors. Knows no head, and no store."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from clare_cache.errors import HeadError, raise_faults

Shapes = Mapping[str, tuple[int, ...]]
"""Array name → shape of one row, without the image axis."""

VIT_L14_SHAPES: dict[str, tuple[int, ...]] = {
    "error_map": (4, 32, 32),
    "clip_patch_tokens": (256, 1024),
    "clip_block_cls": (24, 1024),
    "clip_embedding": (768,),
}
"""Rows of CLIP ViT-L/14 at 224 px and of Stable Diffusion error maps at 256 px."""

RN50_SHAPES: dict[str, tuple[int, ...]] = {
    "error_map": (4, 32, 32),
    "clip_layer3_map": (1024, 14, 14),
    "clip_embedding": (1024,),
}
"""Rows of CLIP ResNet-50 at 224 px, LaRE²'s backbone, and of the same error maps."""


def read_features(
    asked: str, features: Mapping[str, Tensor], shapes: Shapes, *, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """The arrays named in `shapes`, in that order, each (B, *row shape) in `dtype`.

    Raises HeadError, all faults at once, for absent arrays, other row shapes, dtypes that are not
    floating point, and arrays that disagree on the number of images.
    """
    tensors, faults = [], []
    for name, shape in shapes.items():
        tensor = features.get(name)
        if tensor is None:
            faults.append(f"{name}: expected rows of shape {shape}, found no such array")
        elif tuple(tensor.shape[1:]) != shape or tensor.ndim == 0:
            faults.append(
                f"{name}: expected rows of shape {shape}, found {tuple(tensor.shape[1:])}"
            )
        elif not tensor.is_floating_point():
            faults.append(f"{name}: expected floating point, found {tensor.dtype}")
        else:
            tensors.append(tensor)
    sizes = {name: len(features[name]) for name in shapes} if not faults else {}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{size} in {name}" for name, size in sizes.items())
        faults.append(f"expected the same number of images in each array, found {found}")
    raise_faults(HeadError, asked, faults)
    return tuple(tensor.to(dtype) for tensor in tensors)


def read_faults(names: Collection[str], reads: Mapping[str, str]) -> list[str]:
    """What speaks against reading the arrays `names` of a family from those that `reads` says."""
    faults = [
        f"reads: expected one of {', '.join(names)}, found {name}"
        for name in sorted(reads.keys() - set(names))
    ]
    arrays = [reads.get(name, name) for name in names]
    faults += [
        f"reads: expected another array for each, found {array} for {arrays.count(array)} of them"
        for array in dict.fromkeys(arrays)
        if arrays.count(array) > 1
    ]
    return faults


def shape_faults(
    needs: Mapping[str, tuple[str, ...]], shapes: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """One phrase for each needed array whose row shape is absent, or has other axes than named."""
    faults = []
    for name, axes in needs.items():
        expected = f"shapes: expected {name} as ({', '.join(axes)})"
        if name not in shapes:
            faults.append(f"{expected}, found no such array")
        elif len(shapes[name]) != len(axes) or min(shapes[name]) < 1:
            faults.append(f"{expected}, found {tuple(shapes[name])}")
    return faults
