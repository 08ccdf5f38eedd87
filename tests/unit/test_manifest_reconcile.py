"""Absent files are found again by content, and what is beside the manifest is said."""

from pathlib import Path

import pytest

from clare_cache.images import probe
from clare_cache.manifest import build_folder, check
from clare_cache.manifest.reconcile import Move, Reconciled, apply_moves, reconcile
from tests.miniatures.pictures import picture, put

NAMES = ("Train/real/v1/000.png", "Train/real/v2/000.png", "Train/fake/v1/000.png")


@pytest.fixture
def manifest(tmp_path: Path):
    put(tmp_path, *NAMES)
    return build_folder(tmp_path, probe=probe).manifest


def move(root: Path, old: str, new: str) -> None:
    (root / new).parent.mkdir(parents=True, exist_ok=True)
    (root / old).rename(root / new)


def reconciled(manifest, root: Path) -> Reconciled:
    faults = check(manifest, root, probe=probe)
    return reconcile(manifest, root, [f.where for f in faults if f.kind == "absent"])


def test_nothing_moved(manifest, tmp_path: Path):
    assert reconciled(manifest, tmp_path) == Reconciled({}, (), {})


def test_a_folder_in_another_case(manifest, tmp_path: Path):
    move(tmp_path, "Train", "train")
    found = reconciled(manifest, tmp_path)
    assert found.moves == (Move("Train/", "train/", 3),)
    assert str(found.moves[0]) == (
        "Train/ is train/ on disk, different only in case: 3 files there, equal in content"
    )
    assert found.moved == {name: name.replace("Train", "train") for name in NAMES}


def test_a_prefix_more_and_a_prefix_less(manifest, tmp_path: Path):
    move(tmp_path, "Train", "data/images/Train")
    found = reconciled(manifest, tmp_path)
    assert found.moves == (Move("", "data/images/", 3),)
    assert str(found.moves[0]).startswith("(the root) is data/images/ on disk, different in name")
    below = reconciled(manifest, tmp_path / "data/images/Train")
    assert below.moves == (Move("Train/", "", 3),)


def test_equal_names_prove_nothing(manifest, tmp_path: Path):
    # v1 and v2 change places with another file of the same name: only content tells.
    move(tmp_path, "Train/real/v1/000.png", "x/b/000.png")
    move(tmp_path, "Train/real/v2/000.png", "x/a/000.png")
    (tmp_path / "Train/fake/v1/000.png").write_bytes(picture("other.png"))
    found = reconciled(manifest, tmp_path)
    assert found.moved == {
        "Train/real/v1/000.png": "x/b/000.png",
        "Train/real/v2/000.png": "x/a/000.png",
    }
    (tmp_path / "x/a/000.png").write_bytes(picture("third.png"))
    assert list(reconciled(manifest, tmp_path).moved) == ["Train/real/v1/000.png"]


def test_what_no_row_names_is_counted_by_folder(manifest, tmp_path: Path):
    put(tmp_path, "more/x.png", "more/y.png", "z.png")
    (tmp_path / "more/notes.txt").write_text("x")
    assert reconciled(manifest, tmp_path).unnamed == {"more": ("x.png", "y.png"), "": ("z.png",)}


def test_the_remapped_manifest_has_no_faults(manifest, tmp_path: Path):
    move(tmp_path, "Train", "train")
    again = apply_moves(manifest, reconciled(manifest, tmp_path).moved)
    assert check(again, tmp_path, probe=probe) == []
    assert again.image_ids == manifest.image_ids


def test_what_is_gone_is_gone(manifest, tmp_path: Path):
    (tmp_path / NAMES[0]).unlink()
    assert reconciled(manifest, tmp_path).moved == {}


def test_a_name_that_all_files_have_is_no_lead_but_the_last_move_is(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("clare_cache.manifest.reconcile.MOST_ALIKE", 3)
    names = [f"real/v{n}/000.png" for n in range(5)]
    put(tmp_path, *names)
    manifest = build_folder(tmp_path, probe=probe).manifest
    move(tmp_path, "real", "moved/real")
    # The folder of each file agrees, so all are found.
    assert len(reconciled(manifest, tmp_path).moved) == 5
    for n in range(5):
        move(tmp_path, f"moved/real/v{n}", f"moved/real/w{n}")
    assert reconciled(manifest, tmp_path).moved == {}
