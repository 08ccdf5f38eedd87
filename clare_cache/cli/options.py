"""Options that several commands share, each worded once. Imports no torch."""

from pathlib import Path
from typing import Annotated

import typer

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
