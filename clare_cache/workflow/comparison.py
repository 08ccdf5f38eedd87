"""Measured beside published, for runs as they lie on the disk."""

from collections.abc import Sequence
from pathlib import Path

from clare_cache.evaluate import Comparison, assess_run, compare_run
from clare_cache.recipe import Recipe
from clare_cache.workflow.results import find_runs


def compare(recipe: Recipe, runs: Sequence[str | Path]) -> list[Comparison]:
    """Every published number that the recipe expects, beside each evaluated run's.

    Raises ReportError for runs without scores and for published rows that do not exist.
    """
    found = [assess_run(run) for run in find_runs(runs)]
    n = recipe.evaluate.n_resamples
    return [item for run in found for item in compare_run(run, recipe.expect, n_resamples=n)]
