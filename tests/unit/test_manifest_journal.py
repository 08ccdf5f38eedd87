"""An interrupted build reads what is left, and no file is believed that changed since."""

import os
from pathlib import Path

import pandas as pd
import pytest

from clare_cache import images
from clare_cache.manifest import build
from clare_cache.manifest.journal import Journal
from clare_cache.manifest.layouts import LAYOUTS
from tests.miniatures import MINIATURES
from tests.miniatures.pictures import picture, put

FOLDER = LAYOUTS["folder"]


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Names of the files whose bytes are read."""
    names: list[str] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda p: names.append(p.name) or read_bytes(p))
    return names


def stop_after(n: int):
    def on_progress(progress):
        if progress.done == n:
            raise KeyboardInterrupt

    return on_progress


def make(root: Path) -> None:
    put(root, *(f"real/{n}.png" for n in range(6)))
    (root / "real/bad.png").write_bytes(b"no picture")


def test_a_second_call_reads_what_is_left(tmp_path: Path, reads):
    root = tmp_path / "images"
    make(root)
    whole = build(FOLDER, root, probe=images.probe, workers=1)
    with pytest.raises(KeyboardInterrupt), Journal(tmp_path / "j") as journal:
        build(
            FOLDER,
            root,
            probe=images.probe,
            journal=journal,
            workers=1,
            on_progress=stop_after(4),
        )
    reads.clear()
    seen = []
    with Journal(tmp_path / "j") as journal:
        again = build(
            FOLDER, root, probe=images.probe, journal=journal, workers=1, on_progress=seen.append
        )
    assert len(reads) == 3
    assert seen[-1].note == "4 read before"
    pd.testing.assert_frame_equal(again.manifest.rows, whole.manifest.rows)
    assert again.failures == whole.failures
    reads.clear()
    with Journal(tmp_path / "j") as journal:
        third = build(FOLDER, root, probe=images.probe, journal=journal)
    assert reads == []
    assert third.failures == whole.failures
    journal.discard()
    assert not (tmp_path / "j").exists()


def test_a_changed_file_is_read_again(tmp_path: Path, reads):
    root = tmp_path / "images"
    make(root)
    with Journal(tmp_path / "j") as journal:
        build(FOLDER, root, probe=images.probe, journal=journal)
    (root / "real/0.png").write_bytes(picture("another.png"))
    os.utime(root / "real/1.png", ns=(1, 1))
    reads.clear()
    with Journal(tmp_path / "j") as journal:
        rows = build(FOLDER, root, probe=images.probe, journal=journal).manifest.rows
    assert sorted(reads) == ["0.png", "1.png"]
    fresh = build(FOLDER, root, probe=images.probe).manifest.rows
    pd.testing.assert_frame_equal(rows, fresh)


def test_a_torn_line_is_ignored(tmp_path: Path, reads):
    root = tmp_path / "images"
    make(root)
    with Journal(tmp_path / "j") as journal:
        build(FOLDER, root, probe=images.probe, journal=journal, workers=1)
    data = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(data[:-20])
    reads.clear()
    with Journal(tmp_path / "j") as journal:
        build(FOLDER, root, probe=images.probe, journal=journal)
    assert len(reads) == 1
    reads.clear()
    with Journal(tmp_path / "j") as journal:
        build(FOLDER, root, probe=images.probe, journal=journal)
    assert reads == []


def test_the_command_leaves_no_journal(command, tmp_path: Path):
    MINIATURES["webdataset"].write(tmp_path / "images")
    done = command("manifest", "build", "webdataset", "images", "-o", "m.csv", folder=tmp_path)
    assert done.status == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "m.csv"]
