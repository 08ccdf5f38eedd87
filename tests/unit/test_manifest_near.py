"""Near-duplicates across splits, by embeddings."""

import numpy as np
import pandas as pd

from clare_cache.manifest import Fault, Manifest
from clare_cache.manifest.near import near_duplicates


def rows_of(*splits: str) -> pd.DataFrame:
    return Manifest.from_rows(
        pd.DataFrame(
            [
                {"image_id": f"{n:064x}", "path": f"{n}.png", "label": 0, "split": split}
                for n, split in enumerate(splits)
            ]
        )
    ).rows


def embeddings(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, 64)).astype(np.float32)


def test_a_copy_with_a_little_noise_is_found_whatever_its_length():
    rows = rows_of("train", "train", "test", "test", "val", "")
    vectors = embeddings(6)
    vectors[3] = 5 * vectors[1] + 0.1 * vectors[0]
    vectors[4] = vectors[0]
    vectors[5] = vectors[2]
    result = near_duplicates(rows, vectors)
    assert result.faults == [
        Fault("near-duplicate", "4.png", "is nearly 0.png of train (cosine 1.000)"),
        Fault("near-duplicate", "3.png", "is nearly 1.png of train (cosine 1.000)"),
    ]
    assert near_duplicates(rows, vectors, near=1.1).faults == []


def test_the_same_file_twice_is_another_matter():
    rows = rows_of("train", "test").assign(image_id="ab" * 32)
    assert near_duplicates(rows, np.ones((2, 4))).faults == []


def test_more_images_than_a_block():
    n = 1500
    rows = rows_of(*["train"] * n, *["test"] * n)
    vectors = embeddings(2 * n)
    vectors[2 * n - 1] = vectors[n - 1]
    [fault] = near_duplicates(rows, vectors).faults
    assert (fault.where, fault.detail) == (
        f"{2 * n - 1}.png",
        f"is nearly {n - 1}.png of train (cosine 1.000)",
    )


def test_what_all_pictures_share_does_not_count():
    # As in small networks: one direction that dwarfs what tells pictures apart.
    n = 100
    rows = rows_of(*["train"] * n, *["test"] * n)
    vectors = 100 + embeddings(2 * n)
    vectors[2 * n - 1] = 3 * vectors[0]
    [fault] = near_duplicates(rows, vectors).faults
    assert fault.where == f"{2 * n - 1}.png"


def test_embeddings_that_tell_nothing_apart_are_not_believed():
    rows = rows_of("train", "train", "test", "test")
    result = near_duplicates(rows, np.ones((4, 64), np.float32))
    assert result.faults == []
    assert result.remark == (
        "near-duplicates were not looked for: the embeddings of all images are one, so they do not "
        "tell images apart"
    )
