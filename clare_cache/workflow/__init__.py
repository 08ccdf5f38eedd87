"""The user's verbs as functions, one per command; the layer where the two stages meet."""

from clare_cache.workflow.features import extract
from clare_cache.workflow.prediction import predict
from clare_cache.workflow.results import evaluate, report
from clare_cache.workflow.training import load_head, train_head

__all__ = ["evaluate", "extract", "load_head", "predict", "report", "train_head"]
