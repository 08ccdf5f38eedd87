"""Test numbers of those members of a sweep that validation chose, and of no others."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from clare_cache.evaluate import BOARD, chosen_runs, leaderboard, mean_over_seeds, read_config
from clare_cache.files import read_frame
from clare_cache.manifest import Manifest
from clare_cache.recipe import read_recipe
from clare_cache.train.runs import RECIPE_FILE
from clare_cache.workflow.results import evaluate, find_runs


def score_chosen(
    out: Path, *, clip: str | None = None, device: str = "auto"
) -> pd.DataFrame | None:
    """Test numbers of the first rank in `out`'s leaderboard: mean and deviation over its seeds.

    Its runs are evaluated; no other member's test numbers are looked at. None where the manifest
    has no test split of the recipe.
    """
    board = read_frame(out / f"{BOARD}.parquet")
    runs = chosen_runs(board, out)
    config, recipe = read_config(runs[0]), read_recipe(runs[0] / RECIPE_FILE)
    there = set(Manifest.read(config["manifest"]).rows["split"])
    splits = [split for split in recipe.evaluate.splits if split in there]
    if not splits:
        return None
    found = mean_over_seeds(evaluate(runs, splits=splits, clip=clip, device=device))
    return found[found["split"].isin(splits)].reset_index(drop=True)


@dataclass(frozen=True)
class Choice:
    """What validation chose of a sweep: its folder, its members, and the first rank's runs."""

    folder: Path
    n_members: int
    runs: tuple[Path, ...]


def choose_members(paths: Sequence[Path]) -> tuple[list[Path], list[Choice]]:
    """The run folders at and below `paths` that may see test images, and how sweeps were cut.

    Of a folder's sweep only the members of its first rank on validation are kept, one for each
    seed. Heads that no sweep varied, and run folders that are named themselves, are all kept.
    Raises ReportError for a path that is neither a run folder nor holds one.
    """
    kept: list[Path] = []
    choices = []
    for path in paths:
        found = find_runs([path])
        swept = (
            [] if found == [path] else [run for run in found if read_config(run).get("settings")]
        )
        chosen = chosen_runs(leaderboard(swept), path) if swept else []
        kept += [run for run in found if run not in swept or run in chosen]
        if len(chosen) < len(swept):
            choices.append(Choice(path, len(swept), tuple(chosen)))
    return kept, choices
