"""The text tower for prompt heads, held to open_clip's own `encode_text`."""

import copy
import functools

import open_clip
import pytest
import torch

from clare_cache.backbones import load_text_tower
from clare_cache.backbones.clip_models import load_clip
from clare_cache.backbones.text import ClipTextTower
from clare_cache.heads.prompts import PromptLearner
from tests.open_clip_text import OpenClipText
from tests.plain_heads import plain_text

TEXTS = ["a photo of a face", "X X X X real.", "fake"]


@pytest.fixture(scope="module")
def clip():
    return load_clip("tiny")


@pytest.fixture(scope="module")
def tower(clip):
    return clip.text_tower()


@pytest.fixture(scope="module")
def expected(clip, tower):
    with torch.no_grad():
        return clip.model.encode_text(tower.tokenize(TEXTS))


def relative(found, wanted) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def test_sizes_and_scale_are_the_models(tower):
    assert (tower.width, tower.output_width, tower.context_length) == (64, 32, 77)
    assert tower.logit_scale == pytest.approx(1 / 0.07)
    assert tower.declared()["weights"]["init"] == "random"


def test_token_ids_are_clips(tower):
    ids = tower.tokenize(["X X X X X X X X X X X X X X X X real."])
    assert ids.dtype == torch.int64
    assert ids[0].tolist() == [49406, *[343] * 16, 1532, 269, 49407, *[0] * 57]


def test_encode_is_open_clips(tower, expected):
    ids = tower.tokenize(TEXTS)
    ends = ids.argmax(dim=1, keepdim=True)
    found = tower.encode(tower.embed(ids), ends)
    assert found.shape == (3, 1, 32)
    assert relative(found[:, 0], expected) < 1e-6


def test_cutting_after_the_end_token_is_exact(tower, expected):
    ids = tower.tokenize(TEXTS)
    ends = ids.argmax(dim=1, keepdim=True)
    cut = ids[:, : int(ends.max()) + 1]
    assert relative(tower.encode(tower.embed(cut), ends)[:, 0], expected) < 1e-6


def test_two_prompts_can_share_a_sequence(tower, expected):
    """Second prompt's tokens repeat the first's positions and do not see it."""
    first, second = tower.tokenize(TEXTS[:2])
    n_first, n_second = int(first.argmax()) + 1, int(second.argmax()) + 1
    ids = torch.cat([first[:n_first], second[:n_second]])[None]
    positions = torch.cat([torch.arange(n_first), torch.arange(n_second)])
    mask = torch.full((ids.shape[1],) * 2, -torch.inf).triu(1)
    mask[n_first:, :n_first] = -torch.inf
    read = torch.tensor([[n_first - 1, n_first + n_second - 1]])
    found = tower.encode(tower.embed(ids), read, positions=positions, mask=mask)
    assert relative(found[0], expected[:2]) < 1e-5


def test_gradient_flows_to_the_embeddings_alone(clip, tower):
    ids = tower.tokenize(TEXTS)
    embeddings = tower.embed(ids).clone().requires_grad_()
    tower.encode(embeddings, ids.argmax(dim=1, keepdim=True)).square().sum().backward()
    assert embeddings.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in clip.model.parameters())


def test_the_tower_alone_is_the_same(tower):
    alone = load_text_tower("tiny")
    ids = alone.tokenize(TEXTS)
    torch.testing.assert_close(alone.embed(ids), tower.embed(ids), rtol=0, atol=0)
    assert alone.declared() == tower.declared()


@pytest.mark.parametrize("quick_gelu", [True, False])
@pytest.mark.parametrize("class_position", ["end", "front", "middle"])
@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("class_specific", [False, True])
@pytest.mark.parametrize(
    ("dtype", "on_outputs", "on_gradients"),
    [(torch.float64, 1e-10, 1e-10), (torch.float32, 1e-5, 2e-4)],
)
def test_what_is_left_out_changes_nothing(
    quick_gelu, class_position, conditional, class_specific, dtype, on_outputs, on_gradients
):
    """Learned prompts through the short tower and through all of open_clip's own."""
    model = three_layers(quick_gelu, dtype)
    torch.manual_seed(0)
    learner = PromptLearner(
        ClipTextTower(model, {}),
        n_context=4,
        condition_width=32 if conditional else None,
        class_position=class_position,
        class_specific=class_specific,
    ).to(dtype)
    condition = torch.randn(3, 32, dtype=dtype) if conditional else None
    weights = torch.randn(2, 24, dtype=dtype)
    found = learner(condition)
    expected = plain_text(
        learner, condition, class_position=class_position, tower=OpenClipText(model)
    )
    assert (found - expected).abs().max() < on_outputs * expected.abs().max()
    for a, b in zip(
        torch.autograd.grad((found * weights).sum(), learner.parameters()),
        torch.autograd.grad((expected * weights).sum(), learner.parameters()),
        strict=True,
    ):
        assert b.abs().max() > 0
        assert (a - b).abs().max() < on_gradients * b.abs().max()


def test_no_weight_of_the_tower_asks_for_a_gradient():
    model = copy.deepcopy(three_layers(True)).requires_grad_(True)
    learner = PromptLearner(ClipTextTower(model, {}), n_context=4)
    learner().sum().backward()
    assert learner.ctx.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.transformer.parameters())
    assert model.ln_final.weight.grad is None


@functools.cache
def three_layers(quick_gelu: bool, dtype: torch.dtype = torch.float32):
    """A CLIP whose text tower is small and deep enough to have first, inner and last blocks."""
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=24,
        quick_gelu=quick_gelu,
        vision_cfg={"image_size": 28, "patch_size": 14, "width": 64, "layers": 1},
        text_cfg={"width": 48, "heads": 3, "layers": 3},
    )
    return model.to(dtype)
