"""Results on standard output, for people and for machines."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

LEDGER_LINES = 20


def say(text: str) -> None:
    """A line for people that is no result: on standard error."""
    typer.echo(text, err=True)


def print_result(text: str) -> None:
    """A line of the result."""
    typer.echo(text)


def print_json(value: Any) -> None:
    """The result for machines."""
    typer.echo(json.dumps(value, indent=1, default=str))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """A table; cells after the first column are aligned right. Never cut off in a pipe."""
    table = Table(title=title or None, title_justify="left")
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(table)


def print_failures(failures: Sequence[Mapping[str, str]]) -> None:
    """The images in the ledger with their reasons, shortened, on standard error."""
    for failure in failures[:LEDGER_LINES]:
        say(f"  {failure['path']}: {failure['stage']}: {failure['reason']}")
    if len(failures) > LEDGER_LINES:
        say(f"  and {len(failures) - LEDGER_LINES} more")
