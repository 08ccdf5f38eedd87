"""Families by name, and the one way to make a head. Opens no file."""

from collections.abc import Mapping
from typing import Any

import torch

from clare_cache.errors import HeadError, raise_faults
from clare_cache.heads.adapter import Adapter
from clare_cache.heads.clare import Clare
from clare_cache.heads.error_map_resnet import ErrorMapResNet
from clare_cache.heads.features import VIT_L14_SHAPES, read_faults
from clare_cache.heads.knn import Knn
from clare_cache.heads.lare2 import Lare2
from clare_cache.heads.linear import Linear, LinearProbe
from clare_cache.heads.options import resolve_options
from clare_cache.heads.own import find_own, is_own
from clare_cache.heads.prompt_tuning import PromptTuning
from clare_cache.heads.protocol import Head, TextTower
from clare_cache.heads.rine import Rine

HEADS: dict[str, type[Head]] = {
    head.family: head
    for head in (
        Adapter, Clare, ErrorMapResNet, Knn, Lare2, Linear, LinearProbe, PromptTuning, Rine,
    )
}  # fmt: skip


def find_head(family: str) -> type[Head]:
    """The class of a family: one of `HEADS`, or a user's own as `MODULE:CLASS`. Raises HeadError
    when there is none."""
    if is_own(family):
        return find_own(family)
    if family not in HEADS:
        raise HeadError(
            f"head {family}: expected one of {', '.join(sorted(HEADS))}, found {family}. "
            "Choose a family from this list, or name your own as MODULE:CLASS."
        )
    return HEADS[family]


def build_head(
    family: str,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    text: TextTower | None = None,
    reads: Mapping[str, str] | None = None,
    seed: int = 0,
    **options: Any,
) -> Head:
    """A freshly initialised head, the same for the same seed; global random state is untouched.

    `shapes` maps array names to row shapes (default `VIT_L14_SHAPES`; more than needed is fine).
    `text` is the frozen tower of prompt heads. `reads` maps arrays of the family to arrays that
    are read in their place, e.g. `{"error_map": "error_map-t280"}`. Raises HeadError with all
    faults at once.
    """
    kind = find_head(family)
    resolved, faults = resolve_options(kind.option_rules, options)
    reads = dict(reads or {})
    faults += read_faults(kind.axes_of(resolved), reads)
    own = VIT_L14_SHAPES if shapes is None else _by_own_name(shapes, reads)
    faults += kind.faults_of(own, resolved)
    if kind.needs_text and text is None:
        faults.append("text: expected a text tower for its prompts, found none")
    raise_faults(HeadError, f"head {family}", faults)
    if kind.needs_text:
        resolved["text"] = text
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also seed the GPUs.
        torch.default_generator.manual_seed(seed)
        head = kind(own, **resolved)
    head.seed = seed
    head.reads = reads
    return head


def head_needs(
    family: str, *, reads: Mapping[str, str] | None = None, **options: Any
) -> tuple[str, ...]:
    """The arrays that such a head reads, without building it. Raises HeadError as `build_head`."""
    kind, reads = find_head(family), reads or {}
    resolved, faults = resolve_options(kind.option_rules, options)
    names = kind.axes_of(resolved)
    raise_faults(HeadError, f"head {family}", [*faults, *read_faults(names, reads)])
    return tuple(reads.get(name, name) for name in names)


def needs_text(family: str) -> bool:
    """Whether heads of this family must be given a text tower."""
    return find_head(family).needs_text


def _by_own_name(
    shapes: Mapping[str, tuple[int, ...]], reads: Mapping[str, str]
) -> dict[str, tuple[int, ...]]:
    """Row shapes of arrays, by the names under which the family knows them."""
    own = {name: shape for name, shape in shapes.items() if name not in reads}
    return own | {name: shapes[array] for name, array in reads.items() if array in shapes}
