"""Every shipped recipe is valid, names real heads and options, and stands on its own."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from clare_cache.heads import head_needs
from clare_cache.published.tables import check_expectations
from clare_cache.recipe import (
    find_recipe,
    parse_recipe,
    read_recipe,
    shipped_recipes,
)

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


def test_the_tables_are_what_the_files_say():
    spec = spec_from_file_location("make_tables", FOLDER.parent / "docs" / "make_tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = module_from_spec(spec)
    spec.loader.exec_module(tables)
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == tables.pipelines_readme()
    written = (FOLDER.parent / "docs" / "reproductions.md").read_text(encoding="utf-8")
    assert written == tables.reproductions()


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_published_rows_and_averages_are_those_of_the_tables(name):
    recipe = read_recipe(name)
    check_expectations(recipe.expect, {head.label: head.options for head in recipe.head})
    if name.partition("/")[0] in ("clare", "rine", "ufd"):
        assert recipe.expect
        assert all(item.average or "{" in item.variant for item in recipe.expect)


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_a_recipe_of_a_paper_says_where_it_differs_and_on_which_images(name):
    recipe = read_recipe(name)
    papers = {read_recipe(n).about.paper for n in shipped_recipes()
              if n.partition("/")[0] == name.partition("/")[0]}  # fmt: skip
    assert papers == {recipe.about.paper}
    if recipe.about.paper:
        assert recipe.deviations
        assert recipe.manifest.train
        assert recipe.manifest.test
