"""Searching settings with Optuna: rounds of members, each round trained in one pass.

One study per head of the recipe, kept in `out`/search.journal, which a second call goes on with. A
member whose validation falls behind the median of its study is pruned at the end of an epoch.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clare_cache.errors import TrainError
from clare_cache.evaluate import read_config, write_leaderboard
from clare_cache.recipe import HeadSection, Recipe, read_recipe
from clare_cache.sweep import Axis, Range
from clare_cache.types import OnProgress, ignore_progress
from clare_cache.workflow.training import train_head

ROUND = 8
"""Trials of each head that share a pass: later ones know what earlier ones found."""

JOURNAL = "search.journal"

PRUNED = "pruned"
"""How the note of a member that was stopped for the others' sake begins."""


class Search:
    """Studies by the label of a head, and the trials of the round that is going on."""

    def __init__(self, out: Path) -> None:
        try:
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend
        except ImportError as error:
            raise TrainError(
                "--search: Optuna is not installed. Say: pip install 'clare-cache[search]'"
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        out.mkdir(parents=True, exist_ok=True)
        self._optuna = optuna
        self._storage = JournalStorage(JournalFileBackend(str(out / JOURNAL)))
        self._studies: dict[str, Any] = {}
        self._trials: dict[str, list[tuple[Any, dict[str, Any]]]] = {}
        self._of: dict[str, Any] = {}
        self.n_asked = 0

    def start_round(self, n: int) -> None:
        """Every head is about to be given this many settings."""
        self.n_asked, self._trials, self._of = n, {}, {}

    def choose(self, label: str, axes: Sequence[Axis]) -> Iterator[dict[Axis, Any]]:
        """Settings to try next for a head, as `sweep.expand` asks for them."""
        varied = [axis for axis in axes if axis.varies]
        fixed = {axis: axis.only for axis in axes if not axis.varies}
        if not varied:
            yield fixed
            return
        study = self._study(label)
        known = [trial.params for trial in study.get_trials(deepcopy=False)]
        for _ in range(self.n_asked):
            trial = study.ask()
            settings = {axis: _suggest(trial, axis) for axis in varied}
            named = {axis.name: value for axis, value in settings.items()}
            if named in known:
                # Trained already, and its number would be the same.
                study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
                continue
            known.append(named)
            self._trials.setdefault(label, []).append((trial, named))
            yield {**fixed, **settings}

    def listen(self, heads: Sequence[HeadSection]) -> None:
        """These are the members that the chosen settings became."""
        for head in heads:
            for trial, named in self._trials.get(head.sweep, []):
                if all(head.settings.get(name) == value for name, value in named.items()):
                    self._of[head.label] = trial

    def on_epoch(self, label: str, line: Mapping[str, Any], /) -> str | None:
        """Why this member need not go on, if it need not."""
        trial = self._of.get(label)
        if trial is None:
            return None
        trial.report(line["val_auc"], line["epoch"])
        return f"{PRUNED} after epoch {line['epoch']}" if trial.should_prune() else None

    def tell(self, out: Path, heads: Sequence[HeadSection]) -> None:
        """What each trial reached: the mean over its seeds, or that it failed."""
        values: dict[int, list[float]] = {}
        pruned: set[int] = set()
        trials: dict[int, tuple[str, Any]] = {}
        for head in heads:
            trial = self._of.get(head.label)
            if trial is None:
                continue
            trials[id(trial)] = (head.sweep, trial)
            if (out / head.label / "config.json").is_file():
                config = read_config(out / head.label)
                values.setdefault(id(trial), []).append(config["validation"]["val_auc"])
                if config["train"]["retired"].startswith(PRUNED):
                    pruned.add(id(trial))
        states = self._optuna.trial.TrialState
        for key, (label, trial) in trials.items():
            if key in pruned:
                self._study(label).tell(trial, state=states.PRUNED)
            elif key in values:
                self._study(label).tell(trial, sum(values[key]) / len(values[key]))
            else:
                self._study(label).tell(trial, state=states.FAIL)

    def _study(self, label: str) -> Any:
        if label not in self._studies:
            study = self._optuna.create_study(
                study_name=label,
                storage=self._storage,
                direction="maximize",
                load_if_exists=True,
            )
            # Another seed for a search that goes on: the same would draw the same first trials.
            seed = len(study.get_trials(deepcopy=False))
            study.sampler = self._optuna.samplers.TPESampler(seed=seed, constant_liar=True)
            self._studies[label] = study
        return self._studies[label]


def search(
    name: str | Path,
    *,
    changes: Sequence[str],
    trials: int,
    seeds: int = 1,
    heads: Sequence[str] = (),
    out: str | Path,
    validate_on: str | None = None,
    on_progress: OnProgress = ignore_progress,
    **training: Any,
) -> Recipe:
    """Trains `trials` settings of each head whose settings vary; the recipe of all of them.

    `training` are further arguments of `train_head`. Diverged members are trials that failed.
    """
    found = Search(Path(out))
    every: dict[str, HeadSection] = {}
    recipe = None
    for first in range(0, trials, ROUND):
        found.start_round(min(ROUND, trials - first))
        recipe = read_recipe(name, changes=changes, seeds=seeds, choose=found.choose)
        recipe = recipe.select_heads(heads).with_training(validate_on=validate_on)
        found.listen(recipe.head)
        try:
            train_head(
                recipe, out=out, on_epoch=found.on_epoch, on_progress=on_progress, **training
            )
        except TrainError as error:
            if "the other heads are" not in str(error):
                raise
        found.tell(Path(out), recipe.head)
        every |= {head.label: head for head in recipe.head}
    if recipe is None:
        raise TrainError(f"--search: expected a trial or more, found {trials}. Correct it.")
    whole = recipe.with_heads(list(every.values()))
    there = [label for label in every if (Path(out) / label / "config.json").is_file()]
    write_leaderboard(Path(out), there)
    return whole


def _suggest(trial: Any, axis: Axis) -> Any:
    values = axis.values
    if not isinstance(values, Range):
        return trial.suggest_categorical(axis.name, list(values))
    if values.is_whole:
        return trial.suggest_int(axis.name, int(values.low), int(values.high), log=values.log)
    return trial.suggest_float(axis.name, values.low, values.high, log=values.log)
