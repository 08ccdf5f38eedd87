"""Stage two as the user calls it: a recipe, a store and a manifest in, run folders out."""

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clare_cache.backbones import load_text_tower
from clare_cache.backbones.numerics import pick_device
from clare_cache.data import load
from clare_cache.data.regions import stored
from clare_cache.errors import TrainError, raise_faults
from clare_cache.evaluate import read_config, write_leaderboard
from clare_cache.extraction.clusters import open_executor
from clare_cache.extraction.versions import warn_of_other_versions
from clare_cache.extraction.work import BlockReport, OnImages, ignore_images
from clare_cache.files import make_folder
from clare_cache.fingerprint import fingerprint
from clare_cache.heads import needs_text
from clare_cache.heads.files import CONFIG
from clare_cache.heads.files import load_head as read_head
from clare_cache.heads.protocol import Head, TextTower
from clare_cache.manifest import Manifest
from clare_cache.recipe import HeadSection, Recipe
from clare_cache.store import open_store
from clare_cache.train.checkpoint import Begun, Checkpoint, find_begun
from clare_cache.train.loop import train_members
from clare_cache.train.numerics import numerics
from clare_cache.train.runs import describe_run, save_run
from clare_cache.train.sampling import BalancedData
from clare_cache.train.tracking import OnEpoch, ignore_epoch, track
from clare_cache.types import CLEAN, OnProgress, Progress, ignore_progress
from clare_cache.workflow.inputs import as_extracted, hold_out, origin, text_tower
from clare_cache.workflow.members import (
    build_member,
    cohorts_of,
    is_finished,
    needs_of,
    passes,
    seed_of,
    training_fingerprint,
)

CHECKPOINTS = ".training"
"""Folder below `out` of what is being trained."""


@dataclass(frozen=True)
class Plan:
    """What becomes of each head, by label, before training starts."""

    finished: tuple[str, ...]
    going_on: tuple[str, ...]
    """Whose training was cut off."""
    starting: tuple[str, ...]
    waiting: tuple[str, ...]
    """Half trained, and not asked for now."""


OnPlan = Callable[[Plan], None]


def ignore_plan(plan: Plan) -> None:
    """Says nothing."""


def train_head(
    recipe: Recipe,
    *,
    store: str | Path,
    manifest: str | Path,
    out: str | Path,
    clip: str | None = None,
    device: str = "auto",
    again: bool = False,
    budget_minutes: float | None = None,
    trackers: Sequence[str] = (),
    cluster: str | None = None,
    dask: str | None = None,
    on_epoch: OnEpoch = ignore_epoch,
    on_plan: OnPlan = ignore_plan,
    on_progress: OnProgress = ignore_progress,
) -> list[Path]:
    """Train every head of the recipe; the run folders `out/<label>`, in its order.

    Heads that share settings of training share one pass over the data. Images of split "train"
    train. Split "val" validates; without one, whole groups are held out of "train". A head that
    is in its folder already, with these settings, features and images, is not trained, unless
    `again`; one whose training was cut off goes on where it was, whichever others are asked for
    now. `on_plan` hears of both before training starts, but not from workers. After
    `budget_minutes` it ends with what there is. `trackers` (tensorboard, wandb, mlflow) hear of
    each epoch. `cluster` or `dask` (see `extract`) has workers train cohorts, heads of equal
    shapes, each with its own pass over the data. `clip` says where the text tower of prompt heads
    lies now, by default where the store's CLIP came from. Raises TrainError, after saving the
    others, for heads that diverged before they finished an epoch.
    """
    deadline = math.inf if budget_minutes is None else time.time() + 60 * budget_minutes
    make_folder(Path(out))
    work = Cohorts(
        recipe=recipe,
        store=store,
        manifest=manifest,
        out=out,
        clip=clip,
        device=device,
        again=again,
        deadline=deadline,
        trackers=tuple(trackers),
        on_epoch=on_epoch,
        cohorts=cohorts_of(recipe) if cluster or dask else (tuple(h.label for h in recipe.head),),
    )
    lost: dict[str, str] = {}
    if cluster is None and dask is None:
        lost = work.train(0, on_plan=on_plan, on_progress=on_progress)
    else:
        done = 0
        with open_executor(cluster=cluster, dask=dask) as executor:
            for report in executor.run(work, range(len(work.cohorts))):
                done += report.n_images
                lost |= dict(note.split(": ", 1) for note in report.notes)
                on_progress(Progress("train", done, len(recipe.head), "head"))
    _drop_checkpoints(Path(out), {h.label for h in recipe.head})
    write_leaderboard(Path(out), [h.label for h in recipe.head if h.label not in lost])
    raise_faults(
        TrainError,
        f"train-head into {out}, where the other heads are",
        [f"{label}: {reason}" for label, reason in lost.items()],
        advice="Lower their learning rates.",
    )
    return [Path(out) / section.label for section in recipe.head]


@dataclass(frozen=True)
class Cohorts:
    """Heads in groups, each trained by one call, here or on a worker: a block is a group."""

    recipe: Recipe
    store: str | Path
    manifest: str | Path
    out: str | Path
    clip: str | None
    device: str
    again: bool
    deadline: float
    """Of `time.time`: clocks of other machines tell the same."""
    trackers: tuple[str, ...]
    on_epoch: OnEpoch
    cohorts: tuple[tuple[str, ...], ...]
    """Labels of heads."""

    def __call__(self, block: int, on_images: OnImages = ignore_images) -> BlockReport:
        """The group trained; its diverged heads are the report's notes, `n_images` counts heads."""
        lost = self.train(block)
        notes = tuple(f"{label}: {reason}" for label, reason in lost.items())
        return BlockReport(block, len(self.cohorts[block]), 0, {}, notes=notes)

    def make(self, block: int, on_images: OnImages = ignore_images) -> BlockReport:
        return self(block, on_images)

    def commit(self, made: BlockReport) -> BlockReport:
        return made

    def hear(self, tell: OnEpoch) -> OnEpoch:
        """Trackers and the caller's own listener as one."""

        def both(label: str, line: Mapping[str, Any], /) -> str | None:
            tell(label, line)
            return self.on_epoch(label, line)

        return both

    def train(
        self,
        block: int,
        *,
        on_plan: OnPlan = ignore_plan,
        on_progress: OnProgress = ignore_progress,
    ) -> dict[str, str]:
        """Label → reason of the group's heads that were lost."""
        wanted = set(self.cohorts[block])
        return _train_here(
            self,
            [h for h in self.recipe.head if h.label in wanted],
            on_plan=on_plan,
            on_progress=on_progress,
        )


def _train_here(
    told: Cohorts, heads: Sequence[HeadSection], *, on_plan: OnPlan, on_progress: OnProgress
) -> dict[str, str]:
    store, manifest, out = told.store, told.manifest, told.out
    device, again, recipe = told.device, told.again, told.recipe.with_heads(heads)
    opened, rows = open_store(store), Manifest.read(manifest)
    hold_out(rows, recipe)  # what is wrong with the manifest comes first
    recipe = as_extracted(recipe, opened, needs_of(recipe.head))
    prints = {h.label: training_fingerprint(recipe, h, opened, rows) for h in recipe.head}
    finished = {h.label for h in recipe.head if is_finished(Path(out) / h.label, prints[h.label])}
    todo = [section for section in recipe.head if again or section.label not in finished]
    warn_of_other_versions(
        opened.place,
        (r for n in stored(needs_of(todo)) for r in opened[f"{CLEAN}/{n}"].records.values()),
    )
    text = None
    if any(needs_text(section.family) for section in todo):
        text = text_tower(opened, clip=told.clip, device=device)
    deadline = time.monotonic() + told.deadline - time.time()
    lost: dict[str, str] = {}
    begun = find_begun(Path(out) / CHECKPOINTS)
    of_key = {key: found.folder for found in begun for key in found.labels}
    sources = {
        h.label: of_key[prints[h.label]]
        for h in todo
        if h.label not in finished and prints[h.label] in of_key
    }
    asked = {section.label for section in told.recipe.head}
    waiting = {label for found in begun for label in _waiting(Path(out), found, asked)}
    on_plan(
        Plan(
            finished=tuple(h.label for h in recipe.head if h not in todo),
            going_on=tuple(h.label for h in todo if h.label in sources),
            starting=tuple(h.label for h in todo if h.label not in sources),
            waiting=tuple(sorted(waiting)),
        )
    )
    groups = [
        (config, source, mine)
        for config, together in passes(recipe.with_heads(todo))
        for source, mine in _by_source(together, sources)
    ]
    for config, source, sections in groups:
        here = recipe.with_heads(sections).model_copy(update={"train": config})
        train, validation = (
            load(opened, part, needs=needs_of(sections), device=pick_device(device),
                 on_progress=on_progress)
            for part in hold_out(rows, here)
        )  # fmt: skip
        checkpoint = Checkpoint(
            Path(out) / CHECKPOINTS / fingerprint([prints[s.label] for s in sections]),
            keys=prints,
            source=source,
        )
        shown = train if config.sampling == "all" else BalancedData(train, config.sampling)
        on = pick_device(device)
        settings = {s.label: {**s.settings, **s.optimiser.model_dump()} for s in sections}
        with (
            track(told.trackers, out=Path(out), settings=settings) as tell,
            numerics(config.precision, deterministic=config.deterministic, device=on),
        ):
            trained, burst = train_members(
                [build_member(recipe, s, shapes=train.shapes, text=text) for s in sections],
                shown,
                validation,
                epochs=config.epochs,
                batch_size=config.batch_size,
                seed=config.seed,
                select=config.select,
                device=on,
                checkpoint=checkpoint,
                deadline=deadline,
                on_epoch=told.hear(tell),
                on_progress=on_progress,
            )
        by_label = {section.label: section for section in sections}
        for result in trained:
            section = by_label[result.label]
            description = describe_run(result, train, validation, config)
            description |= {
                "sweep": section.sweep,
                "settings": dict(section.settings),
                "seed_of_run": seed_of(recipe, section),
                # A head that the budget cut short is not finished.
                "training_fingerprint": prints[result.label] if not result.is_cut else "",
                "manifest": str(Path(manifest).resolve()),
                "manifest_fingerprint": rows.fingerprint(),
                **origin(opened, result.head.needs),
            }
            save_run(
                Path(out) / result.label,
                result,
                description=description,
                recipe=recipe.alone(section).to_yaml(),
            )
        checkpoint.remove()
        lost |= burst
    return lost


def _by_source(
    sections: Sequence[HeadSection], sources: Mapping[str, Path]
) -> list[tuple[Path | None, list[HeadSection]]]:
    """Heads by the checkpoint that they go on from: those of one are equally far."""
    found: dict[Path | None, list[HeadSection]] = {}
    for section in sections:
        found.setdefault(sources.get(section.label), []).append(section)
    return list(found.items())


def _drop_checkpoints(out: Path, asked: set[str]) -> None:
    """Removes checkpoints of heads that are trained now; those with others wait for them."""
    root = out / CHECKPOINTS
    for begun in find_begun(root):
        if not _waiting(out, begun, asked):
            shutil.rmtree(begun.folder, ignore_errors=True)
    if root.is_dir() and not any(root.iterdir()):
        root.rmdir()


def _waiting(out: Path, begun: Begun, asked: set[str]) -> set[str]:
    """Labels in a checkpoint that are not asked for and were not trained since it was written."""
    found = set(begun.labels.values()) - asked
    return {label for label in found if not _is_newer(out / label / CONFIG, begun)}


def _is_newer(path: Path, begun: Begun) -> bool:
    return path.is_file() and path.stat().st_mtime_ns > begun.written_ns


def load_head(run: str | Path, *, clip: str | None = None, device: str = "auto") -> Head:
    """A trained head in evaluation mode.

    Prompt heads get their text tower; `clip` says where its weights lie now, by default where
    they came from. Raises HeadError when the tower is another one.
    """
    return load_run(run, clip=clip, device=device)[0]


def load_run(
    run: str | Path,
    *,
    clip: str | None = None,
    device: str = "auto",
    towers: dict[str, TextTower] | None = None,
) -> tuple[Head, dict[str, Any]]:
    """A trained head as `load_head` gives it, and its `config.json`.

    `towers` holds text towers by their source: those in it are shared, others are added.
    """
    config = read_config(Path(run))
    text = None
    if needs_text(config["family"]):
        towers = {} if towers is None else towers
        source = clip or config["text_source"]
        if source not in towers:
            towers[source] = load_text_tower(source, device=device)
        text = towers[source]
    head, config = read_head(Path(run), text=text)
    return head.to(pick_device(device)), config
