"""Runs that differ in their seed alone, as one result: mean ± standard deviation, no best seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clare_cache.evaluate import ALL, mean_over_seeds
from clare_cache.report.runs import ReportedRun, generators_of, tag_of
from clare_cache.report.tables import DASH, METRICS, Cell, Column, Table, percent


@dataclass(frozen=True)
class Configuration:
    """The runs of one configuration, one for each seed, best on validation first."""

    name: str
    runs: tuple[ReportedRun, ...]

    def mean_validation(self, metric: str) -> float:
        """Mean over the seeds of `auc` or `average_precision`; NaN where one has none."""
        values = [run.validation[metric] for run in self.runs]
        return math.nan if None in values else float(np.mean(values))


def configurations(runs: Sequence[ReportedRun]) -> list[Configuration]:
    """The runs by configuration, the best mean on validation first; most are alone in theirs."""
    found: dict[object, list[ReportedRun]] = {}
    for run in runs:
        found.setdefault(_key(run), []).append(run)
    made = [Configuration(_name(mine), tuple(mine)) for mine in found.values()]
    return sorted(made, key=_validation_rank)


def over_seeds(configuration: Configuration, *, split: str, view: str) -> Table:
    """Scores of one configuration: generators down, mean ± standard deviation of each metric."""
    runs = configuration.runs
    table = mean_over_seeds({run.evaluation.run: run.evaluation.table for run in runs})
    here = table[(table["split"] == split) & (table["view"] == view)]
    rows = {(row["source"], row["generator"]): row for row in here.to_dict("records")}
    body = []
    places = generators_of(runs, split, view)
    several = len({source for source, _ in places}) > 1
    for source, generator in [(ALL, ALL), *places]:
        row = rows[source, generator]
        place = (split, view, source, generator)
        name = (
            Cell("All generators", numeric=False)
            if generator == ALL
            else Cell(generator, source if several else "", numeric=False, tag=tag_of(runs, place))
        )
        cells = (spread_cell(row[f"{m}_mean"], row[f"{m}_deviation"]) for m in METRICS)
        body.append((name, *cells))
    return Table(
        f"{configuration.name}: mean over {len(runs)} seeds",
        (Column("Generator", numeric=False), *(Column(title) for title in METRICS.values())),
        tuple(body),
        "Percent, mean ± standard deviation over the seeds; each seed has the threshold that it "
        "chose on validation.",
    )


def spread(values: Sequence[float]) -> str:
    """Shares in percent: mean ± standard deviation, the latter where there are several."""
    mean = f"{percent(float(np.mean(values)))}"
    return mean if len(values) < 2 else f"{mean} ± {percent(float(np.std(values, ddof=1)))}"


def spread_cell(mean: float, deviation: float) -> Cell:
    """Shares in percent: the mean, its deviation below; a dash for no number."""
    if math.isnan(mean):
        return Cell(DASH, hint="not defined for every seed")
    return Cell(percent(mean), "" if math.isnan(deviation) else f"± {percent(deviation)}")


def _key(run: ReportedRun) -> object:
    settings = dict(run.config.get("settings") or {})
    if "seed" not in settings:
        return run.label
    del settings["seed"]
    # Sweeps of other folders may have seen other images.
    return (
        run.evaluation.run.resolve().parent,
        run.config.get("sweep"),
        str(sorted(settings.items())),
    )


def _name(runs: Sequence[ReportedRun]) -> str:
    config = runs[0].config
    if len(runs) == 1:
        return runs[0].label
    settings = [f"{k} {v}" for k, v in (config.get("settings") or {}).items() if k != "seed"]
    return ", ".join([str(config.get("sweep") or config["label"]), *settings])


def _validation_rank(configuration: Configuration) -> tuple[float, float]:
    auc, precision = map(configuration.mean_validation, ("auc", "average_precision"))
    return -np.nan_to_num(auc), -np.nan_to_num(precision)
