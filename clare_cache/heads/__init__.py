"""Trainable heads over cached arrays, one paper each. They know no store and no image.

`build_head` makes one, `save_head` and `load_head` keep it, `check_features` refuses arrays that
it was not trained on.
"""

from clare_cache.heads.build import HEADS, build_head, find_head, head_needs, needs_text
from clare_cache.heads.features import RN50_SHAPES, VIT_L14_SHAPES
from clare_cache.heads.files import check_features, load_head, save_head
from clare_cache.heads.protocol import Head, HeadOutput, TextTower

__all__ = [
    "HEADS",
    "RN50_SHAPES",
    "VIT_L14_SHAPES",
    "Head",
    "HeadOutput",
    "TextTower",
    "build_head",
    "check_features",
    "find_head",
    "head_needs",
    "load_head",
    "needs_text",
    "save_head",
]
