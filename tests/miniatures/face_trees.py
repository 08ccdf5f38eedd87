"""Miniatures of DF40 and DeepfakeBench: their JSON lists, their archives, their quirks."""

import json
from pathlib import Path

from tests.miniatures.pictures import put, put_text
from tests.miniatures.trees import Row

FF, CDF = "FaceForensics++", "Celeb-DF-v2"
PREFIX = "deepfakes_detection_datasets"
ORDER = (2, 0, 3, 1)
"""The lists name frames in the order of the folder, which is none."""


def video(folder: str, *numbers: int) -> list[str]:
    """Frame paths of a video in a list's arbitrary order."""
    return [f"{folder}/{number:03d}.png" for number in numbers or ORDER]


def _put_list(root: Path, name: str, content: dict) -> None:
    put_text(root, f"dataset_json/{name}.json", json.dumps({name: content}))


def ff_real(number: str) -> str:
    return f"{FF}/original_sequences/youtube/c23/frames/{number}"


def entry(label: str, frames: list[str]) -> dict:
    return {"label": label, "frames": frames}


def write_df40_lists(root: Path) -> None:
    """EFSAll_ff (train and test), pixart_cdf and heygen, on disk as CLaRE's authors keep them."""
    listed = f"{PREFIX}/"
    real = {
        f"{n}_{method}": entry("EFSAll_Real", [listed + f for f in video(ff_real(n))])
        for n in ("071", "054")
        for method in ("pixart", "SiT")
    }
    fake = {
        f"{n}_{method}": entry("EFSAll_Fake", video(f"{listed}DF40_train/{method}/ff/frames/{n}"))
        for n in ("071", "054")
        for method in ("pixart", "SiT")
    }
    tested = {"953_pixart": entry("EFSAll_Fake", video(f"{listed}DF40/pixart/ff/frames/953"))}
    tested_real = {
        "953_pixart": entry("EFSAll_Real", [listed + f for f in video(ff_real("953"))]),
        "empty_pixart": entry("EFSAll_Real", []),
    }
    _put_list(
        root,
        "EFSAll_ff",
        {
            "EFSAll_Real": {"train": real, "val": tested_real, "test": tested_real},
            "EFSAll_Fake": {"train": fake, "val": tested, "test": tested},
        },
    )
    celeb = f"{listed}{CDF}/Celeb-real/frames/id0_0000"
    _put_list(
        root,
        "pixart_cdf",
        {
            "pixart_Real": {"test": {"id0_0000": entry("pixart_Real", video(celeb, 1, 0))}},
            "pixart_Fake": {
                "test": {
                    "id0_0000": entry(
                        "pixart_Fake",
                        video(f"{listed}DF40/pixart/cdf/Celeb-real/frames/id0_0000", 1, 0),
                    ),
                    "lost": entry(
                        "pixart_Fake", video(f"{listed}DF40/pixart/cdf/Celeb-real/frames/lost", 0)
                    ),
                }
            },
        },
    )
    own = {
        label: {"test": {"v1": entry(label, video(f"{listed}DF40/heygen/{kind}/v1", 0))}}
        for label, kind in (("heygen_Real", "real"), ("heygen_Fake", "fake"))
    }
    _put_list(root, "heygen", own)
    put(root, *(row[0] for row in DF40_LISTS))


def _df40_list_rows() -> tuple[Row, ...]:
    rows: list[Row] = []
    for n in ("071", "054"):
        rows += [(path, 0, "train", FF, "real") for path in video(ff_real(n))]
        for method in ("pixart", "SiT"):
            # The training archives have no level ff, and CLaRE's authors call the folder so.
            frames = video(f"df40/train/{method}/frames/{n}")
            rows += [(path, 1, "train", FF, method) for path in frames]
    rows += [(path, 0, "test", FF, "real") for path in video(ff_real("953"))]
    rows += [(path, 1, "test", FF, "pixart") for path in video("df40/test/pixart/ff/frames/953")]
    celeb = video(f"{CDF}/Celeb-real/frames/id0_0000", 1, 0)
    rows += [(path, 0, "test", CDF, "real") for path in celeb]
    renamed = video("df40/test/pixart/cdf/Fake_from_Celeb-real/frames/id0_0000", 1, 0)
    rows += [(path, 1, "test", CDF, "pixart") for path in renamed]
    rows += [("df40/test/heygen/real/v1/000.png", 0, "test", "heygen", "real")]
    rows += [("df40/test/heygen/fake/v1/000.png", 1, "test", "heygen", "heygen")]
    return tuple(rows)


DF40_LISTS = _df40_list_rows()


EFS = [
    "DiT",
    "SiT",
    "StyleGAN2",
    "StyleGAN3",
    "StyleGANXL",
    "VQGAN",
    "ddim",
    "pixart",
    "rddm",
    "sd2.1",
]
OWN = ["heygen", "MidJourney", "whichisreal", "stargan", "starganv2", "styleclip", "CollabDiff"]


def _df40_test_rows() -> tuple[Row, ...]:
    rows: list[Row] = [(f"{CDF}/Celeb-real/frames/id0_0000/000.png", 0, "test", CDF, "real")]
    for method in EFS:
        # sd2.1 alone keeps in its archive the names that the lists have.
        folder = "Celeb-real" if method == "sd2.1" else "Fake_from_Celeb-real"
        path = f"DF40/{method}/cdf/{folder}/frames/id0_0000/000.png"
        rows.append((path, 1, "test", CDF, method))
    for method in OWN:
        rows.append((f"DF40/{method}/real/a.png", 0, "test", method, "real"))
        rows.append((f"DF40/{method}/fake/a.png", 1, "test", method, method))
    return tuple(rows)


DF40_TESTS = _df40_test_rows()


def write_df40_tests(root: Path) -> None:
    """The 17 lists of CLaRE's test sets, with a frame or two each."""
    real = f"{PREFIX}/{CDF}/Celeb-real/frames/id0_0000/000.png"
    for method in EFS:
        fake = f"{PREFIX}/DF40/{method}/cdf/Celeb-real/frames/id0_0000/000.png"
        _put_list(
            root,
            f"{method}_cdf",
            {
                f"{method}_{word}": {"test": {"id0_0000": entry(f"{method}_{word}", [path])}}
                for word, path in (("Real", real), ("Fake", fake))
            },
        )
    for method in OWN:
        _put_list(
            root,
            method,
            {
                f"{method}_{word}": {
                    "test": {
                        "a": entry(
                            f"{method}_{word}", [f"{PREFIX}/DF40/{method}/{word.lower()}/a.png"]
                        )
                    }
                }
                for word in ("Real", "Fake")
            },
        )
    put(root, *(row[0] for row in DF40_TESTS))


def _df40_folder_rows() -> tuple[Row, ...]:
    rows: list[Row] = []
    for method in ("pixart", "simswap"):
        name = "071" if method == "pixart" else "071_054"
        frames = video(f"DF40_train/{method}/frames/{name}", 0, 1)
        rows += [(path, 1, "train", FF, method) for path in frames]
    rows += [(p, 1, "test", FF, "pixart") for p in video("DF40/pixart/ff/frames/953", 0, 1)]
    rows += [(p, 1, "test", CDF, "pixart") for p in video("DF40/pixart/cdf/frames/id0_0000", 0)]
    # 071 and 054 go with the fakes made of them; nothing says where 999 belongs.
    for number, split in (("071", "train"), ("054", "train"), ("953", "test"), ("999", "")):
        rows += [(path, 0, split, FF, "real") for path in video(ff_real(number), 0, 1)]
    rows += [(p, 0, "test", CDF, "real") for p in video(f"{CDF}/Celeb-real/frames/id0_0000", 0)]
    rows += [(p, 0, "", CDF, "real") for p in video(f"{CDF}/YouTube-real/frames/00170", 0)]
    rows += [("DF40/MidJourney/real/a.png", 0, "test", "MidJourney", "real")]
    rows += [("DF40/MidJourney/fake/a.png", 1, "test", "MidJourney", "MidJourney")]
    return tuple(rows)


DF40_FOLDERS = _df40_folder_rows()


def write_df40_folders(root: Path) -> None:
    """The archives unpacked, without any list but Celeb-DF's own."""
    put(root, *(row[0] for row in DF40_FOLDERS))
    put(root, "elsewhere/x.png", f"{FF}/original_sequences/youtube/c23/masks/071/000.png")
    put_text(root, f"{CDF}/List_of_testing_videos.txt", "1 Celeb-real/id0_0000.mp4\n")


FF_OTHERS = {
    "FF-F2F": ("Face2Face", "Face2Face"),
    "FF-FS": ("FaceSwap", "FaceSwap"),
    "FF-NT": ("NeuralTextures", "NeuralTextures"),
}


def _bench_rows() -> tuple[Row, ...]:
    fake = f"{FF}/manipulated_sequences/Deepfakes/c23/frames"
    rows: list[Row] = []
    rows += [(path, 0, "train", FF, "real") for path in video(ff_real("071"), 0, 1)]
    rows += [(path, 1, "train", FF, "Deepfakes") for path in video(f"{fake}/071_054", 0, 1)]
    rows += [(path, 0, "val", FF, "real") for path in video(ff_real("800"), 0)]
    rows += [(path, 1, "val", FF, "Deepfakes") for path in video(f"{fake}/800_801", 0)]
    rows += [(path, 0, "test", FF, "real") for path in video(ff_real("953"), 0)]
    rows += [(path, 1, "test", FF, "Deepfakes") for path in video(f"{fake}/953_974", 0)]
    for folder, maker in FF_OTHERS.values():
        path = f"{FF}/manipulated_sequences/{folder}/c23/frames/953_974/000.png"
        rows.append((path, 1, "test", FF, maker))
    celeb = f"{CDF}/Celeb-real/frames/id0_0000"
    made = f"{CDF}/Celeb-synthesis/frames/id0_id1_0000"
    rows += [(path, 0, "test", CDF, "real") for path in video(celeb, 0)]
    rows += [(path, 1, "test", CDF, "CelebDFv2") for path in video(made, 0)]
    return tuple(rows)


BENCH = _bench_rows()


def write_bench(root: Path) -> None:
    """FF-DF with its level of compressions, and Celeb-DF, whose val is its test again."""
    fake = f"{FF}/manipulated_sequences/Deepfakes"

    def ff(real: str, made: str, *numbers: int) -> tuple[dict, dict]:
        def each(folder: str, label: str, key: str) -> dict:
            return {
                c: {key: entry(label, video(folder.replace("c23", c), *numbers))}
                for c in ("c23", "c40")
            }

        return (
            each(ff_real(real), "FF-real", real),
            each(f"{fake}/c23/frames/{made}", "FF-DF", made),
        )

    parts = {
        "train": ff("071", "071_054", 0, 1),
        "val": ff("800", "800_801", 0),
        "test": ff("953", "953_974", 0),
    }
    content = {
        "FF-real": {split: real for split, (real, _) in parts.items()},
        "FF-DF": {split: made for split, (_, made) in parts.items()},
    }
    _put_list(root, "FF-DF", content)
    for label, (folder, _) in FF_OTHERS.items():
        frames = video(f"{FF}/manipulated_sequences/{folder}/c23/frames/953_974", 0)
        _put_list(root, label, {label: {"test": {"c23": {"953_974": entry(label, frames)}}}})
    real = {"id0_0000": entry("CelebDFv2_real", video(f"{CDF}/Celeb-real/frames/id0_0000", 0))}
    made = f"{CDF}/Celeb-synthesis/frames/id0_id1_0000"
    fakes = {"id0_id1_0000": entry("CelebDFv2_fake", video(made, 0))}
    _put_list(
        root,
        "Celeb-DF-v2",
        {
            "CelebDFv2_real": {"val": real, "test": real},
            "CelebDFv2_fake": {"val": fakes, "test": fakes},
        },
    )
    put(root, *(row[0] for row in BENCH))
