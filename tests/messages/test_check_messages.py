"""What `manifest check` says of a leaky manifest and of a disk that is another, word for word."""

import json
from pathlib import Path

import numpy as np
import pytest

from clare_cache.errors import ManifestError
from clare_cache.images import encode_png, probe
from clare_cache.manifest import Manifest, build_folder
from clare_cache.store import create_store
from clare_cache.types import ArraySpec
from clare_cache.workflow.checking import check_manifest
from tests.miniatures.pictures import picture, put
from tests.small_store import BlockData, entry

EMBEDDING = ArraySpec("clip_embedding", (8,), ("feature",), "float32", "an embedding")


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    """train and test share one file's content and one video; `m.csv` names them all."""
    put(tmp_path / "data", *(f"train/real/v{n}/0.png" for n in range(3)))
    put(tmp_path / "data", *(f"train/fake/w{n}/0.png" for n in range(3)))
    put(tmp_path / "data", "test/real/v1/1.png", "test/fake/w9/0.png")
    copy = (tmp_path / "data/train/fake/w0/0.png").read_bytes()
    (tmp_path / "data/test/fake/copy").mkdir()
    (tmp_path / "data/test/fake/copy/0.png").write_bytes(copy)
    built = build_folder(tmp_path / "data", probe=probe, group_pattern="/([vw]\\d|copy)/")
    built.manifest.write(tmp_path / "m.csv")
    return tmp_path


def test_a_leaky_manifest_fails_and_says_how(command, leaky):
    done = command("manifest", "check", "m.csv", "--root", "data", folder=leaky)
    assert done.status == 1
    assert done.out == (
        "test/fake/copy/0.png: the same content is in splits test and train (also "
        "train/fake/w0/0.png).\n"
        "test/real/v1/1.png: its group 'v1' is in splits test and train.\n"
        "splits overlap (content-in-splits 1, group-in-splits 1): what is tested was trained on. "
        "Divide anew with `clare-cache manifest split --replace`, or accept it knowingly with "
        "--accept content-in-splits --accept group-in-splits.\n"
        "m.csv: 9 images, 2 faults\n"
    )


def test_a_leak_can_be_accepted_knowingly(command, leaky):
    accept = ("--accept", "content-in-splits", "--accept", "group-in-splits")
    done = command("manifest", "check", "m.csv", "--root", "data", *accept, folder=leaky)
    assert done.status == 0
    assert "test/real/v1/1.png: its group 'v1' is in splits test and train.\n" in done.out
    assert done.out.endswith("m.csv: 9 images, 0 faults\n")
    done = command("manifest", "check", "m.csv", "--accept", "leaks", folder=leaky)
    assert done.status == 1
    assert done.err.splitlines()[-3:] == [
        "error: manifest check: 1 fault",
        "  - --accept leaks: there is no such kind",
        "Kinds: absent, unreadable, empty, changed, refused, path-twice, content-in-splits, "
        "content-with-labels, group-in-splits, near-duplicate, unnamed.",
    ]


def test_a_disk_with_other_names(command, leaky):
    (leaky / "data/train").rename(leaky / "data/TRAIN")
    (leaky / "data/TRAIN/fake/w2/0.png").write_bytes(b"")
    put(leaky / "data", "extra/a.png", "extra/b.png")
    accept = ("--accept", "content-in-splits", "--accept", "group-in-splits")
    done = command(
        "manifest", "check", "m.csv", "--root", "data", *accept, "--remap", "n.csv", folder=leaky
    )
    assert done.status == 1
    lines = done.out.splitlines()
    assert (
        "train/real/v0/0.png: there is no such file under data; its content is at "
        "TRAIN/real/v0/0.png." in lines
    )
    assert "train/fake/w2/0.png: there is no such file under data." in lines
    assert "extra: 2 images that no row names, for example a.png." in lines
    assert (
        "train/ is TRAIN/ on disk, different only in case: 5 files there, equal in content."
        in lines
    )
    assert "n.csv: the manifest with the paths that the disk has" in done.err
    assert "TRAIN/real/v0/0.png" in Manifest.read(leaky / "n.csv").rows["path"].tolist()


def test_json_has_everything(command, leaky):
    done = command("manifest", "check", "m.csv", "--root", "data", "--json", folder=leaky)
    report = json.loads(done.out)
    assert [fault["kind"] for fault in report["faults"]] == ["content-in-splits", "group-in-splits"]
    assert report["failing"] == 2


def test_many_faults_of_a_kind_are_counted(command, tmp_path):
    put(tmp_path / "data", *(f"real/{n:02}.png" for n in range(25)))
    build_folder(tmp_path / "data", probe=probe).manifest.write(tmp_path / "m.csv")
    done = command("manifest", "check", "m.csv", "--root", ".", folder=tmp_path)
    lines = done.out.splitlines()
    assert lines[20] == "and 5 more of kind absent; --json lists all."
    assert lines[21] == (
        "(the root) is data/ on disk, different in name: 25 files there, equal in content; add "
        "data to --root."
    )


def test_near_duplicates_by_a_store(tmp_path):
    root = tmp_path / "data"
    put(root, "train/real/a.png", "train/fake/b.png", "test/real/c.png", "test/fake/d.png")
    manifest = build_folder(root, probe=probe).manifest
    (root / "train/real/later.png").write_bytes(picture("later.png"))
    manifest_with_later = build_folder(root, probe=probe).manifest
    ids = sorted(manifest.image_ids)
    store = create_store(tmp_path / "store", block_rows=8)
    store.declare([entry(EMBEDDING)])
    store.add_images(ids)
    vectors = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    of = dict(zip(manifest.rows["path"], manifest.rows["image_id"], strict=True))
    rows = dict(zip(ids, store.store.rows_of(ids).tolist(), strict=True))
    vectors[rows[of["test/fake/d.png"]]] = 2 * vectors[rows[of["train/fake/b.png"]]]
    block = BlockData(
        view="clean",
        array="clip_embedding",
        block=0,
        rows=np.arange(4),
        values=vectors,
        failed={},
        seconds=0.1,
    )
    store.write_block(block, versions={"zarr": "3"})
    report = check_manifest(manifest_with_later, root, store=tmp_path / "store")
    assert [str(fault) for fault in report.faults] == [
        "test/fake/d.png: is nearly train/fake/b.png of train (cosine 1.000)."
    ]
    assert report.remarks == (
        f"1 images have no embedding in {tmp_path / 'store'} and were not compared",
    )
    assert report.verdict().startswith("splits overlap (near-duplicate 1): ")
    accepted = check_manifest(manifest, root, store=tmp_path / "store", accept=["near-duplicate"])
    assert accepted.failing == ()


def test_samples_are_drawn_and_shortages_said(command, leaky):
    done = command("manifest", "sample", "m.csv", "-o", "s.csv", "--per", "3", folder=leaky)
    assert done.status == 0
    assert done.out.startswith("s.csv: 9 images\n")
    assert done.err.splitlines()[-2:] == [
        "split test, label 0: only 1 image, 3 asked for",
        "split test, label 1: only 2 images, 3 asked for",
    ]
    done = command("manifest", "sample", "m.csv", "-o", "s.csv", "--by", "maker", folder=leaky)
    assert done.status == 1
    assert "  - by: there is no column 'maker'\n" in done.err
    with pytest.raises(ManifestError):
        check_manifest(Manifest.read(leaky / "m.csv"), leaky, accept=["x"])


def test_a_root_that_is_not_there(command, leaky):
    done = command("manifest", "check", "m.csv", "--root", "nowhere", folder=leaky)
    assert done.status == 1
    assert done.err == "error: manifest check: there is no folder nowhere. Correct --root.\n"


def test_pictures_cut_short_are_found_by_decoding(command, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (tmp_path / "data/real").mkdir(parents=True)
    for name in ("whole.png", "cut.png", "also.png"):
        data = encode_png(noise)
        (tmp_path / "data/real" / name).write_bytes(data if name == "whole.png" else data[:-4000])
        noise = noise + 1
    command("manifest", "build", "folder", "data", "-o", "m.csv", folder=tmp_path)
    done = command("manifest", "check", "m.csv", "--root", "data", folder=tmp_path)
    assert done.status == 0, done.out
    done = command("manifest", "check", "m.csv", "--root", "data", "--decode", folder=tmp_path)
    assert done.status == 1
    refused = [line.split(": ")[0] for line in done.out.splitlines() if line.startswith("real/")]
    assert refused == ["real/also.png", "real/cut.png"]
    assert done.out.endswith("m.csv: 3 images, 2 faults\n")
