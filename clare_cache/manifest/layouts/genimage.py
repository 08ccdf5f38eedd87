"""GenImage: eight generators, each with its own ImageNet reals."""

import re
from pathlib import PurePosixPath

from clare_cache.manifest.layouts.families import family_of, generator_for
from clare_cache.manifest.layouts.listing import Entry, Tree
from clare_cache.manifest.layouts.places import SPLIT_FOLDERS
from clare_cache.types import FAKE, REAL

LABELS = {"nature": REAL, "ai": FAKE}
_SPELLINGS = (
    (r"midjourney", "midjourney"),
    (r"(stable.?diffusion|sd).*1[._ ]?4|sdv4", "sdv4"),
    (r"(stable.?diffusion|sd).*1[._ ]?5|sdv5", "sdv5"),
    (r"\badm\b|_adm(_|$)|^adm", "adm"),
    (r"glide", "glide"),
    (r"wukong", "wukong"),
    (r"vqdm", "vqdm"),
    (r"biggan", "biggan"),
)


def generator_of(name: str) -> str | None:
    """GenImage's short name of a generator in any of its spellings: sdv4, midjourney …"""
    plain = name.lower()
    return next((short for pattern, short in _SPELLINGS if re.search(pattern, plain)), None)


def _place(path: PurePosixPath, root_name: str) -> Entry | None:
    """The generator is the folder above the split, in whatever spelling it was unpacked.

    Reals and fakes of one generator share their source, so each is scored against its own reals.
    GenImage calls its test images `val`; so does the split here, until a manifest file of this
    package, or `--split`, says otherwise.
    """
    folders = path.parts[:-1]
    at = next((i for i, name in enumerate(folders) if name in LABELS), None)
    if at is None:
        return None
    label = LABELS[folders[at]]
    above = [name for name in (root_name, *folders[:at]) if name not in SPLIT_FOLDERS]
    source = next((short for name in reversed(above) if (short := generator_of(name))), None)
    if source is None:
        return None
    split = next((SPLIT_FOLDERS[name] for name in folders[:at] if name in SPLIT_FOLDERS), "")
    generator = generator_for(label, source)
    return Entry(str(path), label, split, source, generator=generator, family=family_of(generator))


GENIMAGE = Tree(
    name="genimage",
    summary="GenImage: eight generators with train and val, ai and nature",
    tree="GENERATOR/{train,val}/{ai,nature}/*",
    place=_place,
)
