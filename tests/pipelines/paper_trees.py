"""Trees of the data sets that the recipes of papers name, small, but enough to train and test on.

Each function writes one below `root`, as published: folders, lists and names from the papers'
descriptions, a few pictures of noise for each kind.
"""

import json
from pathlib import Path

from tests.miniatures.pictures import picture, put_text

CLASSES = ("car", "cat", "chair", "horse")
TESTED = [
    "progan",
    "stylegan",
    "stylegan2",
    "biggan",
    "cyclegan",
    "stargan",
    "gaugan",
    "deepfake",
    "seeingdark",
    "san",
    "crn",
    "imle",
]
WITH_CLASSES = ("progan", "stylegan", "stylegan2", "cyclegan")
DIFFUSION = [
    "guided",
    "ldm_200",
    "ldm_200_cfg",
    "ldm_100",
    "glide_100_27",
    "glide_50_27",
    "glide_100_10",
    "dalle",
]
SYNTHBUSTER = [
    "dalle2",
    "dalle3",
    "stable-diffusion-1-3",
    "stable-diffusion-1-4",
    "stable-diffusion-2",
    "stable-diffusion-xl",
    "glide",
    "firefly",
    "midjourney-v5",
]
GENIMAGE = (
    "Midjourney",
    "Stable Diffusion V1.4",
    "Stable Diffusion V1.5",
    "ADM",
    "GLIDE",
    "Wukong",
    "VQDM",
    "BigGAN",
)
PREFIX = "deepfakes_detection_datasets"
TRAINED = ("pixart", "SiT", "VQGAN", "StyleGANXL")
OWN_REALS = [
    "CollabDiff",
    "stargan",
    "starganv2",
    "styleclip",
    "MidJourney",
    "whichisreal",
    "heygen",
]


def put(root: Path, *paths: str) -> None:
    """Write a picture at each relative path, large enough for every view."""
    for path in paths:
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(picture(path, width=64, height=64))


def write_forensynths(root: Path) -> None:
    """Training and validation classes, RINE's twelve test sets and eight diffusion sets."""
    labels = ("0_real", "1_fake")
    for split, n in (("train", 5), ("val", 2)):
        put(root, *(f"{split}/{c}/{x}/{k:05d}.png" for c in CLASSES for x in labels
                    for k in range(n)))  # fmt: skip
    for name in TESTED:
        inner = "/cat" if name in WITH_CLASSES else ""
        put(root, *(f"test/{name}{inner}/{x}/{k:05d}.png" for x in labels for k in range(2)))
    folder = "test/diffusion_datasets"
    put(root, *(f"{folder}/{name}/0_real/{k}.png" for name in ("imagenet", "laion")
                for k in range(2)))  # fmt: skip
    put(root, *(f"{folder}/{name}/1_fake/{k}.png" for name in DIFFUSION for k in range(2)))


def write_synthbuster(root: Path) -> None:
    """Nine generators beside RAISE, and Corvi's training set with its lists and reals."""
    put(root, *(f"RAISEpng/r{k:03d}.png" for k in range(3)))
    put(root, *(f"synthbuster/{name}/r{k:03d}.png" for name in SYNTHBUSTER for k in range(3)))
    base = "latent_diffusion_trainingset"
    for split, n in (("train", 8), ("valid", 4)):
        put(root, *(f"{base}/{split}/latent_diffusion/{k}.png" for k in range(n)))
        lsun = [f"horse_{split}{k}.png" for k in range(n // 2)]
        coco = [f"{split}{k:09d}.jpg" for k in range(n // 2)]
        put_text(root, f"{base}/{split}/real_lsun.txt", "\n".join(lsun) + "\n")
        put_text(root, f"{base}/{split}/real_coco.txt", "\n".join(coco) + "\n")
        put(root, *(f"train/horse/0_real/{name.partition('_')[2]}" for name in lsun))
        put(root, *(f"coco/train2014/COCO_train2014_{name}" for name in coco))


def write_genimage(root: Path) -> None:
    """Eight generators, each with reals of its own."""
    for name in GENIMAGE:
        for split, n in (("train", 5), ("val", 2)):
            put(root, *(f"{name}/{split}/ai/{k}_x_{split}{k}.png" for k in range(n)))
            put(root, *(f"{name}/{split}/nature/n{k:08d}_{split}{k}.JPEG" for k in range(n)))


def write_df40(root: Path) -> None:
    """EFSAll_ff with CLaRE's four methods, two sets on Celeb-DF, seven that bring their reals."""

    def frames(folder: str, n: int = 2) -> list[str]:
        put(root, *(f"{folder}/{k:03d}.png" for k in range(n)))
        return [f"{PREFIX}/{folder}/{k:03d}.png" for k in range(n)]

    def write(name: str, label: str, videos: dict[str, dict[str, dict[str, list[str]]]]) -> None:
        content = {
            f"{label}_{kind}": {
                split: {key: {"label": f"{label}_{kind}", "frames": listed}
                        for key, listed in entries.items()}
                for split, entries in by_split.items()
            }
            for kind, by_split in videos.items()
        }  # fmt: skip
        put_text(root, f"dataset_json/{name}.json", json.dumps({name: content}))

    numbers = {"train": [f"{k:03d}" for k in range(6)], "test": [f"{k:03d}" for k in range(10, 13)]}
    youtube = "FaceForensics++/original_sequences/youtube/c23/frames"
    real = {s: {f"{v}_{m}": frames(f"{youtube}/{v}") for v in vs for m in TRAINED}
            for s, vs in numbers.items()}  # fmt: skip
    fake = {s: {f"{v}_{m}": frames(f"{'DF40_train' if s == 'train' else 'DF40'}/{m}/ff/frames/{v}")
                for v in vs for m in TRAINED} for s, vs in numbers.items()}  # fmt: skip
    write("EFSAll_ff", "EFSAll", {"Real": real, "Fake": fake})
    people = ("id0_0000", "id1_0000")
    celeb = {v: frames(f"Celeb-DF-v2/Celeb-real/frames/{v}") for v in people}
    for method in ("rddm", "sd2.1"):
        made = {v: frames(f"DF40/{method}/cdf/Celeb-real/frames/{v}") for v in people}
        write(f"{method}_cdf", method, {"Real": {"test": celeb}, "Fake": {"test": made}})
    for method in OWN_REALS:
        own = {kind: {"test": {f"{kind}{k}": frames(f"DF40/{method}/{kind.lower()}/v{k}", 1)
                               for k in range(3)}} for kind in ("Real", "Fake")}  # fmt: skip
        write(method, method, own)
