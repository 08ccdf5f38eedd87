"""ForenSynths (Wang 2020, CNNDetection) and the diffusion sets of UniversalFakeDetect."""

from dataclasses import replace
from pathlib import PurePosixPath

from clare_cache.manifest.layouts.families import family_of, generator_for
from clare_cache.manifest.layouts.listing import Entry, Tree
from clare_cache.manifest.layouts.places import SPLIT_FOLDERS
from clare_cache.types import FAKE, REAL

LABELS = {"0_real": REAL, "1_fake": FAKE}
_CLASSES = (
    "airplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
)
LSUN_CLASSES = frozenset(_CLASSES.split())
TRAINED_ON = "progan"
DIFFUSION_FOLDER = "diffusion_datasets"
REALS_OF_DIFFUSION = {"guided": "imagenet"}
"""Which folder of real images a diffusion set is tested against; `laion` where none is named."""


def _diffusion(path: PurePosixPath, root_name: str) -> Entry | None:
    """Reals in `imagenet/0_real` and `laion/0_real`, fakes in `SET/1_fake`.

    The source of a fake is the folder of the reals it is tested against: imagenet for guided,
    laion for the others.
    """
    folders = path.parts[:-1]
    at = next((i for i, name in enumerate(folders) if name in LABELS), None)
    if at is None or at == 0:
        return None
    name, label = folders[at - 1], LABELS[folders[at]]
    generator = generator_for(label, name)
    source = name if label == REAL else REALS_OF_DIFFUSION.get(name, "laion")
    split = next((SPLIT_FOLDERS[f] for f in folders[: at - 1] if f in SPLIT_FOLDERS), "")
    return Entry(str(path), label, split, source, generator=generator, family=family_of(generator))


def _forensynths(path: PurePosixPath, root_name: str) -> Entry | None:
    """`0_real` and `1_fake` at the end; a set, and in four of the sets a class, above them.

    The training and validation parts are ProGAN's with or without a folder `progan` (as
    UniversalFakeDetect and RINE expect). The source of a row is its set, so that a generator is
    scored against the reals of its own set. `train` is a split, except where it is the class.
    """
    folders = path.parts[:-1]
    at = next((i for i, name in enumerate(folders) if name in LABELS), None)
    if at is None:
        return None
    above, label = folders[:at], LABELS[folders[at]]
    if DIFFUSION_FOLDER in above:
        entry = _diffusion(path, root_name)
        if entry is None or entry.split:
            return entry
        return replace(entry, split=SPLIT_FOLDERS.get(root_name, ""))
    first = next((i for i, name in enumerate(above) if name in SPLIT_FOLDERS), None)
    # A class is called train: a second folder of that name, or one right above the label in a
    # tree that has no split above it, is the class.
    if first is not None and not (first == at - 1 and first > 0 and above[first] == "train"):
        split, rest = SPLIT_FOLDERS[above[first]], above[first + 1 :]
    else:
        split, rest = SPLIT_FOLDERS.get(root_name, ""), above
    sets = [name for name in rest if name not in LSUN_CLASSES]
    name = sets[0] if sets else TRAINED_ON if split in ("train", "val") else root_name
    generator = generator_for(label, name)
    return Entry(str(path), label, split, name, generator=generator, family=family_of(generator))


FORENSYNTHS = Tree(
    name="forensynths",
    summary="ForenSynths (CNNDetection): train, val, test, with and without class folders",
    tree="{train,val}/[progan/]CLASS/{0_real,1_fake}/* and test/SET/[CLASS/]{0_real,1_fake}/*",
    place=_forensynths,
)
UFD_DIFFUSION = Tree(
    name="ufd-diffusion",
    summary="UniversalFakeDetect's diffusion_datasets: guided, ldm_*, glide_*, dalle",
    tree="{imagenet,laion}/0_real/* and SET/1_fake/*",
    place=_diffusion,
)
