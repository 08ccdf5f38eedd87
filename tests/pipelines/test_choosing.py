"""What training chooses on, from the command line to the scores: a held-out generator, balance,
averages, and groups of images."""

import json
import re

import numpy as np
import pandas as pd
import pytest

import clare_cache as cc
from tests.feature_data import image_id, make_store

RECIPE = """
about: {title: choosing}
head:
  - {family: linear, optimiser: {lr: 0.05, early_stopping: ufd, average: 0.5}}
  - {family: rine, options: {depth: 1, width: 8}, optimiser: {lr: 0.02, label_smoothing: 0.1,
     schedule: cosine, update_lr: step, warmup_epochs: 1}}
train: {epochs: 3, batch_size: 16, validation_fraction: 0.3, sampling: generator}
evaluate: {splits: [test], n_resamples: 5}
"""
KINDS = np.array(["gan", "ldm", "swap"])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """120 images of 60 groups: 80 to train with, of which 3 have no features, and 40 to test."""
    folder = tmp_path_factory.mktemp("choosing")
    make_store(folder / "store", range(120), failed=[0, 3, 17])
    numbers = np.arange(120)
    kinds = KINDS[numbers // 2 % 3]
    rows = pd.DataFrame(
        {
            "image_id": [image_id(int(n)) for n in numbers],
            "path": [f"{n}.png" for n in numbers],
            "label": numbers % 2,
            "generator": np.where(numbers % 2, kinds, "real"),
            "family": np.where(numbers % 2, np.where(kinds == "gan", "gan", "diffusion"), "real"),
            # Two reals, or two fakes of one generator, to a group.
            "group": [f"{n % 2}/{n // 2 % 3}/{n // 12}" for n in numbers],
            "split": np.where(numbers < 84, "train", "test"),
        }
    )
    cc.Manifest.from_rows(rows).write(folder / "m.parquet")
    (folder / "choosing.yaml").write_text(RECIPE)
    return folder


@pytest.fixture
def run(place, command):
    done = command(
        "train-head", "choosing.yaml", "--store", "store", "--manifest", "m.parquet",
        "--device", "cpu", "--validate-on", "held-out-generator", "--out", "runs", folder=place,
    )  # fmt: skip
    assert done.status == 0, done.err
    assert "coverage" in done.out
    return place / "runs"


def test_a_held_out_generator_chooses_and_is_not_trained_on(run, place, command):
    config = json.loads((run / "linear/config.json").read_text())
    trained_on = set(config["train"]["generators"])
    (held_out,) = set(KINDS) - trained_on
    assert config["threshold_from"].endswith(f"; fakes of {held_out}, not trained on")
    assert config["train"]["n_validation_missing"] + config["train"]["n_missing"] == 3
    done = command("evaluate", "runs", folder=place)
    assert done.status == 0, done.err
    assert done.out.endswith(
        "choose among heads by leaderboard.csv, on validation: the best of these would be an "
        "oracle's choice\n"
    )
    one = command("evaluate", "runs/linear", folder=place)
    assert one.out.endswith("chosen on validation; for val itself that flatters\n")
    predictions = pd.read_parquet(run / "linear/predictions.parquet")
    chosen = predictions[(predictions["split"] == "val") & (predictions["label"] == 1)]
    assert set(chosen["generator"]) == {held_out}
    assert config["train"]["validation_generators"] == [held_out]
    board = pd.read_csv(run / "leaderboard.csv")
    n_scored, n_missing = (
        config["train"][name] for name in ("n_validation_images", "n_validation_missing")
    )
    assert board["val_coverage"].tolist() == pytest.approx([n_scored / (n_scored + n_missing)] * 2)
    table = pd.read_csv(run / "rine/metrics.csv")
    test = table[(table["split"] == "test") & (table["view"] == "clean")]
    assert set(test["level"]) == {"image", "group"}
    assert set(test["family"]) == {"all", "gan", "diffusion"}
    groups = test[(test["level"] == "group") & (test["generator"] == "all")].iloc[0]
    images = test[(test["level"] == "image") & (test["family"] == "all")]
    assert 0 < groups["n_asked"] < images.iloc[0]["n_asked"]


def test_a_held_out_generator_is_known_on_other_images_too(run, place, command):
    """A manifest without the training's validation split says nothing of it; the run does."""
    trained_on = json.loads((run / "linear/config.json").read_text())["train"]["generators"]
    (held_out,) = set(KINDS) - set(trained_on)
    rows = cc.Manifest.read(place / "m.parquet").where(split="test").rows
    other = rows.replace({"generator": {trained_on[0]: "flux"}})
    cc.Manifest.from_rows(other).write(place / "other.parquet")
    done = command("evaluate", "runs/linear", "--manifest", "other.parquet", folder=place)
    assert done.status == 0, done.err
    table = pd.read_csv(run / "linear/metrics.csv").query("level == 'image' and generator != 'all'")
    seen = table.set_index("generator")[["seen_in_training", "seen_in_validation"]].T.to_dict(
        "list"
    )
    assert seen == {"flux": [False, False], held_out: [False, True], trained_on[1]: [True, False]}
    card = (run / "linear/README.md").read_text()
    assert f"| {held_out} | in validation |" in card
    assert "| flux | no |" in card
    command("report", "runs/linear", "-o", "other.html", folder=place)
    page = re.sub(r"<[^>]+>|\s+", " ", (place / "other.html").read_text())
    assert re.search(rf"{held_out} +seen in validation", page)
    assert re.search("flux +unseen", page)


def test_another_choice_of_validation_is_another_training(run, place, command):
    before = json.loads((run / "linear/config.json").read_text())["training_fingerprint"]
    command(
        "train-head", "choosing.yaml", "--store", "store", "--manifest", "m.parquet",
        "--device", "cpu", "--head", "linear", "--out", "runs", folder=place,
    )  # fmt: skip
    config = json.loads((run / "linear/config.json").read_text())
    assert config["training_fingerprint"] != before
    assert set(config["train"]["generators"]) == set(KINDS)
