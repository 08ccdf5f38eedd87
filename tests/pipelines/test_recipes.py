"""Every shipped recipe is valid, names real heads and options, and stands on its own."""

from pathlib import Path

import pytest

from clare_cache.heads import head_needs
from clare_cache.recipe import find_recipe, parse_recipe, read_recipe, shipped_recipes

FOLDER = Path(__file__).parents[2] / "pipelines"


def test_the_shipped_recipes_are_those_of_the_folder():
    found = {p.relative_to(FOLDER).with_suffix("").as_posix() for p in FOLDER.rglob("*.yaml")}
    assert set(shipped_recipes()) == found
    assert {"demo/tiny", "starter/three-heads"} <= found


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_a_shipped_recipe_is_valid(name):
    recipe = read_recipe(name)
    for section in recipe.head:
        assert head_needs(section.family, **section.options)
    text = find_recipe(name).read_text()
    assert not [line for line in text.splitlines() if ": /" in line], "no absolute paths"


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_a_resolved_recipe_says_the_same(name):
    import yaml

    recipe = read_recipe(name)
    assert parse_recipe(yaml.safe_load(recipe.to_yaml()), where="again") == recipe


def test_the_catalogue_lists_every_recipe():
    table = (FOLDER / "README.md").read_text()
    listed = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
    assert listed == set(shipped_recipes())
