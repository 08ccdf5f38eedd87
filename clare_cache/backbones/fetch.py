"""Weights from the hub into a folder that can be carried to a machine without network.

Takes the files that are read and no others, and notes their revision and digests beside them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from clare_cache.backbones.clip_models import HUB_FILES, hub_place
from clare_cache.backbones.clip_training import CONFIG_FILE
from clare_cache.backbones.diffusers_folder import WEIGHT_STEMS
from clare_cache.backbones.hub import Listing, download, list_files
from clare_cache.backbones.stable_diffusion import hub_id
from clare_cache.backbones.weights_record import WeightsRecord
from clare_cache.errors import BackboneError, raise_faults

ALWAYS = (
    *(f"{part}/config.json" for part in WEIGHT_STEMS),
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "scheduler/scheduler_config.json",
)


@dataclass(frozen=True)
class Fetched:
    """A folder with weights: `spec` is the spelling that uses them."""

    folder: Path
    option: str
    spec: str
    record: WeightsRecord


def fetch_stable_diffusion(spec: str, out: Path) -> Fetched:
    """The needed files of the hub repository `spec` (`ID` or `ID@REVISION`) into a folder of `out`.

    Raises BackboneError when it cannot be reached or lacks a file.
    """
    asked = f"weights fetch --sd {spec}"
    repository, revision, cure = hub_id(spec, asked=asked)
    listing = list_files(repository, revision=revision, asked=asked, cure=cure)
    raise_faults(BackboneError, f"{asked} at {listing.revision}", list(_lacking(listing)))
    folder = out / repository.rpartition("/")[2]
    names = [*ALWAYS, *_weight_files(listing.files).values()]
    names += [n for n in sorted(listing.files) if fnmatch(n, "tokenizer/*") and n not in names]
    files = download(listing, names, folder, asked=asked)
    return _noted(folder, "--sd", str(folder), listing, files)


def fetch_clip(spec: str, out: Path) -> Fetched:
    """The weights `MODEL:TAG` with their configuration into a folder of `out`.

    Raises BackboneError for an unknown or mismatched training, and as above.
    """
    asked = f"weights fetch --clip {spec}"
    model, tag, repository, revision, file_name = hub_place(spec)
    listing = list_files(
        repository, revision=revision, asked=asked, cure="Check the name and the network."
    )
    candidates = (file_name,) if file_name else HUB_FILES
    found = next((name for name in candidates if name in listing.files), None)
    if found is None:
        raise BackboneError(
            f"{asked}: expected {' or '.join(candidates)} in {repository}, found none of them."
        )
    names = [found, *([CONFIG_FILE] if CONFIG_FILE in listing.files else [])]
    folder = out / f"{model}-{tag}"
    files = download(listing, names, folder, asked=asked)
    used = f"{model}:{folder / found}"
    return _noted(folder, "--clip", used, listing, files, clip=f"{model}:{tag}")


def _noted(
    folder: Path,
    option: str,
    spec: str,
    listing: Listing,
    files: Mapping[str, str],
    clip: str | None = None,
) -> Fetched:
    record = WeightsRecord(listing.repository, listing.revision, files, clip)
    record.write(folder)
    return Fetched(folder, option, spec, record)


def _weight_files(files: Mapping[str, str | None]) -> dict[str, str]:
    """Part → its safetensors file; half precision where there is no other."""
    found: dict[str, str] = {}
    for part, stem in WEIGHT_STEMS.items():
        for ending in ("safetensors", "fp16.safetensors"):
            if (name := f"{part}/{stem}.{ending}") in files:
                found.setdefault(part, name)
    return found


def _lacking(listing: Listing) -> Iterator[str]:
    for name in ALWAYS:
        if name not in listing.files:
            yield f"{name} is not in the repository"
    weights = _weight_files(listing.files)
    for part, stem in WEIGHT_STEMS.items():
        if part not in weights:
            yield f"{part}/{stem}.safetensors is not in the repository; pickles are not read"
