"""What `clare-cache weights fetch` notes beside the files: where they came from, and their digests.

A folder of weights is copied between machines; this file goes with it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from clare_cache.errors import BackboneError
from clare_cache.files import read_json, write_json
from clare_cache.fingerprint import file_digest

WEIGHTS_FILE = "weights.json"


@dataclass(frozen=True)
class WeightsRecord:
    """`files` maps a name below the folder to its SHA-256; `revision` is the hub's commit.

    `clip` is `MODEL:TAG` for open_clip weights, None for a diffusers folder.
    """

    repository: str
    revision: str
    files: Mapping[str, str]
    clip: str | None = None

    def write(self, folder: Path) -> None:
        write_json(folder / WEIGHTS_FILE, asdict(self), durable=True)


def read_record(folder: Path) -> WeightsRecord | None:
    """The record in a folder, or None. Raises BackboneError for one that is not whole."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        return None
    try:
        return WeightsRecord(**read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise BackboneError(
            f"weights {path}: expected what `clare-cache weights fetch` wrote, found "
            f"{type(error).__name__}: {error}. Fetch the weights again, or remove that file."
        ) from error


def digest_faults(folder: Path, record: WeightsRecord) -> Iterator[str]:
    """A phrase for each file that is not the one that was fetched. Reads them whole."""
    for name, digest in record.files.items():
        if not (folder / name).is_file():
            yield f"{name} is missing"
        elif (found := file_digest(folder / name)) != digest:
            yield f"{name}: expected SHA-256 {digest[:16]}…, which was fetched, found {found[:16]}…"


def split_revision(spec: str) -> tuple[str, str | None]:
    """`NAME@REVISION` → both halves; a path that exists is not divided."""
    name, at, revision = spec.rpartition("@")
    if not at or Path(spec).expanduser().exists():
        return spec, None
    return name, revision


def pinned_source(path: Path, folder: Path, asked_revision: str | None, *, asked: str) -> str:
    """`path` from anywhere, with the revision that the record in `folder` names, if there is one.

    Raises BackboneError when another revision was asked for.
    """
    record = read_record(folder)
    found = record.revision if record else None
    if asked_revision not in (None, found):
        raise BackboneError(
            f"{asked}: expected revision {asked_revision}, found {found or 'no record of one'} in "
            f"{folder / WEIGHTS_FILE}. Fetch it with `clare-cache weights fetch`, or leave "
            f"@{asked_revision} out."
        )
    return f"{path.absolute()}@{found}" if found else str(path.absolute())
