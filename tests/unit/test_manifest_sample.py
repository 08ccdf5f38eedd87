"""Balanced subsets: equal counts, spread over generators and groups, the same every time."""

import hashlib

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clare_cache.manifest import Manifest
from clare_cache.manifest.sample import sample


def manifest_of(*kinds: tuple[str, str, int, int]) -> Manifest:
    """(split, generator, groups, images of each group) … → rows with ids of their own."""
    rows = []
    for split, generator, n_groups, n_images in kinds:
        for group in range(n_groups):
            for number in range(n_images):
                name = f"{split}/{generator}/{group}/{number}"
                rows.append(
                    {
                        "image_id": hashlib.sha256(name.encode()).hexdigest(),
                        "path": f"{name}.png",
                        "label": int(generator != "real"),
                        "split": split,
                        "source": "s",
                        "generator": generator,
                        "group": f"{split}/{generator}/{group}",
                    }
                )
    return Manifest.from_rows(pd.DataFrame(rows))


UNEVEN = manifest_of(
    ("train", "real", 5, 8), ("train", "a", 10, 3), ("train", "b", 1, 30), ("test", "real", 2, 5)
)


def test_every_kind_gets_as_many_as_the_rarest():
    drawn = sample(UNEVEN, by=["split", "generator"])
    counts = drawn.manifest.rows.groupby(["split", "generator"]).size()
    assert set(counts) == {10}
    assert drawn.short == {}


def test_within_a_kind_generators_and_groups_take_turns():
    rows = sample(UNEVEN, by=["split", "label"], per=20).manifest.rows
    fakes = rows[rows["label"] == 1]
    assert fakes["generator"].value_counts().to_dict() == {"a": 10, "b": 10}
    assert fakes[fakes["generator"] == "a"]["group"].nunique() == 10
    reals = rows[(rows["label"] == 0) & (rows["split"] == "train")]
    assert set(reals["group"].value_counts()) == {4}


def test_kinds_with_too_few_are_taken_whole_and_named():
    drawn = sample(UNEVEN, per=15)
    assert drawn.short == {"split test, label 0": 10}
    assert len(drawn.manifest) == 15 + 15 + 10


def test_another_seed_draws_others_and_order_does_not_matter():
    one, two = (sample(UNEVEN, per=5, seed=seed).manifest for seed in (0, 1))
    assert one.fingerprint() != two.fingerprint()
    turned = Manifest(UNEVEN.rows.iloc[::-1].reset_index(drop=True))
    assert sample(turned, per=5).manifest.fingerprint() == one.fingerprint()


def test_an_empty_manifest_gives_an_empty_sample():
    assert len(sample(UNEVEN.where(split="none")).manifest) == 0


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["real", "a", "b"]), st.integers(1, 4), st.integers(1, 4)),
        min_size=1,
        max_size=4,
        unique_by=lambda kind: kind[0],
    ),
    st.integers(1, 9),
)
def test_a_sample_is_a_subset_of_the_wanted_size(kinds, per):
    manifest = manifest_of(*(("train", *kind) for kind in kinds))
    rows = sample(manifest, by=["generator"], per=per).manifest.rows
    sizes = {generator: groups * images for generator, groups, images in kinds}
    assert rows["generator"].value_counts().to_dict() == {
        generator: min(size, per) for generator, size in sizes.items()
    }
    assert set(rows["path"]) <= set(manifest.rows["path"])
    spread = rows.groupby("group").size().groupby(lambda group: group.split("/")[1])
    n_groups = {generator: groups for generator, groups, _ in kinds}
    for generator, in_groups in spread:
        if len(in_groups) < n_groups[generator]:
            assert in_groups.max() == 1


@pytest.mark.parametrize("seed", [0, 7])
def test_rows_stay_in_order(seed: int):
    rows = sample(UNEVEN, per=5, seed=seed).manifest.rows
    position = {path: n for n, path in enumerate(UNEVEN.rows["path"])}
    places = [position[path] for path in rows["path"]]
    assert places == sorted(places)
