"""What `train-head` prints: the sweep before it starts, its members ranked, the chosen one."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clare_cache.cli.output import count, print_result, print_table, say

if TYPE_CHECKING:
    from pandas import DataFrame

    from clare_cache.workflow.forecast import Forecast
    from clare_cache.workflow.training import Plan

ROWS_SHOWN, LABELS_SHOWN = 30, 6


def show_forecast(passes: "Sequence[Forecast]", finished: Sequence[str]) -> None:
    """Heads by pass over the data, with what each pass would take."""
    rows = [
        [
            str(number),
            str(len(found.labels)),
            str(found.n_stacks),
            f"{found.n_steps:,}",
            _duration(found.seconds),
            f"{found.memory_nbytes / 2**30:.1f} GiB",
            f"{found.data_nbytes / 2**30:.1f} GiB",
        ]
        for number, found in enumerate(passes, start=1)
    ]
    print_table(
        ["pass", "heads", "stacks", "steps", "time", "memory of heads", "features"],
        rows,
        title="predicted from a few timed steps; reading streamed features comes on top",
    )
    for number, found in enumerate(passes, start=1):
        for label in found.labels:
            print_result(f"  {number}  {label}")
    if finished:
        say(f"{count(len(finished), 'head')} finished already: {', '.join(finished)}")


def show_plan(plan: "Plan") -> None:
    """What is there of a sweep that was begun before; nothing where all of it is new."""
    if plan.finished:
        say(f"{count(len(plan.finished), 'head')} finished already, not trained again")
    if plan.going_on:
        say(
            f"{count(len(plan.going_on), 'head')} cut off before, going on: {_named(plan.going_on)}"
        )
        if plan.starting:
            say(f"{count(len(plan.starting), 'head')} from the start: {_named(plan.starting)}")
    if plan.waiting:
        say(
            f"{count(len(plan.waiting), 'head')} cut off before and not asked for now, kept in "
            f".training below --out: {_named(plan.waiting)}. Delete it to give them up."
        )


def _named(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - LABELS_SHOWN} more" if len(labels) > LABELS_SHOWN else ""
    return ", ".join(labels[:LABELS_SHOWN]) + more


def show_board(out: Path) -> None:
    """The members ranked on validation; all of them are in leaderboard.csv."""
    from clare_cache.evaluate import BOARD
    from clare_cache.files import read_frame

    board = read_frame(out / f"{BOARD}.parquet")
    has_seeds = bool((board["n_seeds"] > 1).any())
    rows = [
        [
            str(row["label"]),
            str(row["rank"]),
            *(f"{row[name]:.4f}" for name in ("val_auc", "val_ap", "val_loss")),
            f"{row['val_coverage']:.1%}",
            *([_mean(row["mean"], row["deviation"], row["n_seeds"])] if has_seeds else []),
            str(row["best_epoch"]),
            f"{row['threshold']:.3f}",
            f"{row['n_parameters']:,}",
        ]
        for row in board.head(ROWS_SHOWN).to_dict("records")
    ]
    print_table(
        ["run", "rank", "val AUC", "val AP", "val loss", "coverage",
         *(["over seeds"] if has_seeds else []), "epoch", "threshold", "parameters"],
        rows,
        title=f"ranked on validation (all in {out / f'{BOARD}.csv'})",
    )  # fmt: skip
    if len(board) > ROWS_SHOWN:
        print_result(f"and {len(board) - ROWS_SHOWN} more")
    for row in board[board["note"] != ""].to_dict("records"):
        say(f"{out / str(row['label'])}: stopped early, {row['note']}")


def show_chosen(out: Path, *, clip: str | None, device: str) -> bool:
    """Test numbers of the best configuration on validation, over its seeds; False without any."""
    from clare_cache.evaluate import ALL
    from clare_cache.workflow.leaders import score_chosen

    table = score_chosen(out, clip=clip, device=device)
    if table is None:
        print_result("no test split of the recipe is in the manifest: no test numbers")
        return False
    has_sources = (table.loc[table["generator"] == ALL, "source"] != ALL).any()
    rows = [
        [
            ", ".join(
                str(row[name])
                for name in ("split", "view", *(["source"] if has_sources else []), "generator")
            ),
            *(
                _mean(row[f"{name}_mean"], row[f"{name}_deviation"], 2)
                for name in ("average_precision", "auc", "accuracy_validation_threshold")
            ),
        ]
        for row in table.to_dict("records")
    ]
    print_table(
        ["test set", "AP", "AUC", "accuracy"], rows, title="test numbers of the first rank alone"
    )
    return True


def show_scores(table: "DataFrame", *, title: str) -> None:
    """The tidy table of one run in short; with sources where there are several."""
    from clare_cache.evaluate import ALL

    rows = table.to_dict("records")
    has_sources = bool((table.loc[table["generator"] == ALL, "source"] != ALL).any())
    print_table(
        ["split", "view", *(["source"] if has_sources else []), "generator", "seen", "n",
         "coverage", "AP", "AUC", "accuracy"],
        [
            [
                str(row["split"]),
                str(row["view"]),
                *([str(row["source"])] if has_sources else []),
                str(row["generator"]),
                _seen(row) if row["generator"] != ALL else "",
                f"{row['n_scored']}/{row['n_asked']}",
                f"{row['coverage']:.1%}",
                *(
                    "–" if row[name] is None or row[name] != row[name] else f"{row[name]:.3f}"
                    for name in ("average_precision", "auc", "accuracy_validation_threshold")
                ),
            ]
            for row in rows
        ],
        title=title,
    )  # fmt: skip


def _seen(row: Mapping[Hashable, Any]) -> str:
    """What the head has met of the row's generator; empty where it is not known."""
    trained, validated = row["seen_in_training"], row["seen_in_validation"]
    if trained is True:
        return "in training"
    if validated is True:
        return "in validation"
    return "unseen" if trained is False else ""


def _mean(mean: float, deviation: float, n: int) -> str:
    if mean != mean:
        return "–"
    return f"{mean:.4f}" if n < 2 or deviation != deviation else f"{mean:.4f} ± {deviation:.4f}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
