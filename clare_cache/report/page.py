"""The page: sections in order, each from the runs' own files, put into the template.

The page needs no network, no script and no other file. It says what it knows and leaves out what
was not measured; it trains, scores and extracts nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from clare_cache.errors import ReportError, raise_faults
from clare_cache.evaluate import ALL, images_behind
from clare_cache.files import write_text
from clare_cache.published.expectation import Expectation
from clare_cache.report import figures, provenance, tables
from clare_cache.report.beside import set_beside
from clare_cache.report.figures import Panel
from clare_cache.report.matrix import matrices
from clare_cache.report.pictures import Picture, draw_strip
from clare_cache.report.runs import (
    ReportedRun,
    first_view_of,
    generators_of,
    is_unseen,
    judged_splits_of,
    read_runs,
    splits_of,
    tag_of,
    views_of,
)
from clare_cache.report.seeds import Configuration, configurations, over_seeds, spread
from clare_cache.report.sweeps import describe_sweeps
from clare_cache.report.tables import Table, percent

MAX_PANELS = 6
MAX_HEADS = 24
"""So many heads, the best on validation, have columns and curves of their own."""
SCORE_METRICS = ("average_precision", "accuracy_validation_threshold")


@dataclass(frozen=True)
class SplitScores:
    """Everything shown of one test split."""

    name: str
    seeds: tuple[Table, ...]
    generators: tuple[Table, ...]
    views: tuple[Table, ...]
    operating: Table
    roc: tuple[Panel, ...]
    pr: tuple[Panel, ...]
    scores: tuple[Panel, ...]


def build_report(
    runs: Sequence[Path],
    out: Path,
    *,
    title: str,
    notes: Sequence[str] = (),
    pictures: Sequence[Picture] = (),
    expected: Mapping[Path, Sequence[Expectation]] = MappingProxyType({}),
    members: Sequence[Path] = (),
    group: Callable[[str, str], str] | None = None,
) -> Path:
    """Write one self-contained HTML page about the run folders to `out`, and give `out` back.

    `notes` are sentences to read first; `expected` are the published rows to set beside each run
    folder's scores; `members` are run folders of sweeps, of which only validation is shown; `group`
    puts test generators (generator, family) together where one head was trained on several sets.
    The same inputs give the same bytes. Runs are shown as `label_runs` says.
    Raises ReportError that lists every unusable run folder, every picture's score that belongs to
    nothing on the page, and for published rows that do not exist.
    """
    found = read_runs(runs)
    raise_faults(ReportError, "report", list(_strays(found, pictures)))
    shown = found[:MAX_HEADS]
    by_seed = configurations(found)
    page = _render(
        title=title,
        summary=_summarise(found, by_seed),
        notes=[
            *notes,
            *_cut(shown, found),
            *provenance.mixed_manifests(found),
            *_warnings(found),
        ],
        runs=found,
        leaderboard=tables.leaderboard(found),
        beside=set_beside(found, expected),
        matrices=matrices(found, group=group),
        splits=[
            _split_scores(shown, split, by_seed, key=f"s{k}")
            for k, split in enumerate(judged_splits_of(found))
        ],
        sweeps=describe_sweeps(members),
        histories=_histories(shown),
        pictures=_picture_section(shown, pictures),
        missing=provenance.missing_images(found),
        provenance=[
            provenance.features(found),
            *provenance.trainings(found),
        ],
    )
    write_text(out, page)
    return out


def _cut(shown: Sequence[ReportedRun], found: Sequence[ReportedRun]) -> list[str]:
    if len(shown) == len(found):
        return []
    return [
        f"The tables by generator, the curves and the pictures show the first {len(shown)} of "
        f"{len(found)} heads, by validation; the leaderboard has all."
    ]


def _strays(runs: Sequence[ReportedRun], pictures: Sequence[Picture]) -> Iterator[str]:
    labels = [run.label for run in runs]
    # A label that several runs share is no mistake, but names no head: its score is not shown.
    known = {*labels, *(str(run.config["label"]) for run in runs)}
    for picture in pictures:
        for label in sorted(picture.scores.keys() - known):
            yield (
                f"picture {picture.caption}: expected scores of heads on this page "
                f"({', '.join(labels)}), found one of {label}"
            )


def _render(**values: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("page.html.j2").render(**values)


def _summarise(runs: Sequence[ReportedRun], by_seed: Sequence[Configuration]) -> str:
    """Two or three plain sentences: what was scored, who ranks first, what it reaches."""
    split, view = judged_splits_of(runs)[0], first_view_of(runs)
    lead = by_seed[0]
    best = lead.runs[0]
    row = best.rows.get((split, view, ALL, ALL))
    heads = "1 head was" if len(runs) == 1 else f"{len(runs)} heads were"
    if row is None:
        return f"{heads} trained; none of the images of the {split} split was scored."
    places = {key[1]: key for key in reversed(generators_of(runs, split, view))}
    n_generators = len(places)
    kinds = "1 generator" if n_generators == 1 else f"{n_generators} generators"
    n_unseen = sum(is_unseen(runs, (split, view, *key)) for key in places.values())
    if 0 < n_unseen < n_generators:
        kinds += f", {n_unseen} of them unseen"
    sentences = [
        f"{heads} scored on {row['n_asked']:,} images of the {split} split: real ones and fakes "
        f"from {kinds}."
    ]
    n = len(lead.runs)
    seeds = f", mean ± standard deviation over {n} seeds" if n > 1 else ""
    if not np.isnan(lead.mean_validation("auc")):
        reaches = "ranks first with" if len(by_seed) > 1 else "reaches"
        auc = spread([run.validation["auc"] for run in lead.runs])
        sentences.append(f"On validation {lead.name} {reaches} an AUC of {auc}%{seeds}.")
    rows = [run.rows.get((split, view, ALL, ALL)) for run in lead.runs]
    precisions, accuracies = (
        [row[metric] for row in rows if row and row[metric] is not None] for metric in SCORE_METRICS
    )
    if len(precisions) == len(accuracies) == n:
        at = "the threshold" if n == 1 else "each seed's threshold"
        sentences.append(
            f"On the {split} images {lead.name} has an average precision of {spread(precisions)}% "
            f"and, at {at} chosen on validation, an accuracy of {spread(accuracies)}%{seeds}."
        )
    return " ".join(sentences)


def _warnings(runs: Sequence[ReportedRun]) -> list[str]:
    """Each run's warnings, said once where several runs share one."""
    owners: dict[str, list[str]] = {}
    for run in runs:
        for text in run.evaluation.warnings:
            owners.setdefault(text, []).append(run.label)
    return [
        text if len(labels) == len(runs) else f"{', '.join(labels)}: {text}"
        for text, labels in owners.items()
    ]


def _split_scores(
    runs: Sequence[ReportedRun], split: str, by_seed: Sequence[Configuration], *, key: str
) -> SplitScores:
    view = first_view_of(runs)
    places = [(ALL, ALL), *generators_of(runs, split, view)]
    if len(places) > MAX_PANELS + 1:
        places = places[:1]
    curves = [
        _curves(runs, (split, view, *place), key=f"{key}-{k}") for k, place in enumerate(places)
    ]
    return SplitScores(
        name=split,
        seeds=tuple(
            over_seeds(one, split=split, view=view)
            for one in by_seed
            if len(one.runs) > 1 and splits_of(one.runs).count(split)
        ),
        generators=tuple(
            made(runs, split=split, metric=metric)
            for made, is_there in (
                (tables.per_generator, True),
                (tables.per_family, any(key[0] == split for run in runs for key in run.families)),
                (tables.per_group, any(place[0] == split for run in runs for place in run.groups)),
            )
            for metric in SCORE_METRICS
            if is_there
        ),
        views=tuple(
            tables.per_view(runs, split=split, metric=metric)
            for metric in SCORE_METRICS
            if len(views_of(runs)) > 1
        ),
        operating=tables.operating_points(runs, split=split),
        roc=tuple(roc for roc, _ in filter(None, curves)),
        pr=tuple(pr for _, pr in filter(None, curves)),
        scores=tuple(_histograms(runs, split, view, key=key)),
    )


def _curves(
    runs: Sequence[ReportedRun], place: tuple[str, str, str, str], *, key: str
) -> tuple[Panel, Panel] | None:
    """ROC and PR panels of one row of the tidy table; None where no head has both classes."""
    shown, rows = {}, []
    for run in runs:
        row = run.rows.get(place)
        if row is not None and row["auc"] is not None:
            shown[run.slot] = _scored(run, place, reals_from=row["reals_from"])
            rows.append((run, row))
    if not rows:
        return None
    sources = {source for source, _ in generators_of(runs, *place[:2])}
    title = "All generators" if place[3] == ALL else place[3]
    if place[3] != ALL and len(sources) > 1:
        title = f"{title}, {place[2]}"
    tag = "" if place[3] == ALL else tag_of(runs, place)
    roc, pr = (
        Panel(
            svg=draw(shown, name=f"{name}-{key}"),
            title=title,
            legend=tuple((run.slot, run.label, percent(row[number])) for run, row in rows),
            tag=tag,
        )
        for draw, name, number in (
            (figures.draw_roc, "roc", "auc"),
            (figures.draw_pr, "pr", "average_precision"),
        )
    )
    return roc, pr


def _scored(
    run: ReportedRun, place: tuple[str, str, str, str], *, reals_from: str = ALL
) -> figures.Labelled:
    """Labels and log-odds behind one row of the tidy table."""
    split, view, source, generator = place
    kept = images_behind(
        run.evaluation.predictions,
        split=split,
        view=view,
        source=source,
        generator=generator,
        reals_from=reals_from,
    )
    return kept["label"].to_numpy(), kept["log_odds"].to_numpy()


def _histograms(runs: Sequence[ReportedRun], split: str, view: str, *, key: str) -> list[Panel]:
    panels = []
    for run in runs:
        labels, log_odds = _scored(run, (split, view, ALL, ALL))
        scores = 1 / (1 + np.exp(-log_odds.clip(-700, 700)))
        if len(scores):
            threshold = run.config["threshold"]
            name = f"scores-{key}-{run.slot}"
            svg = figures.draw_scores(labels, scores, threshold=threshold, name=name)
            panels.append(Panel(svg, run.label, tag=f"threshold {threshold:.3f}"))
    return panels


def _histories(runs: Sequence[ReportedRun]) -> list[Panel]:
    panels = []
    best = {run.slot: run.config.get("train", {}).get("best_epoch") for run in runs}
    for key, title, label in (
        ("train_loss", "Training loss", "loss"),
        ("val_auc", "Validation AUC", "AUC"),
    ):
        lines, legend = {}, []
        for run in runs:
            points = [(e["epoch"], e[key]) for e in run.history if e.get(key) is not None]
            if points:
                epochs, values = np.asarray(points, dtype=np.float64).T
                lines[run.slot] = (epochs, values)
                legend.append((run.slot, run.label, f"{values[-1]:.3f}"))
        if lines:
            svg = figures.draw_history(lines, best=best, label=label, name=f"history-{key}")
            panels.append(Panel(svg, title, tuple(legend)))
    return panels


def _picture_section(
    runs: Sequence[ReportedRun], pictures: Sequence[Picture]
) -> dict[str, Any] | None:
    if not pictures:
        return None
    strip = draw_strip(pictures)
    cards = []
    for picture, image, error_map in zip(pictures, strip.images, strip.error_maps, strict=True):
        verdicts = []
        for run in runs:
            score = picture.scores.get(run.label)
            if score is not None and not np.isnan(score):
                threshold = run.config["threshold"]
                verdicts.append(
                    {
                        "run": run,
                        "score": float(score),
                        "threshold": threshold,
                        "right": (score > threshold) == picture.is_fake,
                    }
                )
        cards.append(
            {"picture": picture, "image": image, "error_map": error_map, "verdicts": verdicts}
        )
    return {"strip": strip, "cards": cards}
