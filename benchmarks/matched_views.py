"""What the matched views leave of a shortcut that is nothing but the file format.

Crops of the two photographs that scikit-learn ships, half of them as JPEG files (called real), half
as PNG files (called fake): a data set in which nothing but the files tells real from fake. Prints
the AUC of the shortcut audit of the files, and of the pictures that each view makes.

    python -m benchmarks.matched_views [--crops 200]
"""

import argparse
import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_sample_image

from clare_cache.images import encode_jpeg, encode_png
from clare_cache.manifest import Manifest
from clare_cache.workflow.audit import audit_manifest

SIZE_PX = 128
GROUP = 4
VIEWS = (None, "matched-jpeg-q90", "matched-jpeg-q50")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crops", type=int, default=200, help="real, and as many fake")
    n_crops = parser.parse_args().crops
    print("| reals are JPEG of quality | audited | AUC | 95 % interval | verdict |")
    print("|---|---|---|---|---|")
    for quality in (75, 90):
        with tempfile.TemporaryDirectory() as folder:
            manifest = write(Path(folder), n_crops, quality=quality)
            for view in VIEWS:
                audit = audit_manifest(manifest, root=folder, through=view).audit
                [found] = audit.findings
                print(
                    f"| {quality} | {view or 'the files'} | {found.auc:.2f} "
                    f"| {found.auc_low:.2f} to {found.auc_high:.2f} | {found.verdict} |"
                )


def write(root: Path, n_crops: int, *, quality: int) -> Manifest:
    """The data set below `root`, and its manifest."""
    generator = np.random.default_rng(0)
    photographs = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    rows = []
    for label, suffix in enumerate((".jpg", ".png")):
        for number in range(n_crops):
            photograph = photographs[number % 2]
            top, left = (int(generator.integers(side - SIZE_PX)) for side in photograph.shape[:2])
            crop = np.ascontiguousarray(photograph[top : top + SIZE_PX, left : left + SIZE_PX])
            data = encode_png(crop) if label else encode_jpeg(crop, quality)
            path = f"{label}-{number:04d}{suffix}"
            (root / path).write_bytes(data)
            rows.append(
                {
                    "image_id": hashlib.sha256(data).hexdigest(),
                    "path": path,
                    "label": label,
                    "group": f"{label}-{number // GROUP}",
                }
            )
    return Manifest.from_rows(pd.DataFrame(rows))


if __name__ == "__main__":
    main()
