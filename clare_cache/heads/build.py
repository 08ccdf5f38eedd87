"""Families by name, and the one way to make a head. Opens no file."""

from collections.abc import Mapping
from typing import Any

import torch

from clare_cache.errors import HeadError, raise_faults
from clare_cache.heads.adapter import Adapter
from clare_cache.heads.clare import Clare
from clare_cache.heads.error_map_resnet import ErrorMapResNet
from clare_cache.heads.features import VIT_L14_SHAPES
from clare_cache.heads.knn import Knn
from clare_cache.heads.lare2 import Lare2
from clare_cache.heads.linear import Linear, LinearProbe
from clare_cache.heads.options import resolve_options
from clare_cache.heads.prompt_tuning import PromptTuning
from clare_cache.heads.protocol import Head, TextTower
from clare_cache.heads.rine import Rine

HEADS: dict[str, type[Head]] = {
    head.family: head
    for head in (
        Adapter, Clare, ErrorMapResNet, Knn, Lare2, Linear, LinearProbe, PromptTuning, Rine,
    )
}  # fmt: skip


def build_head(
    family: str,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    text: TextTower | None = None,
    seed: int = 0,
    **options: Any,
) -> Head:
    """A freshly initialised head, the same for the same seed; global random state is untouched.

    `shapes` maps array names to row shapes (default `VIT_L14_SHAPES`; more than needed is fine).
    `text` is the frozen tower of prompt heads. Raises HeadError with all faults at once.
    """
    kind = _kind(family)
    shapes = VIT_L14_SHAPES if shapes is None else shapes
    resolved, faults = resolve_options(kind.option_rules, options)
    faults += kind.faults_of(shapes, resolved)
    if kind.needs_text and text is None:
        faults.append("text: expected a text tower for its prompts, found none")
    raise_faults(HeadError, f"head {family}", faults)
    if kind.needs_text:
        resolved["text"] = text
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also seed the GPUs.
        torch.default_generator.manual_seed(seed)
        head = kind(shapes, **resolved)
    head.seed = seed
    return head


def head_needs(family: str, **options: Any) -> tuple[str, ...]:
    """The arrays that such a head reads, without building it. Raises HeadError as `build_head`."""
    kind = _kind(family)
    resolved, faults = resolve_options(kind.option_rules, options)
    raise_faults(HeadError, f"head {family}", faults)
    return tuple(kind.axes_of(resolved))


def needs_text(family: str) -> bool:
    """Whether heads of this family must be given a text tower."""
    return _kind(family).needs_text


def _kind(family: str) -> type[Head]:
    if family not in HEADS:
        raise HeadError(
            f"head {family}: expected one of {', '.join(sorted(HEADS))}, found {family}. "
            "Choose a family from this list."
        )
    return HEADS[family]
