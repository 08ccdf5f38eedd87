"""Each layout reads a miniature of the real tree: every file placed, nothing lost in silence."""

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest

from clare_cache.manifest import LAYOUTS
from clare_cache.workflow.manifests import build_manifest
from tests.miniatures import MINIATURES
from tests.miniatures.pictures import put, put_text


def test_every_layout_has_a_miniature():
    assert {miniature.layout for miniature in MINIATURES.values()} == set(LAYOUTS)


@pytest.mark.parametrize("name", MINIATURES)
def test_a_miniature_becomes_the_expected_rows(name: str, tmp_path: Path):
    miniature, root = MINIATURES[name], tmp_path / "images"
    miniature.write(root)
    built = build_manifest(miniature.layout, root, **miniature.options(root))
    columns = ["path", "label", "split", "source", "generator"]
    found = built.manifest.rows[columns].itertuples(index=False, name=None)
    assert sorted(found) == sorted(miniature.rows)
    assert [f.stage for f in built.failures] == ["list"] * miniature.n_absent


@pytest.fixture
def build_tree(tmp_path):
    """(layout, write, options) → the manifest's rows, indexed by path, and the whole result."""

    def build(name: str, write, **options):
        root = tmp_path / "images"
        write(root)
        built = build_manifest(name, root, **options)
        return built.manifest.rows.set_index("path"), built

    return build


def test_a_swap_and_both_videos_are_one_group(build_tree):
    rows, _ = build_tree("df40", MINIATURES["df40-folders"].write)
    of = rows["group"]
    swap = of["DF40_train/simswap/frames/071_054/000.png"]
    assert swap == "ff/054"
    assert of["DF40_train/pixart/frames/071/000.png"] == swap
    for video in ("071", "054"):
        assert of[f"FaceForensics++/original_sequences/youtube/c23/frames/{video}/001.png"] == swap
    assert of["FaceForensics++/original_sequences/youtube/c23/frames/953/001.png"] == "ff/953"


def test_frames_are_picked_from_lists_and_folders(build_tree):
    rows, _ = build_tree("df40", MINIATURES["df40"].write, frames=2)
    sit = [path for path in rows.index if path.startswith("df40/train/SiT/frames/071/")]
    assert sit == [f"df40/train/SiT/frames/071/00{n}.png" for n in (0, 2)]
    rows, _ = build_tree("df40", MINIATURES["df40"].write, frames=2, pick="clare-first")
    sit = [path for path in rows.index if path.startswith("df40/train/SiT/frames/071/")]
    assert sit == [f"df40/train/SiT/frames/071/00{n}.png" for n in (2, 0)]


def test_keys_choose_entries_and_every_real_is_there_once(build_tree):
    rows, built = build_tree("df40", MINIATURES["df40"].write, keys=["SiT"])
    assert set(rows["generator"]) == {"real", "SiT"}
    assert not rows.index.duplicated().any()
    assert "left out, videos whose key has none of --keys: 13" in built.remarks


def test_frames_listed_for_validation_and_test_are_test(build_tree):
    rows, _ = build_tree("deepfakebench", MINIATURES["deepfakebench"].write)
    celeb = rows[rows["source"] == "Celeb-DF-v2"]
    assert celeb["split"].tolist() == ["test", "test"]


def test_fakes_of_a_photograph_share_its_group(build_tree):
    rows, _ = build_tree("synthbuster", MINIATURES["synthbuster"].write)
    assert rows["group"].nunique() == 2
    assert rows.loc["synthbuster/dalle3/r000da54ft.png", "group"] == "synthbuster/r000da54ft"


def test_lists_end_at_their_first_empty_line(build_tree, tmp_path):
    lare = MINIATURES["lare-list"]
    _, built = build_tree("lare-list", lare.write, **lare.options(tmp_path / "images"))
    assert "left out, after the first empty line of val_wukong_12k.txt: 1" in built.remarks


def test_a_group_pattern_and_a_split_work_in_every_layout(build_tree):
    rows, _ = build_tree(
        "ufd-diffusion",
        MINIATURES["ufd-diffusion"].write,
        group_pattern="([^/]+)/[01]_",
        split="test",
    )
    assert set(rows["split"]) == {"test"}
    assert set(rows["group"]) == {
        "imagenet",
        "laion",
        "guided",
        "ldm_200_cfg",
        "glide_100_27",
        "dalle",
    }


def test_the_root_may_be_the_data_sets_own_folder(tmp_path):
    MINIATURES["genimage"].write(tmp_path / "images")
    rows = build_manifest("genimage", tmp_path / "images/Midjourney").manifest.rows
    assert set(rows["source"]) == {"midjourney"}
    MINIATURES["forensynths"].write(tmp_path / "images")
    rows = build_manifest("forensynths", tmp_path / "images/test").manifest.rows
    assert set(rows["split"]) == {"test"}


def test_members_of_tars_are_read_in_place(tmp_path):
    from clare_cache.files import read_bytes_at
    from clare_cache.images import decode

    root = tmp_path / "images"
    MINIATURES["webdataset"].write(root)
    row = build_manifest("webdataset", root).manifest.rows.iloc[1]
    data = read_bytes_at(root, row["path"])
    assert decode(data).shape == (row["height"], row["width"], 3)
    assert hashlib.sha256(data).hexdigest() == row["image_id"]


def test_boxes_of_a_table_are_taken_over(tmp_path):
    put(tmp_path / "images", "a.png", "b.png")
    table = pd.DataFrame(
        {"path": ["a.png", "b.png"], "label": [0, 1], "boxes": [[[1, 2, 3, 4]], None]}
    )
    for name in ("t.parquet", "t.jsonl"):
        if name.endswith("t"):
            table.to_parquet(tmp_path / name)
        else:
            table.to_json(tmp_path / name, orient="records", lines=True)
        rows = build_manifest("csv", tmp_path / "images", table=tmp_path / name).manifest.rows
        assert json.loads(rows["boxes"][0]) == [[1, 2, 3, 4]]
        assert pd.isna(rows["boxes"][1])


def test_metadata_without_labels_leaves_them_to_the_folders(tmp_path):
    root = tmp_path / "images"
    put(root, "train/real/a.png", "train/fake/b.png")
    put_text(root, "metadata.csv", "image,caption\ntrain/real/a.png,x\ntrain/fake/b.png,y\n")
    rows = build_manifest("hf-imagefolder", root, columns={"image": "path"}).manifest.rows
    assert rows["label"].tolist() == [0, 1]


def test_one_compression_is_taken_from_folders(tmp_path):
    root = tmp_path / "images"
    ff = "FaceForensics++/original_sequences/youtube"
    put(root, f"{ff}/c23/frames/071/000.png", f"{ff}/c40/frames/071/000.png")
    for compression in ("c23", "c40"):
        rows = build_manifest("df40", root, compression=compression).manifest.rows
        assert rows["path"].tolist() == [f"{ff}/{compression}/frames/071/000.png"]


def test_a_list_of_another_machine_loses_its_prefix(tmp_path):
    root = tmp_path / "images"
    put(root, "sdv5/train/ai/a.png", "sdv5/train/nature/b.JPEG")
    lines = ["/data/someone/GenImage/lost.png 1", "/data/someone/GenImage/sdv5/train/ai/a.png 1"]
    lines += ["/data/someone/GenImage/sdv5/train/nature/b.JPEG 0"]
    put_text(tmp_path, "train_sdv5.txt", "\n".join(lines))
    built = build_manifest("lare-list", root, table=tmp_path / "train_sdv5.txt")
    assert built.manifest.rows["path"].tolist() == [
        "sdv5/train/ai/a.png",
        "sdv5/train/nature/b.JPEG",
    ]
    assert [failure.path for failure in built.failures] == ["lost.png"]
    assert (
        "left out, from the paths of train_sdv5.txt, the folder /data/someone/GenImage/: 1"
        in built.remarks
    )


def test_fakes_in_folders_called_as_celeb_dfs_reals_are_fakes(tmp_path):
    root = tmp_path / "images"
    put(root, "DF40/sd2.1/cdf/Celeb-real/frames/id0_0000/0.png")
    [label] = build_manifest("df40", root).manifest.rows["label"]
    assert label == 1


def test_a_json_list_of_records_is_a_table(tmp_path):
    put(tmp_path / "images", "a.png", "b.png")
    put_text(tmp_path, "t.json", '[{"path": "a.png", "label": 0}, {"path": "b.png", "label": 1}]')
    built = build_manifest("csv", tmp_path / "images", table=tmp_path / "t.json")
    assert built.manifest.rows["label"].tolist() == [0, 1]


def test_json_files_that_are_no_lists_are_not_read_as_such(build_tree, tmp_path):
    def write(root):
        MINIATURES["df40-folders"].write(root)
        put_text(root, "notes.json", '{"a": {"b": {"c": 1}}}')
        put_text(root, "dataset_json/other.json", "[1, 2]")

    rows, built = build_tree("df40", write)
    assert len(rows) == len(MINIATURES["df40-folders"].rows)
    assert "left out, no image suffix: 2 ending in .json" in built.remarks
