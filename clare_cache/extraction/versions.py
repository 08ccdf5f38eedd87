"""Library versions in commit records. They decide nothing: a difference warns."""

import warnings
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version

from clare_cache.errors import VersionWarning
from clare_cache.images import decoder_versions
from clare_cache.store import CommitRecord

RECORDED_VERSIONS = (
    "clare-cache",
    "diffusers",
    "numpy",
    "open_clip_torch",
    "torch",
    "transformers",
    "zarr",
)
WITHOUT_INFLUENCE = ("numpy", "zarr")
"""Libraries that move values and do not make them."""


@lru_cache(maxsize=1)
def present_versions() -> dict[str, str]:
    """What a commit record of this process says of its libraries."""
    return {name: version(name) for name in RECORDED_VERSIONS} | decoder_versions()


def version_differences(records: Iterable[CommitRecord]) -> list[str]:
    """One phrase for each library whose releases in the records are not only the present one."""
    found: dict[str, set[str]] = {}
    for record in records:
        for name, release in record.versions.items():
            found.setdefault(name, set()).update(release.split(", "))  # several where merged
    here = present_versions()
    return [
        f"made with {name} {', '.join(sorted(releases))}, here is {here.get(name, 'none')}"
        for name, releases in sorted(found.items())
        if name not in WITHOUT_INFLUENCE and releases != {here.get(name)}
    ]


def warn_of_other_versions(store: object, records: Iterable[CommitRecord]) -> None:
    """One VersionWarning, when the records name other libraries than are here."""
    if phrases := version_differences(records):
        warnings.warn(
            f"store {store}: {'; '.join(phrases)}. Features may differ in their last digits; "
            "`clare-cache store verify --sample 8` measures it.",
            VersionWarning,
            stacklevel=2,
        )
