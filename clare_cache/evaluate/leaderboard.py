"""The members of a sweep ranked by their validation numbers. Test numbers play no part in it."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clare_cache.evaluate.run import read_config
from clare_cache.files import write_text, write_whole

BOARD_COLUMNS = {
    "rank": "place of its configuration, best first; seeds of one configuration share it",
    "label": "run folder",
    "sweep": "head of the recipe that it is a combination of, or its label",
    "family": "family of the head",
    "seed": "decides initial weights and dropout",
    "val_auc": "area under the ROC curve on validation, at the kept epoch",
    "val_ap": "average precision on validation",
    "val_loss": "cross-entropy on validation",
    "val_coverage": "share of the validation images that have features",
    "mean": "mean of what the ranking looks at, over the seeds of this configuration",
    "deviation": "its standard deviation over them; nothing for a single seed",
    "n_seeds": "seeds of this configuration",
    "best_epoch": "epoch that was kept, counted from 1",
    "threshold": "probability above which an image counts as fake",
    "n_parameters": "parameters of the head, frozen ones included",
    "seconds": "its share of the training time",
    "note": "why training stopped early, if it did",
}
"""Columns before those of the settings that the sweep varied, `settings.NAME`."""

BOARD = "leaderboard"
"""Name of the files below `out` with all members, ranked."""

SETTING = "settings."


def leaderboard(runs: Sequence[Path]) -> pd.DataFrame:
    """One row per run, best configuration first; columns BOARD_COLUMNS, then the settings.

    Configurations are ranked by the mean over their seeds of what chose the epoch (`train.select`;
    `val_auc` where that was the last epoch), ties by the lower loss. Raises ReportError for
    folders that are no runs.
    """
    rows = [_row(read_config(run)) for run in runs]
    table = pd.DataFrame(rows)
    settings = [name for name in table if str(name).startswith(SETTING)]
    if table.empty:
        return pd.DataFrame(columns=list(BOARD_COLUMNS))
    by = [name for name in settings if name != f"{SETTING}seed"]
    key = pd.Series(
        ["\x00".join(map(str, row)) for row in table[["sweep", *by]].to_numpy(object)], table.index
    )
    table["mean"] = table.groupby(key)["value"].transform("mean")
    table["deviation"] = table.groupby(key)["value"].transform("std")
    table["n_seeds"] = table.groupby(key)["value"].transform("size")
    loss = table.groupby(key)["val_loss"].transform("mean")
    order = pd.DataFrame({"mean": -table["mean"], "loss": loss, "key": key, "own": -table["value"]})
    order = order.sort_values(["mean", "loss", "key", "own"], kind="stable")
    table = table.loc[order.index]
    table["rank"] = pd.factorize(key.loc[order.index])[0] + 1
    return table[[*BOARD_COLUMNS, *settings]].reset_index(drop=True)


def write_leaderboard(out: Path, labels: Sequence[str]) -> pd.DataFrame:
    """`leaderboard.csv` and `.parquet` in `out`, of these run folders below it."""
    board = leaderboard([out / label for label in labels])
    write_text(out / f"{BOARD}.csv", board.to_csv(index=False))
    # A setting may be a number in one member and a word in another.
    mixed = [name for name in board if board[name].dtype == object]
    plain = board.assign(**{str(name): board[name].astype("string") for name in mixed})
    write_whole(out / f"{BOARD}.parquet", partial(plain.to_parquet, index=False))
    return board


def chosen_runs(board: pd.DataFrame, out: Path) -> list[Path]:
    """The run folders of the best configuration: one for each seed."""
    return [out / label for label in board.loc[board["rank"] == 1, "label"]]


def mean_over_seeds(tables: Mapping[Path, pd.DataFrame]) -> pd.DataFrame:
    """Test numbers of several seeds of one configuration: per row of the tidy table (split, view,
    generator …) mean and standard deviation of AP, AUC and accuracy."""
    place = ["split", "view", "source", "generator"]
    numbers = ["average_precision", "auc", "accuracy_validation_threshold"]
    every = pd.concat(tables.values(), ignore_index=True)
    grouped = every.groupby(place, sort=False)[numbers]
    found = grouped.mean().add_suffix("_mean").join(grouped.std().add_suffix("_deviation"))
    return found.reset_index()


def _coverage(train: Mapping[str, Any]) -> float:
    there, missing = train.get("n_validation_images"), train.get("n_validation_missing", 0)
    return np.nan if not there else there / (there + missing)


def _row(config: Mapping[str, Any]) -> dict[str, Any]:
    train, validation = config.get("train", {}), config.get("validation", {})
    select = train.get("select", "val_auc")
    name = "val_auc" if select == "last" else select
    value = validation.get(name, np.nan)
    return {
        "label": config["label"],
        "sweep": config.get("sweep") or config["label"],
        "family": config["family"],
        "seed": config.get("seed_of_run"),
        **{key: validation.get(key, np.nan) for key in ("val_auc", "val_ap", "val_loss")},
        "val_coverage": _coverage(train),
        "value": -value if name == "val_loss" else value,
        "best_epoch": train.get("best_epoch"),
        "threshold": config["threshold"],
        "n_parameters": config.get("n_parameters"),
        "seconds": train.get("seconds"),
        "note": train.get("retired", ""),
        **{f"{SETTING}{key}": value for key, value in config.get("settings", {}).items()},
    }
