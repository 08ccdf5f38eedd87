"""`clare-cache recipe …`: experiments as data."""

from pathlib import Path
from typing import Annotated

import typer

from clare_cache.cli.options import AsJson, RecipeName, RunFolders
from clare_cache.cli.output import count, print_json, print_result, print_table

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_recipes() -> None:
    """The recipes that ship with this package, by paper, with their published averages."""
    from clare_cache.recipe import headline, read_recipe, shipped_recipes

    paper = ""
    for name, path in shipped_recipes().items():
        recipe = read_recipe(path)
        if name.partition("/")[0] != paper:
            paper = name.partition("/")[0]
            print_result(f"{paper}: {recipe.about.paper}" if recipe.about.paper else paper)
        numbers = headline(recipe)
        print_result(f"  {name}\t{recipe.about.title}{f' [{numbers}]' if numbers else ''}")


@app.command()
def show(recipe: RecipeName) -> None:
    """A recipe with every default written out."""
    from clare_cache.recipe import read_recipe

    print_result(read_recipe(recipe).to_yaml())


@app.command()
def check(recipe: RecipeName) -> None:
    """List every fault of a recipe at once, its heads' options and published rows included."""
    from clare_cache.published.tables import check_expectations
    from clare_cache.recipe import find_recipe, read_recipe
    from clare_cache.workflow.members import needs_of

    found = read_recipe(recipe)
    needs_of(found.head)
    n_rows = check_expectations(found.expect, {head.label: head.options for head in found.head})
    print_result(
        f"{find_recipe(recipe)}: {count(len(found.head), 'head')}, "
        f"{count(n_rows, 'published row')}, no faults"
    )


@app.command()
def compare(
    recipe: RecipeName,
    runs: RunFolders,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a CSV instead of a table.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Set evaluated runs beside the numbers that a recipe expects, with intervals and verdicts."""
    from clare_cache.recipe import read_recipe
    from clare_cache.workflow.results import compare as compare_runs

    found = compare_runs(read_recipe(recipe), runs)
    records = [{**vars(item), "difference": item.difference} for item in found]
    if output is not None:
        import pandas as pd

        pd.DataFrame(records).to_csv(output, index=False)
        print_result(f"{output}: {count(len(records), 'published number')}")
    elif json:
        print_json(records)
    else:
        print_table(
            ["head", "published row", "test set", "published", "measured", "95%", "verdict"],
            [
                [
                    item.head,
                    f"{item.table} {item.row}" + ("" if item.view == "clean" else f", {item.view}"),
                    f"{item.test_set} {item.metric}",
                    _percent(item.published),
                    _percent(item.measured),
                    "–" if item.low is None else f"{_percent(item.low)}–{_percent(item.high)}",
                    item.verdict + (f": {item.reason}" if item.reason else ""),
                ]
                for item in found
            ],
        )
    verdicts = [item.verdict for item in found]
    counts = {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}
    summary = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    if not json:
        print_result(f"measured seen from published: {summary or 'nothing is expected'}")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
