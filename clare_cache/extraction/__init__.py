"""Stage one: every image goes once through the frozen networks, into the store."""

from clare_cache.extraction.run import Executor, ExtractReport, InProcess, extract_features

__all__ = ["Executor", "ExtractReport", "InProcess", "extract_features"]
