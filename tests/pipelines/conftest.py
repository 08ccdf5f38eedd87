"""A small image set, and one finished run of every step, made once for this folder."""

from pathlib import Path
from typing import NamedTuple

import pytest

SMALL_RECIPE = """
about: {title: small}
backbones: {sd: tiny, clip: tiny, error_map: {ensemble: 1}}
head:
  - {family: linear, optimiser: {lr: 1.0e-2}}
  - {family: rine, options: {depth: 1, width: 16}}
  - {family: clare, label: coop, options: {prompts: coop, n_context: 4, train: all}}
  - {family: clare, label: cocoop, options: {prompts: cocoop, n_context: 4}}
train: {epochs: 2, batch_size: 16, validation_fraction: 0.34}
evaluate: {splits: [test], n_resamples: 20}
"""


class Demo(NamedTuple):
    """A finished demo with a recipe made small."""

    out: Path
    summary: tuple[str, ...]

    @property
    def images(self) -> Path:
        return self.out / "images"

    @property
    def store(self) -> Path:
        return self.out / "store"

    @property
    def manifest(self) -> Path:
        return self.out / "manifest.parquet"

    @property
    def runs(self) -> Path:
        return self.out / "runs"


@pytest.fixture(scope="session")
def small_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(SMALL_RECIPE)
    return path


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, small_recipe: Path) -> Demo:
    from clare_cache.workflow.demo import run_demo

    out = tmp_path_factory.mktemp("demo")
    return Demo(out, run_demo(out, recipe=small_recipe, per_region=3).summary)
