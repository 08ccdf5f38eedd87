"""Metrics against scikit-learn where it has them, against counting by hand where it has not."""

import math
from functools import partial

import numpy as np
import pytest
from sklearn import metrics as reference

from clare_cache import metrics
from clare_cache.errors import TrainError


def sample(seed: int, *, n: int = 300, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, n)
    scores = 1 / (1 + np.exp(-(generator.normal(size=n) + labels)))
    return labels, np.round(scores, 1) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_ranking_metrics_equal_scikit_learn(seed: int, ties: bool) -> None:
    labels, scores = sample(seed, ties=ties)
    assert metrics.average_precision(labels, scores) == pytest.approx(
        reference.average_precision_score(labels, scores), abs=1e-12
    )
    assert metrics.roc_auc(labels, scores) == pytest.approx(
        reference.roc_auc_score(labels, scores), abs=1e-12
    )


@pytest.mark.parametrize("ties", [False, True])
def test_weights_mean_repeated_images(ties: bool) -> None:
    labels, scores = sample(1, n=60, ties=ties)
    weights = np.random.default_rng(2).integers(0, 4, (7, 60)).astype(float)
    precisions = metrics.average_precision(labels, scores, weights=weights)
    areas = metrics.roc_auc(labels, scores, weights=weights)
    accuracies = metrics.accuracy_at(labels, scores, 0.5, weights=weights)
    assert precisions.shape == areas.shape == accuracies.shape == (7,)
    for k, times in enumerate(weights.astype(int)):
        again, points = np.repeat(labels, times), np.repeat(scores, times)
        assert precisions[k] == pytest.approx(reference.average_precision_score(again, points))
        assert areas[k] == pytest.approx(reference.roc_auc_score(again, points))
        assert accuracies[k] == pytest.approx(np.mean((points > 0.5) == again))


def test_an_image_on_the_threshold_is_called_real() -> None:
    labels, scores = [0, 0, 1, 1, 1], [0.2, 0.5, 0.5, 0.6, 0.9]
    assert float(metrics.accuracy_at(labels, scores, 0.5)) == pytest.approx(4 / 5)
    assert metrics.real_accuracy(labels, scores, 0.5) == 1.0
    assert metrics.fake_accuracy(labels, scores, 0.5) == pytest.approx(2 / 3)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_leaves_ranking_metrics_undefined(label: int) -> None:
    labels, scores = [label] * 3, [0.1, 0.5, 0.9]
    for value in (
        metrics.average_precision(labels, scores),
        metrics.roc_auc(labels, scores),
        metrics.oracle_accuracy(labels, scores),
        metrics.equal_error_rate(labels, scores),
        metrics.tpr_at_fpr(labels, scores, 0.05),
    ):
        assert math.isnan(value)
    assert float(metrics.accuracy_at(labels, scores, 0.5)) == pytest.approx(2 / 3 - label / 3)


def test_nothing_leaves_everything_undefined() -> None:
    assert math.isnan(metrics.accuracy_at([], [], 0.5))
    assert math.isnan(metrics.real_accuracy([], [], 0.5))
    assert math.isnan(metrics.average_precision([], []))
    assert math.isnan(metrics.expected_calibration_error([], []))


def test_threshold_lies_midway_between_the_classes() -> None:
    assert metrics.choose_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx(0.4)


def test_threshold_balances_unequal_classes() -> None:
    # Accuracy alone would call every image real (8 of 10); balance prefers to catch both fakes.
    labels = [0] * 8 + [1] * 2
    scores = [0.1, 0.1, 0.1, 0.1, 0.1, 0.8, 0.9, 0.95, 0.7, 0.85]
    assert metrics.choose_threshold(labels, scores) == pytest.approx(0.4)


def test_of_equally_good_thresholds_the_nearest_to_one_half_then_the_lower_wins() -> None:
    assert metrics.choose_threshold([0, 1, 0, 1], [0.1, 0.2, 0.4, 0.9]) == pytest.approx(0.65)
    assert metrics.choose_threshold([0, 1, 0, 1], [0.3, 0.5, 0.5, 0.7]) == pytest.approx(0.4)


def test_threshold_is_the_best_of_a_brute_force_search() -> None:
    labels, scores = sample(3, n=80, ties=True)
    chosen = metrics.choose_threshold(labels, scores)
    best = max(
        reference.balanced_accuracy_score(labels, scores > t) for t in np.arange(-0.05, 1.1, 0.1)
    )
    assert reference.balanced_accuracy_score(labels, scores > chosen) == pytest.approx(best)


def test_threshold_separates_neighbouring_floats() -> None:
    low = 0.7
    high = float(np.nextafter(low, 1))
    threshold = metrics.choose_threshold([0, 1], [low, high])
    assert not low > threshold
    assert high > threshold


def test_threshold_of_equal_scores_is_one_half() -> None:
    assert metrics.choose_threshold([0, 1], [0.9, 0.9]) == 0.5


def test_threshold_needs_both_classes() -> None:
    with pytest.raises(TrainError) as caught:
        metrics.choose_threshold([0, 0, 0], [0.1, 0.2, 0.3])
    assert str(caught.value) == (
        "threshold: expected validation scores of real and of fake images, found 3 real and 0 "
        "fake. Give the validation split both classes."
    )


def test_oracle_tries_every_threshold_and_both_constant_answers() -> None:
    labels, scores = sample(4, n=90)
    candidates = [-1.0, *scores]
    best = max(np.mean((scores > t) == labels) for t in candidates)
    assert metrics.oracle_accuracy(labels, scores) == pytest.approx(best)
    assert metrics.oracle_accuracy([1, 1, 1, 0], [0.1, 0.2, 0.3, 0.9]) == pytest.approx(3 / 4)


def test_infinite_scores_are_ties_like_others() -> None:
    labels, scores = [0, 1, 0, 1], [np.inf, np.inf, -np.inf, -np.inf]
    assert metrics.oracle_accuracy(labels, scores) == 0.5
    assert metrics.roc_auc(labels, scores) == metrics.average_precision(labels, scores) == 0.5


def test_equal_error_rate_by_hand() -> None:
    assert metrics.equal_error_rate([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]) == 0.0
    assert metrics.equal_error_rate([0, 0, 1, 1], [0.8, 0.9, 0.1, 0.2]) == 1.0
    assert metrics.equal_error_rate([0, 0, 1, 1], [0.1, 0.8, 0.2, 0.9]) == pytest.approx(0.5)
    assert metrics.equal_error_rate([0, 1], [0.5, 0.5]) == pytest.approx(0.5)
    # One false alarm among four reals, one miss among four fakes.
    labels, scores = [0, 0, 0, 0, 1, 1, 1, 1], [0.1, 0.2, 0.3, 0.7, 0.6, 0.8, 0.9, 0.95]
    assert metrics.equal_error_rate(labels, scores) == pytest.approx(0.25)


@pytest.mark.parametrize("ties", [False, True])
def test_curves_and_operating_points_equal_scikit_learn(ties: bool) -> None:
    labels, scores = sample(5, ties=ties)
    fpr, tpr, thresholds = metrics.roc_points(labels, scores)
    wanted = reference.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(fpr, wanted[0])
    np.testing.assert_allclose(tpr, wanted[1])
    np.testing.assert_array_equal(thresholds, wanted[2])
    for limit in (0.01, 0.05, 0.5):
        assert metrics.tpr_at_fpr(labels, scores, limit) == tpr[fpr <= limit].max()

    recall, precision, cuts = metrics.pr_points(labels, scores)
    wanted = reference.precision_recall_curve(labels, scores)
    np.testing.assert_allclose(precision, wanted[0][-2::-1])
    np.testing.assert_allclose(recall, wanted[1][-2::-1])
    np.testing.assert_array_equal(cuts, wanted[2][::-1])


def test_calibration_error_by_hand() -> None:
    # Two bins of two: mean score 0.25 against no fake, mean score 0.8 against one fake in two.
    value = metrics.expected_calibration_error([0, 0, 1, 0], [0.2, 0.3, 0.7, 0.9], n_bins=2)
    assert value == pytest.approx(0.5 * 0.25 + 0.5 * 0.3)


def test_calibration_bins_are_closed_above_and_hold_zero() -> None:
    labels, scores = [0, 1, 1], [0.0, 0.5, 1.0]
    assert metrics.expected_calibration_error(labels, scores, n_bins=2) == pytest.approx(0.5 / 3)


def test_calibration_refuses_what_is_no_probability() -> None:
    with pytest.raises(ValueError, match=r"expected probabilities, found -1\.0 to 2\.0"):
        metrics.expected_calibration_error([0, 1], [-1.0, 2.0])


def test_interval_equals_resampling_groups_one_by_one() -> None:
    labels, scores = sample(6, n=120)
    groups = np.arange(120) // 4
    found = metrics.interval(metrics.roc_auc, labels, scores, groups, n_resamples=50, seed=3)
    generator = metrics.generator_for(3, "interval", "bootstrap")
    values = []
    for drawn in generator.integers(0, 30, size=(50, 30)):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in drawn])
        values.append(reference.roc_auc_score(labels[rows], scores[rows]))
    low, high = np.quantile(values, [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert (found.n_resamples, found.n_skipped) == (50, 0)


def test_interval_does_not_depend_on_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores = sample(7, n=40)
    once = metrics.interval(metrics.average_precision, labels, scores, np.arange(40))
    monkeypatch.setattr(metrics, "_BLOCK_VALUES", 100)
    assert metrics.interval(metrics.average_precision, labels, scores, np.arange(40)) == once


def test_grouped_images_widen_the_interval() -> None:
    labels, scores = sample(8, n=50)
    accuracy = partial(metrics.accuracy_at, threshold=0.5)
    repeated, points = np.tile(labels, 8), np.tile(scores, 8)
    alone = metrics.interval(accuracy, repeated, points, np.arange(400))
    whole = metrics.interval(accuracy, repeated, points, np.tile(np.arange(50), 8))
    assert whole.high - whole.low > 2 * (alone.high - alone.low)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    accuracy = partial(metrics.accuracy_at, threshold=0.5)
    hits = 0
    for seed in range(100):
        right = np.random.default_rng(seed).random(200) < 0.8
        labels = np.arange(200) % 2
        scores = np.where(right, labels, 1 - labels).astype(float)
        bounds = metrics.interval(accuracy, labels, scores, np.arange(200), seed=seed)
        hits += bounds.low <= 0.8 <= bounds.high
    assert 85 <= hits <= 100


def test_resamples_with_one_class_are_counted() -> None:
    found = metrics.interval(metrics.roc_auc, [0, 1], [0.1, 0.9], ["a", "b"], n_resamples=100)
    assert (found.low, found.high) == (1.0, 1.0)
    assert 30 <= found.n_skipped <= 70


@pytest.mark.parametrize("groups", [["a", "a", "a"], []])
def test_too_few_groups_have_no_interval(groups: list[str]) -> None:
    labels, scores = [0, 1, 1][: len(groups)], [0.1, 0.9, 0.8][: len(groups)]
    found = metrics.interval(metrics.roc_auc, labels, scores, groups, n_resamples=10)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.n_skipped == 10


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], [0.1], "expected one score per label, found (2,) labels and (1,) scores"),
        ([0, 2], [0.1, 0.2], "expected labels 0 and 1, found [0, 2]"),
        ([0, 1], [0.1, float("nan")], "expected scores, found 1 NaN"),
    ],
)
def test_unusable_input_is_refused(labels: list, scores: list, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        metrics.roc_auc(labels, scores)
    assert message in str(caught.value)


def test_a_temperature_undoes_overconfidence_and_changes_no_rank():
    generator = np.random.default_rng(0)
    log_odds = generator.normal(size=4000) * 2
    labels = (generator.random(4000) < 1 / (1 + np.exp(-log_odds))).astype(int)
    assert metrics.fit_temperature(labels, log_odds) == pytest.approx(1, abs=0.1)
    assert metrics.fit_temperature(labels, 5 * log_odds) == pytest.approx(5, rel=0.1)
    found = metrics.fit_temperature(labels, 5 * log_odds)
    before, after = (
        metrics.expected_calibration_error(labels, 1 / (1 + np.exp(-5 * log_odds / t)))
        for t in (1, found)
    )
    assert after < before / 3


def test_a_temperature_is_withheld_where_the_images_do_not_tell_it():
    def fit(n_real, n_fake, n_wrong, factor=1.0):
        labels = np.repeat([0, 1], [n_real, n_fake])
        log_odds = factor * np.where(labels == 1, 3.0, -3.0)
        log_odds[:n_wrong] *= -1
        return metrics.fit_temperature(labels, log_odds)

    assert fit(50, 50, 5) == pytest.approx(3 / np.log(95 / 5), rel=1e-3)
    for n_real, n_fake in ((49, 500), (500, 49), (0, 100), (100, 0)):
        assert np.isnan(fit(n_real, n_fake, min(5, n_real)))
    assert np.isnan(fit(500, 500, 0))
    assert np.isnan(fit(50, 50, 5, factor=-1))
