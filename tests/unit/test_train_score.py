"""Scores of trained heads, and the tidy rows that evaluation reads."""

import numpy as np
import pytest
import torch

from clare_cache.data import load
from clare_cache.heads import build_head
from clare_cache.train.score import predict_rows, probability, score
from tests.feature_data import SPECS, make_manifest, make_store

SHAPES = {name: spec.shape for name, spec in SPECS.items()}
NUMBERS = [4, 9, 1, 8, 30, 17]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store"), range(40), failed=[9, 17])


@pytest.fixture(scope="module")
def data(store):
    return load(store, make_manifest(NUMBERS), needs=list(SPECS))


@pytest.fixture
def heads():
    return [
        build_head("linear", shapes=SHAPES),
        build_head("rine", shapes=SHAPES, depth=1, width=8, dropout=0.9),
    ]


def test_scores_are_the_head_s_log_odds_in_evaluation_mode(data, heads):
    heads[1].train()
    found = score(heads, data)
    features, _ = data.batch(np.arange(len(data)))
    for head, values in zip(heads, found, strict=True):
        assert (values.dtype, values.shape) == (np.float64, (4,))
        assert np.array_equal(values, head.eval()(features).score.double().detach().numpy())


@pytest.mark.parametrize("training", [True, False])
def test_scoring_leaves_the_mode_as_it_was(data, heads, training):
    heads[0].train(training)
    heads[1].train(not training)
    score(heads, data)
    assert [head.training for head in heads] == [training, not training]


def test_heads_can_be_trained_after_scoring(data, heads):
    score(heads, data)
    features, labels = data.batch(np.arange(len(data)))
    for head in heads:
        head.loss(head(features), labels).backward()
        assert all(p.grad is not None for p in head.trainable_parameters())


def test_the_batch_size_does_not_matter(data, heads):
    whole = score(heads, data)
    for batch_size in (1, 3):
        for one, other in zip(whole, score(heads, data, batch_size=batch_size), strict=True):
            assert np.allclose(one, other, atol=1e-6)


def test_no_images_have_no_scores(store, heads):
    nothing = load(store, make_manifest([]), needs=list(SPECS))
    assert [values.shape for values in score(heads, nothing)] == [(0,), (0,)]


def test_probabilities_keep_the_order_of_small_scores():
    log_odds = np.array([-800.0, -100.0, -99.0, -40.0, 0.0, 1.0, 800.0])
    found = probability(log_odds)
    assert found[[0, 4, 6]].tolist() == [0.0, 0.5, 1.0]
    assert found[5] == pytest.approx(1 / (1 + np.exp(-1)))
    assert (np.diff(found[:6]) > 0).all()
    assert np.isnan(probability(np.array([np.nan]))).all()


def test_predictions_have_a_row_for_every_row_of_the_manifest(data, heads):
    manifest = make_manifest(NUMBERS)
    log_odds = score(heads[:1], data)[0]
    found = predict_rows(manifest, data, log_odds)
    assert list(found.columns) == [
        "image_id", "path", "label", "split", "source", "generator", "family", "group",
        "view", "score", "log_odds", "missing",
    ]  # fmt: skip
    assert found["image_id"].tolist() == manifest.rows["image_id"].tolist()
    assert set(found["view"]) == {"clean"}
    missing = ["", "decode: no picture 9", "", "", "", "decode: no picture 17"]
    assert found["missing"].tolist() == missing
    assert np.array_equal(found["log_odds"].isna(), [reason != "" for reason in missing])
    assert np.array_equal(found["score"].isna(), found["log_odds"].isna())
    assert np.array_equal(found["log_odds"].dropna(), log_odds)
    assert np.array_equal(found["score"].dropna(), torch.sigmoid(torch.from_numpy(log_odds)))
