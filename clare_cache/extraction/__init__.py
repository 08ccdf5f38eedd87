"""Stage one: every image goes once through the frozen networks, into the store."""

from clare_cache.extraction.decoding import DECODE_IN, DecodeIn
from clare_cache.extraction.executors import Executor, InProcess, OnDask
from clare_cache.extraction.run import ExtractReport, extract_features
from clare_cache.extraction.work import BackboneSpec, BlockReport

__all__ = [
    "DECODE_IN",
    "BackboneSpec",
    "BlockReport",
    "DecodeIn",
    "Executor",
    "ExtractReport",
    "InProcess",
    "OnDask",
    "extract_features",
]
