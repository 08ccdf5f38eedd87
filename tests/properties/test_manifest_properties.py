"""What holds for every manifest: disjoint splits, and files that give back what they were given."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clare_cache.manifest import Manifest, split_by_group

FEW = settings(max_examples=40, derandomize=True, deadline=None, database=None)

words = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\n\0"), max_size=8)
names = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\r\n\0\\/:."), min_size=1
)
whole = st.none() | st.integers(0, 2**53 - 1)
rows = st.fixed_dictionaries(
    {
        "image_id": st.integers(0, 30).map(lambda number: f"{number:064x}"),
        "path": names,
        "label": st.integers(0, 1),
        "split": words,
        "source": words,
        "generator": words,
        "family": words,
        "group": st.sampled_from(["", "v1", "v2", "v 3", "é"]) | words,
        "frame": whole,
        "width": whole,
        "height": whole,
        "format": st.none() | words,
        "bytes": whole,
    }
)
manifests = st.lists(rows, min_size=1, max_size=25).map(
    lambda found: Manifest.from_rows(pd.DataFrame(found, dtype=object))
)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_writing_then_reading_is_the_identity(suffix, tmp_path_factory):
    path = tmp_path_factory.mktemp("manifests") / f"m{suffix}"

    @FEW
    @given(manifests)
    def holds(manifest):
        again = Manifest.read(manifest.write(path))
        pd.testing.assert_frame_equal(again.rows, manifest.rows)
        assert again.fingerprint() == manifest.fingerprint()

    holds()


@FEW
@given(manifests, st.integers(0, 5), st.sampled_from([(0.8, 0.2), (0.5, 0.5), (0.98, 0.02)]))
def test_no_group_and_no_picture_straddles_splits(manifest, seed, shares):
    alone = [
        {"image_id": f"{n:064x}", "path": f"{n}", "label": 0, "group": f"#{n}"} for n in (98, 99)
    ]
    manifest = Manifest.from_rows(pd.concat([manifest.rows, pd.DataFrame(alone)]))
    fractions = dict(zip(("train", "val"), shares, strict=True))
    split = split_by_group(manifest, fractions, seed=seed).rows
    assert split.groupby("group")["split"].nunique().max() == 1
    assert split.groupby("image_id")["split"].nunique().max() == 1
    assert set(split["split"]) == {"train", "val"}


@FEW
@given(st.lists(st.integers(1, 9), min_size=10, max_size=60), st.integers(0, 3))
def test_shares_come_within_a_group_or_two(sizes, seed):
    groups = [f"v{n}" for n, size in enumerate(sizes) for _ in range(size)]
    rows = pd.DataFrame(
        {
            "image_id": [f"{n:064x}" for n in range(len(groups))],
            "path": [f"{n}" for n in range(len(groups))],
            "label": [int(group[1:]) % 2 for group in groups],
            "group": groups,
        }
    )
    split = split_by_group(Manifest.from_rows(rows), {"a": 0.6, "b": 0.3, "c": 0.1}, seed=seed)
    for part in (split, split.where(label=0), split.where(label=1)):
        for name, share in {"a": 0.6, "b": 0.3, "c": 0.1}.items():
            assert abs(len(part.where(split=name)) - share * len(part)) <= 2 * max(sizes)
