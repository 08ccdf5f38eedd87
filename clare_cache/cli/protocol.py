"""`clare-cache protocol …`: which images are trained and tested on, by name."""

from pathlib import Path
from typing import Annotated

import typer

from clare_cache.cli.options import AsJson, ManifestFile, RunFolders
from clare_cache.cli.output import print_json, print_result, print_table

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A name from `clare-cache protocol list`.")]


@app.command("list")
def list_protocols() -> None:
    """The protocols there are."""
    from clare_cache.manifest.protocols import PROTOCOLS

    for protocol in PROTOCOLS.values():
        print_result(f"{protocol.name}\t{protocol.about}")


@app.command()
def apply(
    protocol: Name,
    manifest: ManifestFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the manifests.")],
    seed: Annotated[int, typer.Option(help="Deals groups to train and test where there is no "
                                      "split.")] = 0,
    json: AsJson = False,
) -> None:  # fmt: skip
    """Write one manifest for each fold, with its own train, val and test splits."""
    from clare_cache.manifest import Manifest
    from clare_cache.workflow.protocols import write_folds

    written = write_folds(protocol, Manifest.read(manifest), output, seed=seed)
    counts = {
        str(path): {k: int(n) for k, n in fold.rows["split"].value_counts().items()}
        for path, fold in written.items()
    }
    if json:
        print_json(counts)
        return
    print_table(
        ["fold", "train", "val", "test"],
        [
            [path, *(str(n.get(k, 0)) for k in ("train", "val", "test"))]
            for path, n in counts.items()
        ],
    )


@app.command()
def table(protocol: Name, runs: RunFolders, json: AsJson = False) -> None:
    """Average precision of evaluated runs: trainings down, the protocol's test groups across."""
    from clare_cache.workflow.protocols import protocol_table

    found = protocol_table(protocol, runs)
    if json:
        print_json(found.to_dict("records"))
        return
    for label, part in found.groupby("label", sort=False):
        wide = part.pivot_table(index="trained_on", columns="tested_on", values="average_precision")
        rows = [
            [str(name), *(f"{value:.3f}" for value in row)]
            for name, row in zip(wide.index, wide.to_numpy(), strict=True)
        ]
        print_table(["trained on", *map(str, wide.columns)], rows, title=str(label))
