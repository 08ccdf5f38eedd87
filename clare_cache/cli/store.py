"""`clare-cache store …`: look after stores."""

from typing import Annotated, Any

import typer

from clare_cache.cli.options import AsJson, StorePlace
from clare_cache.cli.output import print_json, print_result, print_table
from clare_cache.cli.progress import show_progress

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
            "bytes_per_image": handle.entry.spec.row_nbytes,
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
        ["array", "row", "dtype", "images", "bytes/image", "fingerprint"],
        [
            [
                key,
                "×".join(map(str, a["row_shape"])),
                a["dtype"],
                f"{a['rows']:,} of {len(opened.image_ids):,}",
                f"{a['bytes_per_image']:,}",
                a["fingerprint"],
            ]
            for key, a in arrays.items()
        ],
        title=str(store),
    )
    print_result(f"{len({line.image_id for line in lines})} images in the ledger")
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
                "–" if item.eta_seconds is None else _spoken(item.eta_seconds),
                "–" if item.newest is None else f"{item.newest:%Y-%m-%d %H:%M:%S} UTC",
            ]
            for item in found
        ],
        title=str(store),
    )


@app.command()
def verify(store: StorePlace, json: AsJson = False) -> None:
    """Hold every committed byte against its checksum; list missing, altered and orphan files."""
    from clare_cache.store import open_store
    from clare_cache.store import verify as verify_store

    with show_progress() as on_progress:
        faults = verify_store(open_store(store), on_progress=on_progress)
    if json:
        print_json([vars(fault) for fault in faults])
    else:
        for fault in faults:
            print_result(str(fault))
        print_result(f"{store}: {len(faults)} faults")
    if faults:
        raise typer.Exit(1)


def _spoken(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
