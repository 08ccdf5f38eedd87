"""Bytes, files and hours of an extraction, before paying for it."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from clare_cache.backbones.config import ClipConfig, ErrorMapConfig
from clare_cache.backbones.numerics import pick_device
from clare_cache.errors import ExtractError
from clare_cache.extraction import DecodeIn, extract_features
from clare_cache.extraction.forecast import ArrayForecast, Forecast, forecast
from clare_cache.extraction.work import BackboneSource, Described, describe
from clare_cache.fingerprint import differences
from clare_cache.images import find_view
from clare_cache.manifest import Manifest
from clare_cache.seeds import generator_for
from clare_cache.store import Store, open_place, open_store
from clare_cache.store.codecs import NONE, codec_of, codecs_by_array
from clare_cache.store.schema import STORE_FILE
from clare_cache.types import CLEAN, ImageId, OnProgress, Progress, ignore_progress
from clare_cache.workflow.features import backbone_spec, paths_by_image

RANDOM_SD, RANDOM_CLIP = "random:sd21", "random:ViT-L-14"
"""Networks as large and as fast as the real ones, for those who have no weights yet."""

Pattern = tuple[tuple[str, ...], tuple[str, ...]]
"""Features and views that a group of images lacks: what their turn costs depends on it."""
MAX_PATTERNS = 4
"""So many are measured, the most frequent ones; the others count like the dearest of these."""
WARM_UP = 16
"""On a GPU so many images go through the networks before the clock starts, or a batch; elsewhere
one does."""


@dataclass(frozen=True)
class Measured:
    """A sample that went through the networks on this machine.

    `n_todo` images of the request lack these `features` in these `views`. `seconds` per image and
    stage of the work, all views together.
    """

    features: tuple[str, ...]
    views: tuple[str, ...]
    n_todo: int
    n_sample: int
    seconds: Mapping[str, float]

    @property
    def seconds_per_image(self) -> float:
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Estimate:
    """What is to be done and added; `seconds` of one worker, None where nothing was measured.

    `mismatches` are declared inputs that differ from those of the store: it would be refused.
    """

    arrays: tuple[ArrayForecast, ...]
    n_images: int
    n_todo: int
    nbytes: int
    n_files: int
    device: str
    measured: tuple[Measured, ...] = ()
    seconds: float | None = None
    mismatches: tuple[str, ...] = ()

    def eta_seconds(self, n_workers: int) -> float | None:
        """Wall-clock time with so many workers like this one."""
        return None if self.seconds is None else self.seconds / n_workers


def estimate(
    manifest: Manifest,
    store: str | Path | None = None,
    *,
    root: str | Path = ".",
    features: Sequence[str],
    views: Sequence[str] = (CLEAN,),
    sd: str | None = None,
    clip: str | None = None,
    error_map: ErrorMapConfig | None = None,
    image_tower: ClipConfig | None = None,
    device: str = "auto",
    n_sample: int = 0,
    on_progress: OnProgress = ignore_progress,
    **options: Any,
) -> Estimate:
    """What `extract` with the same arguments would do; see `make_estimate` for `options`.

    Without weights, random ones of Stable Diffusion 2.1 and ViT-L/14 stand in: as large, as fast.
    `store` may not exist yet.
    """
    spec = backbone_spec(
        features=features,
        views=views,
        sd=sd or RANDOM_SD,
        clip=clip or RANDOM_CLIP,
        error_map=error_map,
        image_tower=image_tower,
        device=device,
    )
    is_there = store is not None and open_place(store).exists(STORE_FILE)
    return make_estimate(
        open_store(store) if is_there and store is not None else None,
        paths_by_image(manifest),
        root=root,
        backbones=spec,
        features=features,
        views=views,
        device=device,
        n_sample=n_sample,
        on_progress=on_progress,
        **options,
    )


def make_estimate(
    store: Store | None,
    images: Mapping[ImageId, Sequence[str]],
    *,
    root: str | Path,
    backbones: BackboneSource,
    features: Sequence[str],
    views: Sequence[str],
    batch_size: int | Literal["auto"] = 16,
    workers: int = 2,
    decode_in: DecodeIn = "threads",
    block_rows: int | None = None,
    retry_failed: bool = False,
    device: str = "auto",
    codec: str | Mapping[str, str] | None = None,
    n_sample: int = 0,
    on_progress: OnProgress = ignore_progress,
) -> Estimate:
    """What `extract_features` would do, and from samples of `n_sample` images, how long.

    A sample goes through reading, networks and writing as the whole would, into a store that is
    removed again. Images that lack different arrays are measured apart.
    """
    made, here = describe(backbones), str(pick_device(device))
    asked = {name: made[name] for name in features}
    codecs = codecs_by_array(codec, features)
    plan = forecast(
        store,
        images.keys(),
        arrays=[codec_of(codecs.get(name, NONE)).stored(one.spec) for name, one in asked.items()],
        views=views,
        block_rows=block_rows,
        retry_failed=retry_failed,
    )
    measured = tuple(
        _measure(
            {image: images[image] for image in _choose(lacking, n_sample)},
            pattern,
            n_todo=len(lacking),
            device=here,
            on_progress=on_progress,
            root=root,
            backbones=backbones,
            batch_size=batch_size,
            workers=workers,
            decode_in=decode_in,
            codecs=codecs,
        )
        for pattern, lacking in _patterns(plan)[: MAX_PATTERNS if n_sample else 0]
    )
    return Estimate(
        arrays=plan.arrays,
        n_images=len(images),
        n_todo=len(plan.images),
        nbytes=sum(one.nbytes for one in plan.arrays),
        n_files=sum(one.n_files for one in plan.arrays),
        device=here,
        measured=measured,
        seconds=_seconds(len(plan.images), measured),
        mismatches=() if store is None else tuple(_mismatches(store, asked, views, codecs)),
    )


def _mismatches(
    store: Store,
    asked: Mapping[str, Described],
    views: Sequence[str],
    codecs: Mapping[str, str],
) -> list[str]:
    found = []
    for view in map(find_view, views):
        for name, array in asked.items():
            key = f"{view.name}/{name}"
            if key in store:
                lossy = codec_of(codecs.get(name, store[key].entry.codec)).declared
                inputs = {**array.declared, **view.declared(), **lossy}
                found += [f"{key}: {p}" for p in differences(inputs, store[key].declared)]
    return found


def _patterns(plan: Forecast) -> list[tuple[Pattern, list[ImageId]]]:
    """Images by what they lack, the largest group first."""
    lacking: dict[ImageId, list[str]] = {}
    for key, images in plan.missing.items():
        for image in images:
            lacking.setdefault(image, []).append(key)
    groups: dict[Pattern, list[ImageId]] = {}
    for image, keys in lacking.items():
        views = tuple(dict.fromkeys(key.partition("/")[0] for key in keys))
        features = tuple(dict.fromkeys(key.partition("/")[2] for key in keys))
        groups.setdefault((features, views), []).append(image)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def _choose(images: Sequence[ImageId], n_sample: int) -> list[ImageId]:
    """The same images for the same request, spread over it."""
    ordered = sorted(images)
    size = min(n_sample, len(ordered))
    chosen = generator_for(0, str(len(ordered)), "estimate").choice(len(ordered), size, False)
    return [ordered[number] for number in chosen]


def _measure(
    images: Mapping[ImageId, Sequence[str]],
    pattern: Pattern,
    *,
    n_todo: int,
    device: str,
    on_progress: OnProgress,
    codecs: Mapping[str, str],
    **options: Any,
) -> Measured:
    features, views = pattern
    codec = {name: spelling for name, spelling in codecs.items() if name in features}
    size = WARM_UP if options["batch_size"] == "auto" else options["batch_size"]
    if not device.startswith("cuda"):
        size = 1
    warm_up = dict(list(images.items())[:size])
    with tempfile.TemporaryDirectory(prefix="clare-cache-") as folder:
        for name, shown in (("warm-up", warm_up), ("sample", images)):
            report = extract_features(
                Path(folder) / name,
                shown,
                features=features,
                views=views,
                codec=codec,
                on_progress=partial(_renamed, name, on_progress),
                **options,
            )
    if not report.n_decoded:
        first = report.failures[0]
        raise ExtractError(
            f"estimate: of a sample of {len(images)} images none can be read, the first is "
            f"{first.path} ({first.stage}: {first.reason}). Run `clare-cache manifest check`."
        )
    spent = {k: v for k, v in report.seconds.items() if k not in ("total", "load", "plan")}
    return Measured(
        features=features,
        views=views,
        n_todo=n_todo,
        n_sample=len(images),
        seconds={name: value / len(images) for name, value in spent.items()},
    )


def _renamed(name: str, on_progress: OnProgress, step: Progress) -> None:
    on_progress(Progress(what=name, done=step.done, total=step.total, unit=step.unit))


def _seconds(n_todo: int, measured: Sequence[Measured]) -> float | None:
    if not measured:
        return None if n_todo else 0.0
    known = sum(one.n_todo for one in measured)
    dearest = max(one.seconds_per_image for one in measured)
    total = sum(one.n_todo * one.seconds_per_image for one in measured)
    return total + (n_todo - known) * dearest
