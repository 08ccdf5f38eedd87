"""Any tree whose folders are called real and fake: everybody's own images."""

from collections.abc import Sequence
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
    takes = frozenset({"labels"})

    def survey(self, root: Path, options: Options) -> Listing:
        walked = walk(root)
        words = {word.lower(): label for word, label in options.labels.items()}
        entries: list[Entry] = []
        unlabelled: dict[str, list[str]] = {}
        contradictory = []
        for path in walked.images:
            parts = PurePosixPath(path)
            place = place_of(parts, root_name=root.resolve().name, words=words)
            contradictory += [f"{path}: {fault}" for fault in contradictions_of(parts, words)]
            if place is None:
                unlabelled.setdefault(str(parts.parent), []).append(path)
            else:
                family = family_of(place.generator)
                entries.append(Entry(path, **vars(place), family=family))
        nothing = [] if walked.images or walked.unnameable else [_NO_IMAGE]
        return Listing(
            entries,
            faults=[
                nothing,
                [_unlabelled(paths, [*LABEL_FOLDERS, *words]) for paths in unlabelled.values()],
                contradictory,
                list(walked.unnameable),
            ],
            advice="Say what folders are with --label FOLDER=real and --label FOLDER=fake, rename "
            "or move the files, or list them with their labels in a table instead.",
            failures=list(walked.failures),
            other_files=walked.other_files,
        )


def _unlabelled(paths: Sequence[str], names: Sequence[str]) -> str:
    """The fault of the images of one folder."""
    more = f", as {len(paths) - 1} more of its folder" if len(paths) > 1 else ""
    return f"{paths[0]}: is under no folder named {', '.join(names)}{more}"


_NO_IMAGE = f"no file ends in {', '.join(sorted(IMAGE_SUFFIXES))}"
