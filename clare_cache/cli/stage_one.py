"""`clare-cache extract`: stage one."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clare_cache.backbones.config import ClipConfig, ErrorMapConfig
from clare_cache.cli.estimate import print_estimate
from clare_cache.cli.options import (
    ALL_FEATURES,
    AsJson,
    BatchSizeOrAuto,
    BlockRows,
    Clip,
    DecodeIn,
    Device,
    DryRun,
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
    StorePlace,
    Tap,
    Timestep,
    Views,
    Workers,
    image_tower,
    read_batch_size,
    split_names,
)
from clare_cache.cli.output import count, print_failures, print_json, print_result, print_table, say
from clare_cache.cli.progress import show_progress

if TYPE_CHECKING:
    from clare_cache.extraction import ExtractReport

ERROR_MAP, CLIP = ErrorMapConfig(), ClipConfig()
LIMITS = {
    "decode": ": more --workers may help",
    "write": ": a faster disk may help",
}
"""What to do about a stage that others wait for."""


def extract(
    manifest: ManifestFile,
    store: StorePlace,
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
    cluster: Annotated[
        str | None,
        typer.Option(help="local:N worker processes, cuda (one per GPU), or slurm:FILE (YAML)."),
    ] = None,
    dask: Annotated[str | None, typer.Option(help="Address of a running scheduler.")] = None,
    shard_index: Annotated[
        int | None,
        typer.Option(
            min=0,
            envvar="SLURM_ARRAY_TASK_ID",
            help="With --num-shards: do every N-th block, no scheduler needed.",
        ),
    ] = None,
    num_shards: Annotated[
        int | None,
        typer.Option(min=1, envvar="SLURM_ARRAY_TASK_COUNT", help="Processes side by side."),
    ] = None,
    retry_failed: RetryFailed = False,
    codec: Annotated[
        list[str],
        typer.Option(
            help="How new arrays are stored: none, zstd[:LEVEL], blosc[:bitshuffle], bitround:BITS "
            "or int8 (these two lose digits); for one array ARRAY=CODEC, repeatable."
        ),
    ] = [],  # noqa: B006
    from_latents: Annotated[
        bool,
        typer.Option(
            "--from-latents",
            help="Make error maps from the store's vae_latent: no image is opened, no VAE runs.",
        ),
    ] = False,
    print_job_script: Annotated[
        bool,
        typer.Option(
            "--print-job-script", help="Print what --cluster slurm:FILE would submit, and exit."
        ),
    ] = False,
    dry_run: DryRun = False,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile UNet and VAE first: minutes, once per machine type; pays on GPUs.",
        ),
    ] = False,
    json: AsJson = False,
) -> None:
    """Run the frozen networks once per image into a store; a second call does what is missing."""
    if print_job_script:
        from clare_cache.extraction.clusters import job_script

        print_result(job_script(cluster))
        return
    from clare_cache.manifest import Manifest
    from clare_cache.workflow.estimate import estimate
    from clare_cache.workflow.features import extract as extract_into

    asked: dict[str, Any] = {
        "root": root,
        "features": split_names(features),
        "views": split_names(views),
        "sd": sd,
        "clip": clip,
        "error_map": ErrorMapConfig(
            size_px=size_px,
            timestep=timestep,
            ensemble=ensemble,
            prompt=prompt,
            seed=seed,
            dtype=dtype,
        ),
        "image_tower": image_tower(geometry, preprocessing, tap=tap, dtype=dtype),
        "device": device,
        "batch_size": read_batch_size(batch_size),
        "workers": workers,
        "decode_in": decode_in,
        "block_rows": block_rows,
        "retry_failed": retry_failed,
        "codec": _codecs(codec),
    }
    shard = _shard(shard_index, num_shards)
    rows = Manifest.read(manifest)
    if dry_run:
        print_estimate(estimate(rows, store, **asked), title=store, n_workers=1, json=json)
        return
    with show_progress() as on_progress:
        report = extract_into(
            rows,
            store,
            **asked,
            from_latents=from_latents,
            compiled=compiled,
            cluster=cluster,
            dask=dask,
            shard=shard,
            on_progress=on_progress,
        )
    if json:
        print_json({**vars(report), "failures": [vars(line) for line in report.failures]})
    else:
        print_result(
            f"{store}: {count(report.n_images, 'image')} asked for, {report.n_settled_before} were "
            f"there, "
            f"{report.n_decoded} extracted now, {report.n_failed} in the ledger"
        )
        if report.n_decoded:
            _print_timing(report)
    for note in report.notes:
        say(note)
    if shard is not None and not report.n_images:
        _say_idle(store, *shard)
    if report.failures:
        images = count(report.n_failed, "image")
        say(f"{images} could not be used (--retry-failed tries again):")
        by_image = {line.image_id: vars(line) for line in report.failures}
        print_failures(list(by_image.values()))
        raise typer.Exit(3)


def _codecs(asked: Sequence[str]) -> str | dict[str, str] | None:
    """One codec for all arrays, or array → codec."""
    if len(asked) == 1 and "=" not in asked[0]:
        return asked[0]
    if wrong := [item for item in asked if "=" not in item]:
        raise typer.BadParameter(
            f"--codec {' '.join(wrong)}: expected ARRAY=CODEC where there is more than one"
        )
    return dict(item.split("=", 1) for item in asked) or None


def _shard(index: int | None, count: int | None) -> tuple[int, int] | None:
    if index is None and count is None:
        return None
    if index is None or count is None or index >= count:
        raise typer.BadParameter(
            f"--shard-index {index} and --num-shards {count}: expected both, the index from 0 to "
            "one less than the number"
        )
    return index, count


def _say_idle(store: str, index: int, number: int) -> None:
    """Why a task of a job array had nothing to do: there are fewer blocks than tasks."""
    from clare_cache.store import open_store

    found = open_store(store)
    rows = found.description.block_rows
    say(
        f"shard {index} of {number} has nothing to do: shards take turns at blocks, and "
        f"{count(found.n_rows, 'row')} in blocks of {rows} are "
        f"{count(-(-found.n_rows // rows), 'block')}. A new store made with a smaller --block-rows "
        "has more."
    )


def _print_timing(report: "ExtractReport") -> None:
    """Where the time went, stage by stage, and which stage is the limit."""
    spent = {n: s for n, s in report.seconds.items() if n not in ("total", "load", "plan")}
    whole = max(sum(spent.values()), 1e-9)
    order = sorted(spent, key=lambda name: -spent[name])
    print_table(
        ["stage", "seconds", "share", "worked beside"],
        [
            [
                name,
                f"{spent[name]:.1f}",
                f"{spent[name] / whole:.0%}",
                f"{report.beside[name]:.1f} s" if name in report.beside else "",
            ]
            for name in order
        ],
    )
    print_result(
        f"{report.images_per_second:.1f} images/s after {report.seconds['load']:.1f} s of loading "
        f"and {report.seconds['plan']:.1f} s of planning; the limit is {order[0]}"
        + LIMITS.get(order[0], "")
    )
