"""A manifest's files → a table of their traits, one row an image."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import pandas as pd

from clare_cache.errors import ImageError
from clare_cache.files import read_bytes_at
from clare_cache.images import Traits, View, decode, encode_png, read_traits
from clare_cache.manifest import Manifest
from clare_cache.seeds import seed_for
from clare_cache.types import FAKE, Failure, ImageId, OnProgress, Progress, ignore_progress

TRAIT_COLUMNS = (*(field.name for field in fields(Traits)), "bytes_per_pixel")
MANIFEST_COLUMNS = ("image_id", "path", "label", "split", "source", "generator", "group")
_BATCH = 1024


def gather_traits(
    manifest: Manifest,
    root: str | Path,
    *,
    per: int | None = None,
    workers: int = 4,
    through: View | None = None,
    seed: int = 0,
    on_progress: OnProgress = ignore_progress,
) -> tuple[pd.DataFrame, list[Failure]]:
    """The traits of the manifest's images beside MANIFEST_COLUMNS, and the files without any.

    With `per`, of each source and generator so many images, drawn by image id. `through` a view,
    the traits are those of the picture that the view makes, saved as PNG: what is left then is
    the size and how well the picture packs.
    """
    rows = manifest.rows.drop_duplicates("image_id")[list(MANIFEST_COLUMNS)]
    if per is not None:
        rows = _drawn(rows, per, seed=seed)
    found, failures = [], []
    for n_done, (row, outcome) in enumerate(_read(rows, Path(root), workers, through), start=1):
        on_progress(Progress(what="read headers", done=n_done, total=len(rows), unit="image"))
        if isinstance(outcome, Failure):
            failures.append(outcome)
        else:
            traits = {field.name: getattr(outcome, field.name) for field in fields(Traits)}
            found.append({**row, **traits, "bytes_per_pixel": outcome.bytes_per_pixel})
    columns = [*MANIFEST_COLUMNS, *TRAIT_COLUMNS]
    return pd.DataFrame(found, columns=columns), failures


def _drawn(rows: pd.DataFrame, per: int, *, seed: int) -> pd.DataFrame:
    order = [seed_for(seed, image_id, "audit") for image_id in rows["image_id"]]
    shuffled = rows.iloc[sorted(range(len(rows)), key=order.__getitem__)]
    kept = shuffled.groupby(["source", "generator"], sort=False).head(per)
    return kept.sort_index()


def _read(
    rows: pd.DataFrame, root: Path, workers: int, through: View | None
) -> Iterator[tuple[dict, Traits | Failure]]:
    records = rows.to_dict("records")
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(records), _BATCH):
            batch = records[start : start + _BATCH]
            outcomes = pool.map(lambda row: _traits_of(row, root, through), batch)
            for row, outcome in zip(batch, outcomes, strict=True):
                yield {str(key): value for key, value in row.items()}, outcome


def _traits_of(row: dict, root: Path, through: View | None) -> Traits | Failure:
    image_id, path = ImageId(row["image_id"]), row["path"]
    try:
        data = read_bytes_at(root, path)
        if through is not None:
            data = encode_png(through(decode(data), image_id))
        return read_traits(data)
    except OSError as error:
        return Failure(image_id, path, "read", error.strerror or str(error))
    except ImageError as error:
        return Failure(image_id, path, error.stage, error.reason)


def pools(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(source, generator, images): each generator's fakes with the reals they are scored against.

    As in evaluation: the reals of the same source, else all reals; ("all", "all", everything)
    comes first when there is more than one generator.
    """
    fakes = table[table["label"] == FAKE]
    reals = table[table["label"] != FAKE]
    groups = list(fakes.groupby(["source", "generator"]))
    if len(groups) != 1:
        yield "all", "all", table
    for (source, generator), mine in groups:
        own = reals[reals["source"] == source]
        yield str(source), str(generator), pd.concat([own if len(own) else reals, mine])
