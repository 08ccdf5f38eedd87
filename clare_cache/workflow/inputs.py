"""What stage two works on: a manifest divided, a recipe that fits the store, its text tower."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from clare_cache.backbones import backbone_of, load_text_tower, settings_of
from clare_cache.backbones.config import ClipConfig, ErrorMapConfig
from clare_cache.data.regions import stored
from clare_cache.errors import HeadError, TrainError, raise_faults
from clare_cache.evaluate import TRAINING, VALIDATION
from clare_cache.fingerprint import differences
from clare_cache.heads.protocol import TextTower
from clare_cache.manifest import Manifest, hold_out_generators, split_by_group
from clare_cache.recipe import Backbones, Recipe
from clare_cache.store import ArrayEntry, Store
from clare_cache.types import CLEAN, FAKE, REAL
from clare_cache.workflow.features import settings_from


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
    share, seed = recipe.train.validation_fraction, recipe.train.seed
    if len(validation):
        both = pd.concat([train.rows, validation.rows.assign(split="val")], ignore_index=True)
        divided = Manifest.from_rows(both)
    else:
        divided = split_by_group(train, {"train": 1 - share, "val": share}, seed=seed)
    if recipe.train.validate_on == "held-out-generator":
        divided, _ = hold_out_generators(divided, share=share, seed=seed)
    parts = divided.where(split="train"), divided.where(split="val")
    if not len(validation) and any(part.rows["label"].nunique() < 2 for part in parts):
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
        advice="`clare-cache manifest check` lists all; `clare-cache manifest split --replace` "
        "divides anew.",
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


def origin(store: Store, needs: Sequence[str]) -> dict[str, Any]:
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
