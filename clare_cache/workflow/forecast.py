"""What training a recipe would take, from a few timed steps on made-up features. Trains nothing."""

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from clare_cache.backbones.numerics import pick_device
from clare_cache.data.regions import REGIONS, SHAPE, stored
from clare_cache.heads import needs_text
from clare_cache.manifest import Manifest
from clare_cache.recipe import Recipe
from clare_cache.store import open_store
from clare_cache.train.loop import time_steps
from clare_cache.types import CLEAN
from clare_cache.workflow.inputs import as_extracted, hold_out, text_tower
from clare_cache.workflow.members import (
    build_member,
    is_finished,
    needs_of,
    passes,
    training_fingerprint,
)


@dataclass(frozen=True)
class Forecast:
    """One pass over the data: who shares it, and what it would take."""

    labels: tuple[str, ...]
    n_stacks: int
    n_steps: int
    """Over all epochs."""
    seconds: float
    """Of training steps and validation; reading comes on top where data are streamed."""
    memory_nbytes: int
    """Largest memory of these heads in training: weights, gradients, optimiser, activations."""
    data_nbytes: int
    """Of the features of one epoch, validation included."""


def forecast(
    recipe: Recipe,
    *,
    store: str | Path,
    manifest: str | Path,
    out: str | Path,
    clip: str | None = None,
    device: str = "auto",
    again: bool = False,
) -> tuple[list[Forecast], list[str]]:
    """One forecast for each pass over the data, and the labels of heads that are finished."""
    opened, rows = open_store(store), Manifest.read(manifest)
    recipe = as_extracted(recipe, opened, needs_of(recipe.head))
    finished = [
        h.label
        for h in recipe.head
        if not again
        and is_finished(Path(out) / h.label, training_fingerprint(recipe, h, opened, rows))
    ]
    todo = recipe.with_heads([h for h in recipe.head if h.label not in finished])
    text = None
    if any(needs_text(section.family) for section in todo.head):
        text = text_tower(opened, clip=clip, device=device)
    found = []
    for config, sections in passes(todo):
        here = recipe.with_heads(sections).model_copy(update={"train": config})
        train, validation = hold_out(rows, here)
        specs = {n: opened[f"{CLEAN}/{n}"].entry.spec for n in stored(needs_of(sections))}
        shapes = {REGIONS: SHAPE, **{name: spec.shape for name, spec in specs.items()}}
        members = [build_member(recipe, s, shapes=shapes, text=text) for s in sections]
        before = _peak_nbytes(pick_device(device))
        timing = time_steps(
            members,
            shapes,
            batch_size=config.batch_size,
            device=pick_device(device),
            replayed=True,
        )
        n_batches = -(-len(train) // config.batch_size)
        # Validation goes forward only, which is about a third of a step.
        n_steps = config.epochs * (n_batches + len(validation) / config.batch_size / 3)
        row_nbytes = sum(spec.row_nbytes for spec in specs.values())
        found.append(
            Forecast(
                labels=tuple(section.label for section in sections),
                n_stacks=timing.n_stacks,
                n_steps=config.epochs * n_batches,
                seconds=n_steps * timing.seconds,
                memory_nbytes=max(_peak_nbytes(pick_device(device)) - before, 0),
                data_nbytes=row_nbytes * (len(train) + len(validation)),
            )
        )
    return found, finished


def _peak_nbytes(device: torch.device) -> int:
    """The most memory that this process has had so far, on the GPU if it works there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
