"""The schema of `manifests/**/*.yaml`: a published data set, or a subset of one, as data.

A file says where the data set comes from and who may have it, in which layout it lies, which of
its images are meant, and how many there should be. It holds no list of images.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from clare_cache.errors import ManifestError, raise_faults
from clare_cache.manifest.layouts import LAYOUTS, PICKS, Entry, Options
from clare_cache.types import FAKE, REAL
from clare_cache.yaml_files import faults_of, read_yaml, shipped

MANIFESTS_FOLDER = "manifests"
LABELS = {"real": REAL, "fake": FAKE}
_KEPT = ("split", "source", "generator", "family", "label")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(_Section):
    """Images of one layout below one folder: which of them, and under what split and source."""

    layout: str
    under: str = ""
    """Folder below the root that the layout's tree lies in; the root itself when empty."""
    tables: tuple[str, ...] = ()
    """Lists or tables to read, relative to the root."""
    frames: int | None = Field(default=None, ge=1)
    pick: str = "spread"
    compression: str = "c23"
    keys: tuple[str, ...] = ()
    group: str | None = None
    paths: tuple[str, ...] = ()
    """Patterns of which a path must match one; any path when empty. `*` also spans folders, and a
    path is matched with a slash before it: `*/horse/*`."""
    keep: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """Column → the values that are kept (split, source, generator, family, label real or fake)."""
    split: Mapping[str, str] | str = ""
    """The split of all these images, or a mapping from the layout's splits."""

    @field_validator("layout")
    @classmethod
    def _known_layout(cls, value: str) -> str:
        if value not in LAYOUTS:
            raise ValueError(f"expected one of {', '.join(LAYOUTS)}, found {value!r}")
        return value

    @field_validator("pick")
    @classmethod
    def _known_pick(cls, value: str) -> str:
        if value not in PICKS:
            raise ValueError(f"expected one of {', '.join(PICKS)}, found {value!r}")
        return value

    @field_validator("under")
    @classmethod
    def _inside(cls, value: str) -> str:
        if PurePosixPath(value).is_absolute() or ".." in PurePosixPath(value).parts:
            raise ValueError(f"expected a folder below the root, found {value!r}")
        return value

    @field_validator("keep", mode="before")
    @classmethod
    def _known_columns(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError(f"expected columns with their values, found {value!r}")
        if unknown := [str(name) for name in value if name not in _KEPT]:
            raise ValueError(f"expected columns {', '.join(_KEPT)}, found {', '.join(unknown)}")
        return {k: [v] if isinstance(v, str) else v for k, v in value.items()}

    def options(self, root: Path) -> Options:
        """What the layout is told. Tables that lie below the root are named so."""
        tables = [root / t if (root / t).exists() else Path(t) for t in self.tables]
        return Options(
            tables=tuple(tables),
            group_pattern=self.group,
            frames=self.frames,
            pick=self.pick,
            compression=self.compression,
            keys=self.keys,
        )

    def takes(self, entry: Entry) -> bool:
        """Whether this image is meant."""
        path = f"/{entry.path}"
        if self.paths and not any(fnmatchcase(path, pattern) for pattern in self.paths):
            return False
        return all(self._has(entry, column, values) for column, values in self.keep.items())

    def split_of(self, entry: Entry) -> str:
        """The split that the image has here."""
        if isinstance(self.split, str):
            return self.split or entry.split
        return self.split.get(entry.split, entry.split)

    @staticmethod
    def _has(entry: Entry, column: str, values: tuple[str, ...]) -> bool:
        if column == "label":
            return entry.label in [LABELS.get(value) for value in values]
        return getattr(entry, column) in values


class Expected(_Section):
    """How many images there are of one kind, according to whom."""

    images: int = Field(ge=0)
    split: str | None = None
    label: Literal["real", "fake"] | None = None
    source: str | None = None
    generator: str | None = None
    counted: Literal["rows", "listed"] = "rows"
    """Rows of the manifest, or as often as the lists name them (repeated reals every time)."""
    about: bool = False
    """The number is approximate; within 1 % is as expected."""
    according_to: str = ""

    @model_validator(mode="after")
    def _countable(self) -> "Expected":
        if self.counted == "listed" and (self.source or self.generator):
            raise ValueError("listed images are counted by split and label only")
        return self

    @property
    def what(self) -> str:
        """What is counted, in words: `test, progan, real`."""
        words = [w for w in (self.split, self.source, self.generator, self.label) if w]
        listed = " (as listed)" if self.counted == "listed" else ""
        return (", ".join(dict.fromkeys(words)) or "all") + listed

    def agrees(self, found: int) -> bool:
        """Whether so many is as expected."""
        return abs(found - self.images) <= (0.01 * self.images if self.about else 0)


class DataSet(_Section):
    """A data set, or a published subset: who made it, who may have it, what it consists of."""

    title: str
    paper: str
    origin: tuple[str, ...]
    """Where it is to be had."""
    licence: str
    access: str
    """Who may download it, and how it is asked for."""
    tree: str
    """What has to lie below the root."""
    label_rule: str
    group_rule: str
    split_rule: str
    parts: tuple[Part, ...]
    expected: tuple[Expected, ...] = ()
    remarks: tuple[str, ...] = ()

    @field_validator("parts")
    @classmethod
    def _some(cls, value: tuple[Part, ...]) -> tuple[Part, ...]:
        if not value:
            raise ValueError("expected one part or more, found none")
        return value


def read_data_set(name: str | Path) -> DataSet:
    """The data set of a YAML file, or the one that ships under this name (`clare/train-41k`).

    Raises ManifestError listing every fault with its place in the file.
    """
    path = find_data_set(name)
    try:
        value = read_yaml(path)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ManifestError(
            f"data set {path}: expected YAML, found {error}. Correct it."
        ) from error
    try:
        return DataSet.model_validate(value)
    except ValidationError as error:
        raise_faults(ManifestError, f"data set {path}", faults_of(error, whole="data set"))
        raise


def find_data_set(name: str | Path) -> Path:
    """The YAML file called `name`, else the shipped data set of that name."""
    if Path(name).suffix in (".yaml", ".yml") and Path(name).is_file():
        return Path(name)
    shipped = shipped_data_sets()
    if str(name) in shipped:
        return shipped[str(name)]
    raise ManifestError(
        f"manifest build {name}: expected a layout ({', '.join(LAYOUTS)}), the name of a shipped "
        f"data set ({', '.join(shipped)}) or a YAML file, found none of them. "
        "`clare-cache manifest build --list` says a line about each."
    )


def shipped_data_sets() -> dict[str, Path]:
    """Data sets by name, e.g. `rine/tests`: from the wheel, or the checkout it comes from."""
    return shipped(MANIFESTS_FOLDER)
