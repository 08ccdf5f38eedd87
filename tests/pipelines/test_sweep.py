"""A sweep from the command line: shown, trained, cut short, resumed, ranked."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import clare_cache as cc
import clare_cache.errors
from clare_cache.recipe import HeadSection, read_recipe
from clare_cache.workflow import training
from tests.feature_data import image_id, make_store

RECIPE = """
about: {title: small sweep}
head:
  - family: rine
    options: {width: 8, depth: 1, contrastive_weight: [0.1, 0.8], dropout: 0.2}
    optimiser: {lr: 0.02}
  - {family: linear}
train: {epochs: 2, batch_size: 16, validation_fraction: 0.3}
evaluate: {splits: [test], n_resamples: 5}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    make_store(folder / "store", range(120))
    numbers = np.arange(120)
    rows = pd.DataFrame(
        {
            "image_id": [image_id(int(n)) for n in numbers],
            "path": [f"{n}.png" for n in numbers],
            "label": numbers % 2,
            "generator": np.where(numbers % 2, "gan", "real"),
            "group": [f"group {n // 2}" for n in numbers],
            "split": np.where(numbers < 80, "train", "test"),
        }
    )
    cc.Manifest.from_rows(rows).write(folder / "m.parquet")
    (folder / "sweep.yaml").write_text(RECIPE)
    return folder


def train_head(command, place, *more):
    return command(
        "train-head", "sweep.yaml", "--store", "store", "--manifest", "m.parquet",
        "--device", "cpu", *more, folder=place,
    )  # fmt: skip


def test_a_dry_run_shows_heads_time_and_memory_and_trains_nothing(place, command):
    done = train_head(command, place, "--set", "train.lr=1e-2,1e-3", "--dry-run", "--out", "dry")
    assert done.status == 0, done.err
    for label in ("rine-contrastive_weight0.1-lr0.01", "linear-lr0.001"):
        assert label in done.out
    assert "memory of heads" in done.out
    assert not (place / "dry").exists()


def test_a_sweep_ends_with_a_ranking_and_the_test_numbers_of_the_first(place, command):
    done = train_head(
        command, place, "--set", "train.lr=1e-2,1e-3", "--seeds", "2", "--out", "runs"
    )
    assert done.status == 0, done.err
    board = pd.read_csv(place / "runs/leaderboard.csv")
    assert len(board) == 12
    assert board["rank"].tolist() == sorted(board["rank"])
    assert board["n_seeds"].unique().tolist() == [2]
    means = board.groupby(["settings.lr", "sweep", "settings.contrastive_weight"], dropna=False)
    assert board["mean"].tolist() == pytest.approx(means["val_auc"].transform("mean").tolist())
    assert board["mean"].is_monotonic_decreasing
    # Only the chosen ones were looked at on the test split.
    scored = {path.parent.name for path in (place / "runs").glob("*/metrics.json")}
    assert scored == set(board.loc[board["rank"] == 1, "label"])
    assert "test numbers of the first rank alone" in done.out
    assert "over seeds" in done.out
    assert done.out.splitlines()[-1] == "next: clare-cache report runs -o report.html"
    assert (place / "runs/leaderboard.parquet").is_file()
    assert not (place / "runs/.training").exists()


def test_the_report_shows_all_members_and_the_scores_of_the_chosen(place, command):
    done = command("report", "runs", "-o", "report.html", folder=place)
    assert done.status == 0, done.err
    page = (place / "report.html").read_text()
    board = pd.read_csv(place / "runs/leaderboard.csv")
    rine = board[board["sweep"] == "rine"]
    assert '<section id="sweeps">' in page
    assert f"8 members in {rine['rank'].nunique()} configurations" in page
    first = rine.iloc[0]
    assert f"contrastive_weight {first['settings.contrastive_weight']:g}" in page
    for panel in ("Seeds of the first ranks", "Importance of CLIP&#39;s blocks"):
        assert panel in page
    # Every member is a dot of each of its settings' drawings.
    effect = page[page.index('id="effect-w1-0') - 200 :].split("</svg>")[0]
    assert effect.count("<use") >= len(rine)
    scored = set(board.loc[board["rank"] == 1, "label"])
    tested = page[page.index('<section id="leaderboard">') : page.index('<section id="sweeps">')]
    assert all((label in tested) == (label in scored) for label in board["label"])


def scored_in(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("*/metrics.json")}


def test_evaluate_scores_the_chosen_member_alone_unless_asked_for_all(place, command):
    """Of a sweep, with a head beside it that no setting varies."""
    trained = train_head(command, place, "--out", "mixed")
    # The report needs numbers of `linear` too, which is no member of the sweep.
    assert trained.out.splitlines()[-1] == "next: clare-cache evaluate mixed"
    for path in (place / "mixed").glob("*/metrics.json"):
        path.unlink()
    board = pd.read_csv(place / "mixed/leaderboard.csv")
    first, second = board.loc[board["sweep"] == "rine", "label"]
    done = command("evaluate", "mixed", folder=place)
    assert done.status == 0, done.err
    assert done.err == (
        f"mixed: 2 members of a sweep; validation chose {first}, the others are not scored "
        "(--all-members scores them)\n"
    )
    assert scored_in(place / "mixed") == {first, "linear"}
    assert command("report", "mixed", "-o", "mixed.html", folder=place).status == 0
    for line in (("recipe", "compare", "sweep.yaml"), ("protocol", "table", "cross-generator")):
        shown = command(*line, "mixed", folder=place)
        assert shown.status == 0, shown.err
    named_twice = ("--view", "clean", "--view", "clean")
    assert command("evaluate", f"mixed/{second}", *named_twice, folder=place).err == ""
    (place / f"mixed/{second}/metrics.json").unlink()
    every = command("evaluate", "mixed", "--all-members", folder=place)
    assert every.err == ""
    assert scored_in(place / "mixed") == {first, second, "linear"}
    assert every.out.endswith("would be an oracle's choice\n")


def test_a_member_of_a_sweep_is_the_head_that_its_recipe_trains_alone(place, command):
    run = place / "runs/rine-contrastive_weight0.8-lr0.01-seed1"
    done = command(
        "train-head", str(run / "recipe.yaml"), "--store", "store", "--manifest", "m.parquet",
        "--out", "alone", "--device", "cpu", folder=place,
    )  # fmt: skip
    assert done.status == 0, done.err
    history, alone = (
        [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        for folder in (run, place / "alone" / run.name)
    )
    for line, expected in zip(history, alone, strict=True):
        assert line == pytest.approx(expected, rel=1e-4)


def test_finished_members_are_never_trained_again(place, command, monkeypatch):
    asked = []
    plain = training.train_members

    def watch(members, *given, **options):
        asked.append([member.label for member in members])
        return plain(members, *given, **options)

    monkeypatch.setattr(training, "train_members", watch)
    arguments = ("--head", "linear", "--out", "grown")
    first = train_head(command, place, "--set", "train.lr=1e-2", *arguments)
    assert first.status == 0
    # One seed: nothing to average.
    assert "over seeds" not in first.out
    assert train_head(command, place, "--set", "train.lr=1e-2", *arguments).status == 0
    assert asked == [["linear"]]
    assert train_head(command, place, "--set", "train.lr=1e-3", *arguments).status == 0
    assert train_head(command, place, "--again", *arguments).status == 0
    assert asked == [["linear"]] * 3
    assert train_head(command, place, "--set", "train.lr=1e-2,1e-3", *arguments).status == 0
    assert asked[3] == ["linear-lr0.01", "linear-lr0.001"]
    # Other epochs: a pass of its own.
    assert train_head(command, place, "--set", "train.epochs=1,2", *arguments).status == 0
    assert asked[4:] == [["linear-epochs1"], ["linear-epochs2"]]


def test_an_interrupted_sweep_goes_on_at_its_last_minute(place, monkeypatch):
    monkeypatch.setattr("clare_cache.train.checkpoint.SECONDS_BETWEEN", 0.0)
    recipe = read_recipe(place / "sweep.yaml", changes=["train.lr=1e-2,1e-3"])

    def go(out, on_progress):
        return training.train_head(
            recipe, store=place / "store", manifest=place / "m.parquet", out=out, device="cpu",
            on_progress=on_progress,
        )  # fmt: skip

    def interrupt(progress):
        if progress.what == "train" and progress.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(place / "cut", interrupt)
    steps = []
    found = go(place / "cut", lambda p: steps.append(p.done) if p.what == "train" else None)
    assert steps[0] == 5
    whole = go(place / "whole", lambda p: None)
    for one, other in zip(found, whole, strict=True):
        lines = [
            [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
            for run in (one, other)
        ]
        for line, expected in zip(*lines, strict=True):
            assert line == pytest.approx(expected, rel=1e-4)


def test_a_sweep_that_was_cut_off_and_changed_keeps_what_it_can(place, monkeypatch):
    """One member removed, one added, one changed; the removed one is asked for again later."""
    monkeypatch.setattr("clare_cache.train.checkpoint.SECONDS_BETWEEN", 0.0)
    asked, plans = [], []
    plain = training.train_members

    def watch(members, *given, **options):
        steps = []
        asked.append(([member.label for member in members], steps))
        told = options["on_progress"]

        def listen(progress):
            if progress.what == "train":
                steps.append(progress.done)
            told(progress)

        return plain(members, *given, **{**options, "on_progress": listen})

    monkeypatch.setattr(training, "train_members", watch)

    def go(heads, out, on_progress=lambda p: None):
        recipe = read_recipe(place / "sweep.yaml")
        return training.train_head(
            recipe.with_heads([HeadSection.model_validate(head) for head in heads]),
            store=place / "store", manifest=place / "m.parquet", out=out, device="cpu",
            on_progress=on_progress, on_plan=plans.append,
        )  # fmt: skip

    def head(label, lr=0.01):
        options = {"width": 8, "depth": 1, "dropout": 0.2}
        return {"family": "rine", "label": label, "options": options, "optimiser": {"lr": lr}}

    def cut(progress):
        if progress.what == "train" and progress.done == 6:
            raise KeyboardInterrupt

    out = place / "changed"
    with pytest.raises(KeyboardInterrupt):
        go([head("stays"), head("goes"), head("changes")], out, cut)
    del asked[:], plans[:]
    second = [head("changes", lr=0.02), head("new"), head("stays")]
    found = go(second, out)
    n_steps = asked[1][1][-1]
    assert [labels for labels, _ in asked] == [["changes", "new"], ["stays"]]
    assert [steps[0] for _, steps in asked] == [1, 6]
    assert plans == [
        training.Plan(finished=(), going_on=("stays",), starting=("changes", "new"),
                      waiting=("goes",))
    ]  # fmt: skip
    assert len(list((out / ".training").iterdir())) == 1
    del asked[:], plans[:]
    found += go([head("stays"), head("goes")], out)
    assert asked == [(["goes"], list(range(6, n_steps + 1)))]
    assert (plans[0].finished, plans[0].going_on, plans[0].waiting) == (
        ("stays",), ("goes",), ()
    )  # fmt: skip
    assert not (out / ".training").exists()
    whole = go([*second, head("goes")], place / "at once")
    for run in whole:
        lines = [
            [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
            for folder in (run, out / run.name)
        ]
        for line, expected in zip(*lines, strict=True):
            assert line == pytest.approx(expected, rel=1e-4)


def test_a_time_budget_ends_training_and_the_rest_is_trained_later(place, command):
    done = train_head(command, place, "--budget-minutes", "0", "--out", "budget", "--head", "rine")
    assert done.status == 0, done.err
    assert "the time budget ended in epoch 1, step 1" in done.err
    later = train_head(command, place, "--out", "budget", "--head", "rine")
    assert "the time budget" not in later.err


def test_runs_that_see_the_same_images_share_one_reading(place, command, monkeypatch):
    """And get the scores that they would get alone, in every view."""
    from clare_cache.workflow import results, scoring

    recipe = read_recipe(place / "sweep.yaml", changes=["train.lr=1e-2,1e-3"])
    runs = training.train_head(
        recipe, store=place / "store", manifest=place / "m.parquet", out=place / "many",
        device="cpu",
    )  # fmt: skip
    read = []
    plain = scoring.load

    def watch(store, manifest, **options):
        read.append((len(manifest), options["view"], options["needs"]))
        return plain(store, manifest, **options)

    monkeypatch.setattr(scoring, "load", watch)
    results.evaluate(runs, device="cpu")
    # Two kinds of needs, validation and test images.
    assert len(read) == len(set(read)) == 4
    together = [pd.read_parquet(run / "predictions.parquet") for run in runs]
    for run, found in zip(runs, together, strict=True):
        results.evaluate([run], device="cpu")
        alone = pd.read_parquet(run / "predictions.parquet")
        pd.testing.assert_frame_equal(found, alone, rtol=1e-5, atol=1e-6)


def test_workers_train_cohorts_to_the_same_heads(place, monkeypatch):
    """What a cluster is told, done here: heads of equal shapes by one worker, the numbers those
    of a single pass."""
    from contextlib import nullcontext

    from clare_cache.extraction.executors import InProcess
    from clare_cache.workflow.members import cohorts_of

    recipe = read_recipe(place / "sweep.yaml", changes=["train.lr=1e-2,1e30"])
    assert [len(labels) for labels in cohorts_of(recipe)] == [4, 2]
    asked = []
    monkeypatch.setattr(
        training, "open_executor", lambda **given: asked.append(given) or nullcontext(InProcess())
    )
    seen = []
    given = {"store": place / "store", "manifest": place / "m.parquet", "device": "cpu"}
    with pytest.raises(cc.errors.TrainError, match="Lower their learning rates") as spread:
        training.train_head(
            recipe, **given, out=place / "spread", cluster="local:2", on_progress=seen.append
        )
    with pytest.raises(cc.errors.TrainError) as here:
        training.train_head(recipe, **given, out=place / "here")
    assert str(spread.value).replace("spread", "here") == str(here.value)
    assert asked == [{"cluster": "local:2", "dask": None}]
    assert [progress.done for progress in seen if progress.unit == "head"] == [4, 6]
    boards = [pd.read_csv(place / out / "leaderboard.csv") for out in ("spread", "here")]
    for board in boards:
        del board["seconds"]
    pd.testing.assert_frame_equal(*boards, rtol=1e-4)


def test_a_search_learns_from_its_rounds_and_goes_on(place, command, monkeypatch):
    optuna = pytest.importorskip("optuna")
    monkeypatch.setattr("clare_cache.workflow.search.ROUND", 3)

    def go(trials):
        done = train_head(
            command, place, "--set", "train.lr=1e-4..1e-1:log", "--head", "rine", "--search",
            str(trials), "--out", "search",
        )  # fmt: skip
        assert done.status == 0, done.err
        return pd.read_csv(place / "search/leaderboard.csv")

    board = go(6)
    assert len(board) == 6
    assert board["settings.lr"].between(1e-4, 1e-1).all()
    assert set(board["settings.contrastive_weight"]) <= {0.1, 0.8}
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(place / "search/search.journal"))
    )

    def trials():
        return optuna.load_study(study_name="rine", storage=storage).get_trials()

    told = {round(t.params["lr"], 12): t.value for t in trials() if t.value is not None}
    for row in board.to_dict("records"):
        assert told[round(row["settings.lr"], 12)] == pytest.approx(row["val_auc"])
    go(3)
    assert len(trials()) == 9


@pytest.mark.slow
def test_a_local_cluster_trains_a_sweep(place, command):
    done = train_head(command, place, "--cluster", "local:2", "--out", "cluster")
    assert done.status == 0, done.err
    assert len(pd.read_csv(place / "cluster/leaderboard.csv")) == 3
