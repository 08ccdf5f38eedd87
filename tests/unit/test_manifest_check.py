"""Every fault of a manifest is found at once, in a fixed order."""

import hashlib
import os
import re

import pandas as pd
import pytest

from clare_cache.errors import ImageError
from clare_cache.images import ImageInfo
from clare_cache.manifest import Fault, Manifest, check


def probe(data: bytes) -> ImageInfo:
    if not re.match(rb"image", data):
        raise ImageError("decode", "no header")
    return ImageInfo(width=8, height=8, format="PNG")


@pytest.fixture
def make(tmp_path):
    """(path, content, changes) … → a manifest whose files lie under tmp_path."""

    def build(*entries):
        rows = []
        for path, content, changes in entries:
            (tmp_path / path).write_bytes(content)
            image_id = hashlib.sha256(content).hexdigest()
            rows.append({"image_id": image_id, "path": path, "label": 0, **changes})
        return Manifest.from_rows(pd.DataFrame(rows, dtype=object))

    return build


def test_a_sound_manifest_has_no_faults(make, tmp_path):
    manifest = make(
        ("a", b"image a", {"split": "train", "group": "v1"}),
        ("b", b"image b", {"split": "train", "group": "v1"}),
        ("c", b"image c", {"split": "val", "group": "v2"}),
    )
    assert check(manifest, tmp_path, probe=probe) == []


def test_faults_of_files(make, tmp_path):
    names = ("absent", "changed", "fine", "folder", "refused", "zero")
    manifest = make(*((name, b"image " + name.encode(), {}) for name in names[:4]),
        ("refused", b"text", {}), ("zero", b"", {}))  # fmt: skip
    (tmp_path / "absent").unlink()
    (tmp_path / "changed").write_bytes(b"image other")
    (tmp_path / "folder").unlink()
    (tmp_path / "folder").mkdir()
    new = hashlib.sha256(b"image other").hexdigest()[:12]
    old = hashlib.sha256(b"image changed").hexdigest()[:12]
    assert check(manifest, tmp_path, probe=probe) == [
        Fault("absent", "absent", f"there is no such file under {tmp_path}"),
        Fault("changed", "changed", f"the content is {new}…, the manifest says {old}…"),
        Fault("unreadable", "folder", f"cannot be read: {os.strerror(21)}"),
        Fault("refused", "refused", "cannot be used: no header"),
        Fault("empty", "zero", "the file is empty (0 bytes)"),
    ]


def test_a_file_that_became_empty_has_two_faults(make, tmp_path):
    manifest = make(("a", b"image", {}))
    (tmp_path / "a").write_bytes(b"")
    assert [f.kind for f in check(manifest, tmp_path, probe=probe)] == ["changed", "empty"]


def test_faults_between_rows(make, tmp_path):
    manifest = make(
        ("d", b"image same", {"split": "val", "group": "g1"}),
        ("a", b"image same", {"split": "train", "group": "g2"}),
        ("b", b"image twin", {"label": 1}),
        ("c", b"image twin", {"label": 0}),
        ("e", b"image e", {"split": "test", "group": "g3"}),
        ("f", b"image f", {"split": "train", "group": "g3"}),
        ("f", b"image f", {"split": "train", "group": "g3"}),
    )
    assert check(manifest, tmp_path, probe=probe) == [
        Fault("content-in-splits", "a", "the same content is in splits train and val (also d)"),
        Fault("content-with-labels", "b", "the same content has labels 0 and 1 (also c)"),
        Fault("group-in-splits", "e", "its group 'g3' is in splits test and train"),
        Fault("path-twice", "f", "is named by 2 rows"),
    ]


def test_rows_without_split_are_in_no_split(make, tmp_path):
    manifest = make(
        ("a", b"image", {"split": "", "group": "g"}),
        ("b", b"image", {"split": "train", "group": "g"}),
    )
    assert check(manifest, tmp_path, probe=probe) == []


def test_each_file_is_read_once_and_progress_counts_files(make, tmp_path):
    manifest = make(("a", b"image", {}), ("a", b"image", {}), ("b", b"image b", {}))
    seen = []
    check(manifest, tmp_path, probe=probe, on_progress=seen.append)
    assert [(p.what, p.done, p.total, p.unit) for p in seen] == [
        ("check", 1, 2, "image"),
        ("check", 2, 2, "image"),
    ]
