"""Files from the Hugging Face hub, or a sentence that says why there are none.

Knows nothing of what the files hold. Without network it answers at once: it asks the local cache
only when HF_HUB_OFFLINE is set, also when that happened after the hub library was imported.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clare_cache.errors import BackboneError
from clare_cache.fingerprint import file_digest


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE asks for no network, as of now."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def fetch_folder(
    repository: str, *, revision: str | None, patterns: Sequence[str], asked: str, cure: str
) -> Path:
    """The local folder of a hub repository's matching files, downloaded if they are not cached.

    Raises BackboneError, beginning with `asked` and ending with `cure`.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HTTPError

    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=list(patterns),
                local_files_only=is_offline(),
            )
        )
    except (OSError, ValueError, HTTPError, EntryNotFoundError) as error:
        raise BackboneError(f"{asked}: {_reason(error, repository)}. {cure}") from error


def fetch_file(
    repository: str,
    names: Sequence[str],
    *,
    revision: str | None = None,
    asked: str,
    cure: str,
) -> Path:
    """The local copy of the first of `names` that a hub repository has.

    Raises BackboneError, beginning with `asked` and ending with `cure`.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HTTPError, LocalEntryNotFoundError

    missing: Exception | None = None
    for name in names:
        try:
            return Path(
                hf_hub_download(repository, name, revision=revision, local_files_only=is_offline())
            )
        except EntryNotFoundError as error:
            missing = error
            # Off the network every name is missing: one attempt must do, the retries are slow.
            if isinstance(error, LocalEntryNotFoundError) and not is_offline():
                break
        except (OSError, ValueError, HTTPError) as error:
            missing = error
            break
    assert missing is not None
    raise BackboneError(f"{asked}: {_reason(missing, repository)}. {cure}") from missing


def cached_revision(folder: Path) -> str | None:
    """The commit whose files a folder of the local hub cache holds; None for other folders."""
    return folder.name if folder.parent.name == "snapshots" else None


@dataclass(frozen=True)
class Listing:
    """A repository at one commit: its name, the commit, and its files with their SHA-256, where
    the hub knows it."""

    repository: str
    revision: str
    files: Mapping[str, str | None]


def list_files(repository: str, *, revision: str | None, asked: str, cure: str) -> Listing:
    """What a repository holds now, or at `revision`. Raises BackboneError as above."""
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    if is_offline():
        raise BackboneError(
            f"{asked}: expected to reach the hub, but HF_HUB_OFFLINE is set. Unset it, and do this "
            "on a machine with network."
        )
    try:
        info = _hub().model_info(repository, revision=revision, files_metadata=True)
    except OfflineModeIsEnabled as error:
        raise BackboneError(
            f"{asked}: expected to reach the hub, but HF_HUB_OFFLINE was set when this process "
            "started, which cannot be undone. Start again without it."
        ) from error
    except (OSError, ValueError, HTTPError) as error:
        raise BackboneError(f"{asked}: {_reason(error, repository)}. {cure}") from error
    return Listing(
        repository=repository,
        revision=str(info.sha),
        files={
            item.rfilename: item.lfs.sha256 if item.lfs else None for item in info.siblings or []
        },
    )


def download(listing: Listing, names: Sequence[str], folder: Path, *, asked: str) -> dict[str, str]:
    """These files of a repository into `folder`; name → SHA-256.

    What an earlier call left half is taken up. Raises BackboneError when a file cannot be had, or
    is not the one that the hub lists.
    """
    from huggingface_hub.errors import HTTPError

    digests = {}
    cure = "Call again: what is there is kept."
    for name in names:
        try:
            path = _hub().hf_hub_download(
                listing.repository, name, revision=listing.revision, local_dir=folder
            )
        except (OSError, ValueError, HTTPError) as error:
            reason = _reason(error, listing.repository)
            raise BackboneError(f"{asked}: {name}: {reason}. {cure}") from error
        digests[name] = file_digest(Path(path))
        if listing.files[name] not in (None, digests[name]):
            Path(path).unlink()
            raise BackboneError(
                f"{asked}: {name}: expected SHA-256 {listing.files[name]}, which the hub lists, "
                f"found {digests[name]}. {cure}"
            )
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub library's notes on downloads
    return digests


def _hub() -> Any:
    """The hub that HF_ENDPOINT names now: the library looks only when it is imported."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)


def _reason(error: Exception, repository: str) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return f"expected a public repository {repository}, found one that asks for a login"
    if isinstance(error, RepositoryNotFoundError):
        return f"expected the hub repository {repository}, found none of that name"
    if isinstance(error, RevisionNotFoundError):
        return f"expected that revision of {repository} on the hub, found none"
    if isinstance(error, LocalEntryNotFoundError):
        network = "HF_HUB_OFFLINE is set" if is_offline() else "the hub cannot be reached"
        return f"expected {repository} in the local hub cache, found none, and {network}"
    return f"expected {repository} from the hub, found {first_line(error).rstrip('.')}"
