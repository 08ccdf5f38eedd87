"""What a manifest holds, in a small table: a wrong folder is seen at once."""

from typing import TYPE_CHECKING

from clare_cache.cli.output import count, print_table, say

if TYPE_CHECKING:
    from clare_cache.manifest import Manifest

LABELS = ("real", "fake")
SPLITS = ("train", "val", "test")
"""Splits that stand first, in this order."""
MOST_GENERATORS = 30


def print_kinds(manifest: "Manifest") -> None:
    """Images by label and generator down, by split across; says so when a label is not there."""
    rows = manifest.rows
    if rows.empty:
        return
    counts = rows.groupby(["label", "generator", "split"]).size().unstack(fill_value=0)
    splits: list[str] = [name for name in SPLITS if name in counts]
    splits += sorted(str(name) for name in counts if name not in ("", *SPLITS))
    splits += [""] if "" in counts else []
    counts = counts[splits].assign(all=counts.sum(axis=1))
    lines = [
        (_kind(label, generator), *map(_number, numbers))
        for (label, generator), numbers in zip(counts.index, counts.to_numpy(), strict=True)
    ]
    if len(lines) > MOST_GENERATORS:
        rest = counts.iloc[MOST_GENERATORS:]
        more = (f"{len(rest)} more generators", *map(_number, rest.sum().to_numpy()))
        lines = [*lines[:MOST_GENERATORS], more]
    lines.append(("all", *map(_number, counts.sum().to_numpy())))
    print_table(("images", *(name or "no split" for name in splits), "all"), lines)
    if "" in counts and (missing := int(counts[""].sum())):
        divides = "" if splits == [""] else " --rest"
        say(
            f"{count(missing, 'image')} without a split: train-head and evaluate pass over them; "
            f"`clare-cache manifest split{divides}` divides them"
        )
    for label, name in enumerate(LABELS):
        if label not in counts.index.get_level_values("label"):
            say(f"no image is {name}: a head needs both to train and to be scored")


def _kind(label: int, generator: str) -> str:
    name = LABELS[label]
    return name if generator == name else f"{name}: {generator}"


def _number(n: int) -> str:
    return f"{n:,}" if n else "–"
