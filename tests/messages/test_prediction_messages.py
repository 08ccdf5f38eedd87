"""What is said of images that `predict` was asked for and does not look at, word for word."""

import pytest

from clare_cache.errors import ImageError
from clare_cache.workflow.prediction import image_files


def test_paths_of_which_none_is_there(tmp_path):
    absent = [tmp_path / "in bocks", tmp_path / "b.png"]
    with pytest.raises(ImageError) as caught:
        image_files(absent)
    assert str(caught.value) == (
        f"read: images were expected in {absent[0]}, {absent[1]}, found no such file or folder"
    )
    (tmp_path / "b.png").write_bytes(b"x")
    assert image_files(absent) == absent, "one is there: the other is told in the table"


def test_a_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ImageError) as caught:
        image_files([tmp_path])
    assert str(caught.value) == f"read: images were expected in {tmp_path}, found none"


def test_files_without_an_image_suffix_are_counted(tmp_path):
    for name in ("A.PNG", "b.heic", "c.HEIC", "d"):
        (tmp_path / name).write_bytes(b"x")
    notes: list[str] = []
    assert image_files([tmp_path, tmp_path / "d"], notes) == [tmp_path / "A.PNG", tmp_path / "d"]
    assert notes == ["left out, no image suffix: 2 ending in .heic, 1 ending in nothing"]
