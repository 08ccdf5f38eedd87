"""Heads as scikit-learn classifiers: its conventions, the loop's numbers, groups kept whole."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import clare_cache as cc
from clare_cache.errors import HeadError, TrainError
from clare_cache.train.estimator import HeadClassifier

RNG_SEED = 5
FAST = {"optimiser": {"lr": 0.05}, "train": {"epochs": 3, "batch_size": 16}}


@pytest.fixture
def images():
    rng = np.random.default_rng(RNG_SEED)
    labels = np.arange(80) % 2
    embedding = rng.standard_normal((80, 6)).astype(np.float16)
    embedding[:, 0] += 3 * labels
    block_cls = rng.standard_normal((80, 3, 5)) + labels[:, None, None]
    return {"clip_embedding": embedding, "clip_block_cls": block_cls}, labels


@pytest.mark.parametrize(
    ("family", "options"),
    [("linear", {}), ("rine", {"depth": 1, "width": 16, "dropout": 0.1}), ("knn", {"k": 3})],
)
def test_it_learns_and_scores(family, options, images):
    arrays, labels = images
    found = cc.HeadClassifier(family, **FAST, **options).fit(arrays, labels)
    shares = found.predict_proba(arrays)
    assert shares.shape == (80, 2)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (found.predict(arrays) == (shares[:, 1] > found.threshold_)).all()
    assert found.score(arrays, labels) == (found.predict(arrays) == labels).mean() > 0.8
    assert found.classes_.tolist() == [0, 1]
    assert found.head_.family == family
    assert len(found.history_) == (1 if family == "knn" else 3)


def test_a_prompt_head_takes_its_text_tower(images, build_text_tower):
    arrays, labels = images
    rows = {"clip_embedding": np.repeat(arrays["clip_embedding"], 2, axis=1)[:, :10]}
    tower = build_text_tower()
    found = HeadClassifier("prompt_tuning", text=tower, n_context=2, **FAST).fit(rows, labels)
    assert found.predict(rows).shape == (80,)


def test_the_seed_decides_and_the_copy_is_the_same(images):
    arrays, labels = images
    first = HeadClassifier("rine", depth=1, width=8, **FAST)
    second = clone(first)
    assert second.get_params() == first.get_params()
    assert second.get_params()["width"] == 8
    np.testing.assert_array_equal(
        first.fit(arrays, labels).predict_proba(arrays),
        second.fit(arrays, labels).predict_proba(arrays),
    )


def test_parameters_and_options_can_be_set():
    found = HeadClassifier("rine", depth=1).set_params(family="linear", depth=3, device="cpu")
    assert found.family == "linear"
    assert found.options == {"depth": 3}
    assert "depth=3" in repr(found)


def test_no_group_is_on_both_sides(images, monkeypatch):
    arrays, labels = images
    seen = []

    def watch(members, train, validation, **options):
        seen.extend([train, validation])
        raise KeyboardInterrupt

    monkeypatch.setattr("clare_cache.train.estimator.train_members", watch)
    groups = np.arange(80) // 4
    rows = {**arrays, "clip_embedding": np.stack([groups] * 6, axis=1).astype(float)}
    with pytest.raises(KeyboardInterrupt):
        HeadClassifier("linear").fit(rows, labels, groups)
    sides = [set(part.batch(np.arange(len(part)))[0]["clip_embedding"][:, 0].tolist())
             for part in seen]  # fmt: skip
    assert sides[0].isdisjoint(sides[1])
    assert sum(map(len, sides)) == 20
    assert len(seen[1]) == 16


def test_faults_are_told_at_once(images):
    arrays, labels = images
    with pytest.raises(TrainError) as caught:
        HeadClassifier("linear").fit(arrays, labels[:50] + 1, groups=np.arange(80))
    assert str(caught.value) == (
        "fit of head linear: 4 faults\n"
        "  - clip_embedding: expected 50 images, as there are labels, found 80\n"
        "  - clip_block_cls: expected 50 images, as there are labels, found 80\n"
        "  - groups: expected 50 images, as there are labels, found 80\n"
        "  - labels: expected 0 (real) and 1 (fake), found [1, 2]"
    )


def test_before_fitting_and_with_absent_arrays(images):
    arrays, labels = images
    with pytest.raises(NotFittedError):
        HeadClassifier("linear").predict(arrays)
    found = HeadClassifier("linear", **FAST).fit(arrays, labels)
    with pytest.raises(HeadError, match="clip_embedding: expected rows of shape"):
        found.predict({"clip_block_cls": arrays["clip_block_cls"]})


def test_a_diverging_head_is_an_error(images):
    arrays, labels = images
    head = HeadClassifier("rine", depth=1, width=8, optimiser={"lr": 1e30})
    with pytest.raises(TrainError, match="rine: 1 fault\n  - scores stopped being finite"):
        head.fit(arrays, labels)


def test_settings_that_need_a_manifest_are_refused(images):
    arrays, labels = images
    classifier = HeadClassifier(
        "linear", train={"validate_on": "held-out-generator", "sampling": "generator"}
    )
    with pytest.raises(TrainError) as caught:
        classifier.fit(arrays, labels)
    assert str(caught.value) == (
        "fit of head linear: arrays do not tell who made an image: 2 faults\n"
        "  - validate_on: expected group, found held-out-generator\n"
        "  - sampling: expected all or class, found generator\n"
        "Train from a store and a manifest for that."
    )


def test_classes_can_be_balanced(images):
    arrays, labels = images
    plain, balanced = (
        HeadClassifier("linear", train={"epochs": 2, "sampling": sampling}).fit(arrays, labels)
        for sampling in ("all", "class")
    )
    assert plain.history_ != balanced.history_
