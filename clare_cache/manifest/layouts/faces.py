"""DeepfakeBench and DF40: face videos by JSON list, or by walking their folders."""

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path, PurePosixPath

from clare_cache.errors import ManifestError
from clare_cache.manifest.layouts.bench_lists import (
    COMPRESSIONS,
    SPLITS,
    Video,
    find_lists,
    read_list,
)
from clare_cache.manifest.layouts.disk_names import DiskNames
from clare_cache.manifest.layouts.face_videos import (
    CDF,
    DATASETS,
    FF,
    FF_MAKERS,
    Frame,
    domain_of,
    frame_of,
    grouped,
    is_real_label,
    maker_of,
    with_inherited_splits,
)
from clare_cache.manifest.layouts.frames import PICKS, pick_frames
from clare_cache.manifest.layouts.listing import NO_PLACE, Listing, Options
from clare_cache.manifest.walk import Walked, walk
from clare_cache.types import FAKE, REAL

CELEB_TEST_LIST = "List_of_testing_videos.txt"
_CELEB_FOLDERS = {"Celeb-real": REAL, "YouTube-real": REAL, "Celeb-synthesis": FAKE}
_TAKES = frozenset({"tables", "frames", "pick", "compression", "keys"})


class DeepfakeBench:
    """The frames that DeepfakeBench's JSON lists name: one list per data set.

    Real videos lie in the source that the list is of. A frame that is listed for validation and
    for test, as all of Celeb-DF's and DFDCP's are, is in test.
    """

    name = "deepfakebench"
    summary = "DeepfakeBench's JSON lists (FF++, Celeb-DF, DFDC …): --table FILE, or dataset_json/"
    tree = "dataset_json/*.json and the frames that they name"
    takes = _TAKES

    def survey(self, root: Path, options: Options) -> Listing:
        lists = find_lists(root, options.tables)
        if not lists:
            raise ManifestError(
                f"manifest build {self.name}: expected JSON lists in {root} or its dataset_json, "
                "found none. Name them with --table."
            )
        return list_videos(lists, walk(root), options)


class Df40:
    """DF40 by its JSON lists where there are any, else by its folders.

    Reals of the 31 known methods are FaceForensics++'s and Celeb-DF's, each once, whatever number
    of methods lists them; the other sets bring their own. By folders the split of a fake is that
    of its archive (train or test); a real video of FaceForensics++ takes the split of the fakes
    made of it, Celeb-DF's reals are test.
    """

    name = "df40"
    summary = "DF40 by its JSON lists or its folders, with FF++ and Celeb-DF reals"
    tree = (
        "DF40_train/METHOD/frames/VIDEO/*, DF40/METHOD/{ff,cdf}/frames/VIDEO/*, "
        "DF40/METHOD/{real,fake}/*, FaceForensics++/… and Celeb-DF-v2/…"
    )
    takes = _TAKES

    def survey(self, root: Path, options: Options) -> Listing:
        lists = find_lists(root, options.tables)
        walked = walk(root)
        if lists:
            return list_videos(lists, walked, options)
        return _by_folders(walked, root, options)


def list_videos(lists: list[Path], walked: Walked, options: Options) -> Listing:
    """The frames that the lists name and the disk has; those it lacks are failures."""
    refuse_pick(options.pick)
    disk = DiskNames(walked.images)
    frames: list[Frame] = []
    listing = Listing([], failures=list(walked.failures), other_files=walked.other_files)
    unknown: Counter[str] = Counter()
    n_asked, n_found, first = 0, 0, ""
    for path in lists:
        for video in read_list(path, compression=options.compression):
            if options.keys and not any(word in video.key for word in options.keys):
                listing.left_out["videos whose key has none of --keys"] += 1
                continue
            real = is_real_label(video.label)
            if real is None:
                unknown[f"{path.name}: label {video.label!r} is not known"] += 1
                continue
            split = video.split if video.split in SPLITS else options.split
            for name in pick_frames(video.frames, options.frames, options.pick):
                n_asked += 1
                first = first or name
                found = disk.find(name, split=split)
                frame = _listed(found or name, name, video, REAL if real else FAKE, split)
                gone = replace(frame.entry, absent_from="" if found else path.name)
                frames.append(replace(frame, entry=gone))
                n_found += found is not None
    listing.entries = grouped(frames)
    nowhere = []
    if n_asked and not n_found:
        nowhere = [f"none of the {n_asked} frames listed is there, for example {first}"]
    listing.faults = [[f"{what} ({n} videos)" for what, n in unknown.items()], nowhere]
    listing.advice = f"Give the folder that holds {', '.join((FF, CDF, 'DF40'))} …: ROOT."
    used = {entry.path for entry in listing.entries if not entry.absent_from}
    if unused := len(set(walked.images) - used):
        listing.left_out["named by no list, or not among the frames picked"] = unused
    return listing


def refuse_pick(pick: str) -> None:
    """Raise ManifestError for a rule that is none of PICKS."""
    if pick not in PICKS:
        known = "; ".join(f"{name}: {what}" for name, what in PICKS.items())
        raise ManifestError(f"--pick {pick}: expected one of {known}.")


def _listed(path: str, listed: str, video: Video, label: int, split: str) -> Frame:
    maker = maker_of(listed, video.label)
    source = domain_of(listed, video.dataset) or _own_source(listed, video)
    return frame_of(path, label=label, split=split, maker=maker, source=source, key=video.key)


def _own_source(listed: str, video: Video) -> str:
    """The source of a set that brings its own reals: the set itself."""
    folders = PurePosixPath(listed).parts[:-1]
    return next((name for name in folders if name in DATASETS), None) or video.dataset


def _by_folders(walked: Walked, root: Path, options: Options) -> Listing:
    refuse_pick(options.pick)
    tests = _celeb_tests(root, walked)
    videos: dict[str, list[Frame]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    for path in walked.images:
        place = PurePosixPath(path)
        others = set(COMPRESSIONS) - {options.compression}
        frame = None if others & set(place.parts[:-1]) else _placed(place, tests)
        if frame is None:
            left_out[NO_PLACE] += 1
        else:
            # A folder of loose pictures is no video to pick frames from.
            is_loose = frame.ties[0].endswith(path)
            videos[path if is_loose else path.rpartition("/")[0]].append(frame)
    frames = []
    for of_video in videos.values():
        by_path = {frame.entry.path: frame for frame in of_video}
        chosen = pick_frames(list(by_path), options.frames, options.pick)
        left_out["frames not picked"] += len(by_path) - len(chosen)
        frames += [by_path[path] for path in chosen]
    frames = with_inherited_splits(frames)
    nothing = [] if frames else [f"expected {Df40.tree} below it, found none of it"]
    entries = grouped(frames)
    return Listing(
        entries,
        faults=[nothing, list(walked.unnameable)],
        advice="`clare-cache manifest build --list` shows every layout; df40 was asked for.",
        failures=list(walked.failures),
        other_files=walked.other_files,
        left_out=+left_out,
    )


def _placed(path: PurePosixPath, celeb_tests: frozenset[str]) -> Frame | None:
    """A frame by its folders; None outside DF40's, FaceForensics++'s and Celeb-DF's."""
    folders = path.parts[:-1]
    if {"masks", "landmarks"} & set(folders):
        return None
    if {"ff", "cdf"} & {name.lower() for name in folders}:
        return _df40_placed(path)  # some of its archives keep Celeb-DF's folder names
    for name, label in _CELEB_FOLDERS.items():
        if name in folders and "frames" in folders:
            video = f"{name}/{folders[-1]}"
            split = "test" if not celeb_tests or video in celeb_tests else ""
            return frame_of(str(path), label=label, split=split, maker=name, source=CDF)
    if "original_sequences" in folders:
        return frame_of(str(path), label=REAL, split="", maker="real", source=FF)
    if "manipulated_sequences" in folders:
        maker = next((name for name in folders if name in FF_MAKERS), None)
        return frame_of(str(path), label=FAKE, split="", maker=maker, source=FF) if maker else None
    return _df40_placed(path)


def _df40_placed(path: PurePosixPath) -> Frame | None:
    folders = path.parts[:-1]
    lower = [name.lower() for name in folders]
    split = next((s for name in lower if (s := _ARCHIVES.get(name))), "test")
    rest = list(folders)
    while rest and rest[0].lower() in (*_ARCHIVES, "df40", "deepfakes_detection_datasets"):
        rest.pop(0)
    if len(rest) < 2:
        return None
    method, inside = rest[0], [name.lower() for name in rest[1:]]
    if inside[0] in ("real", "fake"):
        label = REAL if inside[0] == "real" else FAKE
        return frame_of(str(path), label=label, split=split, maker=method, source=method)
    domain = {"ff": FF, "cdf": CDF}.get(inside[0])
    if domain is None and inside[0] == "frames":
        domain = FF
    if domain is None:
        return None
    return frame_of(str(path), label=FAKE, split=split, maker=method, source=domain)


_ARCHIVES = {"df40_train": "train", "train": "train", "df40_test": "test", "test": "test"}


def _celeb_tests(root: Path, walked: Walked) -> frozenset[str]:
    """The videos of Celeb-DF's official test list (`LABEL FOLDER/NAME.mp4`), if it is there."""
    lists = [name for name in walked.others if name.endswith(CELEB_TEST_LIST)]
    return frozenset(
        line.split()[-1].rpartition(".")[0]
        for name in lists
        for line in (root / name).read_text(encoding="utf-8").splitlines()
        if line.strip()
    )
