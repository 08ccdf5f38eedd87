"""`clare-cache published …`: result tables of the literature, as printed."""

from pathlib import Path
from typing import Annotated

import typer

from clare_cache.cli.options import AsJson
from clare_cache.cli.output import count, print_json, print_result, print_table, say

app = typer.Typer(no_args_is_help=True)

COLUMNS_SHOWN = 14


@app.command("list")
def list_tables() -> None:
    """The tables that ship with this package, with where they stand."""
    from clare_cache.published.tables import published_tables

    for table in published_tables().values():
        print_result(f"{table.name}\t{table.about} [{table.citation}]")


@app.command()
def show(
    table: Annotated[str, typer.Argument(help="A name from `clare-cache published list`.")],
    row: Annotated[
        list[str],
        typer.Option(help="Only rows with this in method, variant, training or view; repeatable."),
    ] = [],  # noqa: B006
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write tidy rows as CSV instead.")
    ] = None,
    json: AsJson = False,
) -> None:
    """A table as printed, test sets down; of many rows the averages alone.

    What is odd about it goes to standard error.
    """
    from clare_cache.published.tables import find_table, read_table

    found, rows = find_table(table), read_table(table)
    names = rows[["method", "variant", "training", "view", "metric"]]
    rows = rows.assign(
        row=[", ".join(part for part in name if part not in ("", "clean"))
             for name in names.itertuples(index=False, name=None)]
    )  # fmt: skip
    for text in row:
        rows = rows[rows["row"].str.contains(text, case=False, regex=False)]
    if output is not None:
        rows.drop(columns="row").to_csv(output, index=False)
        print_result(f"{output}: {count(len(rows), 'number')}")
    elif json:
        print_json(rows.drop(columns="row").to_dict("records"))
    else:
        title = f"{found.citation}: {found.about}, in {found.unit}"
        if rows["row"].nunique() > COLUMNS_SHOWN and found.averages:
            rows = rows[rows["test_set"].isin(list(found.averages))]
            title += "; averages, --row TEXT shows more"
        wide = rows.pivot_table(
            index="test_set", columns="row", values="printed", aggfunc="first", sort=False
        )
        if len(wide.columns) > COLUMNS_SHOWN:
            wide = wide.T
        print_table(
            ["", *map(str, wide.columns)],
            [[str(name), *map(_printed, values)]
             for name, values in zip(wide.index, wide.to_numpy(), strict=True)],
            title=title,
        )  # fmt: skip
    for text in (*found.notes, *found.misprints):
        say(text)


def _printed(value: object) -> str:
    """As printed; numbers from result files with four digits."""
    if isinstance(value, float):
        return "–" if value != value else f"{value:.4f}"
    return str(value) or "–"
