"""Results on standard output, for people and for machines."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

LEDGER_LINES = 20


def say(text: str) -> None:
    """A line for people that is no result: on standard error."""
    typer.echo(text, err=True)


def count(n: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def spoken_seconds(seconds: float) -> str:
    """`2 h 5 min`, `3 min 20 s`."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"


def spoken_bytes(nbytes: int) -> str:
    """`52.4 GB`: three digits, in powers of a thousand."""
    size = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def print_result(text: str) -> None:
    """A line of the result."""
    typer.echo(text)


def print_json(value: Any) -> None:
    """The result for machines: strict JSON, with null for what is missing or not finite."""
    typer.echo(json.dumps(_plain(value), indent=1, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """A table; cells after the first column are aligned right. Never cut off in a pipe."""
    # As Text, because rich reads brackets in a str as markup: `photo [copy].png` is a file name.
    table = Table(title=Text(title) if title else None, title_justify="left")
    for position, column in enumerate(columns):
        justify: Literal["left", "right"] = "left" if position == 0 else "right"
        table.add_column(Text(column), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(table)


def print_failures(failures: Sequence[Mapping[str, str]]) -> None:
    """The images in the ledger with their reasons, shortened, on standard error."""
    for failure in failures[:LEDGER_LINES]:
        say(f"  {failure['path']}: {failure['stage']}: {failure['reason']}")
    if len(failures) > LEDGER_LINES:
        say(f"  and {len(failures) - LEDGER_LINES} more")


def _plain(value: Any) -> Any:
    """The value in types that JSON has; numpy's and pandas' are turned into Python's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    import pandas as pd  # slow to import, and most results never come here

    return None if pd.isna(value) else str(value)
