"""What the page's tables of scores say, as plain records; the template decides how they look.

Metrics are shown in percent with one decimal. An undefined number is a dash with its reason.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from clare_cache.evaluate import ALL, FEWEST_REALS, FEWEST_TO_CALIBRATE
from clare_cache.report.runs import (
    ReportedRun,
    Row,
    first_view_of,
    generators_of,
    judged_splits_of,
    tag_of,
    views_of,
)

DASH = "–"

FEW_REALS = "too few reals"
UNCALIBRATED = "uncalibrated"
FEW_GROUPS = 20
"""Below this many resampled groups the page says that an interval is rough."""

METRICS = {
    "average_precision": "Average precision",
    "auc": "ROC AUC",
    "accuracy_validation_threshold": "Accuracy at the validation threshold",
}


@dataclass(frozen=True)
class Cell:
    """One cell: a text, a small second line, and where its interval lies on the table's scale.

    `track` is (low, value, high) in percent of the track's width, `tick` the place of another
    number on it; `slot` is a head's colour; `link` names a place on the page; `shade` in [0, 1]
    tints the cell.
    """

    text: str
    detail: str = ""
    numeric: bool = True
    track: tuple[float, float, float] | None = None
    slot: int | None = None
    tag: str = ""
    hint: str = ""
    tick: float | None = None
    verdict: str = ""
    link: str = ""
    shade: float | None = None
    outlined: bool = False


@dataclass(frozen=True)
class Column:
    """A column's heading; neighbouring columns of one `band` share a heading above it.

    `width` is a share of the table in percent: equal tracks need equal columns.
    """

    title: str
    band: str = ""
    numeric: bool = True
    slot: int | None = None
    hint: str = ""
    width: float | None = None


@dataclass(frozen=True)
class Table:
    """A table of the page; `note` stands below it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    @property
    def bands(self) -> list[tuple[str, int]]:
        """Bands with how many columns each spans; empty when no column has one."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.band:
                spans[-1] = (column.band, spans[-1][1] + 1)
            else:
                spans.append((column.band, 1))
        return spans if any(title for title, _ in spans) else []


def leaderboard(runs: Sequence[ReportedRun]) -> Table:
    """Heads in the order of their validation scores, with the test numbers beside."""
    split, view = judged_splits_of(runs)[0], first_view_of(runs)
    chosen, judged = "Validation: ranking", f"{split.capitalize()} split"
    columns = (
        Column("Head", numeric=False),
        Column("AUC", chosen),
        Column("AP", chosen),
        Column("AP", judged),
        Column("AUC", judged),
        Column("Accuracy", judged, hint="at the threshold chosen on validation"),
        Column("Mean AP", judged, hint="mean over generators, each against its reals"),
        Column("Lowest AP", judged, hint="the generator with the lowest average precision"),
        Column("Coverage", judged, hint="images with a score, of those asked for"),
    )
    shown = [run.rows.get((split, view, ALL, ALL)) for run in runs]
    names = list(METRICS)
    scales = {name: _scale([row for row in shown if row], name) for name in names}
    rows = []
    for run, row in zip(runs, shown, strict=True):
        headline = run.evaluation.headline.get(split, {})
        mean = headline.get("mean_over_generators", {}).get("average_precision")
        worst = headline.get("worst_generator", {})
        rows.append(
            (
                Cell(run.label, _size(run), numeric=False, slot=run.slot),
                Cell(percent(run.validation["auc"])),
                Cell(percent(run.validation["average_precision"])),
                *(score_cell(row, name, scale=scales[name], slot=run.slot) for name in names),
                Cell(percent(mean)),
                Cell(percent(worst.get("average_precision")), worst.get("generator", "")),
                coverage_cell(row),
            )
        )
    note = (
        "Percent, ordered by validation AUC. Small figures and bars: 95% intervals, from "
        "resampling whole groups of images. Accuracy uses each head's threshold chosen on "
        f"validation.{_few_groups([row for row in shown if row])}"
    )
    return Table("Leaderboard", columns, tuple(rows), note)


def per_generator(runs: Sequence[ReportedRun], *, split: str, metric: str) -> Table:
    """One metric: generators down, heads across; unseen generators come first."""
    view = first_view_of(runs)
    return _score_table(
        runs,
        title=METRICS[metric],
        heading="Generator",
        titles=_generator_titles(runs, split, view),
        find=lambda run, key: run.rows.get((split, view, *key)),
        metric=metric,
    )


def per_family(runs: Sequence[ReportedRun], *, split: str, metric: str) -> Table:
    """One metric: families of generators down, heads across, all reals of the split beside."""
    view = first_view_of(runs)
    families = sorted({key[2] for run in runs for key in run.families if key[:2] == (split, view)})
    return _score_table(
        runs,
        title=f"{METRICS[metric]} by family",
        heading="Family",
        titles={(family, ""): Cell(family, numeric=False) for family in families},
        find=lambda run, key: run.families.get((split, view, key[0])),
        metric=metric,
    )


def per_group(runs: Sequence[ReportedRun], *, split: str, metric: str) -> Table:
    """One metric with whole groups of images counted: generators down, heads across."""
    view = first_view_of(runs)
    return _score_table(
        runs,
        title=f"{METRICS[metric]}, by group",
        heading="Generator",
        titles=_generator_titles(runs, split, view),
        find=lambda run, key: run.groups.get((split, view, *key)),
        metric=metric,
        remark=" A group (video, identity or scene) counts once, with the mean score of its "
        "images; thresholds are chosen on validation groups.",
    )


def per_view(runs: Sequence[ReportedRun], *, split: str, metric: str) -> Table:
    """One metric: views (perturbed pictures) down, heads across, all generators pooled."""
    titles = {(view, ""): Cell(view, numeric=False) for view in views_of(runs)}
    return _score_table(
        runs,
        title=METRICS[metric],
        heading="View",
        titles=titles,
        find=lambda run, key: run.rows.get((split, key[0], ALL, ALL)),
        metric=metric,
    )


def operating_points(runs: Sequence[ReportedRun], *, split: str) -> Table:
    """What each head does at its threshold, and around it."""
    at, others = "At the validation threshold", "Other thresholds"
    caught = "share of fakes caught when at most {} % of reals are called fake"
    wanted = [
        (Column("Accuracy", at), "accuracy_validation_threshold"),
        (Column("Reals kept", at, hint="share of reals not called fake"), "real_accuracy"),
        (Column("Fakes caught", at, hint="share of fakes called fake"), "fake_accuracy"),
        (Column("Accuracy at 0.5", others), "accuracy_0.5"),
        (Column("Equal error rate", others), "eer"),
        (Column("Fakes caught at 1%", others, hint=caught.format(1)), "tpr_at_fpr_1"),
        (Column("Fakes caught at 5%", others, hint=caught.format(5)), "tpr_at_fpr_5"),
        (Column("Calibration error", "Probabilities"), "ece"),
        (Column("Accuracy", "Oracle", hint="threshold looked at test labels"), "oracle_accuracy"),
    ]
    rows = []
    for run in runs:
        row = run.rows.get((split, first_view_of(runs), ALL, ALL)) or {}
        rows.append(
            (
                Cell(run.label, numeric=False, slot=run.slot),
                Cell(f"{run.config['threshold']:.3f}"),
                *(
                    Cell(
                        percent(row.get(name)),
                        _below(row, name),
                        hint=row.get("note", ""),
                    )
                    for _, name in wanted
                ),
            )
        )
    columns = (
        Column("Head", numeric=False),
        Column("Threshold", at),
        *(column for column, _ in wanted),
    )
    note = (
        "Percent, except the threshold. Caught at 1% or 5%: when so many of the reals may be "
        "called fake. The small figure below a calibration error is the error once log-odds are "
        "divided by a temperature fitted on validation. Oracle: its threshold looked at the test "
        "labels, an upper bound that no one could reach without the answers; compare heads by the "
        f"others.{_few_reals(rows)}{_uncalibrated(rows)}"
    )
    return Table("Operating points", columns, tuple(rows), note)


def _below(row: Row, name: str) -> str:
    """What stands small below a number: the calibrated error; why there is no rate."""
    if name == "ece":
        value = row.get("ece_calibrated")
        return percent(value) if value is not None else UNCALIBRATED if row else ""
    fewest, n_real = FEWEST_REALS.get(name), row.get("n_real")
    return FEW_REALS if fewest and n_real and n_real < fewest else ""


def _few_reals(rows: Sequence[Sequence[Cell]]) -> str:
    """Why rates are withheld, for the note below a table."""
    if not any(cell.detail == FEW_REALS for row in rows for cell in row):
        return ""
    fewest = " and ".join(str(n) for n in FEWEST_REALS.values())
    return (
        f" A rate at 1% and 5% needs at least {fewest} real images: of fewer that share is not "
        "one image, and the one real with the highest score would decide it."
    )


def _uncalibrated(rows: Sequence[Sequence[Cell]]) -> str:
    """Why there is no temperature, for the note below a table."""
    if not any(cell.detail == UNCALIBRATED for row in rows for cell in row):
        return ""
    return (
        f" {UNCALIBRATED.capitalize()}: no temperature was fitted. It needs "
        f"{FEWEST_TO_CALIBRATE} real and {FEWEST_TO_CALIBRATE} fake validation images, some "
        "but not most of them on the wrong side of 0.5."
    )


def score_cell(row: Row | None, name: str, *, scale: tuple[float, float], slot: int) -> Cell:
    """A metric with its interval, drawn on `scale` (lowest and highest value of the track)."""
    if row is None:
        return Cell(DASH, hint="not scored")
    value, low, high = (row[name + suffix] for suffix in ("", "_low", "_high"))
    if value is None:
        return Cell(DASH, hint=row["note"])
    if low is None:
        return Cell(percent(value), hint="too few groups for an interval")
    start, stop = scale
    left, middle, right = (100 * (x - start) / (stop - start) for x in (low, value, high))
    return Cell(
        percent(value),
        f"{percent(low)}–{percent(high)}",
        track=(round(left, 1), round(middle, 1), round(right, 1)),
        slot=slot,
    )


def coverage_cell(row: Row | None) -> Cell:
    """How many of the asked-for images have a score."""
    if row is None:
        return Cell(DASH, hint="not scored")
    return Cell(percent(row["coverage"]), f"{row['n_scored']:,} of {row['n_asked']:,}")


def percent(value: float | None) -> str:
    """A share in [0, 1] as percent with one decimal, without the sign; a dash for None."""
    return DASH if value is None else f"{100 * value:.1f}"


def _generator_titles(
    runs: Sequence[ReportedRun], split: str, view: str
) -> dict[tuple[str, str], Cell]:
    """Source and generator → how its row begins; all of them together come first."""
    places = generators_of(runs, split, view)
    several = len({source for source, _ in places}) > 1
    titles = {(ALL, ALL): Cell("All generators", numeric=False)}
    for source, generator in places:
        titles[source, generator] = Cell(
            generator,
            source if several else "",
            numeric=False,
            tag=tag_of(runs, (split, view, source, generator)),
        )
    return titles


def _score_table(
    runs: Sequence[ReportedRun],
    *,
    title: str,
    heading: str,
    titles: dict[tuple[str, str], Cell],
    find: Callable[[ReportedRun, tuple[str, str]], Row | None],
    metric: str,
    remark: str = "",
) -> Table:
    found = {key: [find(run, key) for run in runs] for key in titles}
    scale = _scale([row for rows in found.values() for row in rows if row], metric)
    width = round(60 / len(runs), 1)
    columns = [
        Column(heading, numeric=False),
        Column("Real + fake"),
        Column("Coverage"),
        *(Column(run.label, "Heads", slot=run.slot, width=width) for run in runs),
    ]
    rows = []
    for key, cell in titles.items():
        known = [row for row in found[key] if row]
        if not known:
            continue
        rows.append(
            (
                cell,
                _shared(f"{row['n_real']:,} + {row['n_fake']:,}" for row in known),
                _shared_coverage(known),
                *(
                    score_cell(row, metric, scale=scale, slot=run.slot)
                    for run, row in zip(runs, found[key], strict=True)
                ),
            )
        )
    shown = [row for rows in found.values() for row in rows if row]
    note = (
        f"Percent, with 95% intervals; the bars run from {100 * scale[0]:.0f} to 100."
        f"{_few_groups(shown)}{remark}"
    )
    return Table(title, tuple(columns), tuple(rows), note)


def _shared(texts: Iterable[str]) -> Cell:
    distinct = list(dict.fromkeys(texts))
    if len(distinct) == 1:
        return Cell(distinct[0])
    return Cell("differs", hint="; ".join(distinct))


def _shared_coverage(rows: Sequence[Row]) -> Cell:
    cells = list(dict.fromkeys(coverage_cell(row) for row in rows))
    if len(cells) == 1:
        return cells[0]
    return Cell("differs", " / ".join(cell.text for cell in cells), hint="in the heads' order")


def _scale(rows: Sequence[Row], name: str) -> tuple[float, float]:
    """A track from the multiple of 10 % below the lowest bound to 100 %."""
    bounds = [row[key] for row in rows for key in (name, f"{name}_low")]
    lowest = min((bound for bound in bounds if bound is not None), default=0.0)
    return max(0, int(10 * lowest - 1e-9)) / 10, 1.0


def _few_groups(rows: Sequence[Row]) -> str:
    """A warning for the note below a table: percentiles of few groups mean little."""
    fewest = min((row["n_groups"] for row in rows if row["n_scored"]), default=FEW_GROUPS)
    if fewest >= FEW_GROUPS:
        return ""
    images = "1 group" if fewest == 1 else f"{fewest} groups"
    return f" Some intervals come from only {images} of images and are rough."


def _size(run: ReportedRun) -> str:
    size, seconds = run.config.get("n_parameters"), run.config.get("train", {}).get("seconds")
    parts = []
    if size is not None:
        parts.append(f"{size:,}\N{NO-BREAK SPACE}parameters")
    if seconds is not None:
        digits = 0 if seconds >= 10 else 1
        parts.append(f"trained in {seconds:,.{digits}f} s".replace(" ", "\N{NO-BREAK SPACE}"))
    return " · ".join(parts)
