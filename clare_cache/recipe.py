"""The schema of `pipelines/**/*.yaml`: composes the layers' own settings, refuses unknown keys.

A recipe is data: no inheritance, no expressions. It reports all of its faults at once, each with
the place in the file.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from clare_cache.backbones.config import ClipConfig, ErrorMapConfig
from clare_cache.errors import ClareCacheError, RecipeError, raise_faults
from clare_cache.published.expectation import Expectation
from clare_cache.sweep import Choose, expand, label_of, parse_change
from clare_cache.train.config import OptimiserConfig, TrainConfig
from clare_cache.yaml_files import faults_of, read_yaml, shipped

RECIPES_FOLDER = "pipelines"
FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class About(_Section):
    """What the recipe is, for people."""

    title: str
    paper: str = ""
    remarks: tuple[str, ...] = ()


class ManifestSection(_Section):
    """Which data sets play which part: names of `manifests/*.yaml`."""

    train: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """Fold → data sets; a plain list is the one fold without a name."""
    share: Mapping[str, float] = Field(default_factory=dict)
    """Fold → share of its training images that is used, whole groups drawn by `train.seed`."""
    val: tuple[str, ...] = ()
    """Empty: the val images of the training data sets; where there are none, groups held out."""
    test: tuple[str, ...] = ()
    protocol: str = ""
    """Name in `clare-cache protocol list`: makes the folds of all these images."""

    @field_validator("train", mode="before")
    @classmethod
    def _one_or_many_folds(cls, value: Any) -> Any:
        return value if isinstance(value, Mapping) else {"": value}


class Backbones(_Section):
    """Which frozen networks, and how their features are made."""

    sd: str | None = None
    """Hub id, local diffusers folder, `random:sd21` or `tiny`."""
    clip: str | None = None
    """open_clip `MODEL:TAG` or `MODEL:FILE`, `random:MODEL` or `tiny`."""
    error_map: ErrorMapConfig = ErrorMapConfig()
    image_tower: ClipConfig = ClipConfig()

    @field_validator("error_map", "image_tower", mode="before")
    @classmethod
    def _closed(cls, value: Any, info: Any) -> Any:
        kind = {"error_map": ErrorMapConfig, "image_tower": ClipConfig}[info.field_name]
        return value if isinstance(value, kind) else _closed_record(kind, value)


class HeadSection(_Section):
    """One head: its family, its options, how it is optimised, its name in the run, its fold."""

    family: str
    label: str = ""
    options: Mapping[str, Any] = Field(default_factory=dict)
    reads: Mapping[str, str] = Field(default_factory=dict)
    """Array of the head's family → the array of the store that it reads instead."""
    optimiser: OptimiserConfig = OptimiserConfig()
    fold: str = ""
    """Trained on this fold of `manifest.train` only; empty: on each."""
    seed: int | None = Field(default=None, ge=0)
    """Decides its initial weights and its dropout; by default `train.seed`."""
    order: Literal["shared", "own"] = "shared"
    """Whether it sees the images in the order of `train.seed`, or of its own seed."""
    train: TrainConfig | None = None
    """Where a sweep varies settings of training: those of this head."""
    sweep: str = ""
    """The label of the head that this is one combination of; empty: no sweep."""
    settings: Mapping[str, Any] = Field(default_factory=dict)
    """What the sweep varied, and its value here."""

    @field_validator("label")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        if value and not FOLDER_NAME.fullmatch(value):
            raise ValueError(
                f"expected letters, digits, '.', '_' and '-' to name a folder, found {value!r}"
            )
        return value

    @model_validator(mode="after")
    def _named(self) -> "HeadSection":
        if not self.label:
            object.__setattr__(self, "label", label_of({"family": self.family}))
        return self


class EvaluateSection(_Section):
    """What is scored after training, in which views, and how finely."""

    splits: tuple[str, ...] = ("test",)
    views: tuple[str, ...] = ("clean",)
    """Perturbations of the test pictures that `run` extracts."""
    n_resamples: int = Field(default=200, ge=0)
    """Bootstrap resamples of whole groups behind each 95% interval."""


class Recipe(_Section):
    """One experiment as data."""

    about: About
    manifest: ManifestSection = ManifestSection()
    backbones: Backbones = Backbones()
    head: tuple[HeadSection, ...]
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateSection = EvaluateSection()
    expect: tuple[Expectation, ...] = ()
    """Rows of published tables to set beside what is measured."""
    deviations: tuple[str, ...] = ()
    """Where the paper, its authors' code and this project differ."""

    @field_validator("head", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, Mapping) else value

    @field_validator("head")
    @classmethod
    def _distinct(cls, value: tuple[HeadSection, ...]) -> tuple[HeadSection, ...]:
        if not value:
            raise ValueError("expected one head or more, found none")
        labels = [head.label for head in value]
        if repeated := sorted({x for x in labels if labels.count(x) > 1}):
            raise ValueError(f"label {', '.join(repeated)} is used more than once; name each head")
        return value

    @model_validator(mode="after")
    def _folds_exist(self) -> "Recipe":
        folds = {"", *self.manifest.train}
        faults = [
            f"head {head.label}: fold {head.fold} is not in manifest.train"
            for head in self.head
            if head.fold not in folds
        ]
        faults += [
            f"manifest.share: fold {fold} is not in manifest.train"
            for fold in self.manifest.share
            if fold not in folds
        ]
        faults += [
            f"manifest.share.{fold}: expected more than 0 and at most 1, found {share:g}"
            for fold, share in self.manifest.share.items()
            if not 0 < share <= 1
        ]
        labels = {head.label for head in self.head}
        faults += [
            f"expect {item.table}: head {head} is not in the recipe"
            for item in self.expect
            for head in item.heads
            if head not in labels
        ]
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def select_fold(self, fold: str) -> "Recipe":
        """The recipe with only the heads that are trained on this fold."""
        return self.with_heads([head for head in self.head if head.fold in ("", fold)])

    def select_heads(self, wanted: Sequence[str]) -> "Recipe":
        """The recipe with only the heads of these labels or families (all of them if empty)."""
        if not wanted:
            return self
        known = {name for head in self.head for name in (head.label, head.family, head.sweep)}
        known -= {""}
        if unknown := [name for name in wanted if name not in known]:
            raise RecipeError(
                f"recipe {self.about.title}: heads {', '.join(unknown)} were asked for, found "
                f"{', '.join(sorted(known))}. Correct --head."
            )
        names = set(wanted)
        return self.with_heads(
            [head for head in self.head if names & {head.label, head.family, head.sweep}]
        )

    def train_of(self, head: HeadSection) -> TrainConfig:
        """The settings of training that hold for one of its heads."""
        return head.train or self.train

    def alone(self, head: HeadSection) -> "Recipe":
        """The recipe that trains just this head: what its run keeps."""
        section = head.model_copy(update={"train": None})
        found = self.with_heads([section])
        return found.model_copy(update={"train": self.train_of(head)})

    def with_training(self, **changes: Any) -> "Recipe":
        """The recipe with some settings of `train` changed; None changes nothing.

        Raises RecipeError for values that a setting cannot have.
        """
        asked = {name: value for name, value in changes.items() if value is not None}

        def changed(train: TrainConfig) -> TrainConfig:
            return TrainConfig(**{**train.model_dump(), **asked})

        try:
            heads = [
                head if head.train is None else
                head.model_copy(update={"train": changed(head.train)})
                for head in self.head
            ]  # fmt: skip
            return self.with_heads(heads).model_copy(update={"train": changed(self.train)})
        except ValidationError as error:
            asked_of = f"recipe {self.about.title}"
            raise_faults(RecipeError, asked_of, faults_of(error, whole="train"))
            raise

    def with_heads(self, heads: Sequence[HeadSection]) -> "Recipe":
        """The recipe with these of its heads, and what is expected of them."""
        labels = {head.label for head in heads}
        expect = [
            item.model_copy(update={"heads": tuple(x for x in item.heads if x in labels)})
            for item in self.expect
            if any(item.is_about(label) for label in labels)
        ]
        return self.model_copy(update={"head": tuple(heads), "expect": tuple(expect)})

    def to_yaml(self) -> str:
        """Every field written out, defaults included: what `recipe.yaml` of a run holds."""
        value = self.model_dump(mode="json", exclude={"backbones"})
        value["backbones"] = {
            "sd": self.backbones.sd,
            "clip": self.backbones.clip,
            "error_map": asdict(self.backbones.error_map),
            "image_tower": asdict(self.backbones.image_tower),
        }
        ordered = {name: value[name] for name in type(self).model_fields}
        return yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True)


def headline(recipe: Recipe) -> str:
    """The highest published averages that a recipe expects, in percent: `ACC 87.7, AP 98.7`."""
    best: dict[str, float] = {}
    for item in recipe.expect:
        for metric, value in item.average.items():
            shown = 100 * value if value <= 1 else value
            best[metric] = max(shown, best.get(metric, shown))
    return ", ".join(f"{metric} {value:.1f}" for metric, value in best.items())


def read_recipe(
    name: str | Path,
    *,
    changes: Sequence[str] = (),
    sample: int | None = None,
    seeds: int = 1,
    choose: Choose | None = None,
) -> Recipe:
    """The recipe of a YAML file, or the one that ships under this name (`demo/tiny`).

    Its lists, and `changes` as `KEY=V1,V2`, make one head for each combination, or for `sample` of
    them drawn at random, and each for every one of `seeds` seeds (`clare_cache.sweep`). Raises
    RecipeError listing every fault with its place in the file.
    """
    path = find_recipe(name)
    try:
        value = read_yaml(path)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path}: expected YAML, found {error}. Correct it.") from error
    if not isinstance(value, Mapping):
        raise RecipeError(
            f"recipe {path}: expected sections, found {type(value).__name__}. "
            "`clare-cache recipe show demo/tiny` prints a whole one."
        )
    return parse_recipe(
        value, where=str(path), changes=changes, sample=sample, seeds=seeds, choose=choose
    )


def parse_recipe(
    value: Mapping[str, Any],
    *,
    where: str,
    changes: Sequence[str] = (),
    sample: int | None = None,
    seeds: int = 1,
    choose: Choose | None = None,
) -> Recipe:
    """A recipe from its parsed YAML, its lists expanded as `read_recipe` says. Raises RecipeError
    listing every fault."""
    expanded = expand(
        value,
        [parse_change(text) for text in changes],
        sample=sample,
        seeds=seeds,
        choose=choose,
        where=f"recipe {where}",
    )
    try:
        return Recipe.model_validate(expanded)
    except ValidationError as error:
        raise_faults(RecipeError, f"recipe {where}", faults_of(error, whole="recipe"))
        raise


def find_recipe(name: str | Path) -> Path:
    """The file called `name`, else the shipped recipe of that name."""
    if Path(name).is_file():
        return Path(name)
    shipped = shipped_recipes()
    if str(name) in shipped:
        return shipped[str(name)]
    raise RecipeError(
        f"recipe {name}: expected a YAML file or the name of a shipped recipe, found neither. "
        f"Shipped: {', '.join(sorted(shipped)) or 'none'}."
    )


def shipped_recipes() -> dict[str, Path]:
    """Recipes by name, e.g. `demo/tiny`: from the wheel, or the checkout it is installed from."""
    return shipped(RECIPES_FOLDER)


def _closed_record(kind: type, value: Any) -> Any:
    """A settings record from a mapping; its own checks and unknown keys become one message."""
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a mapping, found {value!r}")
    types = get_type_hints(kind)
    faults = [
        f"unknown key {name}, known are {', '.join(types)}" for name in value if name not in types
    ]
    good = {name: item for name, item in value.items() if type(item) is types.get(name)}
    faults += [
        f"{name}: expected {types[name].__name__}, found {value[name]!r}"
        for name in value
        if name in types and name not in good
    ]
    try:
        record = kind(**good)
    except ClareCacheError as error:
        faults.append(str(error))
    if faults:
        raise ValueError("\n".join(faults))
    return record
