"""Where a look's time goes."""

import time

import pytest
import torch

from clare_cache.backbones.stopwatch import Stopwatch


def test_stretches_add_up_by_name_until_they_are_taken():
    watch = Stopwatch(torch.device("cpu"))
    for name in ("vae", "unet", "unet"):
        with watch.measure(name):
            time.sleep(0.02)
    found = watch.take()
    assert set(found) == {"vae", "unet"}
    assert found["vae"] >= 0.02
    assert found["unet"] >= 0.04
    assert watch.take() == {}


def test_what_raises_is_not_counted():
    watch = Stopwatch(torch.device("cpu"))
    with pytest.raises(ValueError, match="no"), watch.measure("vae"):
        raise ValueError("no")
    assert watch.take() == {}
