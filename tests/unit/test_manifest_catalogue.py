"""Every described data set is whole, and those that a miniature can stand for are built."""

from pathlib import Path

import pytest

from clare_cache.manifest import COLUMNS, LAYOUTS, Manifest
from clare_cache.manifest.assemble import join
from clare_cache.manifest.catalogue import read_data_set, shipped_data_sets
from clare_cache.workflow.manifests import build_manifest
from tests.miniatures import MINIATURES
from tests.miniatures.pictures import put, put_text

README = Path(__file__).parents[2] / "manifests" / "README.md"
NAMES = list(shipped_data_sets())
MINIATURE_OF = {
    "clare/train-41k": "df40",
    "clare/train-82k": "df40",
    "clare/train-164k": "df40",
    "clare/tests-poster": "df40-tests",
    "clare/tests-readme": "df40-tests",
    "deepfakebench/celeb-df-v2": "deepfakebench",
    "deepfakebench/ff-c23": "deepfakebench",
    "df40/all": "df40",
    "forensynths/all": "forensynths",
    "forensynths/train": "forensynths",
    "genimage/all": "genimage",
    "lare2/sdv5": "genimage",
    "ldm/trainingset": "ldm-trainingset",
    "rine/ldm": "ldm-trainingset",
    "rine/one-class": "forensynths",
    "rine/two-class": "forensynths",
    "rine/four-class": "forensynths",
    "rine/tests": "forensynths",
    "sidbench/all": "sidbench",
    "synthbuster/all": "synthbuster",
    "ufd/diffusion": "ufd-diffusion",
    "ufd/tests": "forensynths",
    "ufd/train": "forensynths",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_is_whole(name: str):
    data_set = read_data_set(name)
    for text in (data_set.licence, data_set.access, data_set.tree, data_set.group_rule):
        assert len(text) > 3
    assert data_set.origin
    for part in data_set.parts:
        takes = LAYOUTS[part.layout].takes
        asked = {"tables", "frames", "keys"} & part.model_fields_set
        assert asked <= takes


def test_the_readme_lists_every_data_set_and_every_column():
    text = README.read_text(encoding="utf-8")
    for name in NAMES:
        data_set = read_data_set(name)
        layouts = "`, `".join(dict.fromkeys(part.layout for part in data_set.parts))
        assert f"| `{name}` | `{layouts}` | {data_set.title} |" in text
    for column in COLUMNS:
        assert f"`{column}`" in text


def test_every_layout_of_a_published_data_set_has_a_description():
    described = {part.layout for name in NAMES for part in read_data_set(name).parts}
    own = {"folder", "csv", "hf-imagefolder", "webdataset", "lare-list", "clipping"}
    assert described | own == set(LAYOUTS)


def test_every_data_set_has_a_miniature():
    assert set(MINIATURE_OF) == set(NAMES)


def test_clares_test_sets(tmp_path: Path):
    root = tmp_path / "images"
    MINIATURES["df40-tests"].write(root)
    poster = build_manifest("clare/tests-poster", root).manifest.rows
    assert set(poster["generator"]) - {"real"} == {
        *("CollabDiff", "stargan", "starganv2", "styleclip", "MidJourney"),
        *("sd2.1", "rddm", "whichisreal", "heygen"),
    }
    readme = build_manifest("clare/tests-readme", root)
    assert readme.failures == ()
    assert readme.manifest.rows["generator"].nunique() == 17 + 1


@pytest.mark.parametrize("name", MINIATURE_OF)
def test_a_data_set_is_built_from_a_miniature(name: str, tmp_path: Path):
    root = tmp_path / "images"
    MINIATURES[MINIATURE_OF[name]].write(root)
    built = build_manifest(name, root)
    data_set = read_data_set(name)
    assert len(built.manifest) > 0
    assert len(built.counts) == len(data_set.expected)
    # A miniature has some of what is expected, and never as much.
    assert not any(count.agrees for count in built.counts)


def test_only_what_is_meant_is_read(tmp_path: Path):
    root = tmp_path / "images"
    MINIATURES["forensynths"].write(root)
    rows = build_manifest("rine/one-class", root).manifest.rows
    assert set(rows["path"]) == {f"train/progan/horse/{x}/00001.png" for x in ("0_real", "1_fake")}
    rows = build_manifest("rine/one-class", root / "train").manifest.rows
    assert set(rows["path"]) == {f"progan/horse/{x}/00001.png" for x in ("0_real", "1_fake")}
    tests = build_manifest("rine/tests", root).manifest.rows
    assert set(tests["split"]) == {"test"}
    assert set(tests["source"]) == {
        "progan",
        "stylegan2",
        "biggan",
        "seeingdark",
        "laion",
    }


def test_clares_counts_are_of_the_list(tmp_path: Path):
    root = tmp_path / "images"
    MINIATURES["df40"].write(root)
    built = build_manifest("clare/train-164k", root)
    rows = built.manifest.rows
    found = {count.what: count.found for count in built.counts}
    # Two videos of four frames, each real listed by two methods.
    assert found == {"train, real (as listed)": 16, "train, fake (as listed)": 16}
    train = rows[rows["split"] == "train"]
    assert train["label"].value_counts().to_dict() == {0: 8, 1: 16}
    # The list's test part, which the authors validate on.
    assert set(rows["split"]) == {"train", "val"}


def test_parts_may_lie_in_folders_of_their_own(tmp_path: Path):
    put(tmp_path, "a/real/x.png", "a/fake/x.png", "b/fake/y.png")
    keep = "{label: fake}"
    text = README_OF_NOTHING.replace(
        "PARTS",
        f"[{{layout: folder, under: a, split: train}}, {{layout: folder, under: b, keep: {keep}}}]",
    )
    put_text(tmp_path, "mine.yaml", text)
    built = build_manifest(str(tmp_path / "mine.yaml"), tmp_path)
    assert built.manifest.rows["path"].tolist() == ["a/fake/x.png", "a/real/x.png", "b/fake/y.png"]
    assert built.manifest.rows["split"].tolist() == ["train", "train", ""]
    assert [(c.what, c.expected, c.found, c.agrees) for c in built.counts] == [
        ("real", 1, 1, True),
        ("train, a", 3, 2, False),
        ("all (as listed)", 303, 3, False),
    ]


README_OF_NOTHING = """
title: mine
paper: none
origin: [here]
licence: none
access: me
tree: a and b
label_rule: folder
group_rule: image
split_rule: none
parts: PARTS
expected:
  - {label: real, images: 1}
  - {split: train, source: a, images: 3}
  - {images: 303, about: true, counted: listed}
"""


def test_manifests_of_one_root_are_joined(tmp_path: Path):
    put(tmp_path, "real/x.png", "fake/y.png")
    both = build_manifest("folder", tmp_path).manifest
    again = join([both.where(label=0), both.where(label=1)])
    assert isinstance(again, Manifest)
    assert again.fingerprint() == both.fingerprint()


def test_a_tree_is_walked_once_for_all_parts_of_it(tmp_path: Path, monkeypatch):
    from clare_cache.manifest.layouts import listing

    root = tmp_path / "images"
    MINIATURES["genimage"].write(root)
    walked = []
    walk = listing.walk
    monkeypatch.setattr(listing, "walk", lambda folder: walked.append(folder) or walk(folder))
    built = build_manifest("lare2/sdv5", root)
    assert walked == [root]
    # The training images of two other generators.
    assert "left out, not of this data set: 4" in built.remarks
