"""Arrays that the store keeps smaller than their values: unpacked a batch at a time, by torch.

The same arithmetic as the store's own, on the device of the batch, so that a GPU holds the small
form of a whole data set.
"""

import math

import torch
from torch import Tensor

from clare_cache.store import ArrayEntry
from clare_cache.store.codecs import LARGEST, codec_of


def unpack(entry: ArrayEntry, stored: Tensor) -> Tensor:
    """Rows as they are in the store's arrays → rows of values, in the dtype of the spec."""
    if not codec_of(entry.codec).is_packed:
        return stored
    shape = entry.spec.shape
    n_tokens, n_channels = math.prod(shape[:-1]), shape[-1]
    n_values = n_tokens * n_channels
    flat = stored.reshape(len(stored), -1)
    scales = flat[:, n_values : n_values + 2 * (n_channels + n_tokens)].contiguous()
    scales = scales.view(torch.float16).float()
    channel, token = scales[:, None, :n_channels], scales[:, n_channels:, None]
    values = flat[:, :n_values].reshape(-1, n_tokens, n_channels) * channel * (token / LARGEST)
    return values.to(getattr(torch, entry.spec.dtype)).reshape(len(stored), *shape)
