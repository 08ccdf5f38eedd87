"""Run stage one: open the store, find the blocks that lack something, have them done.

Decides here, acts elsewhere: an executor does the blocks, where each is computed, written and
committed; small records come back.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clare_cache.backbones.protocol import Backbone
from clare_cache.errors import ExtractError
from clare_cache.extraction.decoding import DecodeIn, close_processes
from clare_cache.extraction.executors import Executor, InProcess
from clare_cache.extraction.latents import LATENT, check_latents
from clare_cache.extraction.request import write_request
from clare_cache.extraction.survey import survey
from clare_cache.extraction.work import (
    BackboneSource,
    BlockWork,
    Described,
    LoadedBackbones,
    describe,
    load_networks,
)
from clare_cache.files import split_member
from clare_cache.images import find_view
from clare_cache.store import (
    ArrayEntry,
    LedgerLine,
    Place,
    StoreWriter,
    create_store,
    open_place,
    open_store,
)
from clare_cache.store.codecs import NONE, codec_of, codecs_by_array
from clare_cache.types import CLEAN, ImageId, OnProgress, Progress, ignore_progress

ROOT_SAMPLE = 64
"""So many images are looked for before the first block, to notice a wrong root."""


@dataclass(frozen=True)
class ExtractReport:
    """What a call of `extract_features` did.

    `seconds` has the whole ("total") and where it went: load (the networks), plan, and, added up
    over all workers, decode (waiting for pictures), each network by its name, write (waiting for
    the store) and other. `beside` is the work done meanwhile by threads that read and decode, and
    by the one that writes. `notes` are what the run has to tell. `failures` are the asked-for
    images in the ledger, of this call or earlier.
    """

    store: str
    n_images: int
    n_settled_before: int
    n_decoded: int
    failures: tuple[LedgerLine, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)
    beside: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def n_failed(self) -> int:
        return len({line.image_id for line in self.failures})

    @property
    def images_per_second(self) -> float:
        """Decoded images per second, after the networks were loaded."""
        return self.n_decoded / (self.seconds["total"] - self.seconds["load"])


def extract_features(
    store: str | Path | Place,
    images: Mapping[ImageId, Sequence[str]],
    *,
    root: str | Path,
    backbones: Sequence[Backbone] | BackboneSource,
    features: Sequence[str],
    views: Sequence[str] = (CLEAN,),
    batch_size: int | Literal["auto"] = 16,
    workers: int = 2,
    decode_in: DecodeIn = "threads",
    block_rows: int | None = None,
    retry_failed: bool = False,
    shard: tuple[int, int] | None = None,
    from_latents: bool = False,
    codec: str | Mapping[str, str] | None = None,
    executor: Executor | None = None,
    on_progress: OnProgress = ignore_progress,
) -> ExtractReport:
    """Make the `features` of `views` that the store lacks for `images` (id → paths below `root`).

    A block is committed as a whole, so an interrupt costs at most the block in work; calling
    again does what is missing and nothing else. Images in the ledger count as done unless
    `retry_failed`. `shard` (i, n) does only every n-th block, for n processes side by side.
    `decode_in` "processes" has `workers` processes, not threads, read and decode images.
    `codec` (one, or array → one) says how arrays that are new to the store are stored.
    With `from_latents` the backbones are shown the store's `vae_latent` and no image is opened.
    Raises StoreMismatch when the store was made from other inputs, ExtractError when no backbone
    makes a feature or `root` is not the folder of the images.
    """
    began = time.perf_counter()
    executor = executor or InProcess()
    source: BackboneSource = (
        LoadedBackbones(backbones) if isinstance(backbones, Sequence) else backbones
    )
    made = executor.call(describe, source)
    if unknown := [name for name in features if name not in made]:
        raise ExtractError(
            f"extract: features {', '.join(unknown)} were asked for, the backbones make "
            f"{', '.join(made)}. Correct --features."
        )
    place = open_place(store).resolve()
    clears = shard is None or shard[0] == 0  # one of the tasks of a job array is enough
    writer = _prepare(
        place,
        images,
        [made[name] for name in features],
        views=views,
        block_rows=block_rows,
        codecs=codecs_by_array(codec, features),
        clear=clears,
    )
    rows = writer.store.rows_of(list(images))
    order = np.argsort(rows)
    in_order = list(images.values())
    paths = [in_order[position] for position in order.tolist()]
    rows = rows[order]
    found = survey(
        writer,
        rows,
        [(view, name) for view in views for name in features],
        shard=shard,
        retry_failed=retry_failed,
    )
    if from_latents:
        declared = {view: {**made[LATENT].declared, **find_view(view).declared()} for view in views}
        check_latents(writer.store, declared, found.lacking.tolist())
    elif len(found.lacking) and not retry_failed:
        sample = found.lacking[:: -(-len(found.lacking) // ROOT_SAMPLE)]
        _refuse_wrong_root(
            Path(root), [paths[n] for n in np.searchsorted(rows, sample)], len(found.lacking)
        )
    n_todo = len(found.lacking)
    done, notes = 0, list[str]()

    def on_images(count: int) -> None:
        nonlocal done
        done += count
        on_progress(Progress(what="extract", done=done, total=n_todo, unit="image"))

    work = BlockWork(
        store=place,
        request=write_request(place, rows, paths, clear=clears, notes=notes),
        root=Path(root).resolve(),
        views=tuple(views),
        features=tuple(features),
        backbones=source,
        batch_size=batch_size,
        workers=workers,
        retry_failed=retry_failed,
        from_latents=from_latents,
        decode_in=decode_in,
    )
    # What reading the manifest and planning took goes back before blocks take theirs.
    del images, in_order, paths, order
    pa.default_memory_pool().release_unused()
    seconds, beside = defaultdict[str, float](float), defaultdict[str, float](float)
    seconds["plan"] = time.perf_counter() - began
    if found.blocks:  # a call that has nothing to do loads nothing
        executor.call(load_networks, source)
    seconds["load"] = time.perf_counter() - began - seconds["plan"]
    n_decoded = 0
    try:
        for report in executor.run(work, found.blocks, on_images=on_images):
            for total, spent in ((seconds, report.seconds), (beside, report.beside)):
                for stage, value in spent.items():
                    total[stage] += value
            n_decoded += report.n_decoded
            notes += [note for note in report.notes if note not in notes]
    finally:
        if decode_in == "processes":
            executor.in_each(close_processes)
    if found.blocks and clears:
        writer.sweep_leftovers()  # of workers that died while others went on
    seconds["total"] = time.perf_counter() - began
    return ExtractReport(
        store=str(store),
        n_images=len(found.asked),
        n_settled_before=len(found.asked) - len(found.lacking),
        n_decoded=n_decoded,
        failures=_failures(writer.place, views, features, rows, shard=shard),
        seconds=dict(seconds),
        beside=dict(beside),
        notes=tuple(notes),
    )


def _prepare(
    place: Place,
    images: Mapping[ImageId, Sequence[str]],
    arrays: Sequence[Described],
    *,
    views: Sequence[str],
    block_rows: int | None,
    codecs: Mapping[str, str],
    clear: bool,
) -> StoreWriter:
    """The store with its arrays declared and a row for every image.

    Processes may do this at the same time: the writer's own steps are atomic.
    """
    writer = create_store(place, **({} if block_rows is None else {"block_rows": block_rows}))
    entries = []
    for view in map(find_view, views):
        for array in arrays:
            known = writer.description.arrays.get(f"{view.name}/{array.spec.name}")
            codec = codecs.get(array.spec.name, known.codec if known else NONE)
            lossy = codec_of(codec).declared
            entries.append(
                ArrayEntry(
                    view=view.name,
                    spec=array.spec,
                    chunk_rows=0,
                    declared={**array.declared, **view.declared(), **lossy},
                    source=array.source,
                    codec=codec,
                )
            )
    writer.declare(entries)
    writer.add_images(images)
    if clear:
        writer.sweep_leftovers()
    return writer


def _refuse_wrong_root(root: Path, sample: Sequence[Sequence[str]], n_images: int) -> None:
    """Stop before a mistyped folder sends every image of the manifest to the ledger."""
    if not any((root / split_member(path)[0]).exists() for paths in sample for path in paths):
        raise ExtractError(
            f"extract: {n_images} images were asked for below {root}, of {len(sample)} tried "
            f"none is there, for example {sample[0][0]}. Correct --root."
        )


def _failures(
    place: Place,
    views: Sequence[str],
    features: Sequence[str],
    rows: NDArray[np.int64],
    *,
    shard: tuple[int, int] | None,
) -> tuple[LedgerLine, ...]:
    opened = open_store(place)
    lines = [line for view in views for line in opened.ledger(view, features, shard=shard)]
    is_asked = np.isin(opened.rows_of([line.image_id for line in lines]), rows)
    return tuple(line for line, asked in zip(lines, is_asked.tolist(), strict=True) if asked)
