"""What a sweep found, from validation alone: its settings' effects, its seeds' spread, its first
ranks; and, of a RINE head, which blocks matter. Members need not have been evaluated."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file

from clare_cache.evaluate import leaderboard
from clare_cache.evaluate.leaderboard import SETTING
from clare_cache.report import figures
from clare_cache.report.figures import Panel
from clare_cache.report.seeds import spread, spread_cell
from clare_cache.report.tables import Cell, Column, Table

ROWS, SEED_ROWS = 12, 10
"""First ranks that are shown in the table, and with their seeds."""


@dataclass(frozen=True)
class Sweep:
    """One head of a recipe and what its settings did."""

    name: str
    summary: str
    ranks: Table
    effects: tuple[Panel, ...]
    seeds: tuple[Panel, ...]
    blocks: tuple[Panel, ...]


def describe_sweeps(members: Sequence[Path]) -> list[Sweep]:
    """One record per sweep among these run folders, by the folder that they lie in and by name;
    heads that no sweep varied are left out. Sweeps of other folders may have seen other images."""
    together: dict[Path, list[Path]] = {}
    for run in members:
        together.setdefault(run.resolve().parent, []).append(run)
    found: list[Sweep] = []
    for folder, runs in together.items():
        board = leaderboard(runs)
        settings = [name for name in board if str(name).startswith(SETTING)]
        varied = board[board[settings].notna().any(axis=1)] if settings else board.iloc[:0]
        for name, rows in varied.groupby("sweep", sort=True):
            found.append(
                _describe(
                    f"{name} in {folder.name}" if len(together) > 1 else str(name),
                    rows.dropna(axis=1, how="all"),
                    {path.name: path for path in runs},
                    key=f"w{len(found)}",
                )
            )
    return found


def _describe(name: str, rows: pd.DataFrame, folders: Mapping[str, Path], *, key: str) -> Sweep:
    settings = [c for c in rows if str(c).startswith(SETTING) and c != f"{SETTING}seed"]
    first = rows.iloc[0]
    chosen = ", ".join(f"{_plain(c)} {_spoken(first[str(c)])}" for c in settings)
    seeds = rows[rows["rank"] == first["rank"]]
    n = rows["rank"].nunique()
    summary = (
        f"{len(rows)} members in {n} configuration{'s' if n > 1 else ''}. The first rank, "
        f"{chosen or 'the only one'}, has a validation AUC of {spread(seeds['val_auc'].tolist())}%"
        f"{_over(len(seeds))}."
    )
    return Sweep(
        name=name,
        summary=summary,
        ranks=_ranks(rows, settings),
        effects=tuple(_effect(rows, c, key=f"{key}-{n}") for n, c in enumerate(settings)),
        seeds=_seeds(rows, key=key),
        blocks=_blocks(folders[str(first["label"])], key=key),
    )


def _ranks(rows: pd.DataFrame, settings: Sequence[Hashable]) -> Table:
    firsts = rows.drop_duplicates("rank").head(ROWS)
    own = [rows[rows["rank"] == rank] for rank in firsts["rank"]]
    has_seeds = any(len(mine) > 1 for mine in own)
    hint = "on validation, by the mean over seeds" if has_seeds else "on validation"
    columns = (
        Column("Rank", hint=hint),
        *(Column(_plain(name), numeric=False) for name in settings),
        Column("AUC", band="Validation"),
        Column("AP", band="Validation"),
        Column("Loss", band="Validation"),
        *([Column("Seeds")] if has_seeds else []),
    )
    body = [
        (
            Cell(str(row["rank"])),
            *(Cell(_spoken(row[name]), numeric=False) for name in settings),
            *(spread_cell(mine[n].mean(), mine[n].std()) for n in ("val_auc", "val_ap")),
            _loss(mine["val_loss"]),
            *([Cell(str(len(mine)))] if has_seeds else []),
        )
        for row, mine in zip(firsts.to_dict("records"), own, strict=True)
    ]
    n_more = rows["rank"].nunique() - len(firsts)
    note = f"And {n_more} more in leaderboard.csv." if n_more else ""
    return Table("First ranks on validation", columns, tuple(body), note)


def _loss(values: pd.Series) -> Cell:
    deviation = values.std()
    return Cell(f"{values.mean():.4f}", "" if math.isnan(deviation) else f"± {deviation:.4f}")


def _effect(rows: pd.DataFrame, setting: Hashable, *, key: str) -> Panel:
    """Every member's validation AUC by the value of one setting; the line joins the means."""
    values = rows[setting]
    is_number = bool(values.map(lambda v: isinstance(v, int | float)).all())
    known = sorted(set(values.dropna()), key=None if is_number else str)
    position = {value: float(n) for n, value in enumerate(known)}
    there = values.notna()
    x = values[there].map(position).to_numpy(float)
    y = 100 * rows.loc[there, "val_auc"].to_numpy(float)
    means = [float(y[x == n].mean()) for n in range(len(known))]
    svg = figures.draw_effect(
        x, y, means, ticks=[_spoken(value) for value in known], label=_plain(setting),
        name=f"effect-{key}",
    )  # fmt: skip
    width = max(means) - min(means)
    return Panel(svg, _plain(setting), tag=f"means differ by {width:.1f} points")


def _seeds(rows: pd.DataFrame, *, key: str) -> tuple[Panel, ...]:
    """The seeds of the first ranks, one row of dots for each."""
    if not (rows["n_seeds"] > 1).any():
        return ()
    ranks = sorted(rows["rank"].unique())[:SEED_ROWS]
    groups = [100 * rows.loc[rows["rank"] == rank, "val_auc"].to_numpy(float) for rank in ranks]
    svg = figures.draw_spread(groups, ticks=[str(rank) for rank in ranks], name=f"seeds-{key}")
    return (Panel(svg, "Seeds of the first ranks"),)


def _blocks(run: Path, *, key: str) -> tuple[Panel, ...]:
    """Of a head with trained block importance: each block's share, mean over features."""
    try:
        weights = load_file(run / "head.safetensors")
    except (OSError, SafetensorError):
        return ()
    if "alpha" not in weights:
        return ()
    alpha = weights["alpha"][0].astype(float)
    shares = np.exp(alpha - alpha.max(axis=0))
    shares = (shares / shares.sum(axis=0)).mean(axis=1)
    svg = figures.draw_bars(100 * shares, x="block", y="share, %", name=f"blocks-{key}")
    title = f"Importance of CLIP's blocks in {run.name}"
    return (Panel(svg, title, tag="dashed: all alike"),)


def _plain(setting: Hashable) -> str:
    return str(setting).removeprefix(SETTING)


def _spoken(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:g}"
    return str(value)


def _over(n_seeds: int) -> str:
    return f", mean ± deviation over {n_seeds} seeds" if n_seeds > 1 else ""
