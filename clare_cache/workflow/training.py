"""Stage two as the user calls it: a recipe, a store and a manifest in, run folders out."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from clare_cache.backbones import backbone_of, load_text_tower, settings_of
from clare_cache.backbones.config import ClipConfig, ErrorMapConfig
from clare_cache.backbones.numerics import pick_device
from clare_cache.data import load
from clare_cache.data.regions import stored
from clare_cache.errors import HeadError, TrainError, raise_faults
from clare_cache.evaluate import TRAINING, VALIDATION, read_config
from clare_cache.extraction.versions import warn_of_other_versions
from clare_cache.fingerprint import differences
from clare_cache.heads import build_head, head_needs, needs_text
from clare_cache.heads.files import load_head as read_head
from clare_cache.heads.protocol import Head, TextTower
from clare_cache.manifest import Manifest, split_by_group
from clare_cache.recipe import Backbones, Recipe
from clare_cache.seeds import seed_for
from clare_cache.store import ArrayEntry, Store, open_store
from clare_cache.train.loop import Member, train_members
from clare_cache.train.runs import describe_run, save_run
from clare_cache.types import CLEAN, FAKE, REAL, OnProgress, ignore_progress
from clare_cache.workflow.features import settings_from


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
    opened, rows = open_store(store), Manifest.read(manifest)
    train_rows, validation_rows = hold_out(rows, recipe)
    needs = sorted(
        {n for h in recipe.head for n in head_needs(h.family, reads=h.reads, **h.options)}
    )
    recipe = as_extracted(recipe, opened, needs)
    warn_of_other_versions(
        opened.place, (r for n in stored(needs) for r in opened[f"{CLEAN}/{n}"].records.values())
    )
    read = partial(load, opened, needs=needs, device=pick_device(device), on_progress=on_progress)
    train, validation = read(train_rows), read(validation_rows)
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
                reads=section.reads,
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
        description |= {
            "manifest": str(Path(manifest).resolve()),
            "manifest_fingerprint": rows.fingerprint(),
            **_origin(opened, result.head.needs),
        }
        alone = recipe.with_heads([sections[result.label]])
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
    """The rows to train on and the rows to choose on (split "val" in either result).

    Raises TrainError when there is no split "train", and, all at once, for groups or images that
    lie in two splits and for images with two labels: any of these makes a number flatter.
    """
    _refuse_leaks(manifest)
    train, validation = manifest.where(split=TRAINING), manifest.where(split=VALIDATION)
    if not len(train):
        splits = sorted(set(manifest.rows["split"]))
        raise TrainError(
            f"train-head: expected images of split train, found splits "
            f"{', '.join(s or '(none)' for s in splits)}. "
            "Name folders train/ and test/, or use `clare-cache manifest split`."
        )
    if len(validation):
        return train, Manifest.from_rows(validation.rows.assign(split="val"))
    share = recipe.train.validation_fraction
    divided = split_by_group(train, {"train": 1 - share, "val": share}, seed=recipe.train.seed)
    parts = divided.where(split="train"), divided.where(split="val")
    if any(part.rows["label"].nunique() < 2 for part in parts):
        counts = train.rows.groupby("label")["group"].nunique()
        raise TrainError(
            f"train-head: split train has {counts.get(REAL, 0)} groups with real and "
            f"{counts.get(FAKE, 0)} with fake images; holding out whole groups left a part without "
            "one of them. Name a val/ folder, or build the manifest with finer groups."
        )
    return parts


def _refuse_leaks(manifest: Manifest) -> None:
    rows = manifest.rows[manifest.rows["split"] != ""]
    faults = []
    for column, what in (("group", "split"), ("image_id", "split"), ("image_id", "label")):
        counts = rows.groupby(column, sort=True)[what].nunique()
        if len(shared := counts.index[counts > 1]):
            examples = ", ".join(str(value) for value in shared[:3])
            faults.append(f"{column} with two {what}s: {len(shared)}, for example {examples}")
    raise_faults(
        TrainError,
        "train-head: the manifest's splits leak into each other",
        faults,
        advice="`clare-cache manifest check` lists all; `clare-cache manifest split` divides anew.",
    )


def as_extracted(recipe: Recipe, store: Store, needs: Sequence[str]) -> Recipe:
    """The recipe with the backbones that the store's features were made with.

    Raises TrainError listing each setting that the recipe states otherwise. Precision is the
    extraction's own affair and is taken over.
    """
    entries = {name: store[f"{CLEAN}/{name}"].entry for name in stored(needs)}
    declared: dict[str, dict[str, Any]] = {"error_map": {}, "clip": {}}
    sources: dict[str, str | None] = {"error_map": None, "clip": None}
    for name, entry in entries.items():
        backbone = backbone_of(name)
        if backbone is not None:
            declared[backbone].update(settings_of(name, entry.declared))
            sources[backbone] = entry.source
    found = Backbones(
        sd=sources["error_map"],
        clip=sources["clip"],
        error_map=settings_from(ErrorMapConfig, declared["error_map"]),
        image_tower=settings_from(ClipConfig, declared["clip"]),
    )
    faults = []
    for section, made in (("error_map", "error_map"), ("image_tower", "clip")):
        if section not in recipe.backbones.model_fields_set or not declared[made]:
            continue
        asked = asdict(getattr(recipe.backbones, section))
        asked = {k: v for k, v in asked.items() if k in declared[made] and "dtype" not in k}
        there = {key: declared[made][key] for key in asked}
        faults += [f"{section}.{phrase}" for phrase in differences(asked, there)]
    raise_faults(
        TrainError,
        f"store {store.place}: its features are not those of recipe {recipe.about.title}",
        faults,
        advice="Extract as the recipe says, or change its `backbones`.",
    )
    return recipe.model_copy(update={"backbones": found})


def text_tower(store: Store, *, clip: str | None, device: str) -> TextTower:
    """The text tower of the CLIP whose image features are in the store.

    Raises HeadError when its weights are not those of the store's image tower.
    """
    entry = _clip_entry(store)
    if entry is None:
        raise HeadError(
            f"store {store.place}: prompt heads need CLIP features, found {', '.join(store)}. "
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


def load_head(run: str | Path, *, clip: str | None = None, device: str = "auto") -> Head:
    """A trained head in evaluation mode.

    Prompt heads get their text tower; `clip` says where its weights lie now, by default where
    they came from. Raises HeadError when the tower is another one.
    """
    return load_run(run, clip=clip, device=device)[0]


def load_run(
    run: str | Path, *, clip: str | None = None, device: str = "auto"
) -> tuple[Head, dict[str, Any]]:
    """A trained head as `load_head` gives it, and its `config.json`."""
    config = read_config(Path(run))
    text = None
    if needs_text(config["family"]):
        text = load_text_tower(clip or config["text_source"], device=device)
    head, config = read_head(Path(run), text=text)
    return head.to(pick_device(device)), config


def _origin(store: Store, needs: Sequence[str]) -> dict[str, Any]:
    """Where a run's features came from: what lets `evaluate` and `predict` find them again."""
    clip = _clip_entry(store)
    return {
        "store": str(store.place.resolve()),
        "sources": {name: store[f"{CLEAN}/{name}"].entry.source for name in stored(needs)},
        "text_source": clip.source if clip else "",
    }


def _clip_entry(store: Store) -> ArrayEntry | None:
    entries = (store[key].entry for key in store)
    return next((e for e in entries if backbone_of(e.spec.name) == "clip"), None)
