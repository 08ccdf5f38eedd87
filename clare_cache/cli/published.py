"""`clare-cache published …`: result tables of the literature, as printed."""

from pathlib import Path
from typing import Annotated

import typer

from clare_cache.cli.options import AsJson
from clare_cache.cli.output import count, print_json, print_result, print_table, say

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_tables() -> None:
    """The tables that ship with this package, with where they stand."""
    from clare_cache.published.tables import published_tables

    for table in published_tables().values():
        print_result(f"{table.name}\t{table.about} [{table.citation}]")


@app.command()
def show(
    table: Annotated[str, typer.Argument(help="A name from `clare-cache published list`.")],
    method: Annotated[str, typer.Option(help="Only methods whose name contains this.")] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write tidy rows as CSV instead.")
    ] = None,
    json: AsJson = False,
) -> None:
    """A table with test sets across, values as printed; what is odd about it on standard error."""
    from clare_cache.published.tables import find_table, read_table

    found, rows = find_table(table), read_table(table)
    rows = rows[rows["method"].str.contains(method, case=False, regex=False)]
    if output is not None:
        rows.to_csv(output, index=False)
        print_result(f"{output}: {count(len(rows), 'number')}")
    elif json:
        print_json(rows.to_dict("records"))
    else:
        keys = ["method", "variant", "training", "view", "metric"]
        shown = rows.assign(test_set=rows["test_set"].replace("", "-"))
        wide = shown.pivot_table(
            index=keys, columns="test_set", values="printed", aggfunc="first", sort=False
        )
        print_table(
            ["row", *map(str, wide.columns)],
            [
                [
                    ", ".join(part for part in key if part and part != "clean"),
                    *map(_printed, values),
                ]
                for key, values in zip(wide.index, wide.to_numpy(), strict=True)
            ],
            title=f"{found.citation}: {found.about}, in {found.unit}",
        )
    for text in (*found.notes, *found.misprints):
        say(text)


def _printed(value: object) -> str:
    """As printed; numbers from result files with four digits."""
    if isinstance(value, float):
        return "–" if value != value else f"{value:.4f}"
    return str(value) or "–"
