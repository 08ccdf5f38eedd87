"""`clare-cache estimate`: bytes, files and hours before paying."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clare_cache.backbones.config import ClipConfig, ErrorMapConfig
from clare_cache.cli.options import (
    ALL_FEATURES,
    AsJson,
    BatchSizeOrAuto,
    BlockRows,
    Clip,
    DecodeIn,
    Device,
    Dtype,
    Ensemble,
    Features,
    Geometry,
    ManifestFile,
    NoiseSeed,
    Preprocessing,
    Prompt,
    RetryFailed,
    Root,
    Sd,
    SizePx,
    Tap,
    Timestep,
    Views,
    Workers,
    image_tower,
    read_batch_size,
    split_names,
)
from clare_cache.cli.output import (
    count,
    print_json,
    print_result,
    print_table,
    spoken_bytes,
    spoken_seconds,
)
from clare_cache.cli.progress import show_progress

if TYPE_CHECKING:
    from clare_cache.workflow.estimate import Estimate

ERROR_MAP, CLIP = ErrorMapConfig(), ClipConfig()


def estimate(
    manifest: ManifestFile,
    store: Annotated[
        str | None, typer.Option(help="A store that may have some of it already, or a new one.")
    ] = None,
    root: Root = Path(),
    features: Features = ALL_FEATURES,
    views: Views = "clean",
    sd: Sd = None,
    clip: Clip = None,
    size_px: SizePx = ERROR_MAP.size_px,
    timestep: Timestep = ERROR_MAP.timestep,
    ensemble: Ensemble = ERROR_MAP.ensemble,
    prompt: Prompt = ERROR_MAP.prompt,
    seed: NoiseSeed = ERROR_MAP.seed,
    geometry: Geometry = CLIP.geometry,
    preprocessing: Preprocessing = None,
    tap: Tap = CLIP.tap,
    dtype: Dtype = "float32",
    device: Device = "auto",
    batch_size: BatchSizeOrAuto = "16",
    workers: Workers = 2,
    decode_in: DecodeIn = "threads",
    block_rows: BlockRows = None,
    retry_failed: RetryFailed = False,
    sample: Annotated[
        int, typer.Option(min=0, help="Images really run through the networks; 0 for none.")
    ] = 16,
    processes: Annotated[
        int, typer.Option(min=1, help="Workers like this machine, GPU for GPU, for the ETA.")
    ] = 1,
    json: AsJson = False,
) -> None:
    """What `extract` would add and how long it would take, from a sample run on this machine.

    Without --sd and --clip, networks with random weights stand in: as large, as fast.
    """
    from clare_cache.manifest import Manifest
    from clare_cache.workflow.estimate import estimate as make_estimate

    with show_progress() as on_progress:
        found = make_estimate(
            Manifest.read(manifest),
            store,
            root=root,
            features=split_names(features),
            views=split_names(views),
            sd=sd,
            clip=clip,
            error_map=ErrorMapConfig(
                size_px=size_px,
                timestep=timestep,
                ensemble=ensemble,
                prompt=prompt,
                seed=seed,
                dtype=dtype,
            ),
            image_tower=image_tower(geometry, preprocessing, tap=tap, dtype=dtype),
            device=device,
            n_sample=sample,
            batch_size=read_batch_size(batch_size),
            workers=workers,
            decode_in=decode_in,
            block_rows=block_rows,
            retry_failed=retry_failed,
            on_progress=on_progress,
        )
    print_estimate(found, title=store or "a new store", n_workers=processes, json=json)


def print_estimate(found: "Estimate", *, title: str, n_workers: int, json: bool) -> None:
    """What is there, what would be added, how long it would take; status 1 where it cannot be."""
    if json:
        print_json(
            {
                **vars(found),
                "arrays": [vars(one) for one in found.arrays],
                "measured": [vars(one) for one in found.measured],
                "workers": n_workers,
                "eta_seconds": found.eta_seconds(n_workers),
            }
        )
    else:
        _print_for_people(found, title=title, n_workers=n_workers)
    if found.mismatches:
        raise typer.Exit(1)


def _print_for_people(found: "Estimate", *, title: str, n_workers: int) -> None:
    print_table(
        ["array", "bytes/image", "there", "in the ledger", "to be made", "bytes", "files"],
        [
            [
                one.key,
                f"{one.row_nbytes:,}",
                f"{one.n_there:,}",
                f"{one.n_failed:,}",
                f"{one.n_todo:,}",
                spoken_bytes(one.nbytes),
                f"{one.n_files:,}",
            ]
            for one in found.arrays
        ],
        title=title,
    )
    print_result(
        f"{found.n_todo:,} of {count(found.n_images, 'image')} to look at, "
        f"{spoken_bytes(found.nbytes)} in {count(found.n_files, 'file')} to be added"
    )
    for one in found.measured:
        stages = ", ".join(f"{name} {s:.3g} s" for name, s in one.seconds.items() if s >= 5e-4)
        print_result(
            f"measured on {found.device} with {count(one.n_sample, 'image')} for "
            f"{', '.join(one.features)} in {', '.join(one.views)}: {one.seconds_per_image:.3g} s "
            f"an image ({stages})"
        )
    if found.seconds is not None:
        unit = "GPU-hours" if found.device.startswith("cuda") else "hours of this processor"
        eta = found.eta_seconds(n_workers) or 0.0
        print_result(
            f"{found.seconds / 3600:,.2f} {unit}; {spoken_seconds(eta)} with "
            f"{count(n_workers, 'worker')} like this"
        )
    for sentence in found.mismatches:
        print_result(f"the store was made from other inputs: {sentence}")
