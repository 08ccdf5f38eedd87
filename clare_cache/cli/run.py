"""`clare-cache run RECIPE`: from images to a report in one command."""

from pathlib import Path
from typing import Annotated

import typer

from clare_cache.cli.options import (
    BatchSizeOrAuto,
    Clip,
    Device,
    DryRun,
    RecipeName,
    Sd,
    Workers,
    read_batch_size,
)
from clare_cache.cli.output import print_result, say
from clare_cache.cli.progress import show_progress


def run(
    recipe: RecipeName,
    root: Annotated[
        list[str],
        typer.Option(help="DIR for all data sets, or NAME=DIR for one; repeatable."),
    ] = [],  # noqa: B006
    out: Annotated[
        Path, typer.Option(help="Folder for manifests, store, runs and report.html.")
    ] = Path("run-out"),
    store: Annotated[str, typer.Option(help="Store to use and fill; default: OUT/store.")] = "",
    manifest: Annotated[
        Path | None,
        typer.Option(help="Own images instead of the recipe's data sets; --root is their folder."),
    ] = None,
    data: Annotated[
        list[str],
        typer.Option(help="Data set or layout to train and test on instead; repeatable."),
    ] = [],  # noqa: B006
    protocol: Annotated[
        str, typer.Option(help="Name in `clare-cache protocol list`: one training a fold.")
    ] = "",
    head: Annotated[
        list[str], typer.Option(help="Only this head (label or family), repeatable.")
    ] = [],  # noqa: B006
    sd: Sd = None,
    clip: Clip = None,
    device: Device = "auto",
    batch_size: BatchSizeOrAuto = "16",
    workers: Workers = 2,
    dry_run: DryRun = False,
) -> None:
    """Run a recipe: manifest, extract, train, evaluate, report; what is there is not done again.

    With other images than the recipe's the published numbers are left out; `recipe compare` sets
    them beside all the same.
    """
    from clare_cache.recipe import ManifestSection, read_recipe
    from clare_cache.workflow.run import Settings, preview_run, run_recipe

    found = read_recipe(recipe).select_heads(head)
    section = found.manifest
    if data or protocol or manifest is not None:
        # What was published of the recipe was trained on its own images.
        found = found.model_copy(update={"expect": ()})
    if data:
        section = ManifestSection(train={"": tuple(data)}, test=tuple(data))
        found = found.model_copy(
            update={"head": tuple(h.model_copy(update={"fold": ""}) for h in found.head)}
        )
    if protocol:
        section = section.model_copy(update={"protocol": protocol})
    found = found.model_copy(update={"manifest": section})
    settings = Settings(
        out=out,
        roots=_roots(root),
        manifest=manifest,
        store=store or None,
        sd=sd,
        clip=clip,
        device=device,
        batch_size=read_batch_size(batch_size),
        workers=workers,
    )
    if dry_run:
        for line in preview_run(found, settings):
            print_result(line)
        return
    with show_progress() as on_progress:
        result = run_recipe(found, settings, on_step=say, on_progress=on_progress)
    print_result(f"report: {result.report}")
    if result.extracted.n_failed:
        raise typer.Exit(3)


def _roots(given: list[str]) -> dict[str, Path]:
    """Data set → folder; "" is the folder of all others."""
    roots: dict[str, Path] = {}
    for item in given:
        name, equals, folder = item.partition("=")
        key, value = (name, folder) if equals else ("", item)
        if key in roots or not value:
            raise typer.BadParameter(f"--root {item}: expected DIR or NAME=DIR, each name once")
        roots[key] = Path(value)
    return roots
