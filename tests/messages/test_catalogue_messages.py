"""What the author of a data set's file, and its user, read, word for word."""

import pytest

from clare_cache.errors import ManifestError
from clare_cache.manifest.catalogue import read_data_set
from clare_cache.workflow.manifests import build_manifest
from tests.miniatures import MINIATURES
from tests.miniatures.pictures import put_text


def message_of(act, *args, **options) -> str:
    with pytest.raises(ManifestError) as caught:
        act(*args, **options)
    return str(caught.value)


def test_every_fault_of_a_file_at_once(tmp_path):
    put_text(
        tmp_path,
        "d.yaml",
        "title: x\npaper: x\norigin: [x]\nlicence: x\naccess: x\ntree: x\nlabel_rule: x\n"
        "group_rule: x\nspilt_rule: x\n"
        "parts:\n"
        "  - {layout: imagenet, under: /data, pick: middle, frames: 0}\n"
        "  - {layout: folder, keep: {maker: [x]}}\n"
        "expected: [{counted: listed, source: x, images: 1}]\n",
    )
    assert message_of(read_data_set, tmp_path / "d.yaml") == (
        f"data set {tmp_path}/d.yaml: 8 faults\n"
        "  - split_rule: required, found nothing\n"
        "  - parts.0.layout: expected one of folder, csv, forensynths, ufd-diffusion, genimage, "
        "df40, deepfakebench, synthbuster, ldm-trainingset, lare-list, sidbench, clipping, "
        "hf-imagefolder, webdataset, found 'imagenet'\n"
        "  - parts.0.under: expected a folder below the root, found '/data'\n"
        "  - parts.0.frames: Input should be greater than or equal to 1, found 0\n"
        "  - parts.0.pick: expected one of spread, clare-first, deepfakebench-first, found "
        "'middle'\n"
        "  - parts.1.keep: expected columns split, source, generator, family, label, found maker\n"
        "  - expected.0: listed images are counted by split and label only\n"
        "  - spilt_rule: unknown key; remove it or correct its spelling"
    )


def test_a_file_that_is_no_yaml(tmp_path):
    put_text(tmp_path, "d.yaml", "title: x\ntitle: y\n")
    assert message_of(read_data_set, tmp_path / "d.yaml") == (
        f"data set {tmp_path}/d.yaml: expected YAML, found key title twice\n"
        '  in "<unicode string>", line 2, column 1:\n'
        "    title: y\n"
        "    ^. Correct it."
    )


def test_a_root_without_its_images(tmp_path):
    MINIATURES["genimage"].write(tmp_path)
    (tmp_path / "ADM/train").mkdir(parents=True)
    assert message_of(build_manifest, "rine/tests", tmp_path / "ADM").splitlines()[0] == (
        f"build a manifest of {tmp_path}/ADM: 1 fault"
    )
    MINIATURES["forensynths"].write(tmp_path / "f")
    assert message_of(build_manifest, "rine/one-class", tmp_path / "f/test") == (
        f"build RINE's training images of one class of ProGAN (horse) from {tmp_path}/f/test: none "
        "of its images is there. Expected {train,val}/[progan/]CLASS/{0_real,1_fake}/*"
    )


def test_a_described_data_set_takes_no_options(tmp_path):
    assert message_of(build_manifest, "rine/tests", tmp_path, split="x", frames=3) == (
        "manifest build rine/tests: 2 faults\n"
        "  - --split: rine/tests has no use for it\n"
        "  - --frames: rine/tests has no use for it\n"
        "The data set's own file says all of it; copy the file to change it."
    )


def test_lists_that_are_not_at_hand_are_all_named(tmp_path):
    MINIATURES["df40"].write(tmp_path)
    lines = message_of(build_manifest, "clare/tests-readme", tmp_path).splitlines()
    assert lines[0] == "JSON lists: 15 faults"
    assert lines[1] == (
        f"  - dataset_json/DiT_cdf.json: there is no such list, neither here nor below {tmp_path}"
    )


def test_counts_are_printed_beside_the_expected_ones(command, tmp_path):
    MINIATURES["synthbuster"].write(tmp_path / "data")
    done = command("manifest", "build", "synthbuster/all", "data", "-o", "m.csv", folder=tmp_path)
    assert done.status == 0
    line = next(line for line in done.out.splitlines() if "│ glide" in line)
    assert [cell.strip() for cell in line.strip("│").split("│")] == [
        "glide",
        "1,000",
        "1",
        "999 missing",
        "sets of 2000",
    ]
    done = command(
        "manifest", "build", "synthbuster/all", "data", "-o", "m.csv", "--strict", folder=tmp_path
    )
    assert done.status == 1


def test_a_data_set_is_shown_with_its_licence(command, tmp_path):
    done = command("manifest", "show", "df40/all", folder=tmp_path)
    assert done.status == 0
    assert "licence: CC BY-NC 4.0" in done.out
    done = command("manifest", "build", "--list", folder=tmp_path)
    assert done.status == 0
    assert "df40\tDF40 by its JSON lists" in done.out
    assert "rine/tests\tRINE's 20 test sets" in done.out
