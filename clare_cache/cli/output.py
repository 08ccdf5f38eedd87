"""Results on standard output, for people and for machines."""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

LEDGER_LINES = 20
LONGEST_WORD = 32
"""Longer words, paths mostly, are broken where a table would not fit."""
BORDER = 3
"""A line and two spaces beside every cell; one more line closes the table."""


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
    """A table; cells after the first column are aligned right. Never cut off in a pipe.

    One that could only be as narrow as the terminal with words broken is printed in parts, each
    with the first column.
    """
    console = Console() if sys.stdout.isatty() else Console(width=160)
    cells = [columns, *rows]
    needs = [
        min(
            max((cell_len(word) for row in cells for word in row[k].split()), default=1),
            LONGEST_WORD,
        )
        for k in range(len(columns))
    ]
    wants = [max(cell_len(row[k]) for row in cells) for k in range(len(columns))]
    for number, part in enumerate(_parts(needs, console.width)):
        table = Table()
        if title:
            # Not the table's own: that would be broken to the table's width.
            heading = Text(title if number == 0 else f"{title} (continued)", style="italic")
            console.print(heading, soft_wrap=True)
        widths = _widths([needs[k] for k in part], [wants[k] for k in part], console.width)
        for k, width in zip(part, widths, strict=True):
            justify: Literal["left", "right"] = "left" if k == 0 else "right"
            table.add_column(Text(columns[k]), justify=justify, overflow="fold", width=width)
        for row in rows:
            table.add_row(*(Text(row[k]) for k in part))
        console.print(table)


def _parts(needs: Sequence[int], width: int) -> Iterator[list[int]]:
    """Numbers of the columns of each part: as many as fit with every word whole."""
    part = [0]
    for k in range(1, len(needs)):
        if len(part) > 1 and sum(needs[j] + BORDER for j in (*part, k)) >= width:
            yield part
            part = [0]
        part.append(k)
    yield part


def _widths(needs: Sequence[int], wants: Sequence[int], width: int) -> list[int | None]:
    """Widths of columns: as they want, or what they need and a share of what is left. None leaves
    it to the table, where even the needs do not fit."""
    left = width - 1 - sum(need + BORDER for need in needs)
    if left < 0:
        return [None] * len(needs)
    lacking = [max(want - need, 0) for want, need in zip(wants, needs, strict=True)]
    share = min(left / max(sum(lacking), 1), 1.0)
    return [need + int(share * lack) for need, lack in zip(needs, lacking, strict=True)]


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
