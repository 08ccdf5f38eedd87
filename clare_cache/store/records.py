"""Commit records, ledgers and requests as files: found by name, and whole or refused."""

import json
from collections.abc import Iterable, Iterator
from functools import partial

from clare_cache.errors import StoreError
from clare_cache.store.place import Place
from clare_cache.store.schema import (
    BLOCK_FILE,
    COMMITS_FOLDER,
    REQUEST_FILE,
    REQUESTS_FOLDER,
    STORE_FILE,
    ArrayEntry,
    CommitRecord,
    LedgerLine,
    request_name,
)
from clare_cache.store.seal import unseal

READ_NBYTES = 2**20
"""So much of a request is read at once."""

NOT_WHOLE = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading a torn, emptied or foreign file raises."""


def block_files(place: Place, folder: str, key: str) -> list[str]:
    """Names of the commit records or ledgers of one array, by block, without torn ones."""
    found = filter(None, map(BLOCK_FILE.fullmatch, place.children(f"{folder}/{key}")))
    return [f"{folder}/{key}/{m[0]}" for m in sorted(found, key=lambda match: int(match[1]))]


def block_of(name: str) -> int:
    return int(name.rpartition("/")[2].removesuffix(".json"))


def request_names(place: Place) -> list[str]:
    """Names of the requests, without torn ones."""
    names = (f"{REQUESTS_FOLDER}/{child}" for child in place.children(REQUESTS_FOLDER))
    return [name for name in names if REQUEST_FILE.fullmatch(name)]


def name_of_content(place: Place, name: str) -> str:
    """What a request file would have to be called by its content: `name`, where it is whole."""
    with place.open(name) as file:
        return request_name(iter(partial(file.read, READ_NBYTES), b""))


def check_request(place: Place, name: str) -> None:
    """Does nothing for a whole request. Raises StoreError for another."""
    found = name_of_content(place, name)
    if found != name:
        raise StoreError(
            f"store {place}: expected {name} to be named by its content, found content of {found}: "
            "it was altered. Call `clare-cache extract` again as before, which writes it anew."
        )


def read_records(place: Place, entry: ArrayEntry) -> dict[int, CommitRecord]:
    """Commit records of one array by block; those of other declared inputs are refused."""
    return {record.block: record for record in each_record(place, entry)}


def each_record(
    place: Place, entry: ArrayEntry, blocks: Iterable[int] | None = None
) -> Iterator[CommitRecord]:
    """The commit records of one array, one at a time; of these blocks alone, without a listing."""
    if blocks is None:
        for name in block_files(place, COMMITS_FOLDER, entry.key):
            yield read_record_file(place, entry, name)
    else:
        yield from filter(None, (read_record(place, entry, block) for block in blocks))


def read_record(place: Place, entry: ArrayEntry, block: int) -> CommitRecord | None:
    """The commit record of one block, checked as in `read_records`, or None."""
    try:
        return read_record_file(place, entry, f"{COMMITS_FOLDER}/{entry.key}/{block}.json")
    except FileNotFoundError:
        return None


def read_record_file(place: Place, entry: ArrayEntry, name: str) -> CommitRecord:
    """One commit record. Raises StoreError when it is not whole or of other declared inputs."""
    data = place.read(name)
    try:
        record = CommitRecord.from_json(unseal(data))
    except NOT_WHOLE as error:
        raise StoreError(
            f"store {place}: expected a whole commit record {name}, found "
            f"{type(error).__name__}: {error}. `clare-cache store repair` makes its block anew."
        ) from error
    if record.fingerprint != entry.fingerprint:
        raise StoreError(
            f"store {place}: {record.block}.json of {entry.key} was committed for fingerprint "
            f"{record.fingerprint}, {STORE_FILE} declares {entry.fingerprint}. "
            "Remove that array and extract it again."
        )
    return record


def read_ledger(place: Place, name: str) -> list[LedgerLine]:
    """The lines of one ledger file. Raises StoreError when it is not whole."""
    data = place.read(name)
    try:
        return [LedgerLine(**line) for line in json.loads(data)]
    except NOT_WHOLE as error:
        raise StoreError(
            f"store {place}: expected a whole ledger {name}, found {type(error).__name__}: "
            f"{error}. `clare-cache store repair` makes it anew."
        ) from error
