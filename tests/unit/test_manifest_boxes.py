"""The column `boxes`: lists or JSON text in, JSON text kept, the same in every file format."""

import json

import pandas as pd
import pytest

from clare_cache.errors import ManifestError
from clare_cache.manifest import Manifest
from clare_cache.manifest.boxes import read_boxes

TWO = [[1, 2, 30.5, 40], [0, 0, 5, 6]]


def rows(*cells):
    return pd.DataFrame(
        {
            "image_id": [f"{number:064x}" for number in range(len(cells))],
            "path": [f"{number}.png" for number in range(len(cells))],
            "label": 0,
            "boxes": pd.Series(cells, dtype=object),
        }
    )


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_boxes_survive_each_format(tmp_path, suffix):
    manifest = Manifest.from_rows(rows(TWO, None, json.dumps(TWO), "[]"))
    found = Manifest.read(manifest.write(tmp_path / f"m{suffix}")).rows["boxes"]
    assert read_boxes(found[0]).tolist() == read_boxes(found[2]).tolist() == TWO
    assert pd.isna(found[1])
    assert read_boxes(found[3]).shape == (0, 4)


def test_nested_lists_of_a_parquet_file_are_read(tmp_path):
    rows(TWO, None).to_parquet(tmp_path / "m.parquet")
    found = Manifest.read(tmp_path / "m.parquet").rows["boxes"]
    assert read_boxes(found[0]).tolist() == TWO


@pytest.mark.parametrize(
    "cell", ["[1, 2, 3]", "[[1, 2, 3]]", "[[5, 0, 1, 9]]", "face", "[[0, 0, NaN, 1]]",
             str([[0, 0, 1, 1]] * 17)],
)  # fmt: skip
def test_what_is_no_list_of_boxes_is_a_fault_of_its_row(cell):
    with pytest.raises(ManifestError) as caught:
        Manifest.from_rows(rows("[[0, 0, 1, 1]]", cell))
    assert str(caught.value).splitlines()[1] == (
        "  - boxes: expected at most 16 boxes [x0, y0, x1, y1] in pixels with x0 < x1 and "
        f"y0 < y1, such as [[4, 8, 60.5, 64]], found {cell!r} in row 2"
    )


def test_boxes_count_in_the_fingerprint_and_their_absence_does_not():
    without = rows(None, None)
    assert (
        Manifest.from_rows(without).fingerprint()
        == Manifest.from_rows(without.drop(columns="boxes")).fingerprint()
        != Manifest.from_rows(rows(TWO, None)).fingerprint()
    )
