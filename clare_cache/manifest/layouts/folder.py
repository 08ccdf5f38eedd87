"""Any tree whose folders are called real and fake: everybody's own images."""

from pathlib import Path, PurePosixPath

from clare_cache.manifest.layouts.families import family_of
from clare_cache.manifest.layouts.listing import Entry, Listing, Options
from clare_cache.manifest.layouts.places import LABEL_FOLDERS, contradictions_of, place_of
from clare_cache.manifest.walk import IMAGE_SUFFIXES, walk


class Folder:
    """Label, split, source and generator from folder names, see `places`. Every image must have
    a label: a file under no label folder is a fault, not something to leave out."""

    name = "folder"
    summary = "any tree with folders real/ and fake/ (0_real, nature, 1_fake, ai)"
    tree = "[SPLIT/][SOURCE/]{real,fake}/[GENERATOR/]*"
    takes: frozenset[str] = frozenset()

    def survey(self, root: Path, options: Options) -> Listing:
        walked = walk(root)
        entries: list[Entry] = []
        unlabelled, contradictory = [], []
        for path in walked.images:
            place = place_of(PurePosixPath(path), root_name=root.resolve().name)
            contradictory += [
                f"{path}: {fault}" for fault in contradictions_of(PurePosixPath(path))
            ]
            if place is None:
                unlabelled.append(f"{path}: is under no folder named {', '.join(LABEL_FOLDERS)}")
            else:
                family = family_of(place.generator)
                entries.append(Entry(path, **vars(place), family=family))
        nothing = [] if walked.images or walked.unnameable else [_NO_IMAGE]
        return Listing(
            entries,
            faults=[nothing, unlabelled, contradictory, list(walked.unnameable)],
            advice="Rename or move the files, or list them with their labels in a table instead.",
            failures=list(walked.failures),
            other_files=walked.other_files,
        )


_NO_IMAGE = f"no file ends in {', '.join(sorted(IMAGE_SUFFIXES))}"
