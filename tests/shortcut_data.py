"""Data sets whose files give the label away, and one whose files do not."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_sample_image

from clare_cache.manifest import Manifest
from tests.miniatures.pictures import encode, pixels_of


def _image_id(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_data_set(
    root: Path, *, n: int = 24, ridden: bool, generators: tuple[str, ...] = ("sdxl",)
) -> Manifest:
    """`n` reals and `n` fakes of each generator, four to a group; split by group.

    Honest: all are PNG of 64 px. Ridden: reals are JPEG files of quality 75, 40x32 px; fakes
    are PNG of 64 px.
    """
    rows = []
    for generator in ("real", *generators):
        for number in range(n):
            name = f"{generator}/{number:03d}"
            is_real = generator == "real"
            if ridden and is_real:
                pixels = pixels_of(name, width=40, height=32)
                data, suffix = encode(pixels, "JPEG", quality=75), ".jpg"
            else:
                pixels = pixels_of(name, width=64, height=64)
                data, suffix = encode(pixels, "PNG"), ".png"
            path = root / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            rows.append(
                {
                    "image_id": _image_id(data),
                    "path": f"{name}{suffix}",
                    "label": int(not is_real),
                    "split": "train" if number < n // 2 else "test",
                    "source": "made",
                    "generator": generator,
                    "group": f"{generator}/{number // 4}",
                }
            )
    return Manifest.from_rows(pd.DataFrame(rows))


def write_photographs(root: Path, *, n: int = 60, size: int = 128, seed: int = 0) -> Manifest:
    """`n` crops of two photographs as JPEG of quality 75, called real, and `n` more as PNG, called
    fake: nothing but the files tells them apart."""
    generator = np.random.default_rng(seed)
    photographs = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    rows = []
    for label, (kind, suffix) in enumerate((("JPEG", ".jpg"), ("PNG", ".png"))):
        for number in range(n):
            photograph = photographs[number % 2]
            top, left = (int(generator.integers(side - size)) for side in photograph.shape[:2])
            crop = np.ascontiguousarray(photograph[top : top + size, left : left + size])
            data = encode(crop, kind, **({"quality": 75} if kind == "JPEG" else {}))
            path = f"{kind}/{number:03d}{suffix}"
            (root / kind).mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
            group = f"{kind}/{number // 4}"
            rows.append({"image_id": _image_id(data), "path": path, "label": label, "group": group})
    return Manifest.from_rows(pd.DataFrame(rows))


def write_run(folder: Path, manifest: Manifest, scores: np.ndarray) -> Path:
    """A run folder with predictions of these scores (one per manifest row), nothing else."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    rows = manifest.rows
    columns = ["image_id", "path", "label", "split", "source", "generator", "family", "group"]
    clipped = np.clip(scores, 1e-6, 1 - 1e-6)
    rows[columns].assign(
        view="clean", score=clipped, log_odds=np.log(clipped / (1 - clipped)), missing=""
    ).to_parquet(folder / "predictions.parquet", index=False)
    return folder
