"""Sections of a recipe → heads in training, and the fingerprint that says when one is finished."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from clare_cache.data.regions import stored
from clare_cache.errors import HeadError, ReportError
from clare_cache.evaluate import read_config
from clare_cache.fingerprint import canonical_json, fingerprint
from clare_cache.heads import build_head, find_head, head_needs
from clare_cache.heads.own import code_of
from clare_cache.heads.protocol import TextTower
from clare_cache.manifest import Manifest
from clare_cache.recipe import HeadSection, Recipe
from clare_cache.seeds import seed_for
from clare_cache.store import Store
from clare_cache.train.config import TrainConfig
from clare_cache.train.loop import STACK_LIMIT, Member
from clare_cache.types import CLEAN


def needs_of(sections: Sequence[HeadSection]) -> list[str]:
    """The arrays that these heads read, sorted. Raises HeadError with what is wrong with each."""
    found: set[str] = set()
    faults: dict[str, None] = {}
    for head in sections:
        try:
            found.update(head_needs(head.family, reads=head.reads, **head.options))
        except HeadError as error:
            faults[str(error)] = None
    if faults:
        raise HeadError("\n".join(faults))
    return sorted(found)


def build_member(
    recipe: Recipe,
    section: HeadSection,
    *,
    shapes: Mapping[str, tuple[int, ...]],
    text: TextTower | None,
) -> Member:
    """The head of a section, freshly initialised.

    Members of one sweep that share a seed start alike and meet the same dropout: what differs
    between them is what was varied.
    """
    seed = seed_of(recipe, section)
    head = build_head(
        section.family,
        shapes=shapes,
        text=text,
        reads=section.reads,
        seed=seed_for(seed, section.sweep or section.label, "init") % 2**63,
        **section.options,
    )
    order = seed if section.order == "own" else None
    return Member(section.label, head, section.optimiser, seed=seed, order=order)


def seed_of(recipe: Recipe, section: HeadSection) -> int:
    """The seed of a head's initial weights and dropout."""
    return recipe.train_of(section).seed if section.seed is None else section.seed


def training_fingerprint(
    recipe: Recipe, section: HeadSection, store: Store, manifest: Manifest
) -> str:
    """Equal exactly when training would give the same head: its settings, its features, and the
    images with their labels, splits and groups."""
    described = section.model_dump(mode="json", exclude={"train", "settings", "fold"})
    return fingerprint(
        {
            "head": described | {"seed": seed_of(recipe, section)} | code_of(section.family),
            "train": recipe.train_of(section).model_dump(mode="json"),
            "features": {n: store[f"{CLEAN}/{n}"].fingerprint for n in stored(needs_of([section]))},
            "manifest": manifest.fingerprint(),
        }
    )


def is_finished(folder: Path, wanted: str) -> bool:
    """Whether the run folder holds the head that this fingerprint stands for."""
    if not (folder / "config.json").is_file() or not (folder / "head.safetensors").is_file():
        return False
    try:
        return read_config(folder).get("training_fingerprint") == wanted
    except ReportError:
        return False


def cohorts_of(recipe: Recipe) -> tuple[tuple[str, ...], ...]:
    """Labels of heads that can be one stack: equal in all but what a stack may hold."""
    found: dict[str, list[str]] = {}
    for section in recipe.head:
        kind = find_head(section.family)
        options = {k: v for k, v in section.options.items() if k not in kind.stackable_options}
        alike = {
            "family": section.family,
            "options": options,
            "reads": section.reads,
            "train": recipe.train_of(section).model_dump(mode="json"),
            "order": seed_of(recipe, section) if section.order == "own" else None,
        }
        found.setdefault(canonical_json(alike), []).append(section.label)
    return tuple(
        tuple(labels[first : first + STACK_LIMIT])
        for labels in found.values()
        for first in range(0, len(labels), STACK_LIMIT)
    )


def passes(recipe: Recipe) -> list[tuple[TrainConfig, list[HeadSection]]]:
    """Heads by their settings of training: those of one pass see the same batches."""
    found: dict[str, tuple[TrainConfig, list[HeadSection]]] = {}
    for section in recipe.head:
        config = recipe.train_of(section)
        found.setdefault(config.model_dump_json(), (config, []))[1].append(section)
    return list(found.values())
