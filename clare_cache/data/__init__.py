"""Stage two's eye: manifest ⋈ store → tensors, on the GPU, in RAM, or streamed from the disk."""

from clare_cache.data.features import FeatureData, MissingImage, load
from clare_cache.data.orders import batches_of, full_shuffle

__all__ = ["FeatureData", "MissingImage", "batches_of", "full_shuffle", "load"]
