"""`clare-cache store repair | merge | prune | export`: what changes stores or writes them anew."""

from pathlib import Path
from typing import Annotated

import typer

from clare_cache.cli.options import (
    AsJson,
    BatchSize,
    Clip,
    Device,
    DryRun,
    Manifests,
    Root,
    Sd,
    StorePlace,
    Workers,
    split_names,
)
from clare_cache.cli.output import count, print_json, print_result, say, spoken_bytes
from clare_cache.cli.progress import show_progress

INCOMPLETE = 3
"""Exit status of an export that lacks images of its manifest, as of an extraction with a ledger."""


def repair(
    store: StorePlace,
    manifest: Manifests = [],  # noqa: B006
    root: Root = Path(),
    dry_run: DryRun = False,
    sd: Sd = None,
    clip: Clip = None,
    device: Device = "auto",
    batch_size: BatchSize = 16,
    workers: Workers = 2,
    json: AsJson = False,
) -> None:
    """Mend what `verify` finds: make damaged blocks again, remove orphans, touch nothing else.

    Not while an extraction writes to the store.
    """
    from clare_cache.manifest import Manifest
    from clare_cache.workflow.again import Weights
    from clare_cache.workflow.repair import repair as repair_store

    with show_progress() as on_progress:
        report = repair_store(
            store,
            load_backbones=Weights(sd, clip, device),
            root=root,
            manifests=[Manifest.read(path) for path in manifest],
            batch_size=batch_size,
            workers=workers,
            dry_run=dry_run,
            on_progress=on_progress,
        )
    if json:
        print_json(
            {
                "found": [vars(fault) for fault in report.found],
                "left": [vars(fault) for fault in report.left],
                "reasons": report.reasons,
                "n_images": report.n_images,
            }
        )
    else:
        for fault in report.left:
            print_result(f"{'would mend' if dry_run else 'still'} {fault}")
        for reason in report.reasons:
            print_result(f"not mended: {reason}")
        print_result(
            f"{store}: {count(len(report.found), 'fault')} found, {len(report.left)} left, "
            f"{count(report.n_images, 'image')} looked at again"
        )
    if report.left:
        raise typer.Exit(1)


def merge(
    out: Annotated[str, typer.Argument(help="The merged store: new, or a merge to go on with.")],
    stores: Annotated[list[str], typer.Argument(help="Stores that were made apart.")],
    block_rows: Annotated[
        int | None, typer.Option(min=1, help="Images committed together; default: the largest.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Join stores made apart: of job arrays, of other images, of other arrays; in any order."""
    from clare_cache.workflow.merge import merge as merge_stores

    with show_progress() as on_progress:
        report = merge_stores(out, stores, block_rows=block_rows, on_progress=on_progress)
    for note in report.notes:
        say(note)
    if json:
        print_json(vars(report))
        return
    print_result(
        f"{out}: {', '.join(report.arrays)} of {count(report.n_images, 'image')}, "
        f"{report.n_failed} in the ledger; {report.n_written} of {count(report.n_blocks, 'block')} "
        "written now"
    )


def prune(
    store: StorePlace,
    array: Annotated[
        list[str], typer.Option(help="Array to drop, in every view unless --view; repeatable.")
    ] = [],  # noqa: B006
    view: Annotated[
        list[str], typer.Option(help="View to drop, whole unless --array; repeatable.")
    ] = [],  # noqa: B006
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Drop an array or a view for good; killed in between, call it again.

    Not while an extraction writes to the store.
    """
    from clare_cache.store.prune import plan_prune
    from clare_cache.store.prune import prune as prune_store

    plan = plan_prune(store, arrays=array, views=view)
    if not json:
        for key in (*plan.keys, *(f"{key}, the rest of it" for key in plan.leftovers)):
            print_result(f"drops {key}")
        print_result(
            f"{store}: {plan.n_rows:,} rows, {spoken_bytes(plan.nbytes)}, "
            f"{count(len(plan.files), 'file')}"
        )
    if not dry_run:
        if not yes:
            typer.confirm("Drop them for good?", abort=True, err=True)
        with show_progress() as on_progress:
            plan = prune_store(store, arrays=array, views=view, on_progress=on_progress)
    if json:
        print_json({**vars(plan), "files": len(plan.files), "done": not dry_run})


def export(
    store: StorePlace,
    out: Annotated[Path, typer.Argument(help="Folder for the files.")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="npy (img_emb/ and metadata/ as clip-retrieval, embedding-reader and autofaiss "
            "read them), parquet (Hugging Face datasets) or webdataset (tar files).",
        ),
    ] = "npy",
    arrays: Annotated[
        str, typer.Option(help="Arrays, comma-separated; npy takes one of vectors.")
    ] = "clip_embedding",
    view: Annotated[str, typer.Option(help="The view to export.")] = "clean",
    manifest: Annotated[
        Path | None, typer.Option(help="Its rows alone, with their labels and splits.")
    ] = None,
    rows_per_file: Annotated[
        int | None,
        typer.Option(min=1, help="Images in a file; default 100,000 or, of others, 2,000."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Write arrays in the files of other tools; a second call writes the files that are missing."""
    from clare_cache.manifest import Manifest
    from clare_cache.store import open_store
    from clare_cache.workflow.export import export_store

    with show_progress() as on_progress:
        report = export_store(
            open_store(store),
            out,
            form=form,
            arrays=split_names(arrays),
            view=view,
            manifest=None if manifest is None else Manifest.read(manifest),
            rows_per_file=rows_per_file,
            on_progress=on_progress,
        )
    for note in report.notes:
        say(note)
    if json:
        print_json(vars(report))
    else:
        print_result(
            f"{out}: {count(report.n_images, 'image')} in {count(report.n_files, 'file')}, "
            f"{report.n_written} written now, {report.n_left_out} left out for want of a row"
        )
    if report.n_left_out:
        raise typer.Exit(INCOMPLETE)
