"""The next batch goes to the device while the present one is computed, and nothing changes."""

import threading

import numpy as np
import pytest
import torch

from clare_cache.extraction import extract_features
from tests.fake_backbone import FakeBackbone, bytes_below, write_images


class Uploading(FakeBackbone):
    """Looks at tensors alone, which are copies, and waits until the next one is there."""

    def __init__(self, n_batches, *, most_at_once=9) -> None:
        super().__init__()
        self.n_batches, self.most_at_once = n_batches, most_at_once
        self.there = [threading.Event() for _ in range(n_batches)]
        self.n_uploaded, self.n_looked_at = 0, 0

    def upload(self, batch):
        assert threading.current_thread() is not threading.main_thread()
        assert self.n_uploaded <= self.n_looked_at + 1  # no more than one waits
        copied = torch.from_numpy(batch.copy())
        self.there[self.n_uploaded].set()
        self.n_uploaded += 1
        return copied

    def __call__(self, batch, image_ids, wanted):
        assert isinstance(batch, torch.Tensor)
        if len(batch) > self.most_at_once:
            raise MemoryError
        if self.n_looked_at + 1 < self.n_batches:
            assert self.there[self.n_looked_at + 1].wait(20)
        self.n_looked_at += 1
        return super().__call__(batch.numpy(), image_ids, wanted)


@pytest.fixture
def asked(tmp_path):
    images = write_images(tmp_path / "images", 13)
    (tmp_path / "images/002.png").unlink()
    return {
        "images": images,
        "root": tmp_path / "images",
        "features": ["mean", "grid", "code"],
        "batch_size": 4,
    }


def test_order_and_bytes_are_the_same(tmp_path, asked):
    plain, uploading = FakeBackbone(), Uploading(4)
    for name, backbone in (("plain", plain), ("uploaded", uploading)):
        extract_features(tmp_path / name, **asked, backbones=[backbone])
    assert uploading.n_uploaded == uploading.n_looked_at == 4
    assert uploading.seen == plain.seen
    for folder in ("features.zarr", "ledger"):
        assert bytes_below(tmp_path / "plain" / folder) == bytes_below(
            tmp_path / "uploaded" / folder
        )


def test_an_uploaded_batch_that_does_not_fit_is_divided(tmp_path, asked):
    uploading = Uploading(0, most_at_once=2)
    uploading.there = [threading.Event() for _ in range(4)]
    uploading.upload = lambda batch: torch.from_numpy(batch.copy())
    report = extract_features(tmp_path / "divided", **asked, backbones=[uploading])
    extract_features(tmp_path / "plain", **asked, backbones=[FakeBackbone()])
    assert len(report.notes) == 1
    assert {len(call) for call in uploading.seen} == {1, 2}
    assert bytes_below(tmp_path / "divided/features.zarr") == bytes_below(
        tmp_path / "plain/features.zarr"
    )


def test_a_cpu_is_shown_what_was_stacked_and_no_copy(tmp_path, asked, monkeypatch):
    stacked, shown = [], []
    stack = np.stack

    def keep(pictures):
        stacked.append(stack(pictures))
        return stacked[-1]

    monkeypatch.setattr("clare_cache.extraction.staging.np.stack", keep)
    backbone = FakeBackbone()
    look = backbone.__call__

    class Watching:
        def __call__(self, batch, image_ids, wanted):
            shown.append(batch)
            return look(batch, image_ids, wanted)

        def __getattr__(self, name):
            return getattr(backbone, name)

    extract_features(tmp_path / "store", **asked, backbones=[Watching()])
    batches = [array for array in stacked if array.ndim == 4 and array.shape[1:] == (8, 8, 3)]
    assert len(shown) == len(batches) == 4
    assert all(np.shares_memory(one, other) for one, other in zip(shown, batches, strict=True))
