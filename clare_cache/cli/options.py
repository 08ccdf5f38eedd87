"""Options that several commands share, each worded once. Imports no torch."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from clare_cache.backbones.config import ClipConfig, preprocessing_settings

RecipeName = Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")]
ManifestFile = Annotated[Path, typer.Argument(help="Manifest: .parquet, .csv or .jsonl.")]
StorePlace = Annotated[str, typer.Argument(help="Store: a folder, or s3://BUCKET/PATH.")]
RunFolders = Annotated[
    list[Path], typer.Argument(help="Run folders, or folders that hold run folders.")
]
Root = Annotated[
    Path, typer.Option(help="Folder that the manifest's paths are relative to.", show_default=True)
]
Sd = Annotated[
    str | None,
    typer.Option(
        help="Stable Diffusion: hub id (id@revision), local diffusers folder, "
        "FILE.safetensors:v_prediction (or :epsilon), random:sd21 or tiny."
    ),
]
Clip = Annotated[
    str | None,
    typer.Option(
        help="CLIP: open_clip MODEL:TAG or MODEL:FILE (ViT-L-14-quickgelu:openai), random:MODEL "
        "or tiny."
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N, or auto: the GPU if there is one.")]
Workers = Annotated[
    int, typer.Option(min=1, help="Threads or processes that read and decode images.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Manifests = Annotated[
    list[Path],
    typer.Option("--manifest", help="Where images lie, beside the store's requests; repeatable."),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images per forward pass.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
BatchSizeOrAuto = Annotated[
    str, typer.Option(help="Images per forward pass; auto tries out what pays on this device.")
]
DecodeIn = Annotated[
    str, typer.Option(help="Read and decode in threads, or in as many processes of their own.")
]
BlockRows = Annotated[
    int | None, typer.Option(min=1, help="New stores: images committed together.")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try images that are in the ledger again.")
]

Features = Annotated[
    str,
    typer.Option(
        help="Arrays to make, comma-separated; also error_map_signed, vae_latent, "
        "clip_layer3_map. Error maps of other timesteps and draws: error_map-t280-n8."
    ),
]
Views = Annotated[
    str,
    typer.Option(
        help="Views to make, comma-separated: clean, jpeg-q50, blur-s2, resize-x0.5, "
        "crop-f0.8, noise-s10, flip, share-1, aug-000, tencrop-0, rine-code-blur, "
        "matched-jpeg-q90 (every picture of one size, format and quality) …"
    ),
]
SizePx = Annotated[int, typer.Option(help="Error map: side of the picture.")]
Timestep = Annotated[int, typer.Option(help="Error map: step of the noise schedule.")]
Ensemble = Annotated[int, typer.Option(help="Error map: noise draws averaged.")]
Prompt = Annotated[str, typer.Option(help="Error map: the text for every image.")]
NoiseSeed = Annotated[int, typer.Option(help="Error map: base of the noise.")]
Geometry = Annotated[
    str,
    typer.Option(
        help="CLIP: center-crop (no resizing), resize-crop, squash, center-crop-reflected or "
        "opencv-squash."
    ),
]
Preprocessing = Annotated[
    str | None,
    typer.Option(
        help="CLIP: as a published system tests, in place of --geometry: rine, ufd, clip, "
        "lare2 or clare."
    ),
]
Tap = Annotated[
    str, typer.Option(help="clip_block_cls: mlp_input (RINE's code) or block_output (its paper).")
]
Dtype = Annotated[
    str, typer.Option(help="Precision of UNet and CLIP: float32, tf32, float16, bfloat16.")
]

ALL_FEATURES = "error_map,clip_patch_tokens,clip_block_cls,clip_embedding"


def split_names(text: str) -> list[str]:
    """The names in a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def read_batch_size(text: str) -> int | Literal["auto"]:
    """What `--batch-size` says; a usage error for anything else."""
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"--batch-size {text}: expected auto or a number from 1")
    return int(text)


def image_tower(geometry: str, preprocessing: str | None, *, tap: str, dtype: str) -> ClipConfig:
    """What the flags say of CLIP; a named preprocessing stands in place of a geometry."""
    shown: dict[str, Any] = {"geometry": geometry}
    if preprocessing is not None:
        shown = preprocessing_settings(preprocessing)
    return ClipConfig(**shown, tap=tap, dtype=dtype)
