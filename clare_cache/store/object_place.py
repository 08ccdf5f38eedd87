"""A place on an object store (S3, Google Cloud, Azure), through obstore.

A PUT appears whole or not at all, and once it returns it is kept: no temporary names, nothing to
flush. Credentials and endpoints come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL …).
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, cast

from zarr.abc.store import Store as ZarrStore
from zarr.storage import ObjectStore

from clare_cache.errors import StoreError

SCHEMES = ("s3", "gs", "az")

MAX_RETRIES = 5
RETRY_SECONDS = 60.0
CONNECT_SECONDS = 10.0
"""A worker that waits for hours for a mistyped endpoint is worse than one that says so."""


def open_object_place(url: str) -> "ObjectPlace":
    """The place of a URL `scheme://bucket/path`. Raises StoreError when obstore is missing."""
    if find_spec("obstore") is None:
        raise StoreError(
            f"store {url}: object stores are read and written through obstore, which is not "
            "installed. Install it with `pip install 'clare-cache[s3]'`."
        )
    bucket, _, prefix = url.split("://", 1)[1].partition("/")
    if not bucket or not prefix.strip("/"):
        raise StoreError(
            f"store {url}: expected {url.split('://')[0]}://BUCKET/PATH, found "
            f"{'no path in the bucket' if bucket else 'no bucket'}."
        )
    return ObjectPlace(url.rstrip("/"))


@dataclass(frozen=True)
class ObjectPlace:
    """Objects whose keys begin with a URL's path."""

    url: str

    def __str__(self) -> str:
        return self.url

    def resolve(self) -> "ObjectPlace":
        return self

    def read(self, name: str) -> bytes:
        import obstore

        with self.speaking():
            return bytes(obstore.get(self._store, name).bytes())

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(_ObjectFile(self, name), buffer_size=2**16))

    def write(self, name: str, data: bytes) -> None:
        import obstore

        with self.speaking():
            # One PUT whatever the size: several parts would need to be put together.
            obstore.put(self._store, name, data, use_multipart=False)

    def make(self, name: str, data: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError

        with self.speaking():
            try:
                obstore.put(self._store, name, data, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def swap(self, name: str, old: bytes, new: bytes) -> bool:
        import obstore
        from obstore.exceptions import PreconditionError

        with self.speaking():
            try:
                found = obstore.get(self._store, name)
                if bytes(found.bytes()) != old:
                    return False
                version = {k: found.meta[k] for k in ("e_tag", "version") if found.meta[k]}
                obstore.put(self._store, name, new, mode=cast(Any, version))
            except (FileNotFoundError, PreconditionError):
                return False
        return True

    def exists(self, name: str) -> bool:
        import obstore

        with self.speaking():
            try:
                obstore.head(self._store, name)
            except FileNotFoundError:
                return False
        return True

    def names(self, folder: str = "") -> list[str]:
        import obstore

        with self.speaking():
            listed = obstore.list(self._store, prefix=folder or None)
            return sorted(item["path"] for items in listed for item in items)

    def children(self, folder: str = "") -> list[str]:
        import obstore

        with self.speaking():
            found = obstore.list_with_delimiter(self._store, prefix=folder or None)
            paths = [*found["common_prefixes"], *(item["path"] for item in found["objects"])]
            return sorted(path.rpartition("/")[2] for path in paths)

    def partials(self, folder: str = "") -> list[str]:
        return []  # an object appears whole

    def delete(self, name: str) -> None:
        import obstore

        with self.speaking():
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError:
                return  # S3 says nothing of absent objects, others do

    def flush(self, name: str) -> None:
        """A PUT that returned is kept."""

    def local(self, name: str) -> Path | None:
        return None

    def zarr_store(self, folder: str, *, read_only: bool) -> ZarrStore:
        return ObjectStore(_connect(f"{self.url}/{folder}"), read_only=read_only)

    @contextmanager
    def speaking(self) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise self._no_bucket() from error
            raise
        except BaseError as error:
            raise self._sentence(error) from error

    @property
    def _store(self) -> Any:
        return _connect(self.url)

    def _no_bucket(self) -> StoreError:
        bucket = self.url.split("/")[2]
        return StoreError(
            f"store {self.url}: expected a bucket {bucket}, found none{_endpoint()}. Correct the "
            "URL, or make the bucket."
        )

    def _sentence(self, error: Exception) -> StoreError:
        from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

        if "NoSuchBucket" in str(error):
            return self._no_bucket()
        if isinstance(error, PermissionDeniedError | UnauthenticatedError):
            return StoreError(
                f"store {self.url}: the credentials were refused{_endpoint()}. Set "
                "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION (of gs:// and az:// "
                "GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME and …_KEY) to those "
                "of somebody who may read and write there."
            )
        first = str(error).split("\n\nDebug source")[0].strip()
        return StoreError(
            f"store {self.url}: it cannot be reached{_endpoint()}, {type(error).__name__}: {first}"
        )


class _ObjectFile(io.RawIOBase):
    """An object that is read in ranges, for readers that seek."""

    def __init__(self, place: ObjectPlace, name: str) -> None:
        import obstore

        super().__init__()
        self._place = place
        with place.speaking():
            self._file = obstore.open_reader(place._store, name)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        with self._place.speaking():
            data = self._file.read(len(buffer))
        buffer[: len(data)] = bytes(data)
        return len(data)


def _endpoint() -> str:
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    return f" at {endpoint} (AWS_ENDPOINT_URL)" if endpoint else ""


@lru_cache(maxsize=64)
def _connect(url: str) -> Any:
    """A client of one URL. Once per process: clients hold open connections."""
    from obstore.store import from_url

    return from_url(
        url,
        client_options={
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "allow_http": True,  # only where the endpoint's own URL says http
        },
        retry_config={
            "max_retries": MAX_RETRIES,
            "retry_timeout": timedelta(seconds=RETRY_SECONDS),
        },
    )
