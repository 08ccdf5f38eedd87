"""Heads that compare the embedding with texts and nothing else."""

import pytest
import torch
from torch.nn import functional as F

from clare_cache.heads import build_head

SHAPES = {"clip_embedding": (32,)}


@pytest.fixture
def tower(build_text_tower):
    return build_text_tower(output_width=32)


@pytest.fixture
def rows():
    return {"clip_embedding": torch.randn(4, 32)}


def test_prompt_tuning_is_a_scaled_cosine(tower, rows):
    head = build_head("prompt_tuning", shapes=SHAPES, text=tower, n_context=4)
    text = head.prompt_learner()[0]
    cosine = F.cosine_similarity(rows["clip_embedding"][:, None], text[None], dim=2)
    assert torch.allclose(head(rows).class_logits, 14 * cosine, atol=1e-5)


@pytest.mark.parametrize("family", ["prompt_tuning", "adapter"])
def test_the_length_of_an_embedding_does_not_count(family, tower, rows):
    head = build_head(family, shapes=SHAPES, text=tower)
    scaled = {"clip_embedding": 7 * rows["clip_embedding"]}
    assert torch.allclose(head(rows).class_logits, head(scaled).class_logits, atol=1e-5)


def test_the_place_of_the_class_name_matters(tower, rows):
    scores = [
        build_head(
            "prompt_tuning", shapes=SHAPES, text=tower, n_context=4, class_position=position
        )(rows).score
        for position in ("end", "middle", "front")
    ]
    assert not torch.allclose(scores[0], scores[1])
    assert not torch.allclose(scores[1], scores[2])


def test_the_net_of_cocoop_sees_the_normalised_embedding(tower, rows):
    head = build_head("prompt_tuning", shapes=SHAPES, text=tower, prompts="cocoop", n_context=4)
    seen = []
    head.prompt_learner.meta_net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    head(rows)
    assert torch.allclose(seen[0].norm(dim=1), torch.ones(4))


def test_an_adapter_that_gives_zero_leaves_clip_as_it_is(tower, rows):
    head = build_head("adapter", shapes=SHAPES, text=tower)
    with torch.no_grad():
        head.adapter.fc[2].weight.zero_()
    ids = tower.tokenize(["a real photo.", "a fake photo."])
    text = torch.cat([tower.encode(tower.embed(row[None]), row.argmax()[None, None])[0]
                      for row in ids])  # fmt: skip
    cosine = F.cosine_similarity(rows["clip_embedding"][:, None], text[None], dim=2)
    assert torch.allclose(head(rows).class_logits, 14 * cosine, atol=1e-5)


def test_the_adapters_texts_are_encoded_once_and_not_saved(tower, rows, monkeypatch):
    head = build_head("adapter", shapes=SHAPES, text=tower)
    monkeypatch.setattr(tower, "encode", None)
    head(rows)
    assert set(head.state_dict()) == {"adapter.fc.0.weight", "adapter.fc.2.weight"}
    assert head.text is tower


def test_an_adapter_narrows_by_its_reduction(tower):
    head = build_head("adapter", shapes=SHAPES, text=tower, reduction=4)
    assert head.adapter.fc[0].weight.shape == (8, 32)
