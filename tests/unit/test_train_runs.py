"""The folder that a trained head leaves behind."""

import json

import numpy as np
import pytest

from clare_cache.data import load
from clare_cache.heads import build_head, check_features, load_head
from clare_cache.train.config import OptimiserConfig, TrainConfig
from clare_cache.train.loop import Member, train_members
from clare_cache.train.runs import describe_run, save_run
from clare_cache.train.score import score
from tests.feature_data import SPECS, make_manifest, make_store

CONFIG = TrainConfig(epochs=3, batch_size=16)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(result, training data, validation data); image 4 is in the ledger."""
    store = make_store(tmp_path_factory.mktemp("store"), range(60), failed=[4])
    train = load(store, make_manifest(range(40)), needs=list(SPECS))
    validation = load(store, make_manifest(range(42, 60)), needs=list(SPECS))
    head = build_head("linear", shapes=train.shapes)
    member = Member("probe", head, OptimiserConfig(lr=0.05))
    (result,), _ = train_members([member], train, validation, epochs=3, batch_size=16)
    return result, train, validation


def test_a_description_says_how_and_on_what_the_head_was_trained(trained):
    result, train, validation = trained
    found = describe_run(result, train, validation, CONFIG)
    assert found["label"] == "probe"
    assert found["threshold"] == result.threshold
    assert found["threshold_from"] == "validation: 18 images of 6 groups"
    assert found["validation"] == result.validation
    assert found["features"] == {"clip_embedding": train.fingerprints["clip_embedding"]}
    assert found["versions"].keys() == {"clare-cache", "torch", "numpy"}
    seconds = found["train"].pop("seconds")
    assert seconds == round(result.seconds, 3)
    assert found["train"] == {
        **CONFIG.model_dump(),
        "optimiser": OptimiserConfig(lr=0.05).model_dump(),
        "best_epoch": result.best_epoch,
        "retired": "",
        "n_images": 39,
        "n_missing": 1,
        "n_validation_images": 18,
        "n_validation_missing": 0,
        "generators": ["gan"],
        "validation_generators": ["gan"],
    }


def test_a_run_folder_gives_the_head_back(tmp_path, trained):
    result, train, validation = trained
    folder = tmp_path / "runs" / "probe"
    description = describe_run(result, train, validation, CONFIG)
    save_run(folder, result, description=description, recipe="about: {title: ×}\n")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "head.safetensors",
        "history.jsonl",
        "recipe.yaml",
    ]
    assert (folder / "recipe.yaml").read_text(encoding="utf-8") == "about: {title: ×}\n"
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert lines == list(result.history)
    assert lines[0].keys() == {
        "epoch",
        "train_loss",
        "val_auc",
        "val_ap",
        "val_loss",
        "val_accuracy",
        "lr",
    }
    head, config = load_head(folder)
    assert np.array_equal(score([head], validation)[0], score([result.head], validation)[0])
    assert config["threshold"] == result.threshold
    assert config["train"]["epochs"] == 3
    check_features(config, train.fingerprints)


def test_saving_again_replaces_the_run(tmp_path, trained):
    result, train, validation = trained
    description = describe_run(result, train, validation, CONFIG)
    for text in ("old: 1\n", "new: 1\n"):
        save_run(tmp_path, result, description=description, recipe=text)
    assert (tmp_path / "recipe.yaml").read_text() == "new: 1\n"
    assert len(list(tmp_path.iterdir())) == 4
