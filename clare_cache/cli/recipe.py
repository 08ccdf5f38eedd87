"""`clare-cache recipe …`: experiments as data."""

from typing import Annotated

import typer

from clare_cache.cli.output import print_result

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")]


@app.command("list")
def list_recipes() -> None:
    """The recipes that ship with this package."""
    from clare_cache.recipe import read_recipe, shipped_recipes

    for name, path in shipped_recipes().items():
        print_result(f"{name}\t{read_recipe(path).about.title}")


@app.command()
def show(recipe: Name) -> None:
    """A recipe with every default written out."""
    from clare_cache.recipe import read_recipe

    print_result(read_recipe(recipe).to_yaml())


@app.command()
def check(recipe: Name) -> None:
    """List every fault of a recipe at once."""
    from clare_cache.recipe import find_recipe, read_recipe

    found = read_recipe(recipe)
    print_result(f"{find_recipe(recipe)}: {len(found.head)} heads, no faults")
