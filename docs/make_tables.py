"""Writes the tables that are made from files: `pipelines/README.md` and `docs/reproductions.md`.

Run `python docs/make_tables.py` after changing a recipe or a data set; a test holds them equal.
"""

from collections.abc import Iterable
from pathlib import Path

from clare_cache.manifest.catalogue import read_data_set, shipped_data_sets
from clare_cache.recipe import Recipe, headline, read_recipe, shipped_recipes
from clare_cache.workflow.data_sets import data_sets_of

ROOT = Path(__file__).parents[1]

PIPELINES = """# Pipelines

Experiments as data: one YAML file is one recipe, found by its name (`clare-cache recipe list`). The format
is in [docs/recipe-format.md](../docs/recipe-format.md). Published averages are in percent, the best row's
where a recipe has several; `clare-cache recipe compare` sets every number behind them beside runs. This
table is made by `docs/make_tables.py`.

| recipe | what | published average |
|---|---|---|
"""
REPRODUCTIONS = """# Data sets, recipes, and how far each has been taken

Made by `docs/make_tables.py` from `manifests/` and `pipelines/`. `clare-cache run RECIPE --root DIR` does
all of a recipe; `--root NAME=DIR` says where one data set lies.

What *status* means:

* **runs in miniature**: a test writes a small tree of each of its data sets as published, and `run` goes
  from the manifest to a report with the published columns beside, on `tiny` backbones (a CLIP ResNet has
  its full size and random weights);
* **own images**: it names no data set; `--manifest` or `--data` does.

No recipe has been run with the published weights and images by this project's tests: they ship neither.

## Recipes

| recipe | trained on | tested on | published tables | status |
|---|---|---|---|---|
"""
DATA_SETS = """
## Data sets

| data set | layout | recipes | expected counts |
|---|---|---|---|
"""


def pipelines_readme() -> str:
    """The catalogue of recipes."""
    recipes = {name: read_recipe(name) for name in shipped_recipes()}
    lines = [f"| `{n}` | {r.about.title} | {headline(r)} |" for n, r in recipes.items()]
    return PIPELINES + "\n".join(lines) + "\n"


def reproductions() -> str:
    """Data sets × recipes × status."""
    recipes = {name: read_recipe(name) for name in shipped_recipes()}
    rows = [
        f"| `{name}` | {_named(x for names in recipe.manifest.train.values() for x in names)} "
        f"| {_named(recipe.manifest.test)} | {_named(item.table for item in recipe.expect)} "
        f"| {status(recipe)} |"
        for name, recipe in recipes.items()
    ]
    sets = []
    for name in shipped_data_sets():
        data_set = read_data_set(name)
        used = [n for n, recipe in recipes.items() if name in data_sets_of(recipe.manifest)]
        layouts = _named(part.layout for part in data_set.parts)
        sets.append(f"| `{name}` | {layouts} | {_named(used)} | {len(data_set.expected) or '–'} |")
    return REPRODUCTIONS + "\n".join(rows) + "\n" + DATA_SETS + "\n".join(sets) + "\n"


def status(recipe: Recipe) -> str:
    """How far a recipe is taken by the tests."""
    return "runs in miniature" if recipe.manifest.train else "own images"


def _named(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in dict.fromkeys(names)) or "–"


if __name__ == "__main__":
    (ROOT / "pipelines" / "README.md").write_text(pipelines_readme(), encoding="utf-8")
    (ROOT / "docs" / "reproductions.md").write_text(reproductions(), encoding="utf-8")
