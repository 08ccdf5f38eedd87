"""New image files → score and verdict, through the same features as in training."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import expit

from clare_cache.backbones.numerics import pick_device
from clare_cache.data.regions import PATCHES, REGIONS, describe_regions, placed_regions, stored
from clare_cache.errors import HeadError, ImageError
from clare_cache.evaluate import FEWEST_TO_CALIBRATE, read_config
from clare_cache.fingerprint import fingerprint
from clare_cache.heads.files import check_features
from clare_cache.images import decode, prepare_picture
from clare_cache.manifest.box_table import read_box_table
from clare_cache.manifest.walk import IMAGE_SUFFIXES, files_below
from clare_cache.store.codecs import lossy_codec
from clare_cache.types import CLEAN, ImageId, OnProgress, Progress, ignore_progress
from clare_cache.workflow.features import rebuild_backbones
from clare_cache.workflow.training import load_run

BATCH = 16
COLUMNS = ["path", "image_id", "score", "calibrated", "verdict", "reason"]


def predict(
    run: str | Path,
    images: Sequence[str | Path],
    *,
    boxes: str | Path | None = None,
    root: str | Path = ".",
    sd: str | None = None,
    clip: str | None = None,
    device: str = "auto",
    on_progress: OnProgress = ignore_progress,
) -> pd.DataFrame:
    """One row per image: path, image_id, score (probability of fake), calibrated (the same with
    the temperature of validation; None where the run has none), verdict, reason.

    A head that pools regions needs `boxes`, a table with the columns path (relative to `root`) and
    boxes (in pixels, as in a manifest); pictures that it does not name have no regions.
    The verdict compares the score with the threshold chosen on validation. An image that cannot
    be used has verdict "unusable", no score, and the reason. Raises HeadError when the weights
    found now are not those that made the features in training, and where boxes are lacking or
    not asked for.
    """
    head, config = load_run(run, clip=clip, device=device)
    cells = _boxes_of(run, images, boxes, root, is_needed=REGIONS in config["needs"])
    trained = {
        name: {**config["features"][name], "source": config["sources"][name]}
        for name in stored(config["needs"])
    }
    backbones = rebuild_backbones(trained, sd=sd, clip=clip, device=device)
    declared = _declarations(backbones, trained)
    if REGIONS in config["needs"]:
        patches = declared[PATCHES]["declared"]
        declared[REGIONS] = describe_regions(patches)
    check_features(config, declared)
    device_now = pick_device(device)
    temperature = config.get("validation", {}).get("temperature")
    rows: list[dict[str, Any]] = []
    for start in range(0, len(images), BATCH):
        batch = [_open(Path(path)) for path in images[start : start + BATCH]]
        good = [item for item in batch if item["pixels"] is not None]
        if good:
            features = {}
            for backbone in backbones:
                wanted = [s.name for s in backbone.arrays if s.name in config["needs"]]
                pictures = np.stack(
                    [
                        prepare_picture(backbone.preprocess, item["pixels"], item["data"])
                        for item in good
                    ]
                )
                outputs = backbone(pictures, [item["image_id"] for item in good], wanted)
                for spec in (s for s in backbone.arrays if s.name in outputs):
                    codec = lossy_codec(config["features"][spec.name]["declared"])
                    value = np.asarray(outputs[spec.name])
                    value = codec.unpack(spec, codec.pack(spec, value))
                    features[spec.name] = torch.from_numpy(value)
            if REGIONS in config["needs"]:
                named = [cells.get(str(Path(item["path"]).resolve())) for item in good]
                sizes = [item["pixels"].shape[1::-1] for item in good]
                features[REGIONS] = placed_regions(named, sizes, view=CLEAN, patches=patches)
            with torch.inference_mode():
                moved = {name: tensor.to(device_now) for name, tensor in features.items()}
                log_odds = head(moved).score.cpu().double().numpy()
            for item, value in zip(good, log_odds.tolist(), strict=True):
                item["score"] = float(expit(value))
                if temperature is not None:
                    item["calibrated"] = float(expit(value / temperature))
        rows += [_verdict(item, config["threshold"]) for item in batch]
        on_progress(Progress(what="predict", done=len(rows), total=len(images), unit="image"))
    return pd.DataFrame(rows, columns=COLUMNS)


def uncalibrated(run: str | Path) -> list[str]:
    """A sentence where predictions of a run have no calibrated probability."""
    if read_config(Path(run)).get("validation", {}).get("temperature") is not None:
        return []
    n = FEWEST_TO_CALIBRATE
    return [
        f"run {Path(run).name}: `calibrated` stays empty, probabilities are the head's own. A "
        f"temperature needs {n} real and {n} fake validation images, some but not most of them "
        "on the wrong side of 0.5."
    ]


def image_files(paths: Sequence[str | Path], notes: list[str] | None = None) -> list[Path]:
    """The given files, and the image files below the given folders, sorted; links are followed. A
    folder that cannot be read is among them: it is told in the table, and so is a file that is
    gone where others are there. `notes` tells of files without an image's suffix.

    Raises ImageError when that is nothing, and when none of the paths is there.
    """
    if not any(os.path.lexists(path) for path in paths):
        names = ", ".join(map(str, paths))
        raise ImageError("read", f"images were expected in {names}, found no such file or folder")
    found: list[Path] = []
    left_out: Counter[str] = Counter()
    for path in map(Path, paths):
        if path.is_dir():
            inside = [Path(p.filename) if isinstance(p, OSError) else p for p in files_below(path)]
            taken = [p for p in inside if p.suffix.lower() in IMAGE_SUFFIXES or p.is_dir()]
            left_out.update(p.suffix.lower() or "nothing" for p in set(inside).difference(taken))
            found += sorted(taken)
        else:
            found.append(path)
    if not found:
        names = ", ".join(map(str, paths))
        raise ImageError("read", f"images were expected in {names}, found none")
    if left_out and notes is not None:
        counted = ", ".join(f"{n} ending in {suffix}" for suffix, n in sorted(left_out.items()))
        notes.append(f"left out, no image suffix: {counted}")
    return found


def unproven_weights(run: str | Path, *, clip: str | None) -> list[str]:
    """A sentence where nothing can show that these are the weights behind a head's features: its
    checkpoint was imported, and names none."""
    config = read_config(Path(run))
    known = sorted({source for source in config.get("sources", {}).values() if source})
    if not config.get("imported") or clip is None or clip in known:
        return []
    return [
        f"{run}: the imported file does not say on which weights its head stands; its authors' are "
        f"{', '.join(known) or 'not known'}, and nothing here shows that {clip} has the same. With "
        "others the scores mean nothing."
    ]


def _boxes_of(
    run: str | Path,
    images: Sequence[str | Path],
    boxes: str | Path | None,
    root: str | Path,
    *,
    is_needed: bool,
) -> dict[str, str]:
    """Real path → boxes, empty for a head without regions. Raises HeadError when boxes are
    lacking, are not asked for, or name none of the images."""
    if boxes is None and not is_needed:
        return {}
    if boxes is None:
        raise HeadError(
            f"run {run}: its head pools regions of the pictures, found no boxes. Name them with "
            "--boxes FILE: a table (.csv, .jsonl, .parquet; a manifest is one) with the columns "
            "path and boxes."
        )
    if not is_needed:
        raise HeadError(f"run {run}: its head pools no regions, found {boxes}. Leave --boxes out.")
    found = read_box_table(boxes, root)
    if not any(str(Path(path).resolve()) in found for path in images):
        raise HeadError(
            f"run {run}: expected boxes of the {len(images)} images in {boxes}, found none; it "
            f"names {next(iter(found))}. Say with --root what its paths are relative to."
        )
    return found


def _declarations(
    backbones: Sequence[Any], trained: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for backbone in backbones:
        for spec in backbone.arrays:
            if spec.name in trained:
                lossy = lossy_codec(trained[spec.name]["declared"]).declared
                declared = {**backbone.declared(spec.name), **lossy}
                found[spec.name] = {"fingerprint": fingerprint(declared), "declared": declared}
    return found


def _open(path: Path) -> dict[str, Any]:
    item: dict[str, Any] = {"path": str(path), "image_id": "", "pixels": None, "score": None}
    try:
        data = item["data"] = path.read_bytes()
        item["image_id"] = ImageId(hashlib.sha256(data).hexdigest())
        item["pixels"] = decode(data)
    except OSError as error:
        item["reason"] = f"read: {error.strerror or error}"
    except ImageError as error:
        item["reason"] = str(error)
    return item


def _verdict(item: Mapping[str, Any], threshold: float) -> dict[str, Any]:
    score = item["score"]
    reason = item.get("reason", "")
    if score is None or not np.isfinite(score):
        verdict, score = "unusable", None
        reason = reason or "score: not finite"
    else:
        verdict = "fake" if score > threshold else "real"
    return {
        "path": item["path"],
        "image_id": item["image_id"],
        "score": score,
        "calibrated": None if score is None else item.get("calibrated"),
        "verdict": verdict,
        "reason": reason,
    }
