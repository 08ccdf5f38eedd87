"""Nearest neighbours: exact whatever the blocks, within the stated memory, kept whole on disk."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch.utils._python_dispatch import TorchDispatchMode

from clare_cache.data import load
from clare_cache.errors import HeadError
from clare_cache.heads import build_head, load_head, save_head
from clare_cache.heads.knn import nearest
from clare_cache.train.config import OptimiserConfig
from clare_cache.train.loop import Member, train_members
from tests.feature_data import EMBEDDING, make_manifest, make_store

WIDTH = 24
SHAPES = {"clip_embedding": (WIDTH,)}


def rows(n_rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n_rows, WIDTH, generator=torch.Generator().manual_seed(seed)) * 3


def features(embedding: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"clip_embedding": embedding}


def fitted(*, n_rows: int = 300, batch: int = 300, **options):
    """A head over `n_rows` images, every third of them fake, and the two raw banks."""
    head = build_head("knn", shapes=SHAPES, **{"bank_dtype": "float32"} | options)
    embedding, labels = rows(n_rows, seed=1), (torch.arange(n_rows) % 3 == 0).long()
    parts = zip(embedding.split(batch), labels.split(batch), strict=True)
    head.remember((features(part), label) for part, label in parts)
    return head.eval(), embedding[labels == 0], embedding[labels == 1]


def cosine_distances(bank: torch.Tensor, queries: torch.Tensor, k: int) -> np.ndarray:
    """Distances (B, k) to the k nearest, by scikit-learn in float64."""
    search = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute")
    return search.fit(bank.double().numpy()).kneighbors(queries.double().numpy())[0]


@pytest.mark.parametrize("k", [1, 3, 5, 9])
def test_the_score_is_the_difference_of_mean_distances(k):
    head, real, fake = fitted(k=k)
    queries = rows(50)
    expected = cosine_distances(real, queries, k).mean(1) - cosine_distances(fake, queries, k).mean(
        1
    )
    output = head(features(queries))
    np.testing.assert_allclose(output.score, expected, atol=1e-6)
    assert (output.class_logits[:, 0] == 0).all()


@pytest.mark.parametrize("k", [1, 3, 5, 9])
def test_the_vote_counts_fakes_among_the_nearest_of_both_banks(k):
    head, real, fake = fitted(k=k)
    queries = rows(50)
    search = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute")
    search.fit(torch.cat([real, fake]).double().numpy())
    found = search.kneighbors(queries.double().numpy(), return_distance=False)
    expected = (found >= len(real)).sum(axis=1)
    assert len(set(expected.tolist())) > 1
    assert head.vote(features(queries)).tolist() == expected.tolist()


def test_for_one_neighbour_score_and_vote_decide_alike():
    head, _, _ = fitted(k=1)
    queries = features(rows(200))
    assert ((head(queries).score > 0).long() == head.vote(queries)).all()


def test_a_tie_is_real():
    head = build_head("knn", shapes=SHAPES)
    one = rows(1)
    head.remember([(features(torch.cat([one, one])), torch.tensor([0, 1]))])
    output = head(features(one))
    assert output.score.tolist() == [0.0]
    assert not (output.score > 0).any()
    assert head.vote(features(one)).tolist() == [0]


def test_length_does_not_matter():
    head, _, _ = fitted(k=3)
    queries = rows(20)
    scores = head(features(queries)).score, head(features(queries * 7)).score
    torch.testing.assert_close(*scores)


class Largest(TorchDispatchMode):
    """Watches every operation: the most bytes that one block's new tensors take together."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in given:
                self.nbytes = max(self.nbytes, storage.nbytes())
        return out


@pytest.mark.parametrize("bank_dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("limit_kib", [8, 64, 10_000])
def test_a_search_is_exact_and_keeps_within_its_memory(bank_dtype, limit_kib):
    bank = torch.nn.functional.normalize(rows(5000), dim=1).to(bank_dtype)
    queries = torch.nn.functional.normalize(rows(40, seed=3), dim=1)
    with Largest() as watched:
        found = nearest(queries, bank, k=9, limit_nbytes=limit_kib * 1024)
    expected = (queries.double() @ bank.double().T).sort(dim=1, descending=True).values[:, :9]
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)
    whole = 5000 * 40 * 4
    assert watched.nbytes <= min(limit_kib * 1024, whole)
    if limit_kib < 10_000:
        assert watched.nbytes > limit_kib * 1024 / 4


def test_many_queries_go_through_in_blocks_too():
    head, _, _ = fitted(k=3, search_mib=1)
    queries = rows(2500)
    with Largest() as watched:
        found = head(features(queries)).score
    assert watched.nbytes <= 2**20
    torch.testing.assert_close(found[-7:], head(features(queries[-7:])).score)


def test_a_half_precision_bank_moves_scores_by_its_rounding_alone():
    half, _, _ = fitted(k=5, bank_dtype="float16")
    full, _, _ = fitted(k=5)
    queries = features(rows(50))
    assert half.real.dtype == torch.float16
    difference = (half(queries).score - full(queries).score).abs().max()
    assert 0 < difference < 1e-3


def test_banks_hold_unit_vectors_in_the_order_given_however_batched():
    one, real, fake = fitted(batch=300)
    many, _, _ = fitted(batch=7)
    torch.testing.assert_close(one.fake, torch.nn.functional.normalize(fake, dim=1))
    torch.testing.assert_close(one.real, torch.nn.functional.normalize(real, dim=1))
    assert torch.equal(one.real, many.real)
    assert torch.equal(one.fake, many.fake)


def test_remembering_again_forgets_the_first_time():
    head, _, _ = fitted(n_rows=300)
    head.remember([(features(rows(4)), torch.tensor([0, 1, 0, 1]))])
    assert (len(head.real), len(head.fake)) == (2, 2)
    assert (head.options["n_real"], head.options["n_fake"]) == (2, 2)


def test_nothing_in_it_can_be_trained():
    head, _, _ = fitted()
    assert head.trainable_parameters() == []
    assert list(head.parameters()) == []


@pytest.mark.parametrize("bank_dtype", ["float16", "float32"])
def test_a_bank_of_any_size_survives_saving(bank_dtype, tmp_path):
    head, _, _ = fitted(n_rows=123, k=3, bank_dtype=bank_dtype)
    save_head(head, tmp_path, {})
    loaded, config = load_head(tmp_path)
    assert (config["options"]["n_real"], config["options"]["n_fake"]) == (82, 41)
    assert loaded.real.dtype == getattr(torch, bank_dtype)
    assert torch.equal(loaded.real, head.real)
    assert torch.equal(loaded.fake, head.fake)
    queries = features(rows(9))
    assert torch.equal(loaded(queries).score, head(queries).score)


def test_an_unfitted_head_says_so():
    with pytest.raises(HeadError) as caught:
        build_head("knn", shapes=SHAPES, k=3)(features(rows(1)))
    assert str(caught.value) == (
        "head knn: 2 faults\n"
        "  - real bank: expected at least 3 embeddings for k=3, found 0\n"
        "  - fake bank: expected at least 3 embeddings for k=3, found 0\n"
        "Fit it on training images of both classes, or lower k."
    )


def test_too_few_images_leave_the_old_banks():
    head, _, _ = fitted(k=5)
    with pytest.raises(HeadError, match="fake bank: expected at least 5 embeddings"):
        head.remember([(features(rows(6)), torch.tensor([0, 0, 0, 0, 0, 1]))])
    assert len(head.real) == head.options["n_real"] == 200


@pytest.mark.parametrize("k", [0, 2, True, 1.5])
def test_k_is_odd(k):
    with pytest.raises(HeadError, match="option k: expected an odd number from 1"):
        build_head("knn", shapes=SHAPES, k=k)


# In the loop


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    store = make_store(tmp_path_factory.mktemp("store"), range(80))
    return [
        load(store, make_manifest(numbers), needs=["clip_embedding", "clip_block_cls"])
        for numbers in (range(45), range(50, 75))
    ]


def members(*families: str) -> list[Member]:
    shapes = {"clip_embedding": EMBEDDING.shape, "clip_block_cls": (3, 5)}
    return [Member(f, build_head(f, shapes=shapes), OptimiserConfig()) for f in families]


def test_the_loop_fits_it_once_beside_heads_that_learn(splits):
    (knn, linear), lost = train_members(members("knn", "linear"), *splits, epochs=3, batch_size=10)
    (alone,), _ = train_members(members("linear"), *splits, epochs=3, batch_size=10)
    assert not lost
    assert linear.history == alone.history
    assert len(knn.history) == 1
    names = {"epoch", "val_auc", "val_ap", "val_loss", "val_accuracy"}
    assert knn.history[0].keys() == names
    assert knn.best_epoch == 1
    assert not knn.head.training
    assert knn.validation["val_auc"] == knn.history[0]["val_auc"]


def test_the_bank_is_in_the_data_s_order_whatever_the_seed_and_batches(splits):
    (one,), _ = train_members(members("knn"), *splits, epochs=2, batch_size=10, seed=1)
    (other,), _ = train_members(members("knn"), *splits, epochs=5, batch_size=7, seed=2)
    assert torch.equal(one.head.fake, other.head.fake)
    train = splits[0]
    kept = train.batch(np.arange(len(train)))[0]["clip_embedding"][train.labels == 1]
    expected = torch.nn.functional.normalize(kept.float(), dim=1).half()
    assert torch.equal(one.head.fake, expected)
