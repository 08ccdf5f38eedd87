"""Stage two as the user calls it: a recipe, a store and a manifest in, run folders out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clare_cache.backbones import FEATURES, load_text_tower
from clare_cache.backbones.numerics import pick_device
from clare_cache.data import load
from clare_cache.errors import HeadError, TrainError, raise_faults
from clare_cache.evaluate import read_config
from clare_cache.fingerprint import differences
from clare_cache.heads import build_head, head_needs, needs_text
from clare_cache.heads.files import load_head as read_head
from clare_cache.heads.protocol import Head, TextTower
from clare_cache.manifest import Manifest, split_by_group
from clare_cache.recipe import Recipe
from clare_cache.seeds import seed_for
from clare_cache.store import ArrayEntry, Store, open_store
from clare_cache.train.loop import Member, train_members
from clare_cache.train.runs import describe_run, save_run
from clare_cache.types import CLEAN, OnProgress, ignore_progress


def train_head(
    recipe: Recipe,
    *,
    store: str | Path,
    manifest: str | Path,
    out: str | Path,
    clip: str | None = None,
    device: str = "auto",
    on_progress: OnProgress = ignore_progress,
) -> list[Path]:
    """Train every head of the recipe in one pass; the run folders `out/<label>`, in its order.

    Images of split "train" train. Split "val" validates; without one, whole groups are held out
    of "train". `clip` says where the text tower of prompt heads lies now, by default where the
    store's CLIP came from. Raises TrainError, after saving the others, for heads that diverged
    before they finished an epoch.
    """
    opened = open_store(store)
    train_rows, validation_rows = hold_out(Manifest.read(manifest), recipe)
    needs = sorted({n for h in recipe.head for n in head_needs(h.family, **h.options)})
    train = load(opened, train_rows, needs=needs)
    validation = load(opened, validation_rows, needs=needs)
    text = None
    if any(needs_text(section.family) for section in recipe.head):
        text = text_tower(opened, clip=clip, device=device)
    members = [
        Member(
            label=section.label,
            head=build_head(
                section.family,
                shapes=train.shapes,
                text=text,
                seed=seed_for(recipe.train.seed, section.label, "init") % 2**63,
                **section.options,
            ),
            optimiser=section.optimiser,
            seed=recipe.train.seed,
        )
        for section in recipe.head
    ]
    trained, lost = train_members(
        members,
        train,
        validation,
        epochs=recipe.train.epochs,
        batch_size=recipe.train.batch_size,
        seed=recipe.train.seed,
        select=recipe.train.select,
        device=pick_device(device),
        on_progress=on_progress,
    )
    sections = {section.label: section for section in recipe.head}
    folders = []
    for result in trained:
        folder = Path(out) / result.label
        description = describe_run(result, train, validation, recipe.train)
        description |= _origin(opened, Path(manifest), result.head.needs)
        alone = recipe.model_copy(update={"head": (sections[result.label],)})
        save_run(folder, result, description=description, recipe=alone.to_yaml())
        folders.append(folder)
    raise_faults(
        TrainError,
        f"train-head into {out}, where the other heads are",
        [f"{label}: {reason}" for label, reason in lost.items()],
        advice="Lower their learning rates.",
    )
    return folders


def hold_out(manifest: Manifest, recipe: Recipe) -> tuple[Manifest, Manifest]:
    """The rows to train on and the rows to choose on, with no group in both.

    Raises TrainError when the manifest has no "train" split.
    """
    train, validation = manifest.where(split="train"), manifest.where(split="val")
    if not len(train):
        splits = sorted(set(manifest.rows["split"]))
        raise TrainError(
            f"train-head: expected images of split train, found splits "
            f"{', '.join(s or '(none)' for s in splits)}. "
            "Name folders train/ and test/, or use `clare-cache manifest split`."
        )
    if len(validation):
        return train, validation
    share = recipe.train.validation_fraction
    divided = split_by_group(train, {"train": 1 - share, "val": share}, seed=recipe.train.seed)
    return divided.where(split="train"), divided.where(split="val")


def text_tower(store: Store, *, clip: str | None, device: str) -> TextTower:
    """The text tower of the CLIP whose image features are in the store.

    Raises HeadError when its weights are not those of the store's image tower.
    """
    entry = _clip_entry(store)
    if entry is None:
        raise HeadError(
            f"store {store.path}: prompt heads need CLIP features, found {', '.join(store)}. "
            "Extract clip_embedding."
        )
    source = clip or entry.source
    tower = load_text_tower(source, device=device)
    phrases = differences(
        {"weights": tower.declared()["weights"]}, {"weights": entry.declared["weights"]}
    )
    if phrases:
        raise HeadError(
            f"text tower {source}: it is not of the CLIP that made the store's "
            f"features; {'; '.join(phrases)}. Give the same weights with --clip."
        )
    return tower


def load_head(
    run: str | Path, *, clip: str | None = None, device: str = "auto"
) -> tuple[Head, dict[str, Any]]:
    """A trained head in evaluation mode, and its `config.json`.

    Prompt heads get their text tower; `clip` says where its weights lie now, by default where
    they came from. Raises HeadError when the tower is another one.
    """
    config = read_config(Path(run))
    text = None
    if needs_text(config["family"]):
        text = load_text_tower(clip or config["text_source"], device=device)
    head, config = read_head(Path(run), text=text)
    return head.to(pick_device(device)), config


def _origin(store: Store, manifest: Path, needs: Sequence[str]) -> dict[str, Any]:
    """Where a run's data came from: what lets `evaluate` and `predict` find it again."""
    clip = _clip_entry(store)
    return {
        "store": str(store.path.resolve()),
        "manifest": str(manifest.resolve()),
        "manifest_fingerprint": Manifest.read(manifest).fingerprint(),
        "sources": {name: store[f"{CLEAN}/{name}"].entry.source for name in needs},
        "text_source": clip.source if clip else "",
    }


def _clip_entry(store: Store) -> ArrayEntry | None:
    entries = (store[key].entry for key in store)
    return next((e for e in entries if FEATURES[e.spec.name] == "clip"), None)
