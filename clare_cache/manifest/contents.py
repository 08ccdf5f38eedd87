"""Files → what their bytes say: id, size, header. Reads every file once; judges nothing."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from clare_cache.errors import ImageError
from clare_cache.files import read_bytes_at
from clare_cache.manifest.journal import Journal, Seen, look_at
from clare_cache.types import Failure, ImageId, OnProgress, Progress

# Bounds the results in flight, and how long an interrupt waits.
_BATCH = 1024


class Header(Protocol):
    """What a probe finds in a file's first bytes: upright size in pixels, name of the format."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def format(self) -> str: ...


Probe = Callable[[bytes], Header]
"""A file's bytes → its header; raises ImageError for what cannot be decoded."""


@dataclass(frozen=True)
class Content:
    """One file's bytes, summed up.

    Without `image_id` the file could not be read; without `header` the probe refused it; `stage`
    and `reason` say why.
    """

    path: str
    image_id: ImageId | None = None
    nbytes: int | None = None
    header: Header | None = None
    is_absent: bool = False
    stage: str = ""
    reason: str = ""

    @property
    def failure(self) -> Failure | None:
        """The ledger line of a file that cannot be used, or None."""
        if self.header is not None:
            return None
        return Failure(self.image_id or ImageId(""), self.path, self.stage, self.reason)


@dataclass(frozen=True)
class NotedHeader:
    """A header as a journal remembers it."""

    width: int
    height: int
    format: str


def read_contents(
    paths: Sequence[str],
    *,
    root: Path,
    probe: Probe,
    workers: int | None,
    on_progress: OnProgress,
    what: str,
    journal: Journal | None = None,
) -> Iterator[Content]:
    """The content of each path under `root`, in the order given, read by `workers` threads.

    Files that the journal knows unchanged are not read again.
    """

    def read(path: str) -> tuple[Content, Seen | None, bool]:
        seen = look_at(root, path) if journal else None
        noted = journal.find(root / path, seen) if journal else None
        if noted is not None:
            return _recalled(path, noted), seen, True
        return _read(path, root=root, probe=probe), seen, False

    n_recalled = 0
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), _BATCH):
            batch = paths[start : start + _BATCH]
            outcomes = pool.map(read, batch)
            for done, (content, seen, is_known) in enumerate(outcomes, start=start + 1):
                n_recalled += is_known
                if journal and not is_known and content.image_id:
                    journal.add(root / content.path, seen, _noted(content))
                note = f"{n_recalled} read before" if n_recalled else ""
                on_progress(
                    Progress(what=what, done=done, total=len(paths), unit="image", note=note)
                )
                yield content


def _noted(content: Content) -> dict[str, Any]:
    header = content.header
    return {
        "image_id": content.image_id,
        "nbytes": content.nbytes,
        "header": [header.width, header.height, header.format] if header else None,
        "stage": content.stage,
        "reason": content.reason,
    }


def _recalled(path: str, noted: Mapping[str, Any]) -> Content:
    header = NotedHeader(*noted["header"]) if noted["header"] else None
    return Content(
        path,
        ImageId(noted["image_id"]),
        noted["nbytes"],
        header,
        stage=noted["stage"],
        reason=noted["reason"],
    )


def _read(path: str, *, root: Path, probe: Probe) -> Content:
    try:
        data = read_bytes_at(root, path)
    except OSError as error:
        reason = error.strerror or str(error)
        is_absent = isinstance(error, (FileNotFoundError, NotADirectoryError))
        return Content(path, is_absent=is_absent, stage="read", reason=reason)
    image_id = ImageId(hashlib.sha256(data).hexdigest())
    try:
        header = probe(data)
    except ImageError as error:
        return Content(path, image_id, len(data), stage=error.stage, reason=error.reason)
    return Content(path, image_id, len(data), header)
