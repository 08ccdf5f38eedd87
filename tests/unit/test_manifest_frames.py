"""Frames of a video and videos that belong together."""

import pytest

from clare_cache.manifest.layouts.face_videos import (
    CDF,
    FF,
    domain_of,
    is_real_label,
    maker_of,
    ties_of,
)
from clare_cache.manifest.layouts.frames import frame_number, linked, pick_frames

LISTED = [f"v/{n}.png" for n in (254, 50, 101, 9, 305, 10)]


def test_spread_takes_evenly_spaced_frames_of_the_sorted_ones():
    assert pick_frames([f"{n}.png" for n in range(270)], 3, "spread") == [
        "0.png",
        "90.png",
        "180.png",
    ]
    assert pick_frames(LISTED, 3, "spread") == ["v/9.png", "v/50.png", "v/254.png"]


def test_the_loaders_of_the_literature_take_the_first():
    assert pick_frames(LISTED, 3, "clare-first") == LISTED[:3]
    assert pick_frames(LISTED, 3, "deepfakebench-first") == ["v/9.png", "v/10.png", "v/50.png"]


@pytest.mark.parametrize("n", [None, 6, 99])
def test_a_short_video_is_taken_whole(n):
    assert sorted(pick_frames(LISTED, n, "spread")) == sorted(LISTED)


def test_ties_chain_into_groups_named_by_their_first():
    group_of = linked([("b", "a"), ("c", "b"), ("x",), ("y", "x")])
    assert [group_of(name) for name in "abcxyz"] == ["a", "a", "a", "x", "x", "z"]


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("F/frames/071/000.png", FF, ("ff/071",)),
        ("F/frames/071_054/000.png", FF, ("ff/071", "ff/054")),
        ("C/Celeb-real/frames/id0_0003/1.png", CDF, ("cdf/id0_0003",)),
        ("C/Celeb-synthesis/frames/id0_id16_0003/1.png", CDF, ("cdf/id0_0003",)),
        ("C/YouTube-real/frames/00170/1.png", CDF, ("cdf/00170",)),
        ("DF40/heygen/fake/v1/0.png", "heygen", ("heygen/fake/v1",)),
        ("DF40/MidJourney/fake/a.png", "MidJourney", ("MidJourney/DF40/MidJourney/fake/a.png",)),
    ],
)
def test_what_ties_a_frame(path, source, expected):
    assert ties_of(path, source) == expected


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("FF-real", True),
        ("DFD_real", True),
        ("pixart_Real", True),
        ("FF-DF", False),
        ("FF-F2F", False),
        ("DFDCP_FakeB", False),
        ("DF40_train_Fake", False),
        ("sdv4", False),
        ("reality", None),
    ],
)
def test_label_words(label, expected):
    assert is_real_label(label) is expected


@pytest.mark.parametrize(
    ("path", "label", "expected"),
    [
        ("x/DF40_train/SiT/ff/frames/071/0.png", "EFSAll_Fake", "SiT"),
        (
            "FaceForensics++/manipulated_sequences/FaceSwap/c23/frames/1_2/0.png",
            "FF-FS",
            "FaceSwap",
        ),
        ("CDF/Celeb-synthesis/frames/id0_id1_0000/0.png", "CelebDFv2_fake", "CelebDFv2"),
        ("d/0.png", "DFDCP_FakeA", "DFDCP"),
    ],
)
def test_who_made_a_fake(path, label, expected):
    assert maker_of(path, label) == expected


def test_domains_and_frame_numbers():
    assert domain_of("DF40/pixart/cdf/frames/x/1.png", "") == CDF
    assert domain_of("DF40/pixart/frames/x/1.png", "pixart_ff") == FF
    assert domain_of("DF40/heygen/fake/x/1.png", "heygen") == ""
    assert frame_number("a/b12/frame_0031.png") == 31
    assert frame_number("a/b.png") is None
