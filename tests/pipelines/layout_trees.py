"""Every layout that no recipe of a paper uses, small, but enough to train and test on.

`LAYOUT_TREES[layout](root)` writes the tree and gives back the lists that `manifest build` needs.
"""

import json
from collections.abc import Callable
from pathlib import Path

from tests.miniatures.pictures import picture, put_text
from tests.miniatures.trees import put_tar
from tests.pipelines.paper_trees import put

SPLITS = (("train", 6), ("test", 3))
LABELS = ("real", "fake")


def _folder(root: Path) -> list[str]:
    put(root, *(f"{s}/{x}/{k}.png" for s, n in SPLITS for x in LABELS for k in range(n)))
    return []


def _csv(root: Path) -> list[str]:
    rows = [(f"all/{s}{x}{k}.png", x, s) for s, n in SPLITS for x in LABELS for k in range(n)]
    put(root, *(path for path, *_ in rows))
    lines = ["path,label,split", *(",".join(row) for row in rows)]
    put_text(root, "labels.csv", "\n".join(lines) + "\n")
    return ["labels.csv"]


def _hub(root: Path) -> list[str]:
    for split, n in SPLITS:
        names = [(f"{x}{k}.png", x) for x in LABELS for k in range(n)]
        put(root, *(f"{split}/{name}" for name, _ in names))
        lines = ["file_name,label", *(f"{name},{x}" for name, x in names)]
        put_text(root, f"{split}/metadata.csv", "\n".join(lines) + "\n")
    return []


def _tars(root: Path) -> list[str]:
    for split, n in SPLITS:
        members = {}
        for label, x in enumerate(LABELS):
            for k in range(n):
                members[f"{x}{k}.png"] = picture(f"{split}{x}{k}.png", width=64, height=64)
                members[f"{x}{k}.cls"] = str(label).encode()
        put_tar(root, f"{split}-000000.tar", members)
    return []


def _lare(root: Path) -> list[str]:
    for name, n in (("train_sdv5", 6), ("val_sdv5_12k", 3)):
        rows = [(f"flat/{k}_sdv5_{name}{y}.png", y) for y in (0, 1) for k in range(n)]
        put(root, *(path for path, _ in rows))
        put_text(root, f"lists/{name}.txt", "\n".join(f"{path} {y}" for path, y in rows) + "\n")
    return ["lists"]


def _sidbench(root: Path) -> list[str]:
    put(root, *(f"wang2020/{name}/{x}/{k}.png" for name in ("biggan", "san")
                for x in ("0_real", "1_fake") for k in range(6)))  # fmt: skip
    return []


def _clipping(root: Path) -> list[str]:
    labels = ("n01440764", "n01443537")
    put(root, *(f"progan/images/train/{x}/{k}.png" for x in labels for k in range(6)))
    put(root, *(f"{name}/images/val/{x}/v{k}.png" for name in ("progan", "firefly")
                for x in labels for k in range(3)))  # fmt: skip
    return []


def _bench(root: Path) -> list[str]:
    kinds = {
        "FF-real": "FaceForensics++/original_sequences/youtube/c23/frames",
        "FF-DF": "FaceForensics++/manipulated_sequences/Deepfakes/c23/frames",
    }
    content: dict[str, dict[str, dict[str, dict[str, object]]]] = {}
    for label, folder in kinds.items():
        for split, first, n in (("train", 0, 6), ("test", 10, 3)):
            for k in range(first, first + n):
                video = f"{k:03d}" if label == "FF-real" else f"{k:03d}_{k + 20:03d}"
                frame = f"{folder}/{video}/000.png"
                put(root, frame)
                by_compression = content.setdefault(label, {}).setdefault(split, {"c23": {}})
                by_compression["c23"][video] = {"label": label, "frames": [frame]}
    put_text(root, "dataset_json/FF-DF.json", json.dumps({"FF-DF": content}))
    return []


LAYOUT_TREES: dict[str, Callable[[Path], list[str]]] = {
    "folder": _folder,
    "csv": _csv,
    "hf-imagefolder": _hub,
    "webdataset": _tars,
    "lare-list": _lare,
    "sidbench": _sidbench,
    "clipping": _clipping,
    "deepfakebench": _bench,
}
