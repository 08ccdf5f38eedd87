"""Folders and tables become manifests, and nothing is lost on the way."""

import hashlib
import os
import re
from pathlib import Path, PurePosixPath

import pandas as pd
import pytest

from clare_cache import images
from clare_cache.errors import ImageError, ManifestError
from clare_cache.manifest import build_csv, build_folder, check
from clare_cache.manifest.layouts.places import contradictions_of, place_of
from clare_cache.types import Progress


def probe(data: bytes) -> images.ImageInfo:
    """Test files hold `WIDTH HEIGHT …`; anything else has no header."""
    match = re.match(rb"(\d+) (\d+) ", data)
    if match is None:
        raise ImageError("decode", "no header")
    return images.ImageInfo(width=int(match[1]), height=int(match[2]), format="PNG")


def put(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(f"640 480 {path}".encode())


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("train/progan/airplane/0_real/a.png", (0, "train", "progan/airplane", "real")),
        ("val/progan/airplane/1_fake/a.png", (1, "val", "progan/airplane", "progan")),
        ("test/deepfake/1_fake/a.png", (1, "test", "deepfake", "deepfake")),
        ("ldm_200/1_fake/a.png", (1, "", "ldm_200", "ldm_200")),
        ("Midjourney/train/ai/a.png", (1, "train", "Midjourney", "Midjourney")),
        ("Midjourney/train/nature/a.png", (0, "train", "Midjourney", "real")),
        ("REAL/x/a.png", (0, "", "root", "real")),
        ("Fake/a.png", (1, "", "root", "fake")),
        ("fake/sdxl/v1/a.png", (1, "", "root", "sdxl")),
        ("faces/fake/Validation/sdxl/a.png", (1, "val", "faces", "sdxl")),
        ("valid/real/a.png", (0, "val", "root", "real")),
        ("reality/a.png", None),
        ("real.png", None),
        ("train/real", None),
    ],
)  # fmt: skip
def test_folders_say_label_split_source_and_generator(path, expected):
    place = place_of(PurePosixPath(path), root_name="root")
    assert (place and (place.label, place.split, place.source, place.generator)) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("nature/train/Fake/g/a.png", ["is under folders that name both labels: nature, Fake"]),
        ("ai/real/fake/a.png", ["is under folders that name both labels: ai, real, fake"]),
        ("train/real/TEST/a.png", ["is under folders that name several splits: train, TEST"]),
        (
            "val/real/test/ai/a.png",
            [
                "is under folders that name both labels: real, ai",
                "is under folders that name several splits: val, test",
            ],
        ),
        ("val/fake/validation/ai/a.png", []),
        ("train/real/fake.png", []),
        ("misc/a.png", []),
    ],
)
def test_folders_that_contradict_each_other(path, expected):
    assert contradictions_of(PurePosixPath(path)) == expected


def test_a_folder_becomes_a_manifest(tmp_path):
    root = tmp_path / "faces"
    put(root, "train/real/b.PNG", "train/fake/sdxl/a.jpg", "val/fake/adm/a.jpeg")
    result = build_folder(root, probe=probe)
    rows = result.manifest.rows
    assert rows["path"].tolist() == [
        "train/fake/sdxl/a.jpg",
        "train/real/b.PNG",
        "val/fake/adm/a.jpeg",
    ]
    assert rows["image_id"].tolist() == [sha256(root / path) for path in rows["path"]]
    assert rows["group"].tolist() == rows["image_id"].tolist()
    assert rows["label"].tolist() == [1, 0, 1]
    assert rows["split"].tolist() == ["train", "train", "val"]
    assert set(rows["source"]) == {"faces"}
    assert rows["generator"].tolist() == ["sdxl", "real", "adm"]
    assert rows["family"].tolist() == ["diffusion", "real", "diffusion"]
    assert rows["width"].tolist() == [640] * 3
    assert rows["height"].tolist() == [480] * 3
    assert rows["format"].tolist() == ["PNG"] * 3
    assert rows["bytes"].tolist() == [(root / path).stat().st_size for path in rows["path"]]
    assert result.failures == []
    assert result.other_files == {}


def test_the_root_may_be_given_as_a_dot(tmp_path, monkeypatch):
    put(tmp_path / "faces", "real/a.png")
    monkeypatch.chdir(tmp_path / "faces")
    assert build_folder(".", probe=probe).manifest.rows["source"].tolist() == ["faces"]


def test_other_files_are_counted_and_hidden_ones_left_out(tmp_path):
    put(tmp_path, "real/a.png", "real/notes.TXT", "b.txt", "real/README", "real/a.heic")
    put(tmp_path, "real/.DS_Store", "real/._a.png", ".cache/real/b.png")
    result = build_folder(tmp_path, probe=probe)
    assert result.manifest.rows["path"].tolist() == ["real/a.png"]
    assert result.other_files == {"(no suffix)": 1, ".heic": 1, ".txt": 2}


def test_a_refused_file_keeps_its_row_and_is_a_failure(tmp_path):
    put(tmp_path, "fake/a.png", "fake/c.png")
    (tmp_path / "fake/b.png").write_bytes(b"")
    result = build_folder(tmp_path, probe=probe)
    rows = result.manifest.rows
    assert rows["path"].tolist() == ["fake/a.png", "fake/b.png", "fake/c.png"]
    assert rows["image_id"][1] == hashlib.sha256(b"").hexdigest()
    assert rows.loc[1, ["width", "height", "format"]].isna().all()
    assert rows["bytes"][1] == 0
    [failure] = result.failures
    assert (failure.path, failure.stage, failure.reason) == ("fake/b.png", "decode", "no header")
    assert failure.image_id == rows["image_id"][1]


def test_an_unreadable_file_is_a_failure_without_a_row(tmp_path):
    put(tmp_path, "real/a.png")
    (tmp_path / "real/broken.png").symlink_to("nowhere.png")
    (tmp_path / "real/loop.png").symlink_to("loop.png")
    result = build_folder(tmp_path, probe=probe)
    assert result.manifest.rows["path"].tolist() == ["real/a.png"]
    assert [(f.path, f.stage, f.image_id, f.reason) for f in result.failures] == [
        ("real/broken.png", "read", "", os.strerror(2)),
        ("real/loop.png", "read", "", os.strerror(40)),
    ]


def test_an_unreadable_folder_is_a_failure(tmp_path, monkeypatch):
    put(tmp_path, "real/a.png", "fake/b.png")
    scandir = os.scandir

    def deny(folder):
        if Path(folder).name == "fake":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", deny)
    [failure] = build_folder(tmp_path, probe=probe).failures
    assert (failure.path, failure.reason) == ("fake", "Permission denied")


def test_links_are_followed_but_not_in_a_circle(tmp_path):
    put(tmp_path / "data", "real/a.png")
    put(tmp_path / "elsewhere", "b.png")
    (tmp_path / "data/fake").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/real/up").symlink_to(tmp_path / "data")
    paths = build_folder(tmp_path / "data", probe=probe).manifest.rows["path"]
    assert paths.tolist() == ["fake/b.png", "real/a.png"]


def test_a_pipe_is_not_waited_for(tmp_path):
    put(tmp_path, "real/a.png")
    os.mkfifo(tmp_path / "real/b.png")
    assert len(build_folder(tmp_path, probe=probe).manifest) == 1


def test_a_pattern_names_the_group(tmp_path):
    put(tmp_path, "real/071/000.png", "real/071/001.png", "fake/071_054/000.png")
    result = build_folder(tmp_path, probe=probe, group_pattern=r"/(\d+)(?:_\d+)?/")
    assert result.manifest.rows["group"].tolist() == ["071", "071", "071"]


def test_progress_is_reported_in_order(tmp_path):
    put(tmp_path, *(f"real/{n}.png" for n in range(5)))
    seen = []
    build_folder(tmp_path, probe=probe, workers=3, on_progress=seen.append)
    assert seen == [Progress(what="hash", done=n, total=5, unit="image") for n in range(1, 6)]


def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path):
    put(tmp_path, *(f"{kind}/{n}.png" for kind in ("real", "fake") for n in range(9)))
    one, many = (build_folder(tmp_path, probe=probe, workers=w).manifest for w in (1, 8))
    pd.testing.assert_frame_equal(one.rows, many.rows)


def test_every_file_is_read_once(tmp_path, monkeypatch):
    put(tmp_path, "real/a.png", "fake/b.png")
    read, read_bytes = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda p: read.append(p.name) or read_bytes(p))
    build_folder(tmp_path, probe=probe, workers=1)
    assert read == ["b.png", "a.png"]


def test_real_files_go_through_the_real_probe(tmp_path, odd_images):
    expected = odd_images(tmp_path / "real")
    result = build_folder(tmp_path, probe=images.probe)
    assert len(result.manifest) == len(expected)
    failed = {Path(failure.path).name for failure in result.failures}
    usable = {name for name, odd in expected.items() if odd.pixels is not None}
    assert not failed & usable
    assert {"zero-bytes.png", "one-pixel.png", "animated.gif", "text.jpg"} <= failed


def test_a_table_becomes_a_manifest(tmp_path):
    put(tmp_path, "x/a.png", "x/b.png", "x/c.png")
    table = tmp_path / "labels.csv"
    table.write_text(
        "file_name,label,generator,group,frame,width,comment\n"
        "x/a.png,Real,,v1,3,1,nice\n"
        f"{tmp_path}/x/b.png,FAKE,sdxl,v2,,1,\n"
        "x/c.png,1,,,,,\n"
    )
    result = build_csv(table, tmp_path, probe=probe, columns={"file_name": "path"})
    rows = result.manifest.rows
    assert rows["path"].tolist() == ["x/a.png", "x/b.png", "x/c.png"]
    assert rows["label"].tolist() == [0, 1, 1]
    assert rows["generator"].tolist() == ["real", "sdxl", "fake"]
    assert rows["group"].tolist() == ["v1", "v2", sha256(tmp_path / "x/c.png")]
    assert rows["frame"].tolist() == [3, pd.NA, pd.NA]
    assert rows["width"].tolist() == [640, 640, 640]
    assert rows["image_id"].tolist() == [sha256(tmp_path / path) for path in rows["path"]]
    assert result.ignored_columns == ("comment",)


def test_paths_of_a_table_have_one_spelling_so_that_repeats_are_found(tmp_path):
    put(tmp_path, "x/a.png", "b.png")
    table = tmp_path / "t.csv"
    spellings = ("./x/a.png", "x//a.png", "x/./a.png", f"{tmp_path}//x/a.png", "b.png")
    table.write_text("path,label\n" + "".join(f"{path},0\n" for path in spellings))
    manifest = build_csv(table, tmp_path, probe=probe).manifest
    assert manifest.rows["path"].tolist() == ["x/a.png"] * 4 + ["b.png"]
    assert [str(fault) for fault in check(manifest, tmp_path, probe=probe)] == [
        "x/a.png: is named by 4 rows."
    ]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_tables_of_other_formats_with_a_right_image_id(tmp_path, suffix):
    put(tmp_path, "a.png", "b.png")
    rows = pd.DataFrame(
        {
            "path": ["a.png", "b.png"],
            "label": [0, 1],
            "image_id": [sha256(tmp_path / "a.png"), None],
        }
    )
    table = tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        rows.to_parquet(table)
    else:
        rows.to_json(table, orient="records", lines=True)
    assert len(build_csv(table, tmp_path, probe=probe).manifest) == 2


def test_a_table_keeps_refused_files_and_names_unreadable_ones(tmp_path, monkeypatch):
    put(tmp_path, "a.png", "b.png")
    (tmp_path / "c.png").write_bytes(b"broken")
    read_bytes = Path.read_bytes

    def deny(path):
        if path.name == "b.png":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", deny)
    table = tmp_path / "t.csv"
    table.write_text("path,label\na.png,0\nb.png,0\nc.png,1\n")
    result = build_csv(table, tmp_path, probe=probe)
    assert result.manifest.rows["path"].tolist() == ["a.png", "c.png"]
    assert [(f.path, f.stage) for f in result.failures] == [("b.png", "read"), ("c.png", "decode")]


def test_nothing_is_hashed_when_the_table_is_wrong(tmp_path, monkeypatch):
    put(tmp_path, "a.png")
    table = tmp_path / "t.csv"
    table.write_text("path,label\na.png,0\na.png,often\n")
    seen = []
    with pytest.raises(ManifestError):
        build_csv(table, tmp_path, probe=probe, on_progress=seen.append)
    assert seen == []
