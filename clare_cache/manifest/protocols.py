"""Evaluation protocols by name: one manifest in, a manifest for each fold out.

A fold keeps to the sides that the manifest's splits draw (train and val, or test); where it has
none, whole groups are dealt to the two sides first. So no group and no picture is ever on both.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pandas as pd

from clare_cache.errors import ManifestError, raise_faults
from clare_cache.manifest.split import split_by_group
from clare_cache.manifest.table import Manifest
from clare_cache.types import FAKE, REAL

TRAIN_SIDE = ("train", "val", "valid", "validation")
TEST_SHARE = 0.2

GENIMAGE = ("midjourney", "sdv4", "sdv5", "adm", "glide", "wukong", "vqdm", "biggan")

_TYPES = {
    "FS": "fsgan faceswap simswap inswap inswapper blendface uniface mobileswap e4s facedancer "
    "deepfacelab",
    "FR": "fomm facevid2vid fsvid2vid wav2lip mraa oneshotfree oneshot pirender tpsm lia dagan "
    "sadtalker mcnet hyperreenact heygen",
    "EFS": "vqgan stylegan2 stylegan3 styleganxl sd21 ddim ddpm rddm pixart pixartalpha dit sit "
    "ditxl2 sitxl2 midjourney midjourney6 whichisreal whichfaceisreal",
    "FE": "collabdiff e4e stargan starganv2 styleclip",
}
DF40_TYPES = {name: kind for kind, names in _TYPES.items() for name in names.split()}
"""DF40's 40 methods by what they do to a face: swap, reenact, synthesise all of it, edit it."""
DF40_UNKNOWN = frozenset(
    ["deepfacelab", "heygen", "whichisreal", "whichfaceisreal", "midjourney", "midjourney6",
     "stargan", "starganv2", "styleclip", "e4e", "collabdiff"]
)  # fmt: skip
"""The methods without training images, which bring reals of their own."""
CLARE_TRAINED = frozenset(["pixart", "sit", "vqgan", "styleganxl"])
CLARE_TESTED = frozenset(
    ["collabdiff", "stargan", "starganv2", "styleclip", "midjourney", "midjourney6", "sd21",
     "rddm", "whichisreal", "whichfaceisreal", "heygen"]
)  # fmt: skip
FF, CDF = "FaceForensics++", "Celeb-DF-v2"


@dataclass(frozen=True)
class Fold:
    """One training of a protocol: the images with the splits that they have in it."""

    name: str
    manifest: Manifest


@dataclass(frozen=True)
class Sides:
    """The rows that a fold may train on, and those that it may be tested on."""

    train: pd.DataFrame
    test: pd.DataFrame


@dataclass(frozen=True)
class Protocol:
    """A named rule for folds, and how its table puts test generators together."""

    name: str
    about: str
    folds: Callable[[Sides], Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]]
    """Sides → (fold, rows to train on, rows to test on)."""
    group: Callable[[str, str], str] = field(default=lambda generator, family: generator)
    """Generator and family → the column of the protocol's table."""


def apply_protocol(name: str, manifest: Manifest, *, seed: int = 0) -> list[Fold]:
    """The folds of a protocol on these images.

    Rows keep a split `val` where it has both classes in the fold; its other rows are `train` or
    `test`. Raises ManifestError for an unknown protocol, and listing every fold that lacks reals or
    fakes on a side.
    """
    protocol = find_protocol(name)
    sides = _sides(manifest, seed=seed)
    folds, faults = [], []
    for fold, train, test in protocol.folds(sides):
        is_val = train["split"].isin(TRAIN_SIDE[1:])
        if train.loc[is_val, "label"].nunique() < 2:
            is_val &= False
        train = train.assign(split=is_val.map({True: "val", False: "train"}))
        for side, rows in (("train", train[~is_val]), ("test", test)):
            n_real, n_fake = ((rows["label"] == label).sum() for label in (REAL, FAKE))
            if not n_real or not n_fake:
                faults.append(f"fold {fold}, {side}: {n_real} real and {n_fake} fake images")
        folds.append((fold, pd.concat([train, test.assign(split="test")])))
    if not folds:
        faults = ["no fold: the generators and families in the manifest are not the protocol's"]
    raise_faults(
        ManifestError,
        f"protocol {name}",
        faults,
        advice="Every fold needs reals and fakes on both sides. `clare-cache protocol list` says "
        "what each protocol is made for.",
    )
    return [Fold(fold, Manifest.from_rows(rows)) for fold, rows in folds]


def find_protocol(name: str) -> Protocol:
    """The protocol of that name. Raises ManifestError naming those there are."""
    if name not in PROTOCOLS:
        raise ManifestError(
            f"protocol {name}: there is none of that name. Protocols: {', '.join(PROTOCOLS)}."
        )
    return PROTOCOLS[name]


def _sides(manifest: Manifest, *, seed: int) -> Sides:
    rows = manifest.rows
    if not rows["split"].isin(["test"]).any():
        rows = split_by_group(
            manifest, {"train": 1 - TEST_SHARE, "test": TEST_SHARE}, seed=seed
        ).rows
    trained = rows["split"].isin(TRAIN_SIDE)
    return Sides(rows[trained], rows[rows["split"] == "test"])


def _leave_one_out(sides: Sides) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    for generator in _generators([sides.test]):
        others = sides.train["generator"] != generator
        yield _fold_name(generator), sides.train[others], _with_reals(sides.test, generator)


def _train_on_one(sides: Sides) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    for generator in _generators([sides.train]):
        yield _fold_name(generator), _with_reals(sides.train, generator), sides.test


def _genimage(sides: Sides) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    found = {_plain(name) for name in _generators([sides.train])}
    lacking = [name for name in GENIMAGE if _plain(name) not in found]
    raise_faults(
        ManifestError,
        "protocol genimage",
        [f"{name}: no image to train on" for name in lacking],
        advice="The matrix needs all eight generators; cross-generator takes whatever there is.",
    )
    yield from _train_on_one(sides)


def _families(sides: Sides) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    fakes = sides.train[sides.train["label"] == FAKE]
    for family in sorted(set(fakes["family"]) - {""}):
        wanted = (sides.train["label"] == REAL) | (sides.train["family"] == family)
        yield _fold_name(family), sides.train[wanted], sides.test


def _df40(number: int) -> Callable[[Sides], Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]]:
    """Protocols 1 to 3: train on all methods of one type on FaceForensics++."""

    def folds(sides: Sides) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
        kinds, unknown = _df40_kinds(sides.test), _df40_unknown(sides.test)
        is_ff, is_cdf = (sides.test["source"] == source for source in (FF, CDF))
        test = sides.test[{1: is_ff & ~unknown, 2: is_cdf & ~unknown, 3: unknown}[number]]
        if number == 3:
            own = set(test["source"]) - {FF, CDF}
            test = pd.concat(
                [test, sides.test[(sides.test["label"] == REAL) & sides.test["source"].isin(own)]]
            )
        else:
            test = test[(test["label"] == REAL) | kinds[test.index].isin(["FS", "FR", "EFS"])]
        ff = sides.train[sides.train["source"] == FF]
        trained = _df40_kinds(ff)
        for kind in ("FS", "FR", "EFS"):
            if (trained == kind).any():
                yield kind, ff[(ff["label"] == REAL) | (trained == kind)], test

    return folds


def _df40_one_versus_all(sides: Sides) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    ff = sides.train[sides.train["source"] == FF]
    for generator in _generators([ff]):
        chosen = (ff["label"] == REAL) | (ff["generator"] == generator)
        yield _fold_name(generator), ff[chosen], sides.test


def _clare(sides: Sides) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    def only(rows: pd.DataFrame, names: frozenset[str]) -> pd.DataFrame:
        return rows[(rows["label"] == REAL) | rows["generator"].map(_plain).isin(names)]

    if sides.train["generator"].map(_plain).isin(CLARE_TRAINED).any():
        yield "EFS", only(sides.train, CLARE_TRAINED), only(sides.test, CLARE_TESTED)


def _with_reals(rows: pd.DataFrame, generator: str) -> pd.DataFrame:
    """The fakes of a generator and the reals of their sources, or else all reals."""
    fakes = rows[(rows["label"] == FAKE) & (rows["generator"] == generator)]
    reals = rows[rows["label"] == REAL]
    own = reals[reals["source"].isin(set(fakes["source"]))]
    return pd.concat([own if len(own) else reals, fakes])


def _generators(parts: Iterable[pd.DataFrame]) -> list[str]:
    return sorted({str(g) for rows in parts for g in rows.loc[rows["label"] == FAKE, "generator"]})


def _df40_kinds(rows: pd.DataFrame) -> pd.Series:
    return rows["generator"].map(lambda name: DF40_TYPES.get(_plain(name), ""))


def _df40_unknown(rows: pd.DataFrame) -> pd.Series:
    return (rows["label"] == FAKE) & rows["generator"].map(_plain).isin(DF40_UNKNOWN)


def df40_type(generator: str, family: str) -> str:
    """FS, FR, EFS or FE for a method of DF40, else its family."""
    return DF40_TYPES.get(_plain(generator), family)


def _plain(name: str) -> str:
    return "".join(letter for letter in str(name).casefold() if letter.isalnum())


def _fold_name(name: str) -> str:
    """A name fit for a folder."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)


_ALL = (
    Protocol(
        "leave-one-generator-out",
        "trains on all generators but one, tests on that one; a fold for each generator",
        _leave_one_out,
    ),
    Protocol(
        "cross-generator",
        "trains on one generator with its reals, tests on all; a fold for each generator",
        _train_on_one,
    ),
    Protocol(
        "cross-family",
        "trains on one family of generators, tests on all; a fold for each family",
        _families,
        group=lambda generator, family: family or generator,
    ),
    Protocol(
        "genimage",
        "GenImage's 8×8 matrix: cross-generator on its eight generators, none missing",
        _genimage,
    ),
    Protocol(
        "df40-1",
        "DF40 protocol 1: trains on swaps, reenactments or syntheses of FaceForensics++, tests on "
        "all three there",
        _df40(1),
        group=df40_type,
    ),
    Protocol("df40-2", "DF40 protocol 2: as 1, tested on Celeb-DF", _df40(2), group=df40_type),
    Protocol(
        "df40-3",
        "DF40 protocol 3: as 1, tested on the nine methods without training images",
        _df40(3),
    ),
    Protocol(
        "df40-4",
        "DF40 protocol 4: trains on one method of FaceForensics++, tests on all",
        _df40_one_versus_all,
    ),
    Protocol(
        "clare",
        "CLaRE: trains on four syntheses, tests on nine sets, grouped as face editing (FE), entire "
        "face synthesis (EFS) and reenactment (FR)",
        _clare,
        group=df40_type,
    ),
)
PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in _ALL}
