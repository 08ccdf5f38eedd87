"""`clare-cache store …`: look after stores."""

from pathlib import Path
from typing import Annotated, Any

import typer

from clare_cache.backbones.config import ClipConfig, ErrorMapConfig
from clare_cache.cli import store_changes
from clare_cache.cli.options import (
    ALL_FEATURES,
    AsJson,
    BatchSize,
    Clip,
    Device,
    Dtype,
    Ensemble,
    Features,
    Geometry,
    Manifests,
    NoiseSeed,
    Preprocessing,
    Prompt,
    Root,
    Sd,
    SizePx,
    StorePlace,
    Tap,
    Timestep,
    Views,
    Workers,
    image_tower,
    split_names,
)
from clare_cache.cli.output import count, print_json, print_result, print_table, spoken_seconds
from clare_cache.cli.progress import show_progress

ERROR_MAP, CLIP = ErrorMapConfig(), ClipConfig()
app = typer.Typer(no_args_is_help=True)


@app.command()
def info(
    store: StorePlace,
    ledger: Annotated[
        bool, typer.Option(help="List the images that could not be used, with reasons.")
    ] = False,
    json: AsJson = False,
) -> None:
    """What a store holds, of how many images, at which cost, made from what."""
    from clare_cache.store import open_store

    opened = open_store(store)
    lines = opened.ledger()
    arrays: dict[str, dict[str, Any]] = {
        key: {
            "row_shape": list(handle.entry.spec.shape),
            "dtype": handle.entry.spec.dtype,
            "rows": int(handle.present.sum()),
            "codec": handle.entry.codec,
            "bytes_per_image": handle.entry.stored.row_nbytes,
            "source": handle.entry.source,
            "fingerprint": handle.fingerprint,
            "declared": dict(handle.declared),
        }
        for key in opened
        for handle in [opened[key]]
    }
    if json:
        failed = [vars(line) for line in lines]
        print_json({"images": len(opened.image_ids), "arrays": arrays, "ledger": failed})
        return
    print_table(
        ["array", "row", "dtype", "codec", "images", "bytes/image", "fingerprint"],
        [
            [
                key,
                "×".join(map(str, a["row_shape"])),
                a["dtype"],
                a["codec"],
                f"{a['rows']:,} of {len(opened.image_ids):,}",
                f"{a['bytes_per_image']:,}",
                a["fingerprint"],
            ]
            for key, a in arrays.items()
        ],
        title=str(store),
    )
    print_result(f"{count(len({line.image_id for line in lines}), 'image')} in the ledger")
    if ledger:
        for line in lines:
            print_result(f"{line.view}/{line.array}\t{line.path}\t{line.stage}: {line.reason}")


@app.command()
def status(store: StorePlace, json: AsJson = False) -> None:
    """How far an extraction is, over all its workers, from any machine: done, rate, ETA."""
    from clare_cache.extraction.status import read_status
    from clare_cache.store import open_store

    found = read_status(open_store(store))
    if json:
        print_json([vars(item) for item in found])
        return
    print_table(
        ["array", "images", "in the ledger", "images/s", "ETA", "last commit"],
        [
            [
                item.key,
                f"{item.n_done:,} of {item.n_asked:,}",
                f"{item.n_failed:,}",
                "–" if item.images_per_second is None else f"{item.images_per_second:,.1f}",
                "–" if item.eta_seconds is None else spoken_seconds(item.eta_seconds),
                "–" if item.newest is None else f"{item.newest:%Y-%m-%d %H:%M:%S} UTC",
            ]
            for item in found
        ],
        title=str(store),
    )


@app.command()
def verify(
    store: StorePlace,
    sample: Annotated[
        int,
        typer.Option(min=0, help="Also make N images again with the networks, and compare."),
    ] = 0,
    manifest: Manifests = [],  # noqa: B006
    root: Root = Path(),
    tolerance: Annotated[
        float | None,
        typer.Option(help="Relative error allowed in a row; default by the array's precision."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Which images the sample takes.")] = 0,
    sd: Sd = None,
    clip: Clip = None,
    device: Device = "auto",
    batch_size: BatchSize = 16,
    workers: Workers = 2,
    json: AsJson = False,
) -> None:
    """Hold every byte against its checksum; list what is missing, altered or belongs to nothing."""
    from clare_cache.manifest import Manifest
    from clare_cache.store import open_store
    from clare_cache.store import verify as verify_store
    from clare_cache.workflow.again import Weights
    from clare_cache.workflow.sample import Compared, compare_sample

    compared: list[Compared] = []
    with show_progress() as on_progress:
        faults = verify_store(store, on_progress=on_progress)
        if sample and not faults:  # first mend what is broken for certain
            compared = compare_sample(
                open_store(store),
                sample,
                load_backbones=Weights(sd, clip, device),
                root=root,
                manifests=[Manifest.read(path) for path in manifest],
                seed=seed,
                tolerance=tolerance,
                batch_size=batch_size,
                workers=workers,
                on_progress=on_progress,
            )
    if json:
        found: Any = [vars(fault) for fault in faults]
        rows = [{**vars(one), "is_within": one.is_within} for one in compared]
        print_json({"faults": found, "sample": rows} if sample else found)
    else:
        for fault in faults:
            print_result(str(fault))
        for one in compared:
            print_result(
                f"{one.key}: {count(one.n_rows, 'image')} made again, largest relative error "
                f"{one.largest_error:.1e}, {one.tolerance:.0e} is allowed"
                if one.n_rows
                else f"{one.key}: no image could be made again. Correct --root."
            )
            for reason in one.reasons:
                print_result(f"{one.key}: cannot be made again: {reason}")
        print_result(f"{store}: {count(len(faults), 'fault')}")
    if faults or not all(one.is_within for one in compared):
        raise typer.Exit(1)


@app.command()
def diff(
    store: StorePlace,
    other: Annotated[
        str | None, typer.Argument(help="Another store, whose content is asked for.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A recipe whose heads' needs are asked for.")
    ] = None,
    manifest: Annotated[Path | None, typer.Option(help="Images that are asked for.")] = None,
    features: Features = ALL_FEATURES,
    views: Views = "clean",
    size_px: SizePx = ERROR_MAP.size_px,
    timestep: Timestep = ERROR_MAP.timestep,
    ensemble: Ensemble = ERROR_MAP.ensemble,
    prompt: Prompt = ERROR_MAP.prompt,
    seed: NoiseSeed = ERROR_MAP.seed,
    geometry: Geometry = CLIP.geometry,
    preprocessing: Preprocessing = None,
    tap: Tap = CLIP.tap,
    dtype: Dtype = "float32",
    json: AsJson = False,
) -> None:
    """Why a store does or does not fit a request: another store, a recipe, or extract's options.

    Status 1 if it does not fit. Weights are compared with another store's alone.
    """
    from clare_cache.manifest import Manifest
    from clare_cache.recipe import read_recipe
    from clare_cache.store import open_store
    from clare_cache.workflow import fit

    if other is not None and recipe is not None:
        raise typer.BadParameter("expected another store or --recipe, found both")
    rows = None if manifest is None else Manifest.read(manifest)
    if other is not None:
        request = fit.request_of_store(open_store(other), manifest=rows)
    elif recipe is not None:
        request = fit.request_of_recipe(
            read_recipe(recipe), views=split_names(views), manifest=rows
        )
    else:
        request = fit.request_of_options(
            features=split_names(features),
            views=split_names(views),
            error_map=ErrorMapConfig(
                size_px=size_px,
                timestep=timestep,
                ensemble=ensemble,
                prompt=prompt,
                seed=seed,
                dtype=dtype,
            ),
            image_tower=image_tower(geometry, preprocessing, tap=tap, dtype=dtype),
            manifest=rows,
        )
    found = fit.compare(open_store(store), request)
    faults = [one for one in found if not one.warning]
    if json:
        print_json({"fits": not faults, "misfits": [vars(one) for one in found]})
    else:
        for one in found:
            print_result(f"{'warning: ' if one.warning else ''}{one}")
        print_result(f"{store}: {'does not fit' if faults else 'fits'}")
    if faults:
        raise typer.Exit(1)


app.command()(store_changes.repair)
app.command()(store_changes.merge)
app.command()(store_changes.prune)
app.command()(store_changes.export)
