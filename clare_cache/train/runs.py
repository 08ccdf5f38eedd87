"""The folder that a trained head leaves behind, and what it says of its making."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clare_cache.data import FeatureData
from clare_cache.files import write_text
from clare_cache.heads.files import save_head
from clare_cache.train.config import TrainConfig
from clare_cache.train.loop import Trained
from clare_cache.types import FAKE

HISTORY_FILE = "history.jsonl"
RECIPE_FILE = "recipe.yaml"
SCORE_FILES = ("predictions.parquet", "metrics.json", "metrics.csv", "README.md")
"""What evaluation adds to a run folder."""


def describe_run(
    trained: Trained, train: FeatureData, validation: FeatureData, config: TrainConfig
) -> dict[str, Any]:
    """What `config.json` says beside the head itself: how it was trained, chosen and on what."""
    fakes, chosen_on = (
        set(data.rows.loc[data.rows["label"] == FAKE, "generator"]) for data in (train, validation)
    )
    return {
        "label": trained.label,
        "threshold": trained.threshold,
        "threshold_from": _spoken(validation, fakes, chosen_on),
        "validation": dict(trained.validation),
        "train": {
            **config.model_dump(),
            "optimiser": trained.optimiser.model_dump(),
            "best_epoch": trained.best_epoch,
            "retired": trained.retired,
            "seconds": round(trained.seconds, 3),
            "n_images": len(train),
            "n_missing": len(train.missing),
            "n_validation_images": len(validation),
            "n_validation_missing": len(validation.missing),
            "generators": sorted(fakes),
            "validation_generators": sorted(chosen_on),
        },
        "features": {
            name: value for name, value in train.fingerprints.items() if name in trained.head.needs
        },
        "versions": {name: version(name) for name in ("clare-cache", "torch", "numpy")},
    }


def _spoken(validation: FeatureData, trained_on: set[str], chosen_on: set[str]) -> str:
    rows = validation.rows
    text = f"validation: {len(rows)} images of {rows['group'].nunique()} groups"
    if missing := len(validation.missing):
        text += f", {missing} more without features"
    if chosen_on.isdisjoint(trained_on):
        text += f"; fakes of {', '.join(sorted(chosen_on))}, not trained on"
    return text


def save_run(
    folder: Path, trained: Trained, *, description: Mapping[str, Any], recipe: str
) -> None:
    """Write `head.safetensors`, `config.json`, `history.jsonl` and `recipe.yaml`.

    Scores of a head that was there before are removed first: they would pass for this one's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in SCORE_FILES:
        (folder / name).unlink(missing_ok=True)
    write_text(folder / RECIPE_FILE, recipe)
    lines = [json.dumps(line, allow_nan=False) for line in trained.history]
    write_text(folder / HISTORY_FILE, "\n".join(lines) + "\n")
    save_head(trained.head, folder, extra=description)
