"""Frames of face videos: what their paths say, whatever list or folder they come from."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import PurePosixPath

from clare_cache.manifest.layouts.families import family_of, generator_for
from clare_cache.manifest.layouts.frames import frame_number, linked
from clare_cache.manifest.layouts.listing import Entry

FF, CDF = "FaceForensics++", "Celeb-DF-v2"
DATASETS = (FF, CDF, "Celeb-DF-v1", "DFDC", "DFDCP", "UADFV", "DeeperForensics-1.0")
FF_MAKERS = {
    "Deepfakes": "Deepfakes",
    "Face2Face": "Face2Face",
    "FaceSwap": "FaceSwap",
    "NeuralTextures": "NeuralTextures",
    "FaceShifter": "FaceShifter",
    "DeepFakeDetection": "DeepFakeDetection",
}
_FF_VIDEO = re.compile(r"\d{3}(_\d{3})?")
_CDF_VIDEO = re.compile(r"(id\d+)(?:_id\d+)?_(\d{4})")


@dataclass(frozen=True)
class Frame:
    """One frame before its group is known: `ties` are the videos it shows or borrows from."""

    entry: Entry
    ties: tuple[str, ...]


def frame_of(path: str, *, label: int, split: str, maker: str, source: str, key: str = "") -> Frame:
    """A frame under its data set; `key` is a list's name of the video, if a list names it."""
    generator = generator_for(label, maker)
    entry = Entry(
        path,
        label,
        split,
        source,
        generator=generator,
        family=family_of(generator),
        frame=frame_number(path),
    )
    return Frame(entry, ties_of(path, source, key=key))


def ties_of(path: str, source: str, *, key: str = "") -> tuple[str, ...]:
    """The source videos of a frame, by the name of its folder.

    FaceForensics++: `071_054` shows 071 with the face of 054, both are tied; `071` alone is
    itself, in a real video as in a synthetic face made of it. Celeb-DF: `id0_id1_0003` is video
    `id0_0003` with another face; identities recur in all of it, so they do not tie. Elsewhere:
    the folder, or the file where folders only say real and fake.
    """
    parts = PurePosixPath(path).parts
    folder = parts[-2] if len(parts) > 1 else ""
    if source == FF and (match := _FF_VIDEO.match(folder) or _FF_VIDEO.match(key)):
        return tuple(f"ff/{video}" for video in match[0].split("_"))
    if source == CDF:
        match = _CDF_VIDEO.search(folder) or _CDF_VIDEO.search(key)
        name = f"{match[1]}_{match[2]}" if match else folder
        return (f"cdf/{name}",)
    if folder.lower() in ("real", "fake", "frames", source.lower(), ""):
        return (f"{source}/{path}",)
    # Real and fake folders of one name need not be one video, so the label folder stays.
    return ("/".join((source, *parts[-3:-1])),)


def domain_of(path: str, name: str) -> str:
    """FaceForensics++ or Celeb-DF, by a path or by the name of a list; else empty."""
    folders = PurePosixPath(path).parts[:-1]
    lower = [folder.lower() for folder in folders]
    if any("celeb" in folder or folder == "cdf" for folder in lower):
        return CDF
    if any("faceforensics" in folder or folder == "ff" for folder in lower):
        return FF
    if name.endswith("_cdf"):
        return CDF
    return FF if name.endswith("_ff") else ""


def grouped(frames: Iterable[Frame]) -> list[Entry]:
    """The entries with their groups: everything that shares a source video is one group."""
    frames = list(frames)
    group_of = linked(sorted({frame.ties for frame in frames}))
    return [replace(frame.entry, group=group_of(frame.ties[0])) for frame in frames]


def with_inherited_splits(frames: Iterable[Frame]) -> list[Frame]:
    """Frames without split get the one split of the frames they share a source video with.

    FaceForensics++'s real videos lie in one folder; the fakes made of them say which split each
    belongs to. Where several splits, or none, use a video its frames stay without.
    """
    frames = list(frames)
    group_of = linked(sorted({frame.ties for frame in frames}))
    splits: dict[str, set[str]] = {}
    for frame in frames:
        if frame.entry.split:
            splits.setdefault(group_of(frame.ties[0]), set()).add(frame.entry.split)
    result = []
    for frame in frames:
        known = splits.get(group_of(frame.ties[0]), set())
        if not frame.entry.split and len(known) == 1:
            frame = replace(frame, entry=replace(frame.entry, split=next(iter(known))))
        result.append(frame)
    return result


def is_real_label(label: str) -> bool | None:
    """What a DeepfakeBench label word means: real, fake, or (None) unknown.

    `FF-real`, `CelebDFv2_real`, `pixart_Real` … are real; `FF-DF`, `DFDCP_FakeA`, `pixart_Fake` …
    and GenImage's generators are fake.
    """
    word = label.lower()
    if re.search(r"[_-]real$", word):
        return True
    if re.search(r"[_-]fake[ab]?$", word) or re.fullmatch(r"ff-(df|f2f|fs|nt|fh|sh)", word):
        return False
    return False if word in _GENIMAGE_LABELS else None


_GENIMAGE_LABELS = frozenset(
    ["adm", "biggan", "glide", "midjourney", "sdv4", "sdv5", "vqdm", "wukong"]
)


def maker_of(path: str, label: str) -> str:
    """The generator of a fake frame: the folder below DF40's or FaceForensics++'s, else the label.

    `pixart` of `DF40_train/pixart/ff/…` or of `pixart_Fake`; `Deepfakes` of
    `manipulated_sequences/Deepfakes/…`.
    """
    folders = PurePosixPath(path).parts[:-1]
    for name in folders:
        if name in FF_MAKERS:
            return FF_MAKERS[name]
    for above, below in pairwise(folders):
        if above.lower() in ("df40", "df40_train", "df40_test"):
            return below
    return re.sub(r"[_-](fake[ab]?)$", "", label, flags=re.IGNORECASE)
