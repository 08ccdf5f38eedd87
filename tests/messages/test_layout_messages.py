"""What a user reads when a data set is not as its layout says, word for word."""

import json

import pytest

from clare_cache.errors import ManifestError
from clare_cache.manifest.catalogue import shipped_data_sets
from clare_cache.workflow.manifests import build_manifest
from tests.miniatures import MINIATURES
from tests.miniatures.pictures import put, put_text
from tests.miniatures.trees import put_tar


def message_of(*args, **options) -> str:
    with pytest.raises(ManifestError) as caught:
        build_manifest(*args, **options)
    return str(caught.value)


LIST = "`clare-cache manifest build --list` shows what each layout expects; "


def test_a_name_of_nothing(tmp_path):
    assert message_of("imagenet", tmp_path) == (
        "manifest build imagenet: expected a layout (folder, csv, forensynths, ufd-diffusion, "
        "genimage, df40, deepfakebench, synthbuster, ldm-trainingset, lare-list, sidbench, "
        "clipping, hf-imagefolder, webdataset), the name of a shipped data set "
        f"({', '.join(shipped_data_sets())}) or a YAML file, found none of them. "
        "`clare-cache manifest build --list` says a line about each."
    )


def test_options_of_another_layout(tmp_path):
    assert message_of("genimage", tmp_path, table="x.csv", frames=3) == (
        "manifest build genimage: 2 faults\n"
        "  - --table: genimage has no use for it\n"
        "  - --frames: genimage has no use for it\n"
        "Options of genimage: --group, --split."
    )


def test_a_tree_of_another_layout(tmp_path):
    put(tmp_path, "real/a.png", "fake/b.png")
    assert message_of("genimage", tmp_path) == (
        f"build a manifest of {tmp_path}: 1 fault\n"
        "  - expected GENERATOR/{train,val}/{ai,nature}/* below it, found 2 images elsewhere, the "
        f"first is fake/b.png\n{LIST}genimage was asked for."
    )
    assert message_of("synthbuster", tmp_path / "real").splitlines()[1] == (
        "  - expected [synthbuster/]GENERATOR/* and RAISEpng/* below it, found 1 images elsewhere, "
        "the first is a.png"
    )


def test_lists_that_are_not_there(tmp_path):
    assert message_of("lare-list", tmp_path) == (
        "manifest build lare-list: expected --table FILE, found none. Name the text files, or a "
        "folder of them."
    )
    assert message_of("deepfakebench", tmp_path) == (
        f"manifest build deepfakebench: expected JSON lists in {tmp_path} or its dataset_json, "
        "found none. Name them with --table."
    )
    assert message_of("df40", tmp_path, table="EFSAll_ff.json") == (
        "JSON lists: 1 fault\n"
        f"  - EFSAll_ff.json: there is no such list, neither here nor below {tmp_path}\n"
        f"Put them into {tmp_path}/dataset_json, or name them with --table."
    )


def test_a_list_of_another_shape(tmp_path):
    put_text(tmp_path, "x.json", '{"x": {"x_Real": {"test": {"v": ["a.png"]}}}}')
    assert message_of("df40", tmp_path, table="x.json") == (
        f"{tmp_path}/x.json: expected DeepfakeBench's list (data set > label > split > video > "
        "frames), found something else at x > x_Real > test > v. Leave the file out with --table."
    )
    put_text(tmp_path, "y.json", "[")
    assert message_of("df40", tmp_path, table="y.json") == (
        f"{tmp_path}/y.json: cannot be read as a JSON list: Expecting value: line 1 column 2 "
        "(char 1)"
    )


def test_lists_of_frames_that_are_elsewhere(tmp_path):
    frames = {"frames": ["other/a.png"], "label": "x_Fake"}
    content = {"x": {"x_Fake": {"test": {"v": frames}}, "odd": {"test": {"v": {"frames": ["b"]}}}}}
    put_text(tmp_path, "x.json", json.dumps(content))
    assert message_of("deepfakebench", tmp_path) == (
        f"build a manifest of {tmp_path}: 2 faults\n"
        "  - x.json: label 'odd' is not known (1 videos)\n"
        "  - none of the 1 frames listed is there, for example other/a.png\n"
        "Give the folder that holds FaceForensics++, Celeb-DF-v2, DF40 …: ROOT."
    )


def test_a_rule_for_frames_that_is_none(tmp_path):
    put_text(tmp_path, "x.json", "{}")
    assert message_of("df40", tmp_path, frames=2, pick="middle") == (
        "--pick middle: expected one of spread: evenly spread over the sorted frames; clare-first: "
        "the first N in the order of the list: what CLaRE's loader does; deepfakebench-first: the "
        "first N of the sorted frames: what DeepfakeBench's loader does."
    )


def test_lines_that_are_no_path_and_label(tmp_path):
    put(tmp_path, "a.png")
    put_text(tmp_path, "train_adm.txt", "a.png 1\nb.png\n../c.png 0\na.png 3\n")
    assert message_of("lare-list", tmp_path, table=tmp_path / "train_adm.txt") == (
        f"build a manifest of {tmp_path}: 3 faults\n"
        "  - train_adm.txt line 2: expected PATH LABEL, found 'b.png'\n"
        f"  - train_adm.txt line 3: expected a path below {tmp_path}, found '../c.png'\n"
        "  - train_adm.txt line 4: expected PATH LABEL, found 'a.png 3'\n"
        "Lines count from 1."
    )


def test_a_file_with_two_labels(tmp_path):
    put(tmp_path, "a.png", "b.png")
    put_text(tmp_path, "train_adm.txt", "a.png 1\na.png 0\nb.png 1\n")
    put_text(tmp_path, "val_adm.txt", "b.png 1\n")
    tables = [tmp_path / "train_adm.txt", tmp_path / "val_adm.txt"]
    assert message_of("lare-list", tmp_path, table=tables).splitlines()[1:3] == [
        "  - a.png: is listed with labels 1 and 0",
        "  - b.png: is listed in splits train and val",
    ]


def test_samples_without_label_and_tars_that_are_none(tmp_path):
    put_tar(tmp_path, "a.tar", {"x.png": b"x"})
    (tmp_path / "b.tar").write_bytes(b"no tar" * 200)
    text = message_of("webdataset", tmp_path)
    assert "  - a.tar#x: says neither real nor fake\n" in text
    assert "  - b.tar: expected a plain tar, not compressed, found something else" in text


def test_metadata_without_file_names(tmp_path):
    put(tmp_path, "a.png")
    put_text(tmp_path, "metadata.csv", "file,label\na.png,real\n")
    assert message_of("hf-imagefolder", tmp_path) == (
        f"build a manifest of {tmp_path}/metadata.csv: the column file_name is missing. Columns "
        "found: file, label."
    )


@pytest.mark.parametrize("name", ["forensynths", "ufd-diffusion", "df40", "sidbench"])
def test_an_empty_root(name, tmp_path):
    tree = build_tree_of(name)
    found = "none of it" if name == "df40" else "no image at all"
    assert message_of(name, tmp_path).splitlines()[1] == (
        f"  - expected {tree} below it, found {found}"
    )


def build_tree_of(name: str) -> str:
    from clare_cache.manifest import LAYOUTS

    assert name in {miniature.layout for miniature in MINIATURES.values()}
    return LAYOUTS[name].tree


def test_json_tables_of_another_shape(tmp_path):
    put_text(tmp_path, "t.json", '{"path": "a.png"}')
    assert message_of("csv", tmp_path, table=tmp_path / "t.json") == (
        f"{tmp_path}/t.json: expected a list of objects with path and label, found something else. "
        "JSON lists of face videos are for the layouts df40 and deepfakebench."
    )
    assert message_of("csv", tmp_path, table=tmp_path / "u.json") == (
        f"{tmp_path}/u.json: there is no such file. Correct the path."
    )
    put_text(tmp_path, "v.json", "[")
    assert message_of("csv", tmp_path, table=tmp_path / "v.json").startswith(
        f"{tmp_path}/v.json: cannot be read as .json: Expecting value"
    )
    assert message_of("csv", tmp_path) == (
        "manifest build csv: expected one --table FILE, found 0. Name the table that lists the "
        "images."
    )
