"""`clare-cache manifest …`: lists of images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clare_cache.cli.audit import audit
from clare_cache.cli.kinds import LABELS, print_kinds
from clare_cache.cli.options import AsJson, ManifestFile, Root, Workers
from clare_cache.cli.output import count, print_failures, print_json, print_result, print_table, say
from clare_cache.cli.progress import show_progress

if TYPE_CHECKING:
    from clare_cache.manifest import Count, Fault

MOST_FAULTS = 20
"""How many faults of one kind are printed; --json has all."""

app = typer.Typer(no_args_is_help=True)
app.command()(audit)


def _list_layouts(value: bool) -> None:
    if value:
        from clare_cache.manifest import LAYOUTS
        from clare_cache.manifest.catalogue import read_data_set, shipped_data_sets

        for layout in LAYOUTS.values():
            print_result(f"{layout.name}\t{layout.summary}")
        for name in shipped_data_sets():
            print_result(f"{name}\t{read_data_set(name).title}")
        raise typer.Exit


@app.command()
def build(
    layout: Annotated[
        str,
        typer.Argument(help="A layout or a shipped data set (see --list), or its YAML file."),
    ],
    root: Annotated[Path, typer.Argument(help="Folder of the images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help=".parquet, .csv or .jsonl.")],
    table: Annotated[
        list[Path],
        typer.Option(
            help="The table (csv), text lists (lare-list) or JSON lists (df40, deepfakebench), "
            "or a folder of lists; repeatable."
        ),
    ] = [],  # noqa: B006
    group: Annotated[
        str | None,
        typer.Option(
            help="A regular expression whose one group names the video, identity or scene, e.g. "
            "'frames/([^/]+)/'. Default: what the layout knows, else every image is a group."
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="The split of images for which the layout says none.")
    ] = "",
    frames: Annotated[
        int | None, typer.Option(min=1, help="Face videos: at most so many frames of each.")
    ] = None,
    pick: Annotated[
        str,
        typer.Option(
            help="Face videos, which frames: spread (evenly), or what loaders of the literature "
            "do: clare-first (the list's first), deepfakebench-first (the first, sorted)."
        ),
    ] = "spread",
    compression: Annotated[
        str, typer.Option(help="Lists of FaceForensics++: c23, c40 or raw.")
    ] = "c23",
    key: Annotated[
        list[str],
        typer.Option(help="JSON lists: keep videos whose key contains this; repeatable."),
    ] = [],  # noqa: B006
    rename: Annotated[
        list[str], typer.Option(help="Tables: THEIRS=OURS column name, repeatable.")
    ] = [],  # noqa: B006
    label: Annotated[
        list[str],
        typer.Option(
            help="Tables and folder: WORD=real or WORD=fake, what a label or a folder of yours "
            "means; repeatable."
        ),
    ] = [],  # noqa: B006
    strict: Annotated[
        bool, typer.Option(help="Data sets: status 1 when a count is not the expected one.")
    ] = False,
    workers: Workers = 4,
    show_layouts: Annotated[
        bool,
        typer.Option(
            "--list",
            callback=_list_layouts,
            is_eager=True,
            help="Print every layout and data set in a line; exit.",
        ),
    ] = False,
) -> None:
    """Hash every image of a data set into a manifest."""
    from clare_cache.files import make_folder
    from clare_cache.manifest import refuse_suffix
    from clare_cache.manifest.journal import Journal
    from clare_cache.workflow.manifests import build_manifest

    columns, labels = _columns(rename), _labels(label)
    refuse_suffix(output)
    make_folder(output.parent)
    notes = Journal(output.with_name(f".{output.name}.journal"))
    with show_progress() as on_progress, notes as journal:
        result = build_manifest(
            layout,
            root,
            table=table,
            group_pattern=group,
            columns=columns,
            labels=labels,
            split=split,
            frames=frames,
            pick=pick,
            compression=compression,
            keys=key,
            journal=journal,
            workers=workers,
            on_progress=on_progress,
        )
    result.manifest.write(output)
    notes.discard()
    print_result(f"{output}: {count(len(result.manifest), 'image')}")
    print_kinds(result.manifest)
    if result.counts:
        _print_counts(result.counts)
    for sentence in result.remarks:
        say(sentence)
    lost = [vars(failure) for failure in result.failures if failure.stage == "list"]
    unread = [vars(f) for f in result.failures if not f.image_id and f.stage != "list"]
    refused = [vars(failure) for failure in result.failures if failure.image_id]
    if lost:
        are = "is" if len(lost) == 1 else "are"
        say(f"{count(len(lost), 'file')} that a list or table names {are} not there: no row:")
        print_failures(lost)
    if unread:
        say(f"{count(len(unread), 'path')} could not be read: no row, not counted above:")
        print_failures(unread)
    if refused:
        files = count(len(refused), "file")
        say(f"{files} cannot be used as an image: in the manifest, listed again by extract:")
        print_failures(refused)
    if strict and not all(line.agrees for line in result.counts):
        raise typer.Exit(1)
    if result.failures:
        raise typer.Exit(3)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A shipped data set, or a YAML file.")],
) -> None:
    """A data set of `manifests/`: origin, licence, who may download it, rules, counts."""
    from clare_cache.manifest.catalogue import find_data_set, read_data_set

    read_data_set(name)
    print_result(find_data_set(name).read_text(encoding="utf-8").rstrip())


@app.command()
def check(
    manifest: ManifestFile,
    root: Root = Path(),
    store: Annotated[
        str | None,
        typer.Option(help="Look for near-duplicates across splits by this store's embeddings."),
    ] = None,
    near: Annotated[
        float, typer.Option(min=0, max=1, help="Cosine from which images are near-duplicates.")
    ] = 0.98,
    accept: Annotated[
        list[str],
        typer.Option(help="A kind of fault that is known and shall not fail; repeatable."),
    ] = [],  # noqa: B006
    decode: Annotated[
        bool,
        typer.Option("--decode", help="Unpack every picture whole, to find those cut short."),
    ] = False,
    remap: Annotated[
        Path | None,
        typer.Option(help="Write the manifest with the paths at which absent files were found."),
    ] = None,
    workers: Workers = 4,
    json: AsJson = False,
) -> None:
    """Hold a manifest against the disk and its splits against each other; every fault at once."""
    from clare_cache.manifest import Manifest
    from clare_cache.workflow.checking import check_manifest

    found = Manifest.read(manifest)
    with show_progress() as on_progress:
        report = check_manifest(
            found,
            root,
            store=store,
            near=near,
            accept=accept,
            decoding=decode,
            workers=workers,
            on_progress=on_progress,
        )
    if remap is not None and report.remapped is not None:
        report.remapped.write(remap)
        say(f"{remap}: the manifest with the paths that the disk has")
    if json:
        print_json(
            {
                "faults": [vars(fault) for fault in report.faults],
                "moves": [vars(move) for move in report.moves],
                "remarks": list(report.remarks),
                "failing": len(report.failing),
            }
        )
    else:
        _print_faults(report.faults)
        for sentence in (*report.remarks, report.verdict()):
            if sentence:
                print_result(sentence + ".")
        print_result(
            f"{manifest}: {count(len(found), 'image')}, {count(len(report.failing), 'fault')}"
        )
    if report.failing:
        raise typer.Exit(1)


@app.command()
def sample(
    manifest: ManifestFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the result.")],
    by: Annotated[
        str, typer.Option(help="Columns whose every combination is taken equally often.")
    ] = "split,label",
    per: Annotated[
        int | None,
        typer.Option(min=1, help="Images of each combination; default as many as the rarest has."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another sample.")] = 0,
) -> None:
    """Draw a balanced subset, spread evenly over generators and groups."""
    from clare_cache.manifest import Manifest
    from clare_cache.manifest.sample import sample as draw

    columns = [name.strip() for name in by.split(",") if name.strip()]
    drawn = draw(Manifest.read(manifest), by=columns, per=per, seed=seed)
    drawn.manifest.write(output)
    print_result(f"{output}: {count(len(drawn.manifest), 'image')}")
    print_kinds(drawn.manifest)
    for kind, n in drawn.short.items():
        say(f"{kind}: only {count(n, 'image')}, {per} asked for")


@app.command()
def split(
    manifest: ManifestFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the result.")],
    train: Annotated[float, typer.Option(min=0, max=1, help="Share of the images.")] = 0.7,
    val: Annotated[float, typer.Option(min=0, max=1, help="Share of the images.")] = 0.1,
    test: Annotated[float, typer.Option(min=0, max=1, help="Share of the images.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Another seed, another split.")] = 0,
    replace: Annotated[
        bool, typer.Option("--replace", help="Divide anew what has splits already.")
    ] = False,
    rest: Annotated[
        bool, typer.Option("--rest", help="Divide only what has no split; leave what has one.")
    ] = False,
) -> None:
    """Divide a manifest into splits that share no group."""
    from clare_cache.manifest import (
        Manifest,
        refuse_replacing,
        split_by_group,
        split_the_rest,
    )

    if replace and rest:
        raise typer.BadParameter("--rest leaves splits, --replace divides them anew: take one.")
    shares = {k: v for k, v in {"train": train, "val": val, "test": test}.items() if v > 0}
    found = Manifest.read(manifest)
    divided = (split_the_rest if rest else split_by_group)(found, shares, seed=seed)
    if not replace and not rest:
        refuse_replacing(found, divided, asked=f"manifest split {manifest}")
    divided.write(output)
    rows = divided.rows
    counts = rows["split"].value_counts()
    print_result(f"{output}: " + ", ".join(f"{k} {counts.get(k, 0)}" for k in shares))
    print_kinds(divided)
    there = set(zip(rows["split"], rows["generator"], strict=True))
    for name in () if rest else shares:
        lacking = [g for g in sorted(rows["generator"].unique()) if (name, g) not in there]
        if lacking:
            say(
                f"{name} has no image of {', '.join(lacking)}: another --seed may, with more groups"
            )


def _print_counts(counts: Sequence["Count"]) -> None:
    rows = [
        (line.what, f"{line.expected:,}", f"{line.found:,}", _verdict(line), line.according_to)
        for line in counts
    ]
    print_table(("images", "expected", "found", "", "according to"), rows)


def _verdict(line: "Count") -> str:
    if line.agrees:
        return "as expected"
    off = line.found - line.expected
    return f"{abs(off):,} {'too many' if off > 0 else 'missing'}"


def _print_faults(faults: Sequence["Fault"]) -> None:
    """The first of each kind, and how many more there are."""
    shown: dict[str, int] = {}
    for fault in faults:
        shown[fault.kind] = shown.get(fault.kind, 0) + 1
        if shown[fault.kind] <= MOST_FAULTS:
            print_result(str(fault))
    for kind, n in shown.items():
        if n > MOST_FAULTS:
            print_result(f"and {n - MOST_FAULTS} more of kind {kind}; --json lists all.")


def _labels(given: list[str]) -> dict[str, int]:
    pairs = [item.rpartition("=") for item in given]
    if wrong := [item for item, (word, _, label) in zip(given, pairs, strict=True)
                 if not word or label not in LABELS]:  # fmt: skip
        raise typer.BadParameter(
            f"--label: expected WORD=real or WORD=fake, found {', '.join(wrong)}"
        )
    return {word: LABELS.index(label) for word, _, label in pairs}


def _columns(rename: list[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in rename]
    if wrong := [item for item, (left, _, right) in zip(rename, pairs, strict=True)
                 if not left or not right]:  # fmt: skip
        raise typer.BadParameter(f"--rename: expected THEIRS=OURS, found {', '.join(wrong)}")
    return {left: right for left, _, right in pairs}
