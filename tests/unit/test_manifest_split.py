"""New splits: whole groups, fair shares, the same every time."""

import numpy as np
import pandas as pd
import pytest

from clare_cache.manifest import Manifest, split_by_group


def manifest_of(groups, **columns) -> Manifest:
    n_rows = len(groups)
    ids = [f"{n:064x}" for n in range(n_rows)]
    rows = {"image_id": ids, "path": [f"{n}.png" for n in range(n_rows)], "label": [0] * n_rows}
    return Manifest.from_rows(pd.DataFrame({**rows, "group": groups, **columns}))


def shares(manifest: Manifest) -> dict[str, float]:
    return manifest.rows["split"].value_counts(normalize=True).to_dict()


def test_images_without_groups_are_split_exactly():
    manifest = manifest_of([f"g{n}" for n in range(100)])
    assert shares(split_by_group(manifest)) == {"train": 0.8, "val": 0.2}
    thirds = split_by_group(manifest, {"train": 0.5, "val": 0.25, "test": 0.25})
    assert shares(thirds) == {"train": 0.5, "val": 0.25, "test": 0.25}


def test_every_stratum_gets_its_share():
    generators = ["real"] * 60 + ["adm"] * 30 + ["sdxl"] * 10
    manifest = manifest_of(
        [f"g{n}" for n in range(100)],
        label=[0] * 60 + [1] * 40,
        generator=generators,
    )
    val = split_by_group(manifest).where(split="val").rows["generator"].value_counts()
    assert val.to_dict() == {"real": 12, "adm": 6, "sdxl": 2}


def test_strata_smaller_than_a_split_still_add_up():
    manifest = manifest_of(
        [f"g{n}" for n in range(90)], generator=[f"maker {n // 3}" for n in range(90)]
    )
    rows = split_by_group(manifest).rows
    assert (rows["split"] == "val").sum() == 18
    assert rows[rows["split"] == "val"]["generator"].value_counts().max() <= 1


def test_groups_of_unequal_size_come_close():
    sizes = np.random.default_rng(2).integers(1, 40, 200)
    manifest = manifest_of([f"v{n}" for n, size in enumerate(sizes) for _ in range(size)])
    split = split_by_group(manifest)
    assert split.rows.groupby("group")["split"].nunique().max() == 1
    assert shares(split)["val"] == pytest.approx(0.2, abs=0.005)
    mean_size = split.rows.drop_duplicates("group").assign(n=sizes).groupby("split")["n"].mean()
    assert mean_size["train"] == pytest.approx(mean_size["val"], rel=0.15)


def test_groups_that_share_a_picture_stay_together():
    manifest = manifest_of([f"v{n}" for n in range(40)])
    ids = manifest.rows["image_id"].tolist()
    ids[7], ids[23] = ids[3], ids[7]
    linked = Manifest.from_rows(manifest.rows.assign(image_id=[*ids[:31], ids[23], *ids[32:]]))
    for seed in range(8):
        split = split_by_group(linked, seed=seed).rows
        assert split["split"][[3, 7]].nunique() == 1
        assert split["split"][[23, 31]].nunique() == 1


def test_row_order_does_not_matter_and_the_seed_does():
    manifest = manifest_of([f"v{n // 2}" for n in range(80)])
    turned = Manifest.from_rows(manifest.rows[::-1])
    one, two = split_by_group(manifest).rows, split_by_group(turned).rows
    assert one["path"].tolist() == manifest.rows["path"].tolist()
    assert dict(zip(one["path"], one["split"], strict=True)) == dict(
        zip(two["path"], two["split"], strict=True)
    )
    other = split_by_group(manifest, seed=1).rows
    assert other["split"].tolist() != one["split"].tolist()


def test_only_the_split_changes():
    manifest = manifest_of(["a", "b", "c"], split=["train", "test", ""])
    split = split_by_group(manifest)
    pd.testing.assert_frame_equal(
        split.rows.drop(columns="split"), manifest.rows.drop(columns="split")
    )
    assert split.rows.dtypes.to_dict() == manifest.rows.dtypes.to_dict()
    assert manifest.rows["split"].tolist() == ["train", "test", ""]


@pytest.mark.parametrize("sizes", [(1, 1), (50, 50), (97, 1, 1), (1, 500, 1)])
def test_no_split_is_left_empty(sizes):
    groups = [f"v{n}" for n, size in enumerate(sizes) for _ in range(size)]
    fractions = {"train": 0.9, "val": 0.1} if len(sizes) == 2 else {"a": 0.9, "b": 0.05, "c": 0.05}
    assert set(split_by_group(manifest_of(groups), fractions).rows["split"]) == set(fractions)
