"""The store's format as data: names, shapes, versions, records. No I/O; see docs/store-format.md.

my-store/
  store.json                                 StoreDescription
  index.parquet                              image_id → row
  features.zarr/<view>/<array>               Zarr v3, one row per image
  commits/<view>/<array>/<block>.json        CommitRecord, written last
  ledger/<view>/<array>/<block>.json         images that could not be used, with the reason
  requests/<digest>.parquet                  what was asked for: rows and paths
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from numpy.typing import NDArray

from clare_cache.errors import StoreError
from clare_cache.fingerprint import DIGEST_CHARS, fingerprint
from clare_cache.store.codecs import NONE, codec_of
from clare_cache.types import ArraySpec, ImageId

FORMAT_VERSION = 2

BLOCK_ROWS = 256
"""Rows that are extracted, written and committed together: the work that a crash can cost."""

CHUNK_NBYTES = 12 * 2**20
"""Upper bound of one chunk file. Around 8 MiB were the fastest to read of 0.5 to 128 MiB; a bound
a little above lets rows of 1 MiB, which divide blocks badly, come near it."""

STORE_FILE = "store.json"
INDEX_FILE = "index.parquet"
FEATURES_FOLDER = "features.zarr"
COMMITS_FOLDER = "commits"
LEDGER_FOLDER = "ledger"
REQUESTS_FOLDER = "requests"
GROUP_FILE = f"{FEATURES_FOLDER}/zarr.json"
REQUEST_FILE = re.compile(r"requests/[0-9a-f]+\.parquet")
BLOCK_FILE = re.compile(r"([0-9]+)\.json")
"""Commit records and ledgers; a write that was killed leaves `.0.….partial.json`."""


@dataclass(frozen=True)
class ArrayEntry:
    """One array of one view: what a row holds, how it is chunked, and what it was made from.

    `source` tells people where the weights came from; it is not part of the fingerprint. Of
    `codec` only what loses digits is, and then it stands in `declared` too.
    """

    view: str
    spec: ArraySpec
    chunk_rows: int
    declared: Mapping[str, Any]
    source: str = ""
    codec: str = NONE

    @property
    def key(self) -> str:
        """`<view>/<array>`, the path inside `features.zarr`."""
        return f"{self.view}/{self.spec.name}"

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.declared)

    @property
    def stored(self) -> ArraySpec:
        """What one row of the Zarr array is: the spec, but for codecs that pack."""
        return codec_of(self.codec).stored(self.spec)

    def pack(self, values: NDArray[Any]) -> NDArray[Any]:
        """Rows of values → rows of the Zarr array."""
        return codec_of(self.codec).pack(self.spec, values)

    def unpack(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Rows of the Zarr array, or one of them → values."""
        return codec_of(self.codec).unpack(self.spec, stored)


@dataclass(frozen=True)
class StoreDescription:
    """The content of `store.json`.

    `checksums` maps the index and every `zarr.json` to the CRC-32C of its bytes: one, or while they
    are being replaced two, the old and the new.
    """

    block_rows: int = BLOCK_ROWS
    arrays: Mapping[str, ArrayEntry] = field(default_factory=dict)
    checksums: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        arrays = {
            key: asdict(entry) | {"fingerprint": entry.fingerprint}
            for key, entry in sorted(self.arrays.items())
        }
        return {
            "format": "clare-cache store",
            "format_version": FORMAT_VERSION,
            "block_rows": self.block_rows,
            "arrays": arrays,
            "fingerprint": fingerprint({k: a["fingerprint"] for k, a in arrays.items()}),
            "checksums": {name: list(value) for name, value in sorted(self.checksums.items())},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str) -> "StoreDescription":
        """Raises StoreError for an unknown format version or fingerprints that do not fit."""
        version = value.get("format_version") if isinstance(value, Mapping) else None
        if version != FORMAT_VERSION:
            raise StoreError(
                f"store {where}: format version {FORMAT_VERSION} is understood, found {version!r} "
                f"in {STORE_FILE}. Install the clare-cache release that wrote it, or extract again."
            )
        arrays = {}
        for key, item in value["arrays"].items():
            spec = item["spec"]
            entry = ArrayEntry(
                view=item["view"],
                spec=ArraySpec(
                    name=spec["name"],
                    shape=tuple(spec["shape"]),
                    axes=tuple(spec["axes"]),
                    dtype=spec["dtype"],
                    meaning=spec["meaning"],
                ),
                chunk_rows=item["chunk_rows"],
                declared=item["declared"],
                source=item["source"],
                codec=item.get("codec", NONE),  # older stores have none
            )
            if entry.fingerprint != item["fingerprint"]:
                raise StoreError(
                    f"store {where}: the declared inputs of {key} hash to {entry.fingerprint}, "
                    f"{STORE_FILE} says {item['fingerprint']}. It was edited by hand; restore it."
                )
            arrays[key] = entry
        checksums = {name: tuple(found) for name, found in value["checksums"].items()}
        return cls(block_rows=value["block_rows"], arrays=arrays, checksums=checksums)


@dataclass(frozen=True)
class LedgerLine:
    """An image that has no row in one array of one view, and why."""

    image_id: ImageId
    path: str
    stage: str
    reason: str
    view: str
    array: str


@dataclass(frozen=True)
class CommitRecord:
    """One block of one array is on disk: which rows it holds and what their bytes check to.

    `rows` are row numbers of the whole array, ascending; `failed` those in the ledger.
    `checksums` maps a chunk's file name below the array to the CRC-32C of its bytes; `ledger` is
    that of the block's ledger file, None where it has none.
    """

    view: str
    array: str
    block: int
    fingerprint: str
    rows: tuple[int, ...]
    failed: tuple[int, ...]
    checksums: Mapping[str, int]
    ledger: int | None
    seconds: float
    versions: Mapping[str, str]
    finished_at: str

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        value["rows"] = to_ranges(self.rows)
        value["failed"] = to_ranges(self.failed)
        return {"format_version": FORMAT_VERSION, **value}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "CommitRecord":
        fields = {k: v for k, v in value.items() if k != "format_version"}
        fields["rows"] = from_ranges(value["rows"])
        fields["failed"] = from_ranges(value["failed"])
        return cls(**fields)


def request_name(parts: Iterable[bytes]) -> str:
    """The name of the request file with this content: a digest of its bytes."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return f"{REQUESTS_FOLDER}/{digest.hexdigest()[:DIGEST_CHARS]}.parquet"


def chunk_rows_for(spec: ArraySpec, block_rows: int) -> int:
    """Rows per chunk: the largest divisor of the block that stays within 12 MiB, at least 1."""
    fitting = max(1, CHUNK_NBYTES // spec.row_nbytes)
    return max(n for n in range(1, block_rows + 1) if block_rows % n == 0 and n <= fitting)


def chunk_name(number: int, row_rank: int) -> str:
    """File name of a chunk below its array: Zarr v3's default key, all other axes whole."""
    return "/".join(["c", str(number), *["0"] * row_rank])


def chunk_of(name: str) -> int:
    """The number in a chunk's file name."""
    return int(name.split("/")[1])


def to_ranges(rows: tuple[int, ...]) -> list[list[int]]:
    """Ascending numbers as [first, last] pairs, so that a full block's record stays short."""
    ranges: list[list[int]] = []
    for row in rows:
        if ranges and ranges[-1][1] == row - 1:
            ranges[-1][1] = row
        else:
            ranges.append([row, row])
    return ranges


def from_ranges(ranges: list[list[int]]) -> tuple[int, ...]:
    """The inverse of `to_ranges`."""
    return tuple(row for first, last in ranges for row in range(first, last + 1))
