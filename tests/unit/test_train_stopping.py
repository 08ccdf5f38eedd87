"""CNNDetection's rule of early stopping, beside its own code written out as a state machine."""

import numpy as np
import pytest

from clare_cache.train.stopping import Plateau, find_plateau


class Watch:
    """As the authors' trainer: a counter that is replaced whenever the rate falls."""

    def __init__(self, lr):
        self.first, self.lr, self.delta, self.best, self.count = lr, lr, -0.001, None, 0
        self.is_over = False

    def see(self, accuracy):
        if self.best is not None and accuracy < self.best - self.delta:
            self.count += 1
            if self.count >= 5:
                if self.lr / 10 < 1e-6:
                    self.is_over = True
                    return
                self.lr, self.delta, self.best, self.count = self.lr / 10, -0.002, None, 0
        else:
            self.best, self.count = accuracy, 0


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_authors_counter(seed):
    generator = np.random.default_rng(seed)
    accuracies = np.round(0.8 + 0.1 * generator.random(60), 3)
    watch = Watch(1e-4)
    for n in range(1, 61):
        if watch.is_over:
            break
        watch.see(accuracies[n - 1])
        found = find_plateau(accuracies[:n], lr=1e-4)
        assert found.factor == pytest.approx(watch.lr / watch.first)
        assert found.is_over == watch.is_over
    assert watch.is_over


def test_progress_is_more_than_a_tenth_of_a_point():
    creeping = [0.9 + 0.0009 * n for n in range(6)]
    assert find_plateau([0.9, *[0.9005] * 4], lr=1e-4) == Plateau(1.0, False)
    assert find_plateau([0.9, *[0.9005] * 5], lr=1e-4) == Plateau(0.1, False)
    assert find_plateau(creeping, lr=1e-4).factor == 1.0
    assert find_plateau([0.9 + 0.002 * n for n in range(40)], lr=1e-4) == Plateau(1.0, False)


def test_nothing_seen_is_no_plateau():
    assert find_plateau([], lr=1e-4) == Plateau(1.0, False)
