"""Families pool generators; groups count videos once, by the manifest's column and nothing else."""

import numpy as np
import pandas as pd
import pytest

from clare_cache import metrics
from clare_cache.evaluate.levels import merge_groups, tabulate_families, tabulate_groups


def frames(split="test", *, n_videos=6, n_frames=5, seed=0):
    """Videos of reals and of two generators; a fake shares its group with its real video."""
    generator = np.random.default_rng(seed)
    rows = [
        {
            "image_id": f"{split}/{name}/{video}/{k}",
            "path": f"one-folder/{split}-{name}-{video}-{k}.png",
            "label": int(name != "real"),
            "split": split,
            "source": "set",
            "generator": name,
            "family": family,
            "group": f"{split}-{video}",
            "view": "clean",
            "log_odds": generator.normal() + (name != "real") * 0.7,
            "missing": "",
        }
        for name, family in (("real", "real"), ("swap", "deepfake"), ("ldm", "diffusion"))
        for video in range(n_videos)
        for k in range(n_frames)
    ]
    table = pd.DataFrame(rows)
    return table.assign(score=1 / (1 + np.exp(-table["log_odds"])))


def test_a_family_is_held_against_all_reals():
    table = frames()
    found = tabulate_families(table, threshold=0.5, n_resamples=20).set_index("family")
    assert list(found.index) == ["deepfake", "diffusion"]
    swap = table[table["generator"].isin(["real", "swap"])]
    assert found.loc["deepfake", "auc"] == metrics.roc_auc(swap["label"], swap["log_odds"])
    assert found.loc["deepfake", ["n_real", "n_fake"]].tolist() == [30, 30]
    assert found.loc["deepfake", "auc_low"] < found.loc["deepfake", "auc"]


def test_fakes_of_no_named_family_have_no_row():
    table = frames()
    table.loc[table["generator"] == "ldm", "family"] = ""
    assert tabulate_families(table, threshold=0.5)["family"].tolist() == ["deepfake"]


def test_a_video_counts_once_with_the_mean_of_its_scored_frames():
    table = frames()
    lost = table["path"].str.endswith("-0-0.png") | (
        (table["generator"] == "swap") & (table["group"] == "test-3")
    )
    table.loc[lost, ["score", "log_odds"]] = np.nan
    table.loc[lost, "missing"] = "decode: truncated file"
    units = merge_groups(table)
    # A real video and its fakes share a group, and are three units all the same.
    assert len(units) == 18
    first = units[(units["group"] == "test-0") & (units["generator"] == "real")].iloc[0]
    own = table[(table["group"] == "test-0") & (table["generator"] == "real")]
    assert first["score"] == pytest.approx(own["score"].mean())
    assert (first["n_images"], first["missing"]) == (5, "")
    gone = units[units["score"].isna()]
    assert gone[["group", "generator", "missing"]].values.tolist() == [
        ["test-3", "swap", "decode: truncated file"]
    ]
    row = tabulate_groups(table, threshold=0.5, n_resamples=20).iloc[0]
    assert (row["n_asked"], row["n_scored"], row["n_real"]) == (18, 17, 6)
    kept = units[units["score"].notna()]
    assert row["auc"] == metrics.roc_auc(kept["label"], kept["score"])


def test_the_threshold_of_videos_is_chosen_on_validation_videos():
    both = pd.concat([frames("val", seed=1), frames()], ignore_index=True)
    units = merge_groups(both)
    chosen = units[units["split"] == "val"]
    expected = metrics.choose_threshold(chosen["label"], chosen["score"])
    found = tabulate_groups(both, threshold=0.123, n_resamples=5)
    assert set(found["threshold"]) == {expected} != {0.123}
    assert set(tabulate_groups(frames(), threshold=0.123, n_resamples=5)["threshold"]) == {0.123}


def test_images_that_stand_alone_have_no_second_table():
    table = frames()
    table["group"] = table["image_id"]
    assert tabulate_groups(table, threshold=0.5).empty
