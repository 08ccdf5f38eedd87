"""The same head trained on several sets of generators: what each training reaches on each test."""

from collections.abc import Callable, Sequence

import pandas as pd

from clare_cache.evaluate.run import Evaluation
from clare_cache.evaluate.table import ALL, TRAINING, VALIDATION, first_view
from clare_cache.types import FAKE

MATRIX_COLUMNS = {
    "label": "the head",
    "trained_on": "generators of its training images",
    "tested_on": "generator, or the group of generators that a protocol puts together",
    "n_generators": "test generators in it",
    "average_precision": "mean over them, each against the reals of its source",
    "auc": "the same",
    "accuracy_0.5": "the same",
    "seen": "all of them were trained on",
}


def cross_table(
    found: Sequence[Evaluation],
    *,
    group: Callable[[str, str], str] = lambda generator, family: generator,
) -> pd.DataFrame:
    """One row per run and test generator (or group of them), clean view, test splits.

    `group` names the column that a (generator, family) stands in.
    """
    rows = []
    for evaluation in found:
        table, predictions = evaluation.table, evaluation.predictions
        trained = list(evaluation.config.get("train", {}).get("generators", ()))
        fakes = predictions[predictions["label"] == FAKE]
        families = dict(zip(fakes["generator"], fakes["family"].fillna(""), strict=True))
        judged = table[
            (table["view"] == first_view(table))
            & ~table["split"].isin([TRAINING, *VALIDATION])
            & (table["generator"] != ALL)
        ]
        names = judged["generator"].map(lambda name, of=families: group(name, of.get(name, "")))
        for name, part in judged.groupby(names, sort=False):
            rows.append(
                {
                    "label": str(evaluation.config["label"]),
                    "trained_on": ", ".join(trained),
                    "tested_on": str(name),
                    "n_generators": len(part),
                    "average_precision": part["average_precision"].mean(),
                    "auc": part["auc"].mean(),
                    "accuracy_0.5": part["accuracy_0.5"].mean(),
                    "seen": bool(part["seen_in_training"].eq(True).all()),
                }
            )
    return pd.DataFrame(rows, columns=list(MATRIX_COLUMNS))
