"""Predictions of a run → tidy scores, their files, and a model card.

Scores come from predictions alone: nothing here sees an image, a store or a head, chooses a
threshold, or replaces what is missing.
"""

from clare_cache.evaluate.card import write_card
from clare_cache.evaluate.compare import Comparison, compare_run
from clare_cache.evaluate.leaderboard import (
    BOARD,
    BOARD_COLUMNS,
    chosen_runs,
    leaderboard,
    mean_over_seeds,
    write_leaderboard,
)
from clare_cache.evaluate.matrix import MATRIX_COLUMNS, cross_table
from clare_cache.evaluate.predictions import (
    PREDICTION_COLUMNS,
    compare_coverage,
    read_predictions,
)
from clare_cache.evaluate.run import (
    Evaluation,
    assess_run,
    evaluate_run,
    read_config,
)
from clare_cache.evaluate.table import (
    ALL,
    FEWEST_REALS,
    TABLE_COLUMNS,
    TRAINING,
    VALIDATION,
    as_records,
    first_view,
    images_behind,
    split_order,
    summarise,
    tabulate,
    view_order,
)
from clare_cache.metrics import FEWEST_TO_CALIBRATE

__all__ = [
    "ALL",
    "BOARD",
    "BOARD_COLUMNS",
    "FEWEST_REALS",
    "FEWEST_TO_CALIBRATE",
    "MATRIX_COLUMNS",
    "PREDICTION_COLUMNS",
    "TABLE_COLUMNS",
    "TRAINING",
    "VALIDATION",
    "Comparison",
    "Evaluation",
    "as_records",
    "assess_run",
    "chosen_runs",
    "compare_coverage",
    "compare_run",
    "cross_table",
    "evaluate_run",
    "first_view",
    "images_behind",
    "leaderboard",
    "mean_over_seeds",
    "read_config",
    "read_predictions",
    "split_order",
    "summarise",
    "tabulate",
    "view_order",
    "write_card",
    "write_leaderboard",
]
