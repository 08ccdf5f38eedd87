"""Many trained heads over the same images: each view of the store is read once for all of them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from clare_cache.data import load
from clare_cache.heads.protocol import Head
from clare_cache.manifest import Manifest
from clare_cache.store import Store
from clare_cache.train.score import predict_rows, score_stacks
from clare_cache.train.stack import Stack, stack_heads


@dataclass(frozen=True)
class Scoring:
    """One run's head and what it is to score: images with the view they are looked at in."""

    run: Path
    head: Head
    store: Store
    shown: Sequence[tuple[Manifest, str]]


def score_all(asked: Sequence[Scoring], *, device: torch.device) -> dict[Path, pd.DataFrame]:
    """Every run's predictions, in the order of `shown`.

    Heads that need the same arrays share each reading; those of equal shapes are one stack.
    """
    readings = defaultdict(list)
    for scoring in asked:
        for number, (part, view) in enumerate(scoring.shown):
            # By the arrays too: an image may lack one array and have the others.
            key = (str(scoring.store.place), part.fingerprint(), view, scoring.head.needs)
            readings[key].append((scoring, number))
    found: dict[Path, dict[int, pd.DataFrame]] = {scoring.run: {} for scoring in asked}
    for sharing in readings.values():
        first, number = sharing[0]
        part, view = first.shown[number]
        data = load(first.store, part, needs=first.head.needs, view=view, device=device)
        heads = [scoring.head for scoring, _ in sharing]
        groups = stack_heads(heads)
        stacks = [Stack([heads[n] for n in group]) for group in groups]
        for group, log_odds in zip(groups, score_stacks(stacks, data, device=device), strict=True):
            for position, values in zip(group, log_odds, strict=True):
                scoring, number = sharing[position]
                found[scoring.run][number] = predict_rows(part, data, values)
    return {
        run: pd.concat([parts[n] for n in sorted(parts)], ignore_index=True)
        for run, parts in found.items()
    }
