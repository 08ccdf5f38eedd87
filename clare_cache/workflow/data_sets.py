"""The data sets of a recipe on this disk → the manifests of its folds, each data set built once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clare_cache.errors import ManifestError, raise_faults
from clare_cache.evaluate import TRAINING, VALIDATION
from clare_cache.files import read_json, write_json
from clare_cache.fingerprint import file_digest
from clare_cache.manifest import LAYOUTS, Manifest, split_by_group
from clare_cache.manifest.catalogue import find_data_set
from clare_cache.manifest.protocols import TEST_SHARE, apply_protocol
from clare_cache.recipe import ManifestSection
from clare_cache.types import OnProgress, ignore_progress
from clare_cache.workflow.manifests import build_manifest

ROLES = {"train": (TRAINING,), "val": VALIDATION, "test": ("test",)}
"""Part that a data set plays → the splits of its own that are meant; rows without split are too."""


SHOWN = 5


@dataclass(frozen=True)
class Roots:
    """Where the data sets lie: one folder for all of them, or one for each.

    Manifests that lie in several folders are made to share one: links below `links`.
    """

    by_name: Mapping[str, Path]
    default: Path | None
    links: Path

    def of(self, name: str) -> Path | None:
        """The folder of a data set, or None where none was given."""
        return self.by_name.get(name, self.default)

    def shared(self, names: Sequence[str]) -> Path:
        """The folder that the paths of all these data sets are relative to."""
        folders = {self.of(name) for name in names}
        return folders.pop() or self.links if len(folders) == 1 else self.links

    def prefix(self, name: str, names: Sequence[str]) -> str:
        """What goes before the paths of a data set below the shared folder."""
        return f"{_flat(name)}/" if self.shared(names) == self.links else ""


def data_sets_of(section: ManifestSection) -> list[str]:
    """Every data set that a recipe names, once."""
    trained = [name for names in section.train.values() for name in names]
    return list(dict.fromkeys([*trained, *section.val, *section.test]))


def refuse_homeless(names: Sequence[str], roots: Roots) -> None:
    """Raises ManifestError for data sets that are unknown, or whose folder is unknown or absent."""
    faults = []
    for name in names:
        root = roots.of(name)
        if name not in LAYOUTS:
            find_data_set(name)
        if root is None:
            faults.append(f"{name}: expected its folder, found none. Give --root {name}=DIR")
        elif not root.is_dir():
            faults.append(f"{name}: expected its images in {root}, found no such folder")
    raise_faults(ManifestError, "data sets", faults, advice="--root DIR serves all of them.")


def is_built(name: str, folder: Path, roots: Roots) -> bool:
    """Whether the data set's manifest is there, built from this description and folder."""
    path, record = _files(name, folder)
    return path.is_file() and record.is_file() and read_json(record) == _key(name, roots)


def build_data_set(
    name: str,
    folder: Path,
    roots: Roots,
    *,
    on_step: Callable[[str], None] = lambda line: None,
    on_progress: OnProgress = ignore_progress,
) -> Manifest:
    """The manifest of a data set, read from `folder` or else built and written there."""
    path, record = _files(name, folder)
    if is_built(name, folder, roots):
        manifest = Manifest.read(path)
        on_step(f"manifest {name}: {len(manifest):,} images, was there ({path})")
        return manifest
    root = roots.of(name)
    assert root is not None, "refuse_homeless comes first"
    built = build_manifest(name, root, on_progress=on_progress)
    built.manifest.write(path)
    write_json(record, _key(name, roots))
    on_step(f"manifest {name}: {len(built.manifest):,} images, built from {root}")
    _say_some(
        [
            f"{count.what}: expected {count.expected:,}, found {count.found:,}"
            + (f" ({count.according_to})" if count.according_to else "")
            for count in built.counts
            if not count.agrees
        ],
        on_step,
    )
    _say_some([f"{failure.path}: {failure.reason}" for failure in built.failures], on_step)
    return built.manifest


def compose_folds(
    section: ManifestSection,
    manifests: Mapping[str, Manifest],
    roots: Roots,
    *,
    seed: int,
    on_step: Callable[[str], None] = lambda line: None,
) -> dict[str, Manifest]:
    """Fold → its manifest, with the splits train, val and test; the one fold of a recipe is "".

    A picture plays one part: what is trained on is neither validated nor tested on, and what is
    tested on is not validated on; `on_step` hears of it. Raises ManifestError for a protocol that
    does not fit.
    """
    names = data_sets_of(section)
    trained = {name for chosen in section.train.values() for name in chosen}
    manifests = {
        name: _divided(manifest, seed) if name in trained.intersection(section.test) else manifest
        for name, manifest in manifests.items()
    }

    def rows(role: str, chosen: Sequence[str]) -> pd.DataFrame:
        parts = [_part(manifests[name], role, roots.prefix(name, names)) for name in chosen]
        return pd.concat(parts) if parts else pd.DataFrame()

    tested = rows("test", section.test)
    folds = {}
    for fold, chosen in section.train.items():
        trained_on = _drawn(rows("train", chosen), section.share.get(fold, 1.0), seed)
        validated = rows("val", section.val or chosen)
        on_test, on_val = _shared(tested, trained_on), _shared(validated, trained_on)
        on_both = _shared(validated, tested) & ~on_val
        left = validated[~on_val & ~on_both]
        held = "" if len(left) else "; groups of the training images are held out to validate on"
        for shared, said in (
            (on_test, "train and test: they are not tested on"),
            (on_val, f"train and validate: they are not validated on{held}"),
            (on_both, f"validate and test: they are not validated on{held}"),
        ):
            if shared.any():
                where = f"fold {fold}: " if fold else ""
                on_step(f"{where}{int(shared.sum()):,} images are named to {said}")
        folds[fold] = _joined([trained_on, left, tested[~on_test]])
    if not section.protocol:
        return folds
    whole = _joined([manifest.rows for manifest in folds.values()])
    return protocol_folds(section.protocol, whole, seed=seed)


def protocol_folds(protocol: str, manifest: Manifest, *, seed: int) -> dict[str, Manifest]:
    """Fold → its manifest; the one fold of a protocol is ""."""
    made = {f.name: f.manifest for f in apply_protocol(protocol, manifest, seed=seed)}
    return {"": next(iter(made.values()))} if len(made) == 1 else made


def link_roots(names: Sequence[str], roots: Roots) -> Path:
    """The shared folder of the data sets, its links made."""
    shared = roots.shared(names)
    if shared == roots.links:
        for name in names:
            link, target = shared / _flat(name), roots.of(name)
            assert target is not None, "refuse_homeless comes first"
            if link.is_symlink() and link.resolve() != target.resolve():
                link.unlink()
            if not link.is_symlink():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(target.resolve(), target_is_directory=True)
    return shared


def _say_some(lines: Sequence[str], on_step: Callable[[str], None]) -> None:
    for line in lines[:SHOWN]:
        on_step(f"  {line}")
    if len(lines) > SHOWN:
        on_step(f"  and {len(lines) - SHOWN} more; `clare-cache manifest build` shows all")


def _part(manifest: Manifest, role: str, prefix: str) -> pd.DataFrame:
    wanted = manifest.rows[manifest.rows["split"].isin([*ROLES[role], ""])]
    if role == "val":
        # A data set without splits trains or tests; it has no validation images to give.
        wanted = wanted[wanted["split"] != ""]
    return wanted.assign(split=role, path=(prefix + wanted["path"]).astype("string"))


def _divided(manifest: Manifest, seed: int) -> Manifest:
    """A data set that both trains and tests, with splits: its own, or whole groups dealt out."""
    if (manifest.rows["split"] != "").any():
        return manifest
    return split_by_group(manifest, {"train": 1 - TEST_SHARE, "test": TEST_SHARE}, seed=seed)


def _drawn(rows: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """This share of the images, whole groups, real and fake of every generator alike."""
    if share == 1:
        return rows
    kept = split_by_group(Manifest.from_rows(rows), {"train": share, "left": 1 - share}, seed=seed)
    return kept.where(split="train").rows


def _joined(parts: Sequence[pd.DataFrame]) -> Manifest:
    rows = pd.concat([part for part in parts if len(part)], ignore_index=True)
    return Manifest.from_rows(rows.drop_duplicates("path", ignore_index=True))


def _shared(rows: pd.DataFrame, others: pd.DataFrame) -> NDArray[np.bool_]:
    """Per row, whether its picture is among the others too."""
    if not len(rows) or not len(others):
        return np.zeros(len(rows), bool)
    return rows["image_id"].isin(others["image_id"]).to_numpy(bool)


def _files(name: str, folder: Path) -> tuple[Path, Path]:
    return folder / f"{_flat(name)}.parquet", folder / f"{_flat(name)}.json"


def _key(name: str, roots: Roots) -> dict[str, str]:
    root = roots.of(name)
    described = "layout" if name in LAYOUTS else file_digest(find_data_set(name))
    return {"root": str(root.resolve()) if root else "", "description": described}


def _flat(name: str) -> str:
    return name.replace("/", "-")
