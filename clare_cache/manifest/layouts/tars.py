"""WebDataset: tar files whose neighbouring members of one key make a sample."""

import json
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from clare_cache.errors import ManifestError
from clare_cache.files import ARCHIVE_MARK, member_names, read_bytes_at
from clare_cache.manifest.layouts.families import family_of
from clare_cache.manifest.layouts.listing import Entry, Listing, Options
from clare_cache.manifest.layouts.places import LABEL_FOLDERS, SPLIT_FOLDERS
from clare_cache.manifest.layouts.table import LABEL_WORDS, entry_of
from clare_cache.manifest.walk import IMAGE_SUFFIXES, walk


class WebDataset:
    """Tars (not compressed) of `KEY.png` beside `KEY.cls` (0 or 1) and, or, `KEY.json`.

    The row's path is `shard.tar#member`; extraction reads it there, nothing is unpacked. From the
    JSON come the label (`label`), and other columns of a manifest. Without either the folder in
    the member's name says real or fake. The split is in the JSON, a folder above the tar, or the
    beginning of the tar's name.
    """

    name = "webdataset"
    summary = "WebDataset tars: KEY.png beside KEY.cls or KEY.json; read in place"
    tree = "[SPLIT/]*.tar with members KEY.{png,jpg,…} and KEY.cls or KEY.json"
    takes = frozenset({"columns"})

    def survey(self, root: Path, options: Options) -> Listing:
        walked = walk(root)
        tars = [name for name in walked.others if name.endswith(".tar")]
        listing = Listing(
            [],
            failures=list(walked.failures),
            advice="A sample needs KEY.cls (0 or 1), KEY.json with a label, or a folder real or "
            "fake in its name.",
        )
        faults: list[str] = []
        for name in tars:
            faults += self._read(root, name, options, listing)
        nothing = [] if tars else [f"expected {self.tree} below it, found no tar"]
        listing.faults = [nothing, faults]
        if walked.images:
            listing.left_out["images outside tars"] = len(walked.images)
        return listing

    def _read(self, root: Path, tar: str, options: Options, listing: Listing) -> list[str]:
        samples: dict[str, dict[str, str]] = defaultdict(dict)
        try:
            names = member_names(root / tar)
        except OSError as error:
            return [f"{tar}: {error.strerror}"]
        for member in names:
            key, suffix = _key_and_suffix(member)
            samples[key][suffix] = member
        faults = []
        for key, members in samples.items():
            pictures = [s for s in members if f".{s.rpartition('.')[2]}" in IMAGE_SUFFIXES]
            if not pictures:
                listing.left_out["samples without picture"] += 1
                continue
            listing.left_out["further pictures of a sample"] += len(pictures) - 1
            given = self._described(root, tar, members, options)
            label = _label(given, key)
            if label is None:
                faults.append(f"{tar}{ARCHIVE_MARK}{key}: says neither real nor fake")
                continue
            path = f"{tar}{ARCHIVE_MARK}{members[pictures[0]]}"
            entry = entry_of({**given, "path": path, "label": label})
            fields = vars(entry) | {
                "split": SPLIT_FOLDERS.get(entry.split.lower(), entry.split) or _split(tar),
                "source": entry.source or PurePosixPath(tar).parent.name or root.resolve().name,
                "family": entry.family or family_of(entry.generator),
            }
            listing.entries.append(Entry(**fields))
        listing.left_out = +listing.left_out
        return faults

    def _described(
        self, root: Path, tar: str, members: dict[str, str], options: Options
    ) -> dict[str, Any]:
        """What a sample's JSON and class file say, under manifest names."""
        given: dict[str, Any] = {}
        if "json" in members:
            path = f"{tar}{ARCHIVE_MARK}{members['json']}"
            try:
                content = json.loads(read_bytes_at(root, path))
            except ValueError as error:
                raise ManifestError(f"{root / path}: expected JSON, found {error}.") from error
            if isinstance(content, dict):
                given = {options.columns.get(name, name): v for name, v in content.items()}
                given = {k: v for k, v in given.items() if k == "boxes" or _is_cell(v)}
        if "cls" in members:
            data = read_bytes_at(root, f"{tar}{ARCHIVE_MARK}{members['cls']}")
            given["label"] = data.decode("utf-8", "replace").strip()
        return given


def _is_cell(value: Any) -> bool:
    return not isinstance(value, dict | list)


def _key_and_suffix(member: str) -> tuple[str, str]:
    """WebDataset's rule: the key ends at the first dot of the file name."""
    folder, slash, name = member.rpartition("/")
    key, _, suffix = name.partition(".")
    return f"{folder}{slash}{key}", suffix.lower()


def _label(given: dict[str, Any], key: str) -> int | None:
    if "label" in given and not pd.isna(given["label"]):
        return LABEL_WORDS.get(str(given["label"]).strip().lower())
    folders = PurePosixPath(key).parts[:-1]
    return next((LABEL_FOLDERS[f.lower()] for f in folders if f.lower() in LABEL_FOLDERS), None)


def _split(tar: str) -> str:
    path = PurePosixPath(tar)
    words = [*path.parts[:-1], path.name.replace("_", "-").split("-")[0].removesuffix(".tar")]
    return next((SPLIT_FOLDERS[w.lower()] for w in words if w.lower() in SPLIT_FOLDERS), "")
