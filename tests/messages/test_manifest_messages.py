"""The sentences that builders and readers of manifests meet, word for word."""

import hashlib

import pandas as pd
import pytest
from PIL import Image

from clare_cache.errors import ManifestError
from clare_cache.images import ImageInfo
from clare_cache.manifest import COLUMNS, Fault, Manifest, build_csv, build_folder, split_by_group

ALL_COLUMNS = (
    "image_id, path, label, split, source, generator, family, group, frame, width, height, "
    "format, bytes, boxes"
)
ID = "ab" * 32


def probe(data: bytes) -> ImageInfo:
    return ImageInfo(width=8, height=8, format="PNG")


def message_of(act, *args, **options) -> str:
    with pytest.raises(ManifestError) as caught:
        act(*args, **options)
    return str(caught.value)


def test_the_columns_are_the_documented_ones():
    assert ", ".join(COLUMNS) == ALL_COLUMNS


def test_every_fault_of_a_table_at_once(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(
        f"image_id,path,lable,frame\n{ID},a.png,0,\nABC,/data/b.png,1,1.5\n{ID.upper()},,1,2\n"
    )
    assert message_of(Manifest.read, path) == (
        f"manifest {path}: 7 faults\n"
        "  - lable: there is no such column\n"
        "  - label: the column is missing\n"
        "  - image_id: expected 64 lower-case hexadecimal digits, found 'ABC' in row 2\n"
        f"  - image_id: expected 64 lower-case hexadecimal digits, found '{ID.upper()}' in row 3\n"
        "  - path: expected a relative path written with '/', without '..' or line breaks, "
        "found '/data/b.png' in row 2\n"
        "  - path: expected a relative path written with '/', without '..' or line breaks, "
        "found '' in row 3\n"
        "  - frame: expected a whole number or nothing, found '1.5' in row 2\n"
        f"Columns of a manifest: {ALL_COLUMNS}. Rows count from 1."
    )


def test_many_like_faults_are_counted(tmp_path):
    rows = pd.DataFrame({"image_id": [ID] * 23, "path": ["a"] * 23, "label": [2] * 23})
    lines = message_of(Manifest.from_rows, rows).splitlines()
    assert lines[0] == "manifest: 23 faults"
    assert lines[1] == "  - label: expected 0 (real) or 1 (fake), found 2 in row 1"
    assert lines[20] == "  - label: expected 0 (real) or 1 (fake), found 2 in row 20"
    assert lines[21] == "  … and 3 more like these"
    assert len(lines) == 23


def test_files_that_cannot_be_read(tmp_path):
    absent, text = tmp_path / "absent.csv", tmp_path / "m.txt"
    assert message_of(Manifest.read, absent) == (
        f"{absent}: there is no such file. Build one with `clare-cache manifest build`, or correct "
        "the path."
    )
    assert message_of(build_csv, absent, tmp_path, probe=probe) == (
        f"{absent}: there is no such file. Correct the path."
    )
    assert message_of(Manifest.read, text) == (
        f"{text}: expected a file ending in .parquet, .csv, .jsonl, found 'm.txt'."
    )
    lines = tmp_path / "m.jsonl"
    lines.write_text('{"path": "a"}\n[1, 2]\n')
    assert message_of(Manifest.read, lines) == (
        f"{lines}: cannot be read as .jsonl: line 2: expected an object, found '[1, 2]'"
    )
    lines.write_text('{"path": "a"}\n{"path"}\n')
    assert message_of(Manifest.read, lines) == (
        f"{lines}: cannot be read as .jsonl: line 2: Expecting ':' delimiter: line 1 column 8 "
        "(char 7)"
    )
    parquet = tmp_path / "m.parquet"
    parquet.write_bytes(b"not a table")
    assert message_of(Manifest.read, parquet).startswith(f"{parquet}: cannot be read as .parquet: ")


def test_writing_to_an_unknown_suffix_makes_nothing(tmp_path):
    rows = pd.DataFrame({"image_id": [ID], "path": ["a"], "label": [0]})
    path = tmp_path / "new" / "m.xlsx"
    assert message_of(Manifest.from_rows(rows).write, path) == (
        f"{path}: expected a file ending in .parquet, .csv, .jsonl, found 'm.xlsx'."
    )
    assert not path.parent.exists()


def test_where_with_an_unknown_column():
    rows = pd.DataFrame({"image_id": [ID], "path": ["a"], "label": [0]})
    assert message_of(Manifest.from_rows(rows).where, splt="train") == (
        f"manifest.where: 1 fault\n  - splt: there is no such column\nColumns: {ALL_COLUMNS}."
    )


def test_files_under_no_label_folder(tmp_path):
    for name in [f"misc/{n:02}.png" for n in range(22)] + ["real/a.png"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    lines = message_of(build_folder, tmp_path, probe=probe, group_pattern="(misc)").splitlines()
    assert lines == [
        f"build a manifest of {tmp_path}: 2 faults",
        "  - misc/00.png: is under no folder named real, 0_real, nature, fake, 1_fake, ai, as 21 "
        "more of its folder",
        "  - real/a.png: group pattern '(misc)' captures nothing",
        "Say what folders are with --label FOLDER=real and --label FOLDER=fake, rename or move the "
        "files, or list them with their labels in a table instead.",
    ]


def test_label_folders_may_have_names_of_ones_own(tmp_path, command):
    for name in ("Echte Fotos/a.png", "Test/SDXL/b.png", "Test/SDXL/big/c.png", "fake/d.png"):
        (tmp_path / "i" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "i" / name).write_bytes(name.encode())
    done = command(
        "manifest", "build", "folder", "i", "-o", "m.csv",
        "--label", "echte fotos=real", "--label", "SDXL=fake", folder=tmp_path,
    )  # fmt: skip
    assert done.status == 3, "no picture, but rows"
    rows = Manifest.read(tmp_path / "m.csv").rows
    named = list(zip(rows["path"], rows["label"], rows["generator"], rows["split"], strict=True))
    assert named == [
        ("Echte Fotos/a.png", 0, "real", ""),
        ("Test/SDXL/b.png", 1, "SDXL", "test"),
        ("Test/SDXL/big/c.png", 1, "big", "test"),
        ("fake/d.png", 1, "fake", ""),
    ]
    assert (
        "2 images without a split: train-head and evaluate pass over them; `clare-cache manifest "
        "split --rest` divides them\n"
    ) in done.err


def test_files_under_folders_that_contradict_each_other(tmp_path):
    names = ["nature/train/fake/g/a.png", "train/real/test/b.png", "misc/c.png", "real/d.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert message_of(build_folder, tmp_path, probe=probe) == (
        f"build a manifest of {tmp_path}: 3 faults\n"
        "  - misc/c.png: is under no folder named real, 0_real, nature, fake, 1_fake, ai\n"
        "  - nature/train/fake/g/a.png: is under folders that name both labels: nature, fake\n"
        "  - train/real/test/b.png: is under folders that name several splits: train, test\n"
        "Say what folders are with --label FOLDER=real and --label FOLDER=fake, rename or move the "
        "files, or list them with their labels in a table instead."
    )


def test_folders_without_images(tmp_path):
    absent = tmp_path / "absent"
    assert message_of(build_folder, absent, probe=probe) == (
        f"build a manifest of {absent}: there is no such folder."
    )
    assert message_of(build_folder, tmp_path, probe=probe) == (
        f"build a manifest of {tmp_path}: 1 fault\n"
        "  - no file ends in .avif, .bmp, .gif, .jpeg, .jpg, .png, .tif, .tiff, .webp\n"
        "Say what folders are with --label FOLDER=real and --label FOLDER=fake, rename or move the "
        "files, or list them with their labels in a table instead."
    )


def test_splits_are_not_replaced_unasked(tmp_path, command):
    rows = pd.DataFrame(
        {
            "image_id": [f"{n:064x}" for n in range(40)],
            "path": [f"{n}.png" for n in range(40)],
            "label": [n % 2 for n in range(40)],
            "split": ["test"] * 20 + ["train"] * 10 + [""] * 10,
        }
    )
    Manifest.from_rows(rows).write(tmp_path / "m.csv")
    done = command("manifest", "split", "m.csv", "-o", "n.csv", "--replace", folder=tmp_path)
    assert done.status == 0, done.err
    given = Manifest.read(tmp_path / "m.csv").rows["split"].iloc[:30]
    n_other = int((Manifest.read(tmp_path / "n.csv").rows["split"].iloc[:30] != given).sum())
    done = command("manifest", "split", "m.csv", "-o", "m.csv", folder=tmp_path)
    assert done.status == 1
    assert done.err == (
        "error: manifest split m.csv: expected images without a split, found 30 of 40 with one "
        f"(test 20, train 10), of which {n_other} would get another. --rest divides only "
        "those without one, --replace divides all anew.\n"
    )
    assert Manifest.read(tmp_path / "m.csv").rows["split"].iloc[:30].tolist() == given.tolist()
    rows.assign(split="").drop(columns="split").to_csv(tmp_path / "bare.csv", index=False)
    assert command("manifest", "split", "bare.csv", "-o", "b.csv", folder=tmp_path).status == 0


def test_only_the_rest_is_divided(tmp_path, command):
    rows = pd.DataFrame(
        {
            "image_id": [f"{n:064x}" for n in range(40)],
            "path": [f"{n}.png" for n in range(40)],
            "label": [n % 2 for n in range(40)],
            "group": ["held", *(f"g{n}" for n in range(1, 39)), "held"],
            "split": ["test"] * 20 + [""] * 20,
        }
    )
    Manifest.from_rows(rows).write(tmp_path / "m.csv")
    done = command("manifest", "split", "m.csv", "-o", "n.csv", "--rest", folder=tmp_path)
    assert done.status == 0, done.err
    splits = Manifest.read(tmp_path / "n.csv").rows["split"].tolist()
    assert splits[:20] == ["test"] * 20, "given splits stay"
    assert splits[39] == "test", "a group stays together"
    assert set(splits[20:39]) == {"train", "val", "test"}
    done = command("manifest", "split", "n.csv", "-o", "o.csv", "--rest", folder=tmp_path)
    assert done.err == "error: split the rest: expected images without a split, found none.\n"
    both = ["manifest", "split", "m.csv", "-o", "n.csv", "--rest", "--replace"]
    done = command(*both, folder=tmp_path)
    assert done.status == 2
    assert "--rest leaves splits, --replace divides them anew: take one." in done.err


def test_a_group_pattern_is_shown_as_it_was_typed(tmp_path, command):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.png").write_bytes(b"x")
    pattern = r"([^/]+)-\d+\.png$"
    done = command(
        "manifest", "build", "folder", ".", "-o", "m.csv", "--group", pattern, folder=tmp_path
    )
    assert f"  - real/a.png: group pattern '{pattern}' captures nothing\n" in done.err
    for name in ("b-1.png", "c.png"):
        (tmp_path / "real" / name).write_bytes(b"x")
    done = command(
        "manifest", "build", "folder", ".", "-o", "m.csv", "--group", pattern, folder=tmp_path
    )
    assert done.err == (
        "error: build a manifest of .: 1 fault\n"
        f"  - real/a.png: group pattern '{pattern}' captures nothing, as in 1 of the other 2 "
        "paths\n"
        "Correct --group: it has to find the group in every path.\n"
    )


def test_group_patterns_that_are_none(tmp_path):
    assert message_of(build_folder, tmp_path, probe=probe, group_pattern="(") == (
        "group pattern '(': missing ), unterminated subpattern at position 0."
    )
    assert message_of(build_folder, tmp_path, probe=probe, group_pattern="v1") == (
        "group pattern 'v1': expected one capturing group, found 0. Write '(…)' around the part "
        "of the path that names the video, and '(?:…)' for any other bracket."
    )


def test_names_that_no_table_can_hold(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a\\b.png").write_bytes(b"x")
    (tmp_path / "real" / "\udcff.png").write_bytes(b"x")
    assert message_of(build_folder, tmp_path, probe=probe).splitlines()[1:3] == [
        "  - 'real/a\\\\b.png': the name has a backslash, a line break or no UTF-8",
        "  - 'real/\\udcff.png': the name has a backslash, a line break or no UTF-8",
    ]


def test_a_table_with_wrong_rows(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    table = tmp_path / "t.csv"
    table.write_text("path,label\na.png,yes\nb.png,real\nb.png,yes\na.png,no\n../c.png,yes\n")
    assert message_of(build_csv, table, tmp_path, probe=probe) == (
        f"build a manifest of {table}: 3 faults\n"
        "  - label: expected 0, 1, real or fake, found 'yes' in row 1 and 2 more\n"
        "  - label: expected 0, 1, real or fake, found 'no' in row 4\n"
        "  - path: expected a relative path written with '/', without '..' or line breaks, found "
        "'../c.png' in row 5\n"
        "Rows count from 1. --label WORD=real and --label WORD=fake say what your words mean."
    )


def test_a_table_of_another_folder(tmp_path):
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "a.png").write_bytes(b"x")
    table = tmp_path / "t.csv"
    table.write_text("path,label\na.png,0\nb.png,1\n")
    asked = f"build a manifest of {table}: "
    assert message_of(build_csv, table, tmp_path, probe=probe) == (
        f"{asked}1 fault\n"
        f"  - path: expected any of the 2 files under {tmp_path}, found none; the first is "
        f"'a.png'. It lies in {tmp_path / 'faces'}: give that folder as ROOT"
    )
    (tmp_path / "faces" / "a.png").unlink()
    assert message_of(build_csv, table, tmp_path, probe=probe).endswith("the first is 'a.png'")
    assert message_of(build_csv, table, tmp_path / "faecs", probe=probe) == (
        f"{asked}expected its files under {tmp_path / 'faecs'}, found no such folder."
    )


def test_tables_of_spreadsheets(tmp_path):
    (tmp_path / "ö.png").write_bytes(b"x")
    table = tmp_path / "t.csv"
    for separator in ";\t":
        table.write_text(f"path{separator}label\nö.png{separator}1\n", encoding="utf-8-sig")
        assert build_csv(table, tmp_path, probe=probe).manifest.rows["path"].tolist() == ["ö.png"]
    table.write_text("path,label\n")
    assert message_of(build_csv, table, tmp_path, probe=probe) == (
        f"build a manifest of {table}: expected a row for each image, found no row."
    )
    table.write_bytes("path,label\nö.png,1\n".encode("latin1"))
    assert message_of(build_csv, table, tmp_path, probe=probe) == (
        f"{table}: expected text in UTF-8, found another encoding. Save it as UTF-8, or convert "
        "it: `iconv -f LATIN1 -t UTF-8 t.csv`."
    )


def test_a_table_with_words_gaps_and_somebody_elses_folders(tmp_path, command):
    (tmp_path / "data" / "sub").mkdir(parents=True)
    for name in ("a ü.png", "b.png"):
        Image.new("RGB", (8, 8), len(name)).save(tmp_path / "data" / "sub" / name)
    (tmp_path / "t.csv").write_text(
        "path,label,split,generator\n/home/ann/x/sub/a ü.png,genuine,Validation,\n"
        "/home/ann/x/sub/b.png,GAN,train,g1\n/home/ann/x/sub/gone.png,genuine,,\n",
        encoding="utf-8",
    )
    given = ["manifest", "build", "csv", "data", "--table", "t.csv", "--label", "genuine=real"]
    done = command(*given, "--label", "GAN=fake", "-o", "m.csv", folder=tmp_path)
    assert done.status == 3, done.err
    assert [" ".join(line.split()) for line in done.out.splitlines()] == [
        "m.csv: 2 images",
        "┏━━━━━━━━━━┳━━━━━━━┳━━━━━┳━━━━━┓",
        "┃ images ┃ train ┃ val ┃ all ┃",
        "┡━━━━━━━━━━╇━━━━━━━╇━━━━━╇━━━━━┩",
        "│ real │ – │ 1 │ 1 │",
        "│ fake: g1 │ 1 │ – │ 1 │",
        "│ all │ 1 │ 1 │ 2 │",
        "└──────────┴───────┴─────┴─────┘",
    ]
    assert (
        "left out, from the paths of t.csv, the folder /home/ann/x/: 1\n"
        "1 file that a list or table names is not there: no row:\n"
        "  sub/gone.png: list: there is no such file; t.csv names it\n"
    ) in done.err
    assert Manifest.read(tmp_path / "m.csv").rows["label"].tolist() == [0, 1]
    done = command(*given, "--label", "GAN", "-o", "m.csv", folder=tmp_path)
    assert done.status == 2
    assert "--label: expected WORD=real or WORD=fake, found GAN" in done.err
    done = command(*given, "-o", "m.xlsx", folder=tmp_path)
    assert (done.status, done.err) == (
        1,
        "error: m.xlsx: expected a file ending in .parquet, .csv, .jsonl, found 'm.xlsx'.\n",
    )


def test_a_manifest_of_one_label_says_so(tmp_path, command):
    (tmp_path / "i" / "real").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "i" / "real" / "a.png")
    done = command("manifest", "build", "folder", "i", "-o", "m.csv", folder=tmp_path)
    assert done.status == 0
    assert "no image is fake: a head needs both to train and to be scored\n" in done.err


def test_a_table_with_paths_outside_the_root(tmp_path):
    table = tmp_path / "t.jsonl"
    table.write_text(
        '{"path": "../x.png", "label": 0}\n{"path": "./b.png", "label": 0}\n'
        '{"path": "", "label": 0}\n{"path": null, "label": 0}\n'
    )
    misplaced = "path: expected a relative path written with '/', without '..' or line breaks, "
    assert message_of(build_csv, table, tmp_path, probe=probe) == (
        f"build a manifest of {table}: 3 faults\n"
        f"  - {misplaced}found '../x.png' in row 1\n"
        f"  - {misplaced}found '' in row 3\n"
        f"  - {misplaced}found nothing in row 4\n"
        "Rows count from 1."
    )


def test_a_table_with_wrong_columns(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("file,target,source\na.png,0,x\n")
    columns = {"name": "path", "target": "label", "file": "source"}
    assert message_of(build_csv, table, tmp_path, probe=probe, columns=columns) == (
        f"build a manifest of {table}: 3 faults\n"
        "  - columns: the table has no column 'name'\n"
        "  - source: the column is there twice\n"
        "  - path: the column is missing\n"
        "Columns found: file, target, source."
    )
    assert "columns: 'class' is no manifest column" in message_of(
        build_csv, table, tmp_path, probe=probe, columns={"target": "class"}
    )


def test_an_image_id_that_is_not_the_files(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "b.png").write_bytes(b"y")
    table = tmp_path / "t.csv"
    right = hashlib.sha256(b"x").hexdigest()
    table.write_text(f"path,label,image_id\na.png,0,{right}\nb.png,0,{right}\n")
    assert message_of(build_csv, table, tmp_path, probe=probe) == (
        f"build a manifest of {table}: 1 fault\n"
        f"  - image_id: expected the file's SHA-256, found '{right}' in row 2\n"
        "Rows count from 1. Leave the column out to have it computed."
    )


def test_splits_that_cannot_be_made():
    rows = pd.DataFrame(
        {"image_id": [ID, "cd" * 32], "path": ["a", "b"], "label": [0, 1], "group": ["v", "v"]}
    )
    manifest = Manifest.from_rows(rows)
    assert message_of(split_by_group, manifest) == (
        "split into train, val: expected at least 2 groups that share no picture, found 1. "
        "Ask for fewer splits, or group more finely."
    )
    fractions = {"train": 0.8, "val": 0.0, "": 0.1}
    assert message_of(split_by_group, manifest, fractions, stratify=["maker"]) == (
        "split by group: 4 faults\n"
        "  - val: expected a fraction above 0, found 0.0\n"
        "  - a split without name: expected a fraction above 0, found 0.1\n"
        "  - the fractions: expected a sum of 1, found 0.9\n"
        "  - stratify: there is no column 'maker'"
    )


def test_a_fault_is_a_sentence():
    assert str(Fault("empty", "a/b.png", "the file is empty (0 bytes)")) == (
        "a/b.png: the file is empty (0 bytes)."
    )
