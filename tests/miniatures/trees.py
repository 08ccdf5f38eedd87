"""A miniature of every data set that a layout knows, made from its published description.

`MINIATURES[name].write(root)` makes the tree; `build_manifest(m.layout, root, **m.options(root))`
reads it; `m.rows` is what has to come out: (path, label, split, source, generator).
"""

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tests.miniatures.pictures import picture, put, put_text

Row = tuple[str, int, str, str, str]


@dataclass(frozen=True)
class Miniature:
    """One data set on disk, small, and the rows of its manifest.

    `tables` are the lists that `manifest build` needs by name, relative to the root; `extra`
    other options of `build_manifest`; `n_absent` how many listed files the disk lacks.
    """

    layout: str
    write: Callable[[Path], None]
    rows: tuple[Row, ...]
    tables: tuple[str, ...] = ()
    extra: Mapping[str, Any] | None = None
    n_absent: int = 0

    def options(self, root: Path) -> dict[str, Any]:
        """Keyword arguments of `build_manifest`."""
        tables = {"table": [root / name for name in self.tables]} if self.tables else {}
        return {**tables, **(self.extra or {})}

    def arguments(self, root: Path) -> list[str]:
        """The same for the command line (tables alone; `extra` as flags)."""
        words = [word for name in self.tables for word in ("--table", str(root / name))]
        for key, value in (self.extra or {}).items():
            for item in value if isinstance(value, tuple) else (value,):
                words += [f"--{ {'keys': 'key'}.get(key, key) }", str(item)]
        return words


def _files(rows: tuple[Row, ...]) -> Callable[[Path], None]:
    return lambda root: put(root, *(row[0] for row in rows))


FOLDER: tuple[Row, ...] = (
    ("train/real/a.png", 0, "train", "images", "real"),
    ("train/real/b.png", 0, "train", "images", "real"),
    ("train/fake/sdxl/a.png", 1, "train", "images", "sdxl"),
    ("train/fake/sdxl/b.png", 1, "train", "images", "sdxl"),
    ("test/real/c.png", 0, "test", "images", "real"),
    ("test/fake/biggan/c.png", 1, "test", "images", "biggan"),
)

CSV: tuple[Row, ...] = (
    ("x/a.png", 0, "train", "mine", "real"),
    ("x/b.jpg", 1, "train", "mine", "sdxl"),
    ("x/c.png", 0, "test", "mine", "real"),
    ("x/d.jpg", 1, "test", "mine", "flux"),
)


def _csv(root: Path) -> None:
    _files(CSV)(root)
    lines = [f"{p},{'fake' if y else 'real'},{s},{o},{g}" for p, y, s, o, g in CSV]
    put_text(root, "labels.csv", "\n".join(["path,label,split,source,generator", *lines]) + "\n")


FORENSYNTHS: tuple[Row, ...] = (
    # UniversalFakeDetect has a folder progan, RINE has not.
    ("train/progan/horse/0_real/00001.png", 0, "train", "progan", "real"),
    ("train/progan/horse/1_fake/00001.png", 1, "train", "progan", "progan"),
    ("train/train/0_real/00002.png", 0, "train", "progan", "real"),
    ("train/train/1_fake/00002.png", 1, "train", "progan", "progan"),
    ("val/chair/0_real/00003.png", 0, "val", "progan", "real"),
    ("val/chair/1_fake/00003.png", 1, "val", "progan", "progan"),
    ("test/progan/cat/0_real/00004.png", 0, "test", "progan", "real"),
    ("test/progan/cat/1_fake/00004.png", 1, "test", "progan", "progan"),
    ("test/progan/train/0_real/00005.png", 0, "test", "progan", "real"),
    ("test/stylegan2/car/0_real/00006.png", 0, "test", "stylegan2", "real"),
    ("test/stylegan2/car/1_fake/00006.png", 1, "test", "stylegan2", "stylegan2"),
    ("test/biggan/0_real/00007.png", 0, "test", "biggan", "real"),
    ("test/biggan/1_fake/00007.png", 1, "test", "biggan", "biggan"),
    ("test/seeingdark/0_real/00008.png", 0, "test", "seeingdark", "real"),
    ("test/seeingdark/1_fake/00008.png", 1, "test", "seeingdark", "seeingdark"),
    # RINE keeps UniversalFakeDetect's diffusion sets among its test sets.
    ("test/diffusion_datasets/laion/0_real/00009.png", 0, "test", "laion", "real"),
    ("test/diffusion_datasets/ldm_200/1_fake/00009.png", 1, "test", "laion", "ldm_200"),
)

UFD_DIFFUSION: tuple[Row, ...] = (
    ("imagenet/0_real/a.JPEG", 0, "", "imagenet", "real"),
    ("imagenet/0_real/b.JPEG", 0, "", "imagenet", "real"),
    ("laion/0_real/a.jpg", 0, "", "laion", "real"),
    ("laion/0_real/b.jpg", 0, "", "laion", "real"),
    ("guided/1_fake/a.png", 1, "", "imagenet", "guided"),
    ("ldm_200_cfg/1_fake/a.png", 1, "", "laion", "ldm_200_cfg"),
    ("glide_100_27/1_fake/a.png", 1, "", "laion", "glide_100_27"),
    ("dalle/1_fake/a.png", 1, "", "laion", "dalle"),
)

GENIMAGE: tuple[Row, ...] = (
    ("Midjourney/train/ai/0_midjourney_1.png", 1, "train", "midjourney", "midjourney"),
    ("Midjourney/train/nature/n01440764_10026.JPEG", 0, "train", "midjourney", "real"),
    ("Midjourney/val/ai/0_midjourney_2.png", 1, "val", "midjourney", "midjourney"),
    ("Midjourney/val/nature/ILSVRC2012_val_00000001.JPEG", 0, "val", "midjourney", "real"),
    ("Stable Diffusion V1.4/train/ai/1_sdv4_1.png", 1, "train", "sdv4", "sdv4"),
    ("Stable Diffusion V1.4/train/nature/n01443537_2.JPEG", 0, "train", "sdv4", "real"),
    # As the archives unpack: another spelling, and a folder more.
    (
        "stable_diffusion_v_1_5/imagenet_ai_0424_sdv5/val/ai/2_sdv5_1.png",
        1,
        "val",
        "sdv5",
        "sdv5",
    ),
    (
        "stable_diffusion_v_1_5/imagenet_ai_0424_sdv5/val/nature/ILSVRC2012_val_00000002.JPEG",
        0,
        "val",
        "sdv5",
        "real",
    ),
    ("ADM/val/ai/3_adm_7.PNG", 1, "val", "adm", "adm"),
    ("ADM/val/nature/ILSVRC2012_val_00000003.JPEG", 0, "val", "adm", "real"),
    ("VQDM/val/ai/VQDM_1000_200_05_004_vqdm_00001.png", 1, "val", "vqdm", "vqdm"),
    ("BigGAN/val/ai/005_biggan_00001.png", 1, "val", "biggan", "biggan"),
)

SYNTHBUSTER: tuple[Row, ...] = (
    ("RAISEpng/r000da54ft.png", 0, "", "synthbuster", "real"),
    ("RAISEpng/r001d260dt.png", 0, "", "synthbuster", "real"),
    ("synthbuster/dalle3/r000da54ft.png", 1, "", "synthbuster", "dalle3"),
    ("synthbuster/stable-diffusion-xl/r000da54ft.png", 1, "", "synthbuster", "stable-diffusion-xl"),
    ("synthbuster/glide/r001d260dt.png", 1, "", "synthbuster", "glide"),
    ("synthbuster/midjourney-v5/r001d260dt.png", 1, "", "synthbuster", "midjourney-v5"),
)


def _synthbuster(root: Path) -> None:
    _files(SYNTHBUSTER)(root)
    put_text(root, "synthbuster/glide/prompts.txt", "a photo")


_LDM = "latent_diffusion_trainingset"
LDM: tuple[Row, ...] = (
    (f"{_LDM}/train/ldm_celebahq_256/0001.png", 1, "train", "ldm-trainingset", "ldm_celebahq_256"),
    (f"{_LDM}/train/text2img/0002.png", 1, "train", "ldm-trainingset", "text2img"),
    (f"{_LDM}/valid/ldm_celebahq_256/0003.png", 1, "val", "ldm-trainingset", "ldm_celebahq_256"),
    ("train/horse/0_real/0004.png", 0, "train", "ldm-trainingset", "real"),
    ("train/tvmonitor/0_real/0005.png", 0, "val", "ldm-trainingset", "real"),
    ("coco/train2014/COCO_train2014_000000000009.jpg", 0, "train", "ldm-trainingset", "real"),
    ("coco/val2014/COCO_val2014_000000000042.jpg", 0, "val", "ldm-trainingset", "real"),
)


def _ldm(root: Path) -> None:
    _files(LDM)(root)
    put(root, "train/horse/0_real/9999.png")
    lists = {
        # The authors read the first two fields between underscores only.
        "train/real_lsun.txt": "horse_0004.png_ignored\nhorse_7777.png\n",
        "train/real_coco.txt": "000000000009.jpg\n",
        "valid/real_lsun.txt": "tvmonitor_0005.png\n",
        "valid/real_coco.txt": "000000000042.jpg,with a comma\n",
    }
    for name, text in lists.items():
        put_text(root, f"{_LDM}/{name}", text)


LARE: tuple[Row, ...] = (
    ("GenImage/SDv1.5/train/ai/0_sdv5_1.png", 1, "train", "sdv5", "sdv5"),
    ("GenImage/SDv1.5/train/nature/n01440764_1.JPEG", 0, "train", "sdv5", "real"),
    ("flat/1_x 2.png", 1, "val", "wukong", "wukong"),
    ("flat/ILSVRC2012_val_00000009.JPEG", 0, "val", "wukong", "real"),
)


def _lare(root: Path) -> None:
    _files(LARE)(root)
    put_text(
        root,
        "lists/train_sdv5.txt",
        f"{root.absolute()}/{LARE[0][0]}\t1\n{LARE[1][0]}\t0\n",
    )
    text = f"{LARE[2][0]} 1\n{LARE[3][0]} 0\nflat/lost.png 1\n\n{LARE[0][0]} 1\n"
    put_text(root, "lists/val_wukong_12k.txt", text)


SIDBENCH: tuple[Row, ...] = (
    ("wang2020/biggan/0_real/a.png", 0, "", "wang2020/biggan", "real"),
    ("wang2020/biggan/1_fake/a.png", 1, "", "wang2020/biggan", "biggan"),
    ("wang2020/stylegan/car/0_real/a.png", 0, "", "wang2020/stylegan", "real"),
    ("wang2020/stylegan/car/1_fake/a.png", 1, "", "wang2020/stylegan", "stylegan"),
    ("ojha2023/laion/0_real/a.jpg", 0, "", "ojha2023/laion", "real"),
    ("ojha2023/imagenet/a.jpg", 0, "", "ojha2023/imagenet", "real"),
    ("ojha2023/guided/1_fake/a.png", 1, "", "ojha2023/imagenet", "guided"),
    ("ojha2023/glide_50_27/a.png", 1, "", "ojha2023/laion", "glide_50_27"),
    ("synthbuster/raise/r000da54ft.png", 0, "", "synthbuster", "real"),
    ("synthbuster/firefly/r000da54ft.png", 1, "", "synthbuster", "firefly"),
)

CLIPPING: tuple[Row, ...] = (
    ("progan/images/train/n01440764/a.png", 0, "train", "progan", "real"),
    ("progan/images/train/n01443537/a.png", 1, "train", "progan", "progan"),
    ("progan/images/val/n01440764/b.png", 0, "val", "progan", "real"),
    ("progan/images/val/n01443537/b.png", 1, "val", "progan", "progan"),
    ("firefly/images/val/n01440764/c.jpg", 0, "val", "firefly", "real"),
    ("firefly/images/val/n01443537/c.jpg", 1, "val", "firefly", "firefly"),
)


def _clipping(root: Path) -> None:
    _files(CLIPPING)(root)
    put_text(root, "progan/classnames.txt", "n01440764 real\nn01443537 fake\n")


HUB: tuple[Row, ...] = (
    ("train/a.png", 0, "train", "images", "real"),
    ("train/sub/b.jpg", 1, "train", "images", "flux"),
    ("validation/c.png", 0, "val", "images", "real"),
    ("validation/d.png", 1, "val", "images", "flux"),
    ("test/e.png", 0, "test", "images", "real"),
    ("test/f.png", 1, "test", "images", "sdxl"),
)


def _hub(root: Path) -> None:
    _files(HUB)(root)
    put_text(
        root,
        "train/metadata.csv",
        "file_name,label,generator,caption\na.png,real,,a\nsub/b.jpg,fake,flux,b\n"
        "lost.png,fake,flux,gone\n",
    )
    lines = [
        {"file_name": "c.png", "label": 0},
        {"file_name": "d.png", "label": 1, "generator": "flux"},
    ]
    put_text(root, "validation/metadata.jsonl", "\n".join(map(json.dumps, lines)) + "\n")
    pd.DataFrame(
        {"file_name": ["e.png", "f.png"], "label": [0, 1], "generator": [None, "sdxl"]}
    ).to_parquet(root / "test/metadata.parquet")


WEBDATASET: tuple[Row, ...] = (
    ("shards/train-000000.tar#0001.png", 0, "train", "shards", "real"),
    ("shards/train-000000.tar#0002.jpg", 1, "train", "shards", "sdxl"),
    ("shards/test-000000.tar#a/0001.png", 0, "test", "other", "real"),
    ("shards/test-000000.tar#a/0002.png", 1, "test", "other", "flux"),
    ("shards/test-000000.tar#fake/0003.png", 1, "test", "shards", "fake"),
)


def put_tar(root: Path, path: str, members: Mapping[str, bytes]) -> None:
    """Write a plain tar with these members."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _webdataset(root: Path) -> None:
    other = {"label": "real", "source": "other"}
    put_tar(
        root,
        "shards/train-000000.tar",
        {
            "0001.png": picture("w1.png"),
            "0001.cls": b"0",
            "0002.jpg": picture("w2.jpg"),
            "0002.cls": b"1\n",
            "0002.json": json.dumps({"generator": "sdxl", "prompt": "x"}).encode(),
        },
    )
    put_tar(
        root,
        "shards/test-000000.tar",
        {
            "a/0001.json": json.dumps(other).encode(),
            "a/0001.png": picture("w3.png"),
            "a/0002.png": picture("w4.png"),
            "a/0002.json": json.dumps({**other, "label": 1, "generator": "flux"}).encode(),
            "fake/0003.png": picture("w5.png"),
            "fake/0003.txt": b"a caption",
        },
    )
