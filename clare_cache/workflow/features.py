"""Stage one as the user calls it: names of features and weights in, a filled store out."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from clare_cache.backbones import (
    DEFAULT_FEATURES,
    FEATURE_SPELLINGS,
    backbone_of,
    load_backbones,
    settings_of,
)
from clare_cache.backbones.config import ClipConfig, ErrorMapConfig
from clare_cache.backbones.features import read_error_map_name
from clare_cache.backbones.protocol import Backbone
from clare_cache.errors import ExtractError, ImageError, raise_faults
from clare_cache.extraction import (
    DECODE_IN,
    BackboneSpec,
    DecodeIn,
    ExtractReport,
    extract_features,
)
from clare_cache.extraction.clusters import open_executor
from clare_cache.images import find_view
from clare_cache.manifest import Manifest
from clare_cache.store import open_store
from clare_cache.types import CLEAN, ImageId, OnProgress, ignore_progress

Config = TypeVar("Config", ErrorMapConfig, ClipConfig)


def extract(
    manifest: Manifest,
    store: str | Path,
    *,
    root: str | Path = ".",
    features: Sequence[str] = DEFAULT_FEATURES,
    views: Sequence[str] = (CLEAN,),
    sd: str | None = None,
    clip: str | None = None,
    error_map: ErrorMapConfig | None = None,
    image_tower: ClipConfig | None = None,
    device: str = "auto",
    batch_size: int | Literal["auto"] = 16,
    workers: int = 2,
    decode_in: DecodeIn = "threads",
    block_rows: int | None = None,
    retry_failed: bool = False,
    cluster: str | None = None,
    dask: str | None = None,
    shard: tuple[int, int] | None = None,
    from_latents: bool = False,
    codec: str | Mapping[str, str] | None = None,
    compiled: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> ExtractReport:
    """Make what `store` lacks of `features` × `views` for the images of `manifest`.

    Each image is decoded once for all of them.

    `sd` and `clip` name the weights (see `clare-cache extract --help`); only networks that the
    features need are loaded. `cluster` ("local:N", "cuda", "slurm:FILE") or `dask` (a scheduler's
    address) has the blocks done elsewhere; `shard` (i, n) does every n-th block here. With
    `from_latents` error maps are made from the store's `vae_latent`, and no image is opened.
    `codec` (none, zstd, blosc, bitround:BITS, int8), one for all or array → one, says how arrays
    that are new to the store are stored. `decode_in` "processes" has `workers` processes, not
    threads, read and decode. Raises ExtractError for unknown features or views, StoreMismatch when
    the store was made from other inputs.
    """
    faults = []
    if decode_in not in DECODE_IN:
        faults.append(f"decode_in: expected one of {', '.join(DECODE_IN)}, found {decode_in}")
    if from_latents:
        faults += [
            f"feature {name}: expected error maps alone with --from-latents, found {name}"
            for name in features
            if backbone_of(name) is not None and read_error_map_name(name) is None
        ]
    backbones = backbone_spec(
        features=features,
        views=views,
        sd=sd,
        clip=clip,
        error_map=error_map,
        image_tower=image_tower,
        device=device,
        latents_in=store if from_latents else None,
        compiled=compiled,
        faults=faults,
    )
    with open_executor(cluster=cluster, dask=dask) as executor:
        return extract_features(
            store,
            paths_by_image(manifest),
            root=root,
            backbones=backbones,
            features=features,
            views=views,
            batch_size=batch_size,
            workers=workers,
            decode_in=decode_in,
            block_rows=block_rows,
            retry_failed=retry_failed,
            shard=shard,
            from_latents=from_latents,
            codec=codec,
            executor=executor,
            on_progress=on_progress,
        )


def backbone_spec(
    *,
    features: Sequence[str],
    views: Sequence[str],
    sd: str | None,
    clip: str | None,
    error_map: ErrorMapConfig | None,
    image_tower: ClipConfig | None,
    device: str,
    latents_in: str | Path | None = None,
    compiled: bool = False,
    faults: Sequence[str] = (),
) -> BackboneSpec:
    """The backbones that a call of `extract` asks for.

    Raises ExtractError with unknown features, unknown views and the `faults` found before.
    """
    unknown = [
        f"feature {name}: expected one of {', '.join(FEATURE_SPELLINGS)}"
        for name in features
        if backbone_of(name) is None
    ]
    unknown += [
        f"{what}: expected one or more, found none"
        for what, names in (("features", features), ("views", views))
        if not names
    ]
    for view in views:
        try:
            find_view(view)
        except ImageError as error:
            unknown.append(f"view {error.reason}")
    raise_faults(ExtractError, "extract", [*unknown, *faults])
    error_map = error_map or ErrorMapConfig()
    if latents_in is not None:
        latent = open_store(latents_in)[f"{views[0]}/vae_latent"]
        error_map = replace(
            error_map, latent_dtype="float16", vae_dtype=latent.declared["vae_dtype"]
        )
    return BackboneSpec(
        sd=sd,
        clip=clip,
        features=tuple(features),
        error_map=error_map,
        image_tower=image_tower or ClipConfig(),
        device=device,
        from_latents=latents_in is not None,
        compiled=compiled,
    )


def paths_by_image(manifest: Manifest) -> dict[ImageId, tuple[str, ...]]:
    """Every distinct image once, with all the places where its bytes may lie."""
    grouped = manifest.rows.groupby("image_id", sort=False)["path"].agg(tuple)
    return {ImageId(str(image_id)): paths for image_id, paths in grouped.items()}


def rebuild_backbones(
    features: Mapping[str, Mapping[str, Any]],
    *,
    sd: str | None = None,
    clip: str | None = None,
    device: str = "auto",
) -> list[Backbone]:
    """The backbones that made these features, from what the store declared of them.

    `features` maps array → {"declared", "source"}; `sd` and `clip` say where the same weights
    lie now, by default where they came from.
    """
    backbones: list[Backbone] = []
    for names, said in _grouped(features):
        source = features[names[-1]]["source"]
        is_clip = backbone_of(names[0]) == "clip"
        backbones += load_backbones(
            sd=None if is_clip else sd or source,
            clip=(clip or source) if is_clip else None,
            features=names,
            error_map=settings_from(ErrorMapConfig, {} if is_clip else said),
            clip_config=settings_from(ClipConfig, said if is_clip else {}),
            device=device,
        )
    return backbones


def _grouped(
    features: Mapping[str, Mapping[str, Any]],
) -> list[tuple[list[str], dict[str, Any]]]:
    """The features that one backbone can make together, with all that they say of its settings.

    Maps of the exact latent and of the rounded one need a backbone each. CLIP's features are kept
    together whatever they say: where they contradict each other, one of them is not from here.
    """
    groups: list[tuple[list[str], dict[str, Any]]] = []
    for name, value in features.items():
        said = settings_of(name, value["declared"])
        for names, known in groups:
            same = backbone_of(names[0]) == backbone_of(name)
            fits = all(
                known.get(field.name, said[field.name]) == said[field.name]
                for field in fields(ErrorMapConfig)
                if field.name in said
            )
            if same and (fits or backbone_of(name) == "clip"):
                names.append(name)
                known.update(said)
                break
        else:
            groups.append(([name], dict(said)))
    return groups


def settings_from(kind: type[Config], declared: Mapping[str, Any]) -> Config:
    """Settings bear the same names in a declaration, so they can be read back from it."""
    return kind(**{f.name: declared[f.name] for f in fields(kind) if f.name in declared})
