"""Synthbuster (nine generators beside RAISE-1k) and SIDBench, which contains it."""

from pathlib import PurePosixPath

from clare_cache.manifest.layouts.families import family_of, generator_for
from clare_cache.manifest.layouts.forensynths import LABELS, REALS_OF_DIFFUSION
from clare_cache.manifest.layouts.listing import Entry, Tree
from clare_cache.types import FAKE, REAL

GENERATORS = (
    "dalle2",
    "dalle3",
    "stable-diffusion-1-3",
    "stable-diffusion-1-4",
    "stable-diffusion-2",
    "stable-diffusion-xl",
    "glide",
    "firefly",
    "midjourney-v5",
)
REAL_FOLDERS = frozenset({"raisepng", "raise", "raise-1k", "raise_1k", "real_raise_1k"})
SOURCE = "synthbuster"


def _synthbuster(path: PurePosixPath, root_name: str) -> Entry | None:
    """Fakes in a folder per generator, the 1000 reals in `RAISEpng`, used for every generator.

    A fake was prompted from the RAISE photograph of its file name, so equal names are one group.
    """
    for folder in reversed(path.parts[:-1]):
        if folder.lower() in REAL_FOLDERS:
            label, generator = REAL, "real"
        elif folder in GENERATORS:
            label, generator = FAKE, folder
        else:
            continue
        return Entry(
            str(path),
            label,
            source=SOURCE,
            generator=generator,
            family=family_of(generator),
            group=f"{SOURCE}/{path.stem}",
        )
    return None


def _sidbench(path: PurePosixPath, root_name: str) -> Entry | None:
    """One folder per origin (wang2020, ojha2023, synthbuster), each with the sets as that origin
    arranges them; a set is scored against the reals that SIDBench scores it against."""
    folders = path.parts[:-1]
    if SOURCE in folders:
        return _synthbuster(path, root_name)
    if "ojha2023" in folders:
        after = folders[folders.index("ojha2023") + 1 :]
        if not after:
            return None
        # Its folders hold images directly or in 0_real and 1_fake; the names alone tell.
        name = after[0]
        is_real = name in ("laion", "imagenet")
        source = name if is_real else REALS_OF_DIFFUSION.get(name, "laion")
        return _entry(path, REAL if is_real else FAKE, f"ojha2023/{source}", name)
    if "wang2020" in folders:
        after = folders[folders.index("wang2020") + 1 :]
        label = next((LABELS[name] for name in after if name in LABELS), None)
        if label is None or after[0] in LABELS:
            return None
        return _entry(path, label, f"wang2020/{after[0]}", after[0])
    return None


def _entry(path: PurePosixPath, label: int, source: str, name: str) -> Entry:
    generator = generator_for(label, name)
    return Entry(str(path), label, source=source, generator=generator, family=family_of(generator))


SYNTHBUSTER = Tree(
    name="synthbuster",
    summary="Synthbuster: nine generators, with RAISE-1k as the reals",
    tree="[synthbuster/]GENERATOR/* and RAISEpng/*",
    place=_synthbuster,
)
SIDBENCH = Tree(
    name="sidbench",
    summary="SIDBench: wang2020, ojha2023 and synthbuster under one folder",
    tree="wang2020/SET/…/{0_real,1_fake}/*, ojha2023/{laion,imagenet,SET}/… or synthbuster/…",
    place=_sidbench,
)
