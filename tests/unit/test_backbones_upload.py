"""Batches on their way to a device: the very same memory on a CPU, pinned for a GPU."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clare_cache.backbones.upload import Upload, on_device

CPU = torch.device("cpu")


@pytest.fixture
def batch():
    return np.random.default_rng(5).integers(0, 256, (3, 8, 8, 3), np.uint8)


def test_a_cpu_is_given_the_same_memory(batch):
    assert Upload(CPU)(batch) is batch
    assert on_device(batch, CPU).data_ptr() == batch.ctypes.data
    tensor = torch.from_numpy(batch)
    assert on_device(tensor, CPU) is tensor


class Recorded:
    """What is asked of CUDA, where there is none."""

    def __init__(self, monkeypatch, *, is_full=False):
        self.steps = []
        to = torch.Tensor.to

        def make_stream(device):
            self.steps.append(f"stream on {device}")
            return SimpleNamespace(synchronize=lambda: self.steps.append("wait"))

        @contextmanager
        def stream(_):
            self.steps.append("into the stream")
            yield
            self.steps.append("out of it")

        def pin(tensor):
            self.steps.append("pin")
            return tensor.clone()

        def move(tensor, device, non_blocking=False):
            self.steps.append(f"copy to {device}, non_blocking={non_blocking}")
            if is_full:
                raise torch.OutOfMemoryError
            return to(tensor, "cpu")

        monkeypatch.setattr(torch.cuda, "Stream", make_stream)
        monkeypatch.setattr(torch.cuda, "stream", stream)
        monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
        monkeypatch.setattr(torch.Tensor, "to", move)


def test_a_gpu_is_given_a_pinned_copy_in_a_stream_of_its_own(batch, monkeypatch):
    recorded, upload = Recorded(monkeypatch), Upload(torch.device("cuda:1"))
    found = [upload(batch[::-1]), upload(batch)]
    one = [
        "into the stream",
        "pin",
        "copy to cuda:1, non_blocking=True",
        "out of it",
        "wait",
    ]
    assert recorded.steps == ["stream on cuda:1", *one, *one]
    np.testing.assert_array_equal(found[0].numpy(), batch[::-1])
    np.testing.assert_array_equal(found[1].numpy(), batch)


def test_a_full_gpu_is_left_to_the_one_who_looks(batch, monkeypatch):
    Recorded(monkeypatch, is_full=True)
    assert Upload(torch.device("cuda"))(batch) is batch


@pytest.mark.gpu
def test_on_a_real_gpu_the_values_are_the_same(batch):
    device = torch.device("cuda")
    uploaded = Upload(device)(batch)
    assert uploaded.device.type == "cuda"
    for found in (on_device(uploaded, device), on_device(batch, device)):
        np.testing.assert_array_equal(found.cpu().numpy(), batch)
