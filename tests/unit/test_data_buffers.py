"""Memory of batches: used again when nobody looks, and never while anybody does."""

import torch

from clare_cache.data.buffers import Buffers


def test_memory_is_used_again_when_its_tensor_is_gone():
    buffers = Buffers()
    one = buffers.empty(3, (4,), torch.float32)
    place = one.data_ptr()
    del one
    assert buffers.empty(6, (2,), torch.float32).data_ptr() == place


def test_a_view_keeps_the_memory():
    buffers = Buffers()
    one = buffers.empty(3, (4,), torch.float16)
    one.fill_(7)
    last = one[2].view(2, 2)
    place = one.data_ptr()
    del one
    other = buffers.empty(3, (4,), torch.float16)
    assert other.data_ptr() != place
    other.zero_()
    assert (last == 7).all()
    del last
    assert buffers.empty(3, (4,), torch.float16).data_ptr() == place


def test_what_autograd_keeps_is_kept():
    buffers = Buffers()
    weight = torch.ones(4, requires_grad=True)
    batch = buffers.empty(2, (4,), torch.float32)
    batch.fill_(3)
    loss = (batch * weight).sum()
    del batch
    buffers.empty(2, (4,), torch.float32).zero_()
    loss.backward()
    assert weight.grad.tolist() == [6, 6, 6, 6]


def test_shapes_and_dtypes():
    found = Buffers().empty(0, (5,), torch.int8)
    assert (found.shape, found.dtype) == ((0, 5), torch.int8)
