"""A recipe from images to a report: steps that do what is missing and say what was there."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clare_cache.errors import ManifestError, RecipeError, TrainError, raise_faults
from clare_cache.evaluate import TRAINING
from clare_cache.extraction import ExtractReport
from clare_cache.manifest import Manifest
from clare_cache.recipe import Recipe, read_recipe
from clare_cache.store import open_store
from clare_cache.train.runs import RECIPE_FILE
from clare_cache.types import CLEAN, OnProgress, ignore_progress
from clare_cache.workflow.data_sets import (
    Roots,
    build_data_set,
    compose_folds,
    data_sets_of,
    is_built,
    link_roots,
    protocol_folds,
    refuse_homeless,
)
from clare_cache.workflow.features import extract
from clare_cache.workflow.finished import bring_up_to_date, is_evaluated
from clare_cache.workflow.members import is_finished, needs_of, training_fingerprint
from clare_cache.workflow.results import evaluate, report
from clare_cache.workflow.training import train_head

STAND_INS = (
    "The features come from random weights ({weights}): this page shows that the pipeline runs, "
    "and says nothing about how well any detector detects."
)


@dataclass(frozen=True)
class Settings:
    """Where and how a recipe runs here; the recipe says what.

    Images come from `roots` (data set → folder, "" for all others), or from `manifest` with `root`.
    `sd` and `clip` take the place of the recipe's weights. `notes` go on top of the page; without
    any it says so itself when the weights are random.
    """

    out: Path
    roots: Mapping[str, Path] = field(default_factory=dict)
    manifest: Path | None = None
    store: str | Path | None = None
    sd: str | None = None
    clip: str | None = None
    device: str = "auto"
    batch_size: int | Literal["auto"] = 16
    workers: int = 2
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunResult:
    """The page, its run folders in the order of the recipe, those trained now, what extraction of
    the clean pictures did, and the seconds of each step."""

    report: Path
    runs: tuple[Path, ...]
    new_runs: tuple[Path, ...]
    extracted: ExtractReport
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Fold:
    """One training set: its name ("" where there is but one), manifest file and images."""

    name: str
    path: Path
    manifest: Manifest


def run_recipe(
    recipe: Recipe,
    settings: Settings,
    *,
    on_step: Callable[[str], None] = lambda line: None,
    on_progress: OnProgress = ignore_progress,
) -> RunResult:
    """Manifest → extract → train → evaluate → report, each step skipped where its result is there.

    A second call does nothing but write the page again; an interrupted one goes on where it was.
    Raises what the steps raise, before any work where that can be known.
    """
    recipe = _with_used_folds(recipe)
    refuse_unfit(recipe, settings)
    seconds: dict[str, float] = {}
    runs, new = [], []
    with _timed("manifest", seconds):
        root, folds = _manifests(recipe, settings, on_step, on_progress)
        _refuse_untested(folds, recipe)
    with _timed("extract", seconds):
        extracted = _extract(recipe, settings, root, folds, on_step, on_progress)
    with _timed("train", seconds):
        for fold in folds:
            mine = recipe.select_fold(fold.name)
            done, made = _train(mine, settings, fold, on_step, on_progress)
            runs += done
            new += made
    with _timed("evaluate", seconds):
        _evaluate(recipe, settings, runs, on_step)
    with _timed("report", seconds):
        notes = settings.notes or _stand_ins(recipe, settings)
        page = settings.out / "report.html"
        report(runs, page, title=recipe.about.title, root=root, notes=notes)
    return RunResult(page, tuple(runs), tuple(new), extracted, seconds)


def preview_run(recipe: Recipe, settings: Settings) -> list[str]:
    """What `run_recipe` would do, one line a step; nothing is written."""
    recipe = _with_used_folds(recipe)
    refuse_unfit(recipe, settings)
    lines = []
    if settings.manifest is not None:
        lines.append(f"manifest: {settings.manifest}")
    else:
        roots = _roots(settings)
        for name in data_sets_of(recipe.manifest):
            there = is_built(name, settings.out / "manifests", roots)
            what = "is there" if there else f"would be built from {roots.of(name)}"
            lines.append(f"manifest {name}: {what}")
        if recipe.manifest.protocol:
            lines.append(f"folds: as protocol {recipe.manifest.protocol} makes them")
    sd, clip = _weights(recipe, settings)
    lines.append(
        f"extract: {', '.join(needs_of(recipe.head))} in views {', '.join(_views(recipe))} "
        f"into {_store(settings)}, with sd {sd or '–'}, clip {clip or '–'}"
    )
    folders = {read_recipe(p).head[0].label: p.parent for p in _run_recipes(settings.out)}
    for section in recipe.head:
        there = section.label in folders
        where = f" on {section.fold}" if section.fold else ""
        lines.append(f"train {section.label}{where}: {'is there' if there else 'would be trained'}")
    lines.append(f"evaluate: splits {', '.join(recipe.evaluate.splits)}")
    lines.append(f"report: {settings.out / 'report.html'}")
    return lines


def refuse_unfit(recipe: Recipe, settings: Settings) -> None:
    """Raises RecipeError or ManifestError, all faults of a kind at once, before any work."""
    faults = []
    names = data_sets_of(recipe.manifest)
    if settings.manifest is None and not (recipe.manifest.train and names):
        faults.append("manifest: the recipe names no images. Give --manifest FILE, or --data NAME")
    sd, clip = _weights(recipe, settings)
    needs = needs_of(recipe.head)
    if sd is None and any(name.startswith("error_map") for name in needs):
        faults.append("backbones.sd: the recipe names none, and error maps need it. Give --sd")
    if clip is None and any(name.startswith("clip") for name in needs):
        faults.append("backbones.clip: the recipe names none, and CLIP needs it. Give --clip")
    raise_faults(RecipeError, f"run {recipe.about.title}", faults)
    if settings.manifest is None:
        refuse_homeless(names, _roots(settings))


def _with_used_folds(recipe: Recipe) -> Recipe:
    """The recipe without folds on which none of its heads is trained."""
    section = recipe.manifest
    used = {fold: sets for fold, sets in section.train.items() if recipe.select_fold(fold).head}
    return recipe.model_copy(update={"manifest": section.model_copy(update={"train": used})})


def _manifests(
    recipe: Recipe,
    settings: Settings,
    on_step: Callable[[str], None],
    on_progress: OnProgress,
) -> tuple[Path, list[Fold]]:
    """The folder that paths are relative to, and every fold with its manifest written."""
    if settings.manifest is not None:
        manifest = Manifest.read(settings.manifest)
        on_step(f"manifest: {len(manifest):,} images of {settings.manifest}")
        root = settings.roots.get("", settings.manifest.parent)
        if not recipe.manifest.protocol:
            return root, [Fold("", settings.manifest, manifest)]
        made = protocol_folds(recipe.manifest.protocol, manifest, seed=recipe.train.seed)
        return root, _written(made, settings.out)
    roots, names = _roots(settings), data_sets_of(recipe.manifest)
    manifests = {
        name: build_data_set(
            name, settings.out / "manifests", roots, on_step=on_step, on_progress=on_progress
        )
        for name in names
    }
    made = compose_folds(recipe.manifest, manifests, roots, seed=recipe.train.seed, on_step=on_step)
    return link_roots(names, roots), _written(made, settings.out)


def _refuse_untested(folds: Sequence[Fold], recipe: Recipe) -> None:
    """Raises ManifestError for every split that a fold lacks: after training it would be late."""
    faults = []
    for fold in folds:
        there = sorted(set(fold.manifest.rows["split"]) - {""})
        faults += [
            f"{fold.path}: expected images of split {split}, found {', '.join(there) or 'none'}"
            for split in (TRAINING, *recipe.evaluate.splits)
            if split not in there
        ]
    raise_faults(
        ManifestError, f"run {recipe.about.title}", faults,
        advice="`clare-cache manifest split --replace` divides by group; --manifest takes the "
        "result.",
    )  # fmt: skip


def _written(made: Mapping[str, Manifest], out: Path) -> list[Fold]:
    folds = []
    for name, manifest in made.items():
        path = out / "folds" / f"{name}.parquet" if name else out / "manifest.parquet"
        if not path.is_file() or Manifest.read(path).fingerprint() != manifest.fingerprint():
            manifest.write(path)
        folds.append(Fold(name, path, manifest))
    return folds


def _extract(
    recipe: Recipe,
    settings: Settings,
    root: Path,
    folds: Sequence[Fold],
    on_step: Callable[[str], None],
    on_progress: OnProgress,
) -> ExtractReport:
    """Clean features of every image, other views of the test images alone; what was done for the
    clean ones, or for the others where that leaves more in the ledger."""
    import pandas as pd

    rows = pd.concat([fold.manifest.rows for fold in folds])
    everything = Manifest.from_rows(rows.drop_duplicates("path", ignore_index=True))
    tested = rows[rows["split"].isin(recipe.evaluate.splits)]
    shown = Manifest.from_rows(tested.drop_duplicates("path", ignore_index=True))
    sd, clip = _weights(recipe, settings)
    reports = []
    jobs = [(everything, [CLEAN])]
    if others := [view for view in _views(recipe) if view != CLEAN]:
        jobs.append((shown, others))
    for manifest, views in jobs:
        found = extract(
            manifest,
            _store(settings),
            root=root,
            features=needs_of(recipe.head),
            views=views,
            sd=sd,
            clip=clip,
            error_map=recipe.backbones.error_map,
            image_tower=recipe.backbones.image_tower,
            device=settings.device,
            batch_size=settings.batch_size,
            workers=settings.workers,
            on_progress=on_progress,
        )
        on_step(
            f"extract {', '.join(views)}: {found.n_images:,} images, {found.n_settled_before:,} "
            f"were there, {found.n_decoded:,} extracted now, {found.n_failed:,} in the ledger"
        )
        reports.append(found)
    return max(reports, key=lambda found: found.n_failed)


def _train(
    recipe: Recipe,
    settings: Settings,
    fold: Fold,
    on_step: Callable[[str], None],
    on_progress: OnProgress,
) -> tuple[list[Path], list[Path]]:
    """The run folders of a fold, and those of them that were trained now."""
    out, store = settings.out / "runs" / fold.name, open_store(_store(settings))
    there: list[str] = []
    missing: list[str] = []
    for section in recipe.head:
        wanted = training_fingerprint(recipe, section, store, fold.manifest)
        finished = is_finished(out / section.label, wanted)
        (there if finished else missing).append(section.label)
    for label in there:
        bring_up_to_date(out / label, recipe)
    where = f" on {fold.name}" if fold.name else ""
    if missing:
        on_step(f"train{where}: {', '.join(missing)}")
        train_head(
            recipe,
            store=_store(settings),
            manifest=fold.path,
            out=out,
            clip=settings.clip,
            device=settings.device,
            on_progress=on_progress,
        )
    if there:
        on_step(f"train{where}: {', '.join(there)} was there")
    return [out / section.label for section in recipe.head], [out / label for label in missing]


def _evaluate(
    recipe: Recipe, settings: Settings, runs: Sequence[Path], on_step: Callable[[str], None]
) -> None:
    """Score all runs that have no scores of their own, together: each view is read once."""
    names = {run: str(run.relative_to(settings.out / "runs")) for run in runs}
    if untrained := [name for run, name in names.items() if not (run / "config.json").is_file()]:
        raise TrainError(
            f"run {settings.out}: expected trained heads, found none in {', '.join(untrained)}. "
            "Run again."
        )
    splits, views = recipe.evaluate.splits, _views(recipe)
    due = [run for run in runs if not is_evaluated(run, splits=splits, views=views)]
    if there := [name for run, name in names.items() if run not in due]:
        on_step(f"evaluate: {', '.join(there)} was there")
    if due:
        on_step(f"evaluate: {', '.join(names[run] for run in due)}")
        evaluate(due, views=views, clip=settings.clip, device=settings.device)


def _views(recipe: Recipe) -> list[str]:
    """The views to score; the clean one is what heads are trained on and always among them."""
    return list(dict.fromkeys([CLEAN, *recipe.evaluate.views]))


def _weights(recipe: Recipe, settings: Settings) -> tuple[str | None, str | None]:
    return settings.sd or recipe.backbones.sd, settings.clip or recipe.backbones.clip


def _stand_ins(recipe: Recipe, settings: Settings) -> list[str]:
    needs = needs_of(recipe.head)
    sd, clip = _weights(recipe, settings)
    used = [w for w, kind in ((sd, "error_map"), (clip, "clip"))
            if w and any(name.startswith(kind) for name in needs)]  # fmt: skip
    random = sorted({w for w in used if w == "tiny" or w.startswith("random:")})
    return [STAND_INS.format(weights=", ".join(random))] if random else []


def _store(settings: Settings) -> str | Path:
    return settings.store or settings.out / "store"


@contextmanager
def _timed(step: str, seconds: dict[str, float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - began


def _roots(settings: Settings) -> Roots:
    named = {name: path for name, path in settings.roots.items() if name}
    return Roots(named, settings.roots.get(""), settings.out / "images")


def _run_recipes(out: Path) -> list[Path]:
    return sorted((out / "runs").rglob(RECIPE_FILE))
