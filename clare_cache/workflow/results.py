"""Trained heads over test data → predictions and scores; scores → beside published ones, and one
page."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clare_cache.backbones.numerics import pick_device
from clare_cache.data.regions import PATCHES, REGIONS, describe_regions, follows, stored
from clare_cache.errors import ImageError, ReportError, raise_faults
from clare_cache.evaluate import (
    TRAINING,
    VALIDATION,
    Comparison,
    assess_run,
    compare_run,
    evaluate_run,
    read_config,
    read_predictions,
)
from clare_cache.extraction.decoding import Item, load_pixels
from clare_cache.files import read_json, write_text, write_whole
from clare_cache.fingerprint import fingerprint
from clare_cache.heads.files import check_features
from clare_cache.heads.protocol import TextTower
from clare_cache.images import thumbnail
from clare_cache.manifest import Manifest
from clare_cache.manifest.protocols import find_protocol
from clare_cache.recipe import Recipe, read_recipe
from clare_cache.report import FORMS, Picture, build_report, label_runs, paper_table
from clare_cache.seeds import generator_for
from clare_cache.store import Store, open_store
from clare_cache.train.runs import RECIPE_FILE
from clare_cache.types import CLEAN, ImageId
from clare_cache.workflow.inputs import hold_out
from clare_cache.workflow.scoring import Scoring, score_all
from clare_cache.workflow.training import load_run

PREDICTIONS_FILE, METRICS_FILE = "predictions.parquet", "metrics.json"
PAGE = ".html"
THUMBNAIL_PX = 144
PICTURES_PER_GENERATOR = 2


def find_runs(paths: Sequence[str | Path]) -> list[Path]:
    """The run folders among `paths` and directly below them, in order, each once under whatever
    spelling.

    Raises ReportError for a path that is neither.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        alone = [path] if (path / "config.json").is_file() else []
        runs = alone or sorted(p.parent for p in path.glob("*/config.json"))
        if not runs:
            raise ReportError(
                f"run {path}: expected a folder with config.json, or one that holds such folders, "
                "found neither. Give what `clare-cache train-head` wrote."
            )
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def find_tested_runs(paths: Sequence[str | Path]) -> list[Path]:
    """The run folders among `paths` and directly below them, without the members of a sweep that
    have no scores where others have: of a sweep the best alone are tested."""
    runs = find_runs(paths)
    scored = {run for run in runs if (run / METRICS_FILE).is_file()}
    return [run for run in runs if run in scored or not (scored and _is_member(run))]


def _is_member(run: Path) -> bool:
    return bool(read_config(run).get("settings"))


def evaluate(
    runs: Sequence[str | Path],
    *,
    store: str | Path | None = None,
    manifest: str | Path | None = None,
    splits: Sequence[str] | None = None,
    views: Sequence[str] | None = None,
    clip: str | None = None,
    device: str = "auto",
) -> dict[Path, pd.DataFrame]:
    """Score every run on its validation images and test splits; the tidy table of each.

    Runs that look at the same images in the same view share one reading of them.

    Test splits are scored in every one of `views`, by default in all that the store has for the
    head; validation images in the clean view, where epoch and threshold were chosen.
    Writes `predictions.parquet`, `metrics.json`, `metrics.csv` and the model card `README.md`.
    Store, manifest and splits default to those the run was trained with. With another manifest
    there is no validation split, only what is asked for. Raises HeadError when the store's
    features are not those that the head was trained on.
    """
    asked: list[Scoring] = []
    described: dict[Path, dict[str, Any]] = {}
    towers: dict[str, TextTower] = {}
    # The runs of a sweep share these; each takes seconds with a large data set.
    open_once, read_once = cache(open_store), cache(Manifest.read)
    divided: dict[Hashable, list[tuple[Manifest, list[str] | None]]] = {}
    for run in find_runs(runs):
        config, recipe = read_config(run), read_recipe(run / RECIPE_FILE)
        _refuse_homeless(run, config, store=store, manifest=manifest)
        opened = open_once(store or config["store"])
        head, config = load_run(run, clip=clip, device=device, towers=towers)
        rows = read_once(path := manifest or config["manifest"])
        wanted = list(splits or recipe.evaluate.splits)
        if manifest is None:
            _refuse_changed(run, config["manifest_fingerprint"], rows)
        key = (path, recipe.train, *wanted)
        if key not in divided:
            held_out = None if manifest else hold_out(rows, recipe)[1]
            divided[key] = _parts(run, rows, wanted, held_out=held_out)
        shown = [
            (part, view)
            for part, only in divided[key]
            for view in dict.fromkeys(only or views or views_with(opened, head.needs) or [CLEAN])
        ]
        _refuse_views(run, views or [], views_with(opened, stored(head.needs)), opened)
        for view in dict.fromkeys(view for _, view in shown):
            check_features(config, features_found(opened, head.needs, view))
        asked.append(Scoring(run, head, opened, shown))
        described[run] = {
            "n_resamples": recipe.evaluate.n_resamples,
            "evaluated_on": {
                "store": str(opened.place.resolve()),
                "manifest": str(Path(path).resolve()),
                "manifest_fingerprint": rows.fingerprint(),
            },
        }
    tables = {}
    for run, predictions in score_all(asked, device=pick_device(device)).items():
        write_whole(run / PREDICTIONS_FILE, partial(predictions.to_parquet, index=False))
        tables[run] = evaluate_run(run, **described[run])
    return tables


def _parts(
    run: Path, rows: Manifest, wanted: Sequence[str], *, held_out: Manifest | None
) -> list[tuple[Manifest, list[str] | None]]:
    """What to score: the images held out in training, in the clean view alone, and the wanted
    splits in every view. Raises ReportError for absent splits and files named twice."""
    there = set(rows.rows["split"])
    faults = [
        f"split {name}: absent, found {_named(there)}" for name in wanted if name not in there
    ]
    if repeated := int(rows.rows["path"].duplicated().sum()):
        faults.append(f"{repeated} files are named twice; see `clare-cache manifest check`")
    if held_out is not None:
        faults = [f for f in faults if not f.startswith(tuple(f"split {v}:" for v in VALIDATION))]
        wanted = [name for name in wanted if name not in VALIDATION]
    raise_faults(ReportError, f"run {run}: evaluate", faults, advice="Correct --split.")
    tested = rows.where(split=wanted).rows
    if held_out is None:
        return [(Manifest.from_rows(tested), None)]
    tested = tested[~tested["path"].isin(held_out.rows["path"])]
    parts: list[tuple[Manifest, list[str] | None]] = [(held_out, [CLEAN])]
    return [*parts, (Manifest.from_rows(tested), None)] if len(tested) else parts


def _refuse_views(run: Path, asked: Sequence[str], there: Sequence[str], store: Store) -> None:
    """Raises ReportError for views of which the store lacks an array that the head needs."""
    raise_faults(
        ReportError,
        f"run {run}: evaluate",
        [
            f"view {view}: {store.place} has not all arrays that the head needs in it, "
            f"found {', '.join(there) or 'none'}"
            for view in asked
            if view not in there
        ],
        advice="Extract the view (`clare-cache extract --views`), or correct --view.",
    )


def _named(splits: set[str]) -> str:
    return ", ".join(sorted(name or "(none)" for name in splits))


def views_with(store: Store, needs: Sequence[str]) -> list[str]:
    """The views in which the store has every array that a head needs, the clean one first."""
    found = [
        view
        for view in store.views
        if follows(needs, view) and all(f"{view}/{name}" in store for name in stored(needs))
    ]
    return sorted(found, key=lambda view: view != CLEAN)


def features_found(
    store: Store, needs: Sequence[str], view: str = CLEAN
) -> dict[str, dict[str, object]]:
    """What the store declares of the arrays that a head needs and it has, but for the view:
    a head is trained on clean pictures and tested on perturbed ones."""
    found: dict[str, dict[str, object]] = {}
    for name in stored(needs):
        if (key := f"{view}/{name}") in store:
            declared = {k: v for k, v in store[key].declared.items() if k != "view"}
            found[name] = {"fingerprint": fingerprint(declared), "declared": declared}
    if REGIONS in needs and PATCHES in found:
        found[REGIONS] = describe_regions(store[f"{view}/{PATCHES}"].declared)
    return found


def compare(recipe: Recipe, runs: Sequence[str | Path]) -> list[Comparison]:
    """Every published number that the recipe expects, beside each evaluated run's.

    Raises ReportError for runs without scores and for published rows that do not exist.
    """
    found = [assess_run(run) for run in find_tested_runs(runs)]
    n = recipe.evaluate.n_resamples
    return [item for run in found for item in compare_run(run, recipe.expect, n_resamples=n)]


def report(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    title: str = "Detectors of generated images",
    root: str | Path | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """One self-contained HTML page about evaluated runs, beside what their recipes expect.

    `root` is the folder of the images; with it the page shows pictures beside error maps. A file
    `out` that ends in .tex, .md or .csv gets the scores alone, as a table for a paper.
    """
    out = Path(out)
    if out.suffix not in (PAGE, *FORMS):
        raise ReportError(
            f"report {out}: expected a name ending in {PAGE} for the page, or in "
            f"{', '.join(FORMS)} for a table of the scores, found {out.name}."
        )
    folders = find_tested_runs(runs)
    if lacking := [str(run) for run in folders if not (run / METRICS_FILE).is_file()]:
        raise ReportError(
            f"report: runs {', '.join(lacking)} have no {METRICS_FILE}. "
            "Run `clare-cache evaluate` on them first."
        )
    if out.suffix in FORMS:
        write_text(out, paper_table(folders, suffix=out.suffix))
        return out
    recipes = {run: read_recipe(run / RECIPE_FILE) for run in folders}
    pictures = [] if root is None else collect_pictures(folders, Path(root))
    return build_report(
        folders,
        out,
        title=title,
        notes=notes,
        pictures=pictures,
        expected={run: recipe.expect for run, recipe in recipes.items()},
        # Those that are not tested are shown by their validation numbers.
        members=[run for run in find_runs(runs) if _is_member(run)],
        group=_grouping(recipes.values()),
    )


def _grouping(recipes: Iterable[Recipe]) -> Callable[[str, str], str] | None:
    """How the one protocol of all recipes puts generators together; None without."""
    names = {recipe.manifest.protocol for recipe in recipes}
    return find_protocol(names.pop()).group if len(names) == 1 and "" not in names else None


def collect_pictures(runs: Sequence[Path], root: Path) -> list[Picture]:
    """A few test images of every generator, drawn by their ids, with scores and, where the store
    has them, error maps. The images are those of the first run's evaluation."""
    names = label_runs(runs)
    tables = {names[run]: read_predictions(run / PREDICTIONS_FILE) for run in names}
    error_maps = _error_maps(runs[0])
    first = next(iter(tables.values()))
    clean = first[(first["view"] == CLEAN) & first["score"].notna()]
    shown = clean[~clean["split"].isin({TRAINING, *VALIDATION})]
    pictures = []
    for generator, rows in shown.groupby("generator", sort=False):
        order = generator_for(0, str(generator), "pictures").permutation(len(rows))
        for row in rows.iloc[order[:PICTURES_PER_GENERATOR]].to_dict("records"):
            image_id = ImageId(row["image_id"])
            try:
                pixels = load_pixels(Item(0, image_id, (row["path"],)), root)
            except ImageError as error:
                raise ReportError(
                    f"report: image {row['path']} was asked for below {root}, {error}. "
                    "Give the right --root, or leave it out to do without pictures."
                ) from error
            pictures.append(
                Picture(
                    caption=row["path"],
                    label=int(row["label"]),
                    pixels=thumbnail(pixels, THUMBNAIL_PX),
                    error_map=error_maps(image_id),
                    scores=_scores(tables, image_id),
                )
            )
    return pictures


def _error_maps(run: Path) -> Callable[[ImageId], NDArray[np.floating] | None]:
    """Image id → its error map in the store that the run was scored on, or None: the one that the
    run's head reads, if it reads one."""
    on = read_json(run / METRICS_FILE)["evaluated_on"]
    store = open_store(on["store"])
    name = read_config(run).get("reads", {}).get("error_map", "error_map")
    if (key := f"{CLEAN}/{name}") not in store:
        return lambda image_id: None
    handle = store[key]

    def find(image_id: ImageId) -> NDArray[np.floating] | None:
        (row,) = store.rows_of([image_id])
        return handle.read_rows(np.array([row]))[0] if row >= 0 and handle.present[row] else None

    return find


def _scores(tables: dict[str, pd.DataFrame], image_id: ImageId) -> dict[str, float]:
    found = {}
    for label, table in tables.items():
        values = table.loc[(table["image_id"] == image_id) & (table["view"] == CLEAN), "score"]
        if len(values) and values.notna().any():
            found[label] = float(values.iloc[0])
    return found


def _refuse_homeless(
    run: Path, config: Mapping[str, Any], *, store: str | Path | None, manifest: str | Path | None
) -> None:
    given = {"store": store or config.get("store"), "manifest": manifest or config.get("manifest")}
    if lacking := [f"--{name}" for name, value in given.items() if value is None]:
        raise ReportError(
            f"run {run}: its head was imported and has no images of its own, found no "
            f"{' and no '.join(lacking)}. Name the features and the images to score."
        )


def _refuse_changed(run: Path, recorded: str, manifest: Manifest) -> None:
    if manifest.fingerprint() != recorded:
        raise ReportError(
            f"run {run}: its manifest had fingerprint {recorded}, found {manifest.fingerprint()}. "
            "Labels, splits or groups changed since training: train again, or name the manifest "
            "to test on with --manifest."
        )
