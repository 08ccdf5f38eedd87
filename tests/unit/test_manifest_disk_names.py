"""Listed names and names on disk: known differences are bridged, nothing is guessed."""

import pytest

from clare_cache.manifest.layouts.disk_names import DiskNames

P = "deepfakes_detection_datasets"
REAL = "FaceForensics++/original_sequences/youtube/c23/frames/071/000.png"
TRAIN = f"{P}/DF40_train/pixart/ff/frames/071/000.png"
CELEB = f"{P}/DF40/simswap/cdf/Celeb-real/frames/Fake_from_id0_0000.png"


@pytest.mark.parametrize(
    ("on_disk", "listed", "split"),
    [
        (REAL, REAL, "train"),
        (REAL, f"{P}/{REAL}", "train"),
        (f"{P}/{REAL}", f"{P}/{REAL}", "train"),
        (f"data/{REAL}", f"{P}/{REAL}", "train"),
        (f"data/{REAL}", f"./{REAL}", "train"),
        (REAL, REAL.replace("/", "\\"), "train"),
        # The root is the data set's own folder.
        (REAL.partition("/")[2], f"{P}/{REAL}", "train"),
        (REAL.replace("FaceForensics++", "FF++"), f"{P}/{REAL}", "train"),
        # Training archives have no level ff.
        ("DF40_train/pixart/frames/071/000.png", TRAIN, "train"),
        ("df40/train/pixart/frames/071/000.png", TRAIN, "train"),
        ("train/pixart/ff/frames/071/000.png", TRAIN, "train"),
        # Celeb-DF fakes are called otherwise in the test archives.
        (
            "DF40/simswap/cdf/Fake_from_Celeb-real/frames/id0_0000.png",
            CELEB,
            "test",
        ),
        (
            "df40/test/simswap/cdf/Fake_from_Youtube-real/frames/YouTube_00170.png",
            f"{P}/DF40/simswap/cdf/YouTube-real/frames/Youtube_00170.png",
            "test",
        ),
    ],
)
def test_a_listed_file_is_found(on_disk: str, listed: str, split: str):
    others = ["elsewhere/071/000.png", "DF40_train/SiT/frames/071/000.png"]
    assert DiskNames([on_disk, *others]).find(listed, split=split) == on_disk


@pytest.mark.parametrize(
    ("on_disk", "listed", "split"),
    [
        # Another method's frame of the same video.
        ("DF40_train/SiT/frames/071/000.png", TRAIN, "train"),
        # The test archive's frame for the training list.
        ("DF40_train/pixart/frames/071/001.png", TRAIN, "train"),
        ("frames/071/000.png", TRAIN, "train"),
        # sd2.1 keeps its names.
        (
            "DF40/sd2.1/cdf/Fake_from_Celeb-real/frames/x.png",
            f"{P}/DF40/sd2.1/cdf/Celeb-real/frames/x.png",
            "test",
        ),
        ("other/a.png", "b/other/a.png", "test"),
    ],
)
def test_a_look_alike_is_not_taken(on_disk: str, listed: str, split: str):
    assert DiskNames([on_disk]).find(listed, split=split) is None
