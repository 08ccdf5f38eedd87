"""The short shared prompt sequence equals one padded sequence per class."""

import pytest
import torch

from clare_cache.errors import HeadError
from clare_cache.heads.prompts import PromptLearner
from tests.plain_heads import plain_text


def gradients(learner, text):
    weights = torch.linspace(-1, 1, text[0].numel(), dtype=text.dtype).reshape(text[0].shape)
    learner.zero_grad()
    (text * weights).sum().backward()
    return [p.grad.clone() for p in learner.parameters()]


@pytest.mark.parametrize("class_position", ["end", "front", "middle"])
@pytest.mark.parametrize("class_names", [("real", "fake"), ("real", "deep fake", "photo")])
@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("class_specific", [False, True])
@pytest.mark.parametrize(
    ("dtype", "on_outputs", "on_gradients"),
    [(torch.float64, 1e-10, 1e-10), (torch.float32, 1e-5, 2e-4)],
)
def test_equals_one_padded_sequence_per_class(
    class_position, class_names, conditional, class_specific, dtype, on_outputs, on_gradients,
    build_text_tower,
):  # fmt: skip
    torch.manual_seed(0)
    learner = PromptLearner(
        build_text_tower(),
        n_context=5,
        condition_width=32 if conditional else None,
        class_names=class_names,
        class_position=class_position,
        class_specific=class_specific,
    ).to(dtype)
    with torch.no_grad():
        learner.ctx.mul_(50)
    condition = torch.randn(3, 32, dtype=dtype) if conditional else None
    found = learner(condition)
    expected = plain_text(
        learner, condition, class_position=class_position, class_names=class_names
    )
    assert found.shape == (3 if conditional else 1, len(class_names), 10)
    assert (found - expected).abs().max() < on_outputs * expected.abs().max()
    for a, b in zip(gradients(learner, found), gradients(learner, expected), strict=True):
        assert b.abs().max() > 0
        assert (a - b).abs().max() < on_gradients * b.abs().max()


def test_one_sequence_of_start_context_and_a_branch_per_class(build_text_tower):
    tower, seen = build_text_tower(), {}

    class Watched:
        width, context_length = tower.width, tower.context_length
        tokenize, embed = tower.tokenize, tower.embed

        def encode(self, embeddings, read, *, positions, mask):
            seen.update(shape=tuple(embeddings.shape), read=read.tolist(), mask=mask,
                        positions=positions.tolist())  # fmt: skip
            return tower.encode(embeddings, read, positions=positions, mask=mask)

    PromptLearner(Watched(), n_context=16)()
    assert seen["shape"] == (1, 23, 12)
    assert seen["read"] == [[19, 22]]
    assert seen["positions"] == [*range(20), 17, 18, 19]
    assert (seen["mask"][22, 17:20] == -torch.inf).all()
    assert (seen["mask"][22, :17] == 0).all()


class CountingTower:
    """A tower that remembers what it was asked to encode."""

    def __init__(self, tower) -> None:
        self.tower, self.shapes = tower, []
        self.width, self.context_length = tower.width, tower.context_length
        self.tokenize, self.embed = tower.tokenize, tower.embed

    def encode(self, embeddings, *args, **kwargs):
        self.shapes.append(tuple(embeddings.shape))
        return self.tower.encode(embeddings, *args, **kwargs)


def test_at_evaluation_a_shared_text_is_encoded_once_until_it_changes(build_text_tower):
    tower = CountingTower(build_text_tower())
    learner = PromptLearner(tower, n_context=4).eval()
    with torch.inference_mode():
        first, again = learner(), learner()
    with torch.no_grad():
        later = learner()
    assert len(tower.shapes) == 1
    assert torch.equal(first, again)
    assert torch.equal(first, later)
    optimiser = torch.optim.Adam(learner.parameters())
    learner().sum().backward()
    optimiser.step()
    with torch.no_grad():
        changed = learner()
    assert not torch.equal(changed, first)
    learner.load_state_dict({"ctx": torch.zeros(4, 12)})
    with torch.no_grad():
        emptied = learner()
    assert not torch.equal(emptied, changed)
    assert len(tower.shapes) == 4


def test_a_kept_text_does_not_outlive_a_change_of_precision(build_text_tower):
    learner = PromptLearner(build_text_tower(), n_context=4).eval()
    with torch.no_grad():
        assert learner().dtype == torch.float32
        assert learner.double()().dtype == torch.float64


def test_training_and_conditional_texts_are_never_kept(build_text_tower):
    tower = CountingTower(build_text_tower())
    learner = PromptLearner(tower, n_context=4, condition_width=16).eval()
    with torch.no_grad():
        assert not torch.equal(learner(torch.randn(1, 16)), learner(torch.randn(1, 16)))
        shared = PromptLearner(tower, n_context=4).train()
        shared()
        shared()
    assert len(tower.shapes) == 4


def test_class_specific_contexts_start_after_the_start_token(build_text_tower):
    tower = CountingTower(build_text_tower())
    learner = PromptLearner(tower, n_context=16, class_specific=True)
    assert learner.ctx.shape == (2, 16, 12)
    learner()
    assert tower.shapes == [(1, 1 + 2 * (16 + 3), 12)]


def test_class_specific_contexts_from_words_begin_alike(build_text_tower):
    learner = PromptLearner(
        build_text_tower(), n_context=16, context_init="a photo of a", class_specific=True
    )
    assert learner.n_context == 4
    assert torch.equal(learner.ctx[0], learner.ctx[1])


def test_a_context_from_words_is_their_embedding(build_text_tower):
    tower = build_text_tower()
    learner = PromptLearner(tower, n_context=16, context_init="a photo of a")
    words = tower.embed(tower.tokenize(["a photo of a"]))[0, 1:5]
    assert torch.equal(learner.ctx, words)


def test_a_context_from_words_is_a_copy(build_text_tower):
    tower = build_text_tower()
    before = tower.token_embedding.clone()
    learner = PromptLearner(tower, n_context=16, context_init="a photo of a")
    with torch.no_grad():
        learner.ctx.zero_()
    assert torch.equal(tower.token_embedding, before)


def test_the_tower_is_neither_saved_nor_trained_but_moves_along(build_text_tower):
    tower = build_text_tower()
    learner = PromptLearner(tower, n_context=4, condition_width=32)
    names = {"ctx", *(f"meta_net.linear{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias"))}
    assert set(learner.state_dict()) == names
    assert {name for name, _ in learner.named_parameters()} == names
    learner.double()
    assert tower.token_embedding.dtype == torch.float64


def test_too_long_a_context_is_refused(build_text_tower):
    with pytest.raises(HeadError) as caught:
        PromptLearner(build_text_tower(context_length=20), n_context=14)
    assert str(caught.value) == (
        "prompts with 14 context vectors: expected at most 20 tokens, found 21 in the sequence "
        "that all class names share. Use fewer context vectors."
    )
