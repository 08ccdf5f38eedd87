"""The whole pipeline on pictures made on the spot: nothing is downloaded, every number is run.

Train and test pictures are crops of different photographs; one stand-in generator is seen in
training, the other only in testing; whole regions of the training photograph validate.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from clare_cache.files import write_bytes
from clare_cache.images import encode_png
from clare_cache.recipe import Recipe, read_recipe
from clare_cache.types import OnProgress, Pixels, ignore_progress
from clare_cache.workflow.features import extract
from clare_cache.workflow.manifests import build_manifest
from clare_cache.workflow.results import evaluate, report
from clare_cache.workflow.stand_ins import cut_crops
from clare_cache.workflow.training import train_head

RECIPE = "demo/tiny"
TRAIN_PHOTOGRAPH, TEST_PHOTOGRAPH = "china", "flower"
SEEN, UNSEEN = "transposed-conv", "smooth-decoder"
CROPS_PER_REGION = 16
GROUP_PATTERN = r"([a-z]+-\d+)-\d+\.png$"

NOTES = (
    "The backbones are small networks with random weights, made in a second; some of their first "
    "filters are set to see fine detail. This page shows that the pipeline runs from images to a "
    "report; its numbers say nothing about how well any detector detects.",
    "The “generated” images are stand-ins: crops of a photograph, halved and enlarged again the "
    f"way generators enlarge. {SEEN} is seen in training, {UNSEEN} only in testing. Training and "
    "test images are cut from different photographs; validation images from regions of the "
    "training photograph that no training image touches.",
)


@dataclass(frozen=True)
class DemoResult:
    """Where the page is, and a few lines about the run."""

    report: Path
    summary: tuple[str, ...]


def run_demo(
    out: str | Path,
    *,
    recipe: str | Path = RECIPE,
    per_region: int = CROPS_PER_REGION,
    on_progress: OnProgress = ignore_progress,
    on_step: Callable[[str], None] = lambda line: None,
) -> DemoResult:
    """Images → manifest → store → heads → scores → `out/report.html`.

    A second call extracts nothing and trains again. CPU only, no network.
    """
    out, found = Path(out), read_recipe(recipe)
    images, store, runs = out / "images", out / "store", out / "runs"
    seconds: dict[str, float] = {}

    with _step("make images", seconds, on_step):
        n_images = make_images(images, per_region=per_region)
    with _step("build the manifest", seconds, on_step):
        built = build_manifest(
            "folder", images, group_pattern=GROUP_PATTERN, on_progress=on_progress
        )
        manifest = out / "manifest.parquet"
        built.manifest.write(manifest)
    with _step("extract features", seconds, on_step):
        extracted = extract(
            built.manifest,
            store,
            root=images,
            sd=found.backbones.sd,
            clip=found.backbones.clip,
            error_map=found.backbones.error_map,
            image_tower=found.backbones.image_tower,
            device="cpu",
            on_progress=on_progress,
        )
    with _step("train heads", seconds, on_step):
        folders = train_head(
            found, store=store, manifest=manifest, out=runs, device="cpu", on_progress=on_progress
        )
    with _step("evaluate", seconds, on_step):
        tables = evaluate(folders, device="cpu")
    with _step("report", seconds, on_step):
        page = report(
            folders, out / "report.html", title=found.about.title, root=images, notes=NOTES
        )
    timing = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
    summary = [
        f"{n_images} images, {extracted.n_decoded} extracted now, {extracted.n_failed} in the "
        "ledger",
        f"seconds: {timing}, all {sum(seconds.values()):.1f}",
        *_scores(found, tables),
    ]
    return DemoResult(report=page, summary=tuple(summary))


def make_images(folder: Path, *, per_region: int, seed: int = 0) -> int:
    """Write the demo's pictures below `folder`, PNG, all of one size; how many there are.

    The two photographs are those that scikit-learn ships (CC BY 2.0).
    """
    n_images = 0
    for split, name, generators in (
        ("train", TRAIN_PHOTOGRAPH, (SEEN,)),
        ("test", TEST_PHOTOGRAPH, (SEEN, UNSEEN)),
    ):
        photograph = _photograph(f"{name}.jpg")
        for crop in cut_crops(photograph, name, generators, per_region=per_region, seed=seed):
            kind = "real" if crop.generator == "real" else f"fake/{crop.generator}"
            path = folder / split / kind / f"{crop.region}-{crop.number}.png"
            if not path.is_file():
                write_bytes(path, encode_png(crop.pixels))
            n_images += 1
    return n_images


def _photograph(name: str) -> Pixels:
    from sklearn.datasets import load_sample_image

    return load_sample_image(name)


def _scores(recipe: Recipe, tables: dict[Path, pd.DataFrame]) -> Iterator[str]:
    for section, table in zip(recipe.head, tables.values(), strict=True):
        test = table[table["split"] == "test"].set_index("generator")["average_precision"]
        values = ", ".join(f"{name} {value:.3f}" for name, value in test.items())
        yield f"{section.label}: average precision on test: {values}"


@contextmanager
def _step(name: str, seconds: dict[str, float], on_step: Callable[[str], None]) -> Iterator[None]:
    on_step(f"{name} …")
    began = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - began
