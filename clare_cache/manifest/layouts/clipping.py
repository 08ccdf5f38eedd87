"""CLIPping the Deception: sets arranged as ImageNet is, two of its classes for the labels."""

from pathlib import PurePosixPath

from clare_cache.manifest.layouts.families import family_of, generator_for
from clare_cache.manifest.layouts.listing import Entry, Tree
from clare_cache.manifest.layouts.places import SPLIT_FOLDERS
from clare_cache.types import FAKE, REAL

LABELS = {"n01440764": REAL, "n01443537": FAKE}


def _place(path: PurePosixPath, root_name: str) -> Entry | None:
    """`SET/images/{train,val}/n01440764` is real, `…/n01443537` fake; the set is the source."""
    folders = path.parts[:-1]
    at = next((i for i, name in enumerate(folders) if name in LABELS), None)
    if at is None:
        return None
    label = LABELS[folders[at]]
    split = next((SPLIT_FOLDERS[name] for name in folders[:at] if name in SPLIT_FOLDERS), "")
    above = [name for name in folders[:at] if name != "images" and name not in SPLIT_FOLDERS]
    source = above[-1] if above else root_name
    generator = generator_for(label, source)
    return Entry(str(path), label, split, source, generator=generator, family=family_of(generator))


CLIPPING = Tree(
    name="clipping",
    summary="CLIPping the Deception: SET/images/{train,val}/{n01440764,n01443537}",
    tree="SET/images/{train,val}/{n01440764,n01443537}/*",
    place=_place,
)
