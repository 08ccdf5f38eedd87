"""Test numbers of those members of a sweep that validation chose, and of no others."""

from pathlib import Path

import pandas as pd

from clare_cache.evaluate import BOARD, chosen_runs, mean_over_seeds, read_config
from clare_cache.manifest import Manifest
from clare_cache.recipe import read_recipe
from clare_cache.train.runs import RECIPE_FILE
from clare_cache.workflow.results import evaluate


def score_chosen(
    out: Path, *, clip: str | None = None, device: str = "auto"
) -> pd.DataFrame | None:
    """Test numbers of the first rank in `out`'s leaderboard: mean and deviation over its seeds.

    Its runs are evaluated; no other member's test numbers are looked at. None where the manifest
    has no test split of the recipe.
    """
    board = pd.read_parquet(out / f"{BOARD}.parquet")
    runs = chosen_runs(board, out)
    config, recipe = read_config(runs[0]), read_recipe(runs[0] / RECIPE_FILE)
    there = set(Manifest.read(config["manifest"]).rows["split"])
    splits = [split for split in recipe.evaluate.splits if split in there]
    if not splits:
        return None
    found = mean_over_seeds(evaluate(runs, splits=splits, clip=clip, device=device))
    return found[found["split"].isin(splits)].reset_index(drop=True)
