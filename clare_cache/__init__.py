"""Run Stable Diffusion and CLIP once per image; train detector heads from the cache in minutes.

The public names load what they need when they are first used: importing this package imports
neither torch nor zarr.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clare_cache.data import load
    from clare_cache.heads import Head, HeadOutput, build_head
    from clare_cache.manifest import Manifest
    from clare_cache.recipe import read_recipe
    from clare_cache.store import open_store
    from clare_cache.train.estimator import HeadClassifier
    from clare_cache.workflow.audit import audit_manifest
    from clare_cache.workflow.checking import check_manifest
    from clare_cache.workflow.checkpoints import import_head
    from clare_cache.workflow.features import extract
    from clare_cache.workflow.manifests import build_manifest
    from clare_cache.workflow.prediction import predict
    from clare_cache.workflow.run import Settings, run_recipe
    from clare_cache.workflow.training import load_head, train_head

__version__ = "0.1.0"

_HOMES = {
    "Head": "clare_cache.heads",
    "HeadClassifier": "clare_cache.train.estimator",
    "HeadOutput": "clare_cache.heads",
    "Manifest": "clare_cache.manifest",
    "Settings": "clare_cache.workflow.run",
    "audit_manifest": "clare_cache.workflow.audit",
    "build_head": "clare_cache.heads",
    "build_manifest": "clare_cache.workflow.manifests",
    "check_manifest": "clare_cache.workflow.checking",
    "extract": "clare_cache.workflow.features",
    "import_head": "clare_cache.workflow.checkpoints",
    "load": "clare_cache.data",
    "load_head": "clare_cache.workflow.training",
    "open_store": "clare_cache.store",
    "predict": "clare_cache.workflow.prediction",
    "read_recipe": "clare_cache.recipe",
    "run_recipe": "clare_cache.workflow.run",
    "train_head": "clare_cache.workflow.training",
}

__all__ = [
    "Head",
    "HeadClassifier",
    "HeadOutput",
    "Manifest",
    "Settings",
    "__version__",
    "audit_manifest",
    "build_head",
    "build_manifest",
    "check_manifest",
    "extract",
    "import_head",
    "load",
    "load_head",
    "open_store",
    "predict",
    "read_recipe",
    "run_recipe",
    "train_head",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
