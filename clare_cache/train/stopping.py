"""When validation stops improving: CNNDetection's rule, which UniversalFakeDetect takes over.

A pure function of the accuracies so far, so that nothing has to be remembered beside the history.
"""

from collections.abc import Sequence
from dataclasses import dataclass

PATIENCE = 5
"""Epochs without progress that are waited for."""
FIRST_STEP, LATER_STEP = 0.001, 0.002
"""How much accuracy must be gained to count as progress, before and after the first reduction."""
REDUCTION = 10.0
LOWEST_RATE = 1e-6


@dataclass(frozen=True)
class Plateau:
    """By what the learning rate is to be multiplied now, and whether training is over."""

    factor: float
    is_over: bool


def find_plateau(accuracies: Sequence[float], *, lr: float) -> Plateau:
    """What the validation accuracies at 0.5 of the epochs so far, 0..1, say about the next.

    An epoch is progress if it beats the best by 0.001. After five without, the rate is divided by
    ten and counting starts anew, with 0.002; training is over when the rate would fall below 1e-6.
    """
    factor, step = 1.0, FIRST_STEP
    best, waited = None, 0
    for accuracy in accuracies:
        if best is None or accuracy >= best + step:
            best, waited = accuracy, 0
            continue
        waited += 1
        if waited < PATIENCE:
            continue
        if lr * factor / REDUCTION < LOWEST_RATE:
            return Plateau(factor, True)
        factor, step = factor / REDUCTION, LATER_STEP
        best, waited = None, 0
    return Plateau(factor, False)
