"""The whole pipeline on pictures made on the spot: nothing is downloaded, every number is run.

Train and test pictures are crops of different photographs; one stand-in generator is seen in
training, the other only in testing; whole regions of the training photograph validate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clare_cache.evaluate import ALL
from clare_cache.files import read_json, write_bytes
from clare_cache.images import encode_png
from clare_cache.recipe import read_recipe
from clare_cache.types import OnProgress, Pixels, ignore_progress
from clare_cache.workflow.manifests import build_manifest
from clare_cache.workflow.results import METRICS_FILE
from clare_cache.workflow.run import Settings, run_recipe
from clare_cache.workflow.stand_ins import cut_crops

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

    A second call does what is missing. CPU only, no network.
    """
    out, found = Path(out), read_recipe(recipe)
    images, manifest = out / "images", out / "manifest.parquet"
    n_images = make_images(images, per_region=per_region)
    on_step(f"images: {n_images}, made on the spot ({images})")
    built = build_manifest("folder", images, group_pattern=GROUP_PATTERN, on_progress=on_progress)
    built.manifest.write(manifest)
    settings = Settings(out=out, roots={"": images}, manifest=manifest, device="cpu", notes=NOTES)
    result = run_recipe(found, settings, on_step=on_step, on_progress=on_progress)
    timing = ", ".join(f"{name} {value:.1f}" for name, value in result.seconds.items())
    summary = [
        f"{n_images} images, {result.extracted.n_decoded} extracted now, "
        f"{result.extracted.n_failed} in the ledger",
        f"seconds: {timing}, all {sum(result.seconds.values()):.1f}",
        *map(_scores, result.runs),
    ]
    return DemoResult(report=result.report, summary=tuple(summary))


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


def _scores(run: Path) -> str:
    rows = read_json(run / METRICS_FILE)["table"]
    test = {r["generator"]: r for r in rows if r["split"] == "test"}
    values = ", ".join(f"{name} {r['average_precision']:.3f}" for name, r in test.items())
    whole = test[ALL]
    return (
        f"{run.name}: average precision on test, {whole['n_scored']} of {whole['n_asked']} images "
        f"scored: {values}"
    )
