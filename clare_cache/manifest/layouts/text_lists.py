"""Data sets that are text files of paths: LaRE's lists and Corvi's LDM training set."""

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

from clare_cache.errors import ManifestError
from clare_cache.manifest.layouts.families import family_of, generator_for
from clare_cache.manifest.layouts.genimage import generator_of
from clare_cache.manifest.layouts.listing import (
    Entry,
    Listing,
    Options,
)
from clare_cache.manifest.layouts.places import SPLIT_FOLDERS
from clare_cache.manifest.layouts.table import LABEL_WORDS, foreign_prefix, relative_path
from clare_cache.manifest.table import is_misplaced_path
from clare_cache.manifest.walk import walk
from clare_cache.types import FAKE, REAL

_LDM_FOLDER = "latent_diffusion_trainingset"
_LDM_SOURCE = "ldm-trainingset"


class LareList:
    """Text files with `PATH LABEL` (last blank separates) or `PATH<TAB>LABEL` in each line.

    A list that was made on another machine names its folders before the data set's: what has to
    go for the first of its files to be found below the root goes from every path.

    As LaRE reads them, a list ends at its first empty line; lines after it are counted. The split
    is the word `train` or `val` that the file's name begins with, the generator is in the path in
    one of GenImage's spellings, else in the file's name.
    """

    name = "lare-list"
    summary = "LaRE's text lists, PATH LABEL a line: --table FILE (repeatable) or a folder of them"
    tree = "the files that the lists name"
    takes = frozenset({"tables"})

    def survey(self, root: Path, options: Options) -> Listing:
        lists = _text_files(options.tables)
        listing = Listing([], advice="Lines count from 1.")
        faults: list[str] = []
        for path in lists:
            faults += self._read(path, root, listing)
        listing.faults = [faults]
        return listing

    def _read(self, path: Path, root: Path, listing: Listing) -> list[str]:
        faults = []
        lines = _lines(path)
        end = next((number for number, line in enumerate(lines) if not line.strip()), len(lines))
        if after := sum(bool(line.strip()) for line in lines[end:]):
            listing.left_out[f"after the first empty line of {path.name}"] += after
        split = SPLIT_FOLDERS.get(re.split(r"[_.\-]", path.stem.lower())[0], "")
        prefix = foreign_prefix([_name_and_label(line)[0] for line in lines[:end]], root)
        if prefix:
            listing.left_out[f"from the paths of {path.name}, the folder {prefix}"] += 1
        for number, line in enumerate(lines[:end], start=1):
            name, word = _name_and_label(line)
            label = LABEL_WORDS.get(word.strip().lower())
            where = f"{path.name} line {number}"
            relative = str(relative_path(name, root, prefix))
            if label is None or not name:
                faults.append(f"{where}: expected PATH LABEL, found {line.strip()!r}")
            elif is_misplaced_path(relative):
                faults.append(f"{where}: expected a path below {root}, found {name!r}")
            else:
                entry = _listed_entry(relative, label, split, path.stem)
                gone = "" if (root / relative).is_file() else path.name
                listing.entries.append(replace(entry, absent_from=gone))
        return faults


class LdmTrainingSet:
    """Corvi's training set: fakes in sub-folders, reals named by `real_lsun.txt`, `real_coco.txt`.

    A line `CLASS_FILE` of the first is `train/CLASS/0_real/FILE` of ForenSynths, a line of the
    second the tail of a COCO file name, in train2014 if it is there, else in val2014. Lines are
    read as the authors' code does: of an LSUN line the first two fields between underscores, and
    of both what precedes a comma.
    """

    name = "ldm-trainingset"
    summary = "Corvi's latent diffusion training set, with LSUN and COCO reals by list"
    tree = f"{_LDM_FOLDER}/{{train,valid}}/…, train/CLASS/0_real/* and coco/{{train,val}}2014/*"
    takes: frozenset[str] = frozenset()

    def survey(self, root: Path, options: Options) -> Listing:
        walked = walk(root)
        images = set(walked.images)
        parts = {f: s for f, s in SPLIT_FOLDERS.items() if (root / _LDM_FOLDER / f).is_dir()}
        listing = Listing(
            [],
            failures=list(walked.failures),
            advice=f"`{self.name}` expects {self.tree} below ROOT.",
            other_files=walked.other_files,
        )
        for folder, split in parts.items():
            inside = f"{_LDM_FOLDER}/{folder}/"
            listing.entries += [
                _ldm_entry(path, FAKE, split, PurePosixPath(path.removeprefix(inside)).parts[0])
                for path in walked.images
                if path.startswith(inside) and "/" in path.removeprefix(inside)
            ]
            for name in ("real_lsun.txt", "real_coco.txt"):
                self._read_reals(root, inside + name, split, images, listing)
        if not listing.entries:
            listing.faults = [[f"expected {self.tree} below it, found none of it"]]
        used = {entry.path for entry in listing.entries}
        if unused := len(images - used):
            listing.left_out["named by no list"] = unused
        return listing

    def _read_reals(
        self, root: Path, name: str, split: str, images: set[str], listing: Listing
    ) -> None:
        if not (root / name).is_file():
            listing.left_out[f"no list {name}"] += 1
            return
        for line in _lines(root / name):
            field = line.split(",")[0].strip()
            if not field:
                continue
            candidates = _lsun_paths(field) if "lsun" in name else _coco_paths(field)
            found = next((path for path in candidates if path in images), None)
            entry = _ldm_entry(found or candidates[-1], REAL, split, "real")
            listing.entries.append(replace(entry, absent_from="" if found else name))


def _lsun_paths(field: str) -> list[str]:
    kind, file = [*field.split("_"), ""][:2]
    return [f"train/{kind}/0_real/{file}"]


def _coco_paths(tail: str) -> list[str]:
    return [f"coco/{part}2014/COCO_{part}2014_{tail}" for part in ("train", "val")]


def _ldm_entry(path: str, label: int, split: str, maker: str) -> Entry:
    family = "real" if label == REAL else "diffusion"
    return Entry(
        path, label, split, _LDM_SOURCE, generator=generator_for(label, maker), family=family
    )


def _listed_entry(path: str, label: int, split: str, stem: str) -> Entry:
    folders = PurePosixPath(path).parts[:-1]
    source = next((short for name in folders if (short := generator_of(name))), None)
    source = source or generator_of(stem) or stem
    generator = generator_for(label, source)
    return Entry(path, label, split, source, generator=generator, family=family_of(generator))


def _name_and_label(line: str) -> tuple[str, str]:
    text = line.rstrip("\r\n")
    name, separator, label = text.rpartition("\t" if "\t" in text else " ")
    return (name.strip(), label) if separator else ("", text)


def _text_files(tables: tuple[Path, ...]) -> list[Path]:
    if not tables:
        raise ManifestError(
            "manifest build lare-list: expected --table FILE, found none. Name the text files, or "
            "a folder of them."
        )
    return [
        path
        for table in tables
        for path in (sorted(table.glob("*.txt")) if table.is_dir() else [table])
    ]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read as a list of paths: {error}") from error
