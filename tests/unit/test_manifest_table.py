"""Manifests in memory and on disk: defaults, validation, selection, identity."""

import json

import numpy as np
import pandas as pd
import pytest

from clare_cache.errors import ManifestError
from clare_cache.manifest import COLUMNS, Manifest

SUFFIXES = [".parquet", ".csv", ".jsonl"]


def image_id(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture
def rows():
    return pd.DataFrame(
        {
            "image_id": [image_id(n) for n in (1, 2, 3, 2)],
            "path": ["real/a.png", 'b "x", é.png', "007", "again/b.png"],
            "label": [0, 1, 1, 1],
            "split": ["train", "val", "", "train"],
            "source": ["NA", "nan", "b", "b"],
            "generator": ["real", "sdxl", "adm", "sdxl"],
            "family": ["real", "diffusion", "", "diffusion"],
            "group": ["007", "7", "v1", "7"],
            "frame": [None, 0, 12, None],
            "width": [640, None, 8, None],
            "height": [480, None, 9, None],
            "format": ["JPEG", None, "PNG", None],
            "bytes": [123456789012, 0, 5, 0],
        }
    )


def test_columns_are_complete_in_order_and_typed(rows):
    manifest = Manifest.from_rows(rows[[*reversed(rows.columns)]])
    assert list(manifest.rows.columns) == list(COLUMNS)
    assert manifest.rows["label"].dtype == np.int8
    assert {str(manifest.rows[c].dtype) for c in ("frame", "width", "height", "bytes")} == {"Int64"}
    assert {str(manifest.rows[c].dtype) for c in ("path", "group", "format")} == {"string"}
    assert len(manifest) == 4


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read_back(rows, tmp_path, suffix):
    manifest = Manifest.from_rows(rows)
    path = manifest.write(tmp_path / "new" / f"m{suffix}")
    again = Manifest.read(path)
    pd.testing.assert_frame_equal(again.rows, manifest.rows)
    assert again.fingerprint() == manifest.fingerprint()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_manifest_survives(rows, tmp_path, suffix):
    nothing = Manifest.from_rows(rows).where(split="nowhere")
    assert len(nothing) == 0
    pd.testing.assert_frame_equal(
        Manifest.read(nothing.write(tmp_path / f"m{suffix}")).rows, nothing.rows
    )


def test_three_columns_are_enough(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(f"image_id,path,label\n{image_id(1)},a.png,0\n{image_id(2)},b.png,1\n")
    rows = Manifest.read(path).rows
    assert rows["split"].tolist() == ["", ""]
    assert rows["source"].tolist() == ["", ""]
    assert rows["generator"].tolist() == ["real", "fake"]
    assert rows["family"].tolist() == ["real", ""]
    assert rows["group"].tolist() == [image_id(1), image_id(2)]
    assert rows[["frame", "width", "height", "format", "bytes"]].isna().to_numpy().all()


def test_a_table_from_a_spreadsheet_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "m.csv"
    path.write_bytes(f"\ufeffimage_id,path,label\r\n{image_id(1)},a.png,0\r\n".encode())
    assert Manifest.read(path).rows["path"].tolist() == ["a.png"]


def test_json_lines_keep_whole_numbers_beside_missing_ones(tmp_path):
    path = tmp_path / "m.jsonl"
    lines = [
        {"image_id": image_id(1), "path": "a", "label": 0, "group": 7, "frame": None},
        {"image_id": image_id(2), "path": "b", "label": 1, "frame": 3},
    ]
    path.write_text("\n\n".join(json.dumps(line) for line in lines) + "\n")
    rows = Manifest.read(path).rows
    assert rows["group"].tolist() == ["7", image_id(2)]
    assert rows["frame"].tolist() == [pd.NA, 3]


def test_where_selects_by_value_and_by_list(rows):
    manifest = Manifest.from_rows(rows)
    assert manifest.where(split="train", label=1).rows["path"].tolist() == ["again/b.png"]
    assert len(manifest.where(source=["NA", "b"])) == 3
    assert len(manifest.where(frame=12)) == 1
    chosen = manifest.where(generator="sdxl")
    assert chosen.rows.index.tolist() == [0, 1]
    assert len(manifest.where()) == 4


def test_image_ids_are_unique_in_order_of_appearance(rows):
    assert Manifest.from_rows(rows).image_ids == [image_id(1), image_id(2), image_id(3)]


def test_the_callers_table_is_left_alone(rows):
    before = rows.copy()
    Manifest.from_rows(rows)
    pd.testing.assert_frame_equal(rows, before)


def test_the_fingerprint_ignores_row_order_and_place_on_disk(rows):
    fingerprint = Manifest.from_rows(rows).fingerprint()
    moved = rows.assign(path=[f"elsewhere/{n}" for n in range(4)], width=1)
    assert Manifest.from_rows(moved[::-1]).fingerprint() == fingerprint


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("image_id", image_id(9)),
        ("label", 1),
        ("split", "test"),
        ("group", "other"),
        ("generator", "x"),
        ("source", "x"),
    ],
)
def test_the_fingerprint_sees_every_declared_column(rows, column, value):
    fingerprint = Manifest.from_rows(rows).fingerprint()
    rows.loc[0, column] = value
    assert Manifest.from_rows(rows).fingerprint() != fingerprint


@pytest.mark.parametrize(
    "path",
    ["/abs/a.png", "C:/a.png", "C:\\a.png", "a\\b.png", "../a.png", "a/../b.png", "a\nb", "", None],
)
def test_paths_that_are_not_plainly_relative_are_refused(rows, path):
    rows.loc[1, "path"] = path
    with pytest.raises(ManifestError, match=r"path: expected a relative path .* in row 2"):
        Manifest.from_rows(rows)


@pytest.mark.parametrize("path", ["a..b/c.png", "..a.png", "a b/c.png", "スクリーン\u3000.png"])
def test_unusual_but_relative_paths_are_accepted(rows, path):
    rows.loc[1, "path"] = path
    assert Manifest.from_rows(rows).rows["path"][1] == path


@pytest.mark.parametrize("label", [2, -1, 0.5, "real", None, "", float("inf")])
def test_labels_other_than_zero_and_one_are_refused(rows, label):
    rows["label"] = rows["label"].astype(object)
    rows.loc[2, "label"] = label
    with pytest.raises(ManifestError, match=r"label: expected 0 \(real\) or 1 \(fake\).* in row 3"):
        Manifest.from_rows(rows)


@pytest.mark.parametrize("frame", [1.5, -1, "twelve", float("inf")])
def test_numbers_that_are_not_whole_are_refused(rows, frame):
    rows["frame"] = rows["frame"].astype(object)
    rows.loc[0, "frame"] = frame
    with pytest.raises(ManifestError, match=r"frame: expected a whole number or nothing"):
        Manifest.from_rows(rows)


@pytest.mark.parametrize("labels", [["0", "1"], [0.0, 1.0], [False, True], np.uint8([0, 1])])
def test_labels_of_any_type_become_int8(labels):
    rows = pd.DataFrame(
        {"image_id": [image_id(1), image_id(2)], "path": ["a", "b"], "label": labels}
    )
    assert Manifest.from_rows(rows).rows["label"].tolist() == [0, 1]


def test_an_interrupted_write_leaves_the_older_manifest(rows, tmp_path, monkeypatch):
    path = Manifest.from_rows(rows).write(tmp_path / "m.parquet")
    before = path.read_bytes()

    def run_out_of_space(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", run_out_of_space)
    with pytest.raises(OSError, match="No space left"):
        Manifest.from_rows(rows[:1]).write(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.parquet"]
