"""`clare-cache extract`: stage one."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clare_cache.backbones.config import ClipConfig, ErrorMapConfig, preprocessing_settings
from clare_cache.cli.options import (
    AsJson,
    Clip,
    Device,
    ManifestFile,
    Root,
    Sd,
    StorePlace,
    Workers,
)
from clare_cache.cli.output import print_failures, print_json, print_result, print_table, say
from clare_cache.cli.progress import show_progress

if TYPE_CHECKING:
    from clare_cache.extraction import ExtractReport

ERROR_MAP, CLIP = ErrorMapConfig(), ClipConfig()
LIMITS = {
    "decode": ": more --workers may help",
    "write": ": a faster disk may help",
}
"""What to do about a stage that others wait for."""
ALL_FEATURES = "error_map,clip_patch_tokens,clip_block_cls,clip_embedding"


def extract(
    manifest: ManifestFile,
    store: StorePlace,
    root: Root = Path(),
    features: Annotated[
        str,
        typer.Option(
            help="Arrays to make, comma-separated; also error_map_signed, vae_latent, "
            "clip_layer3_map. Error maps of other timesteps and draws: error_map-t280-n8."
        ),
    ] = ALL_FEATURES,
    views: Annotated[
        str,
        typer.Option(
            help="Views to make, comma-separated: clean, jpeg-q50, blur-s2, resize-x0.5, "
            "crop-f0.8, noise-s10, flip, share-1, aug-000, tencrop-0, rine-code-blur, "
            "matched-jpeg-q90 (every picture of one size, format and quality) …"
        ),
    ] = "clean",
    sd: Sd = None,
    clip: Clip = None,
    size_px: Annotated[int, typer.Option(help="Error map: side of the picture.")] = (
        ERROR_MAP.size_px
    ),
    timestep: Annotated[int, typer.Option(help="Error map: step of the noise schedule.")] = (
        ERROR_MAP.timestep
    ),
    ensemble: Annotated[int, typer.Option(help="Error map: noise draws averaged.")] = (
        ERROR_MAP.ensemble
    ),
    prompt: Annotated[str, typer.Option(help="Error map: the text for every image.")] = (
        ERROR_MAP.prompt
    ),
    seed: Annotated[int, typer.Option(help="Error map: base of the noise.")] = ERROR_MAP.seed,
    geometry: Annotated[
        str,
        typer.Option(
            help="CLIP: center-crop (no resizing), resize-crop, squash, center-crop-reflected or "
            "opencv-squash."
        ),
    ] = CLIP.geometry,
    preprocessing: Annotated[
        str | None,
        typer.Option(
            help="CLIP: as a published system tests, in place of --geometry: rine, ufd, clip, "
            "lare2 or clare."
        ),
    ] = None,
    tap: Annotated[
        str,
        typer.Option(help="clip_block_cls: mlp_input (RINE's code) or block_output (its paper)."),
    ] = CLIP.tap,
    dtype: Annotated[
        str, typer.Option(help="Precision of UNet and CLIP: float32, tf32, float16, bfloat16.")
    ] = "float32",
    device: Device = "auto",
    batch_size: Annotated[
        str, typer.Option(help="Images per forward pass; auto tries out what pays on this device.")
    ] = "16",
    workers: Workers = 2,
    decode_in: Annotated[
        str,
        typer.Option(help="Read and decode in threads, or in as many processes of their own."),
    ] = "threads",
    block_rows: Annotated[
        int | None, typer.Option(min=1, help="New stores: images committed together.")
    ] = None,
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
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try images that are in the ledger again.")
    ] = False,
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
    json: AsJson = False,
) -> None:
    """Run the frozen networks once per image into a store; a second call does what is missing."""
    from clare_cache.manifest import Manifest
    from clare_cache.workflow.features import extract as extract_into

    shown: dict[str, Any] = {"geometry": geometry}
    if preprocessing is not None:
        shown = preprocessing_settings(preprocessing)
    with show_progress() as on_progress:
        report = extract_into(
            Manifest.read(manifest),
            store,
            root=root,
            features=[name.strip() for name in features.split(",") if name.strip()],
            views=[name.strip() for name in views.split(",") if name.strip()],
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
            image_tower=ClipConfig(**shown, tap=tap, dtype=dtype),
            device=device,
            batch_size=_batch_size(batch_size),
            workers=workers,
            decode_in=decode_in,  # type: ignore[arg-type]  # checked there, with all else
            block_rows=block_rows,
            retry_failed=retry_failed,
            from_latents=from_latents,
            codec=_codecs(codec),
            cluster=cluster,
            dask=dask,
            shard=_shard(shard_index, num_shards),
            on_progress=on_progress,
        )
    if json:
        print_json({**vars(report), "failures": [vars(line) for line in report.failures]})
    else:
        print_result(
            f"{store}: {report.n_images} images asked for, {report.n_settled_before} were there, "
            f"{report.n_decoded} extracted now, {report.n_failed} in the ledger"
        )
        if report.n_decoded:
            _print_timing(report)
    for note in report.notes:
        say(note)
    if report.failures:
        say(f"{report.n_failed} images could not be used (--retry-failed tries them again):")
        by_image = {line.image_id: vars(line) for line in report.failures}
        print_failures(list(by_image.values()))
        raise typer.Exit(3)


def _batch_size(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"--batch-size {text}: expected auto or a number from 1")
    return int(text)


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
