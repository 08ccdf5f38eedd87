"""What each codec saves, costs and changes: bytes, speed, error, and every head's logits.

Made-up features with the statistics of a vision transformer's (channels of very unequal size,
tokens of unequal length, neighbours alike) and heads of random weights; or your own, with
--store and --runs.

    python -m benchmarks.codecs [--images 64]
    python -m benchmarks.codecs --store STORE --runs RUN [RUN …]
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from benchmarks.heads import CLIP_CONFIG, HEADS
from clare_cache.backbones.clip_models import build_clip
from clare_cache.backbones.text import ClipTextTower
from clare_cache.errors import StoreError
from clare_cache.heads import VIT_L14_SHAPES, Head, build_head
from clare_cache.store import ArrayEntry, open_store
from clare_cache.store.codecs import codec_of
from clare_cache.store.encode import encode_chunk
from clare_cache.store.metadata import array_metadata
from clare_cache.types import ArraySpec
from clare_cache.workflow.training import load_run

CODECS = (
    *("none", "zstd", "zstd:3", "blosc", "blosc:bitshuffle"),
    *("bitround:7", "bitround:5", "bitround:4", "int8"),
)
LOSSY = CODECS[-4:]
REPEATS = 3
Features = dict[str, NDArray[Any]]


def tokens(n: int, spec: ArraySpec) -> NDArray[Any]:
    """(n, *row shape): outlier channels, means by channel, tokens of unequal length, smooth."""
    generator = np.random.default_rng(0)
    n_tokens, n_channels = int(np.prod(spec.shape[:-1])), spec.shape[-1]
    channel = generator.lognormal(0, 0.6, n_channels)
    channel[:3] *= 50
    noise = generator.standard_normal((n, n_tokens, n_channels), np.float32)
    smooth = (noise + np.roll(noise, 1, axis=1) + np.roll(noise, 16, axis=1)) / 3**0.5
    length = np.exp(generator.standard_normal((n, n_tokens, 1)) / 2)
    values = (smooth * length + generator.standard_normal(n_channels)) * channel
    return values.reshape(n, *spec.shape).astype(spec.dtype)


def made_up(n: int) -> tuple[dict[str, ArraySpec], Features]:
    """The arrays of ViT-L/14 and an error map."""
    specs = {}
    for name, shape in VIT_L14_SHAPES.items():
        dtype = "float32" if name == "error_map" else "float16"
        specs[name] = ArraySpec(
            name, shape, tuple(f"{name} {i}" for i in range(len(shape))), dtype, ""
        )
    features = {name: tokens(n, spec) for name, spec in specs.items()}
    features["error_map"] = np.abs(features["error_map"]) / 10
    return specs, features


def measure_arrays(specs: Mapping[str, ArraySpec], features: Features) -> None:
    """Bytes and speed, every codec in turn, in chunks of the store's own size."""
    print(f"{'array':<20}{'codec':<18}{'ratio':>7}{'MB/s in':>9}{'MB/s out':>10}{'rel. error':>12}")
    for name, spec in specs.items():
        values = features[name]
        chunk_rows = max(1, min(len(values), 8 * 2**20 // spec.row_nbytes))
        for codec in CODECS:
            try:
                codec_of(codec).stored(spec)
            except StoreError:
                continue  # not for arrays of this kind
            entry = ArrayEntry("clean", spec, chunk_rows, {}, codec=codec)
            nbytes, wrote, read, found = round_trip(entry, values)
            exact = values.astype(np.float64)
            error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
            ratio, into, out = (values.nbytes / x for x in (nbytes, wrote * 1e6, read * 1e6))
            print(f"{name:<20}{codec:<18}{ratio:>7.2f}{into:>9,.0f}{out:>10,.0f}{error:>12.2g}")


def round_trip(entry: ArrayEntry, values: NDArray[Any]) -> tuple[int, float, float, NDArray[Any]]:
    """Bytes, median seconds to encode and to decode in memory, and what comes back."""
    metadata = array_metadata(entry, len(values))
    held = {"zarr.json": zarr.core.buffer.default_buffer_prototype().buffer.from_bytes(metadata)}
    array = zarr.open_array(MemoryStore(held), mode="r+")
    starts = range(0, len(values), entry.chunk_rows)
    wrote, read = [], []
    for _ in range(REPEATS):
        began = time.perf_counter()
        files = [
            encode_chunk(array, entry.pack(values[start : start + entry.chunk_rows]))
            for start in starts
        ]
        wrote.append(time.perf_counter() - began)
    for number, data in enumerate(files):
        key = array.metadata.encode_chunk_key((number, *[0] * (array.ndim - 1)))
        held[key] = zarr.core.buffer.default_buffer_prototype().buffer.from_bytes(data)
    for _ in range(REPEATS):
        began = time.perf_counter()
        found = [entry.unpack(array[start : start + entry.chunk_rows]) for start in starts]
        read.append(time.perf_counter() - began)
    nbytes = sum(map(len, files)) * len(values) // (len(starts) * entry.chunk_rows)
    return nbytes, statistics.median(wrote), statistics.median(read), np.concatenate(found)


def measure_heads(
    heads: Iterator[tuple[str, Head]], specs: Mapping[str, ArraySpec], features: Features
) -> None:
    """How far logits move when every array that a head reads goes through a lossy codec."""
    print(f"\n{'head':<58}{'codec':<12}{'change of logits':>18}{'images that change sides':>26}")
    for name, head in heads:
        exact = scores(head, features)
        for codec in LOSSY:
            changed = {n: lossy(codec, specs[n], features[n]) for n in head.needs}
            if all(changed[n] is features[n] for n in head.needs):
                continue  # none of its arrays is of the codec's kind
            moved = scores(head, changed)
            change = np.sqrt(((moved - exact) ** 2).mean()) / exact.std()
            middle = np.median(exact)
            sides = ((moved > middle) != (exact > middle)).mean()
            print(f"{name:<58}{codec:<12}{change:>18.2%}{sides:>26.1%}")
    print("change: root mean square of the differences, of the logits' standard deviation")
    print("sides: of the median logit, the threshold that tells most of small changes")


def lossy(codec: str, spec: ArraySpec, values: NDArray[Any]) -> NDArray[Any]:
    """Values as they come back; arrays that the codec is not for, as they are."""
    try:
        return codec_of(codec).unpack(spec, codec_of(codec).pack(spec, values))
    except StoreError:
        return values


def scores(head: Head, features: Features) -> NDArray[np.float64]:
    head.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(features[head.needs[0]]), 16):
            rows = {n: torch.from_numpy(features[n][start : start + 16]) for n in head.needs}
            parts.append(head(rows).score.double().numpy())
    return np.concatenate(parts)


def random_heads() -> Iterator[tuple[str, Head]]:
    text = ClipTextTower(build_clip(CLIP_CONFIG), {"weights": "random"}, device="cpu")
    for family, options, *_ in HEADS:
        if options.get("features") != "resnet":
            told = " ".join(f"{n}={v}" for n, v in options.items() if n != "train")
            yield f"{family} {told}", build_head(family, text=text, **options)


def own(store: str, n: int, needs: Sequence[str]) -> tuple[dict[str, ArraySpec], Features]:
    """The first rows of a store that have all these arrays."""
    opened = open_store(store)
    handles = {name: opened[f"clean/{name}"] for name in needs}
    present = np.logical_and.reduce([handle.present for handle in handles.values()])
    rows = np.flatnonzero(present)[:n]
    specs = {name: handle.entry.spec for name, handle in handles.items()}
    return specs, {name: handle.read_rows(rows) for name, handle in handles.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--store", default=None, help="your own features")
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="your own heads")
    arguments = parser.parse_args()
    if bool(arguments.store) != bool(arguments.runs):
        parser.error("--store and --runs go together")
    print(f"{arguments.images} images, {torch.get_num_threads()} threads, medians of {REPEATS}")
    if arguments.store:
        mine = [(str(run), load_run(run, device="cpu")[0]) for run in arguments.runs]
        needs = sorted({name for _, head in mine for name in head.needs})
        specs, features = own(arguments.store, arguments.images, needs)
        heads = iter(mine)
    else:
        specs, features = made_up(arguments.images)
        heads = random_heads()
    measure_arrays(specs, features)
    measure_heads(heads, specs, features)


if __name__ == "__main__":
    main()
