"""A trained head over cached features → scores, and the tidy rows that evaluation reads."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import expit

from clare_cache.data import FeatureData
from clare_cache.heads.protocol import Head
from clare_cache.manifest import Manifest
from clare_cache.train.stack import Stack

SCORE_BATCH = 256

IDENTITY_COLUMNS = (
    "image_id",
    "path",
    "label",
    "split",
    "source",
    "generator",
    "family",
    "group",
)


class Rows(Protocol):
    """Features and labels of numbered images: `FeatureData`, or arrays in memory."""

    labels: torch.Tensor

    def __len__(self) -> int: ...

    def batch(
        self, indices: NDArray[np.int64]
    ) -> tuple[Mapping[str, torch.Tensor], torch.Tensor]: ...

    def epoch(
        self, generator: np.random.Generator, batch_size: int
    ) -> Iterator[tuple[Mapping[str, torch.Tensor], torch.Tensor]]:
        """Every image once in shuffled batches with their labels."""
        ...

    def once(
        self, batch_size: int
    ) -> Iterator[tuple[NDArray[np.int64], Mapping[str, torch.Tensor]]]:
        """Every image once in batches, with their positions, in any order."""
        ...


def batches_in_order(n: int, batch_size: int) -> Iterator[NDArray[np.int64]]:
    """0..n−1 in consecutive batches."""
    for start in range(0, n, batch_size):
        yield np.arange(start, min(start + batch_size, n))


def score(
    heads: Sequence[Head],
    data: Rows,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = SCORE_BATCH,
) -> list[NDArray[np.float64]]:
    """Log-odds of "fake" (n,) for each head, from one pass over the data, in evaluation mode."""
    stacks = [Stack([head]) for head in heads]
    return [found[0] for found in score_stacks(stacks, data, device=device, batch_size=batch_size)]


def score_stacks(
    stacks: Sequence[Stack],
    data: Rows,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = SCORE_BATCH,
) -> list[NDArray[np.float64]]:
    """Log-odds of "fake" (members, n) for each stack, as `score` does."""
    if not len(data):
        return [np.empty((len(stack), 0)) for stack in stacks]
    found: list[list[torch.Tensor]] = [[] for _ in stacks]
    order: list[NDArray[np.int64]] = []
    heads = [head for stack in stacks for head in stack.heads]
    modes = [head.training for head in heads]
    with torch.inference_mode():
        for head in heads:
            head.eval()
        for positions, given in data.once(batch_size):
            features = to_device(given, device)
            order.append(positions)
            for parts, stack in zip(found, stacks, strict=True):
                parts.append(stack.scores(features))
        # Only now: a copy to the host waits for all that a GPU has still to do.
        scores = [torch.cat(parts, dim=1).cpu().double().numpy() for parts in found]
    for head, training in zip(heads, modes, strict=True):
        head.train(training)
    back = np.argsort(np.concatenate(order))
    return [values[:, back] for values in scores]


def to_device(
    features: Mapping[str, torch.Tensor], device: torch.device | str
) -> dict[str, torch.Tensor]:
    """The batch on a device and in the precision of heads: once, not once for each stack."""
    moved = {name: tensor.to(device, non_blocking=True) for name, tensor in features.items()}
    # Not in the same call: PyTorch would convert first, on the host, and then copy twice as much.
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in moved.items()
    }


def probability(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of "fake" in [0, 1], also for large log-odds of either sign."""
    return expit(log_odds)


def predict_rows(
    manifest: Manifest, data: FeatureData, log_odds: NDArray[np.float64]
) -> pd.DataFrame:
    """One row per manifest row, scored or not: the content of `predictions.parquet`.

    Columns: those that identify the image, view, score (probability of fake), log_odds, and
    missing ("" or the ledger's reason; score and log_odds are then NaN).
    """
    frame = manifest.rows.loc[:, list(IDENTITY_COLUMNS)].reset_index(drop=True)
    frame["view"] = data.view
    missing = {m.position: m.reason for m in data.missing}
    scored = np.ones(len(frame), dtype=bool)
    scored[list(missing)] = False
    values = np.full(len(frame), np.nan)
    values[scored] = log_odds
    frame["score"] = probability(values)
    frame["log_odds"] = values
    frame["missing"] = [missing.get(i, "") for i in range(len(frame))]
    return frame
