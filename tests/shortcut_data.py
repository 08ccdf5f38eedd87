"""Data sets whose files give the label away, and one whose files do not."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from clare_cache.manifest import Manifest
from tests.miniatures.pictures import encode, pixels_of


def _image_id(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_data_set(
    root: Path, *, n: int = 24, ridden: bool, generators: tuple[str, ...] = ("sdxl",)
) -> Manifest:
    """`n` reals and `n` fakes of each generator, four to a group; split by group.

    Honest: all are PNG of one size. Ridden: reals are JPEG files of quality 75 at half the size,
    with an orientation in EXIF now and then, as if a camera's; fakes are PNG.
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
