"""Files from the Hugging Face hub, or a sentence that says why there are none.

Knows nothing of what the files hold. Without network it answers at once: it asks the local cache
only when HF_HUB_OFFLINE is set, also when that happened after the hub library was imported.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from clare_cache.errors import BackboneError


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


def fetch_file(repository: str, names: Sequence[str], *, asked: str, cure: str) -> Path:
    """The local copy of the first of `names` that a hub repository has.

    Raises BackboneError, beginning with `asked` and ending with `cure`.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HTTPError, LocalEntryNotFoundError

    missing: Exception | None = None
    for name in names:
        try:
            return Path(hf_hub_download(repository, name, local_files_only=is_offline()))
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
    return f"expected {repository} from the hub, found {first_line(error)}"
