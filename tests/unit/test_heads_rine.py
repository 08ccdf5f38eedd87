"""What takes the place of RINE's trained importance."""

import pytest
import torch

from clare_cache.heads import build_head

SHAPES = {"clip_block_cls": (5, 24)}


def rine(aggregation: str, **options):
    return build_head("rine", shapes=SHAPES, width=8, aggregation=aggregation, **options).eval()


def n_parameters(head) -> int:
    return sum(p.numel() for p in head.parameters())


def test_ablations_differ_from_the_full_model_by_its_importance_alone():
    full = rine("importance")
    for aggregation in ("mean", "last"):
        assert n_parameters(full) - n_parameters(rine(aggregation)) == full.alpha.numel()
        assert set(full.state_dict()) - set(rine(aggregation).state_dict()) == {"alpha"}


def test_equal_importance_is_the_mean():
    full, mean = rine("importance"), rine("mean")
    with torch.no_grad():
        full.alpha.fill_(0.3)
    mean.load_state_dict({k: v for k, v in full.state_dict().items() if k != "alpha"})
    rows = {"clip_block_cls": torch.randn(3, 5, 24)}
    assert torch.allclose(full(rows).score, mean(rows).score, atol=1e-6)


def test_importance_of_the_last_block_alone_is_the_last_block():
    full, last = rine("importance"), rine("last")
    with torch.no_grad():
        full.alpha.fill_(-1e4)
        full.alpha[:, -1] = 0
    last.load_state_dict({k: v for k, v in full.state_dict().items() if k != "alpha"})
    rows = {"clip_block_cls": torch.randn(3, 5, 24)}
    assert torch.allclose(full(rows).score, last(rows).score, atol=1e-6)
    others = {"clip_block_cls": torch.cat([torch.randn(3, 4, 24), rows["clip_block_cls"][:, -1:]],
                                          dim=1)}  # fmt: skip
    assert torch.equal(last(rows).score, last(others).score)


def test_a_level_of_the_pyramid_sees_its_block_and_those_above():
    head = rine("pyramid")
    rows = torch.randn(1, 5, 24)
    before = head.proj1(rows)
    rows[:, 2] += 1
    changed = (head.proj1(rows) - before).abs().sum(dim=2)[0] > 1e-4
    assert changed.tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("depth", [1, 4])
def test_the_pyramid_has_a_map_for_each_block_and_one_projection(depth):
    n_projection = depth * (8 * 8 + 8)
    n_head = 2 * (8 * 8 + 8) + 8 + 1
    assert n_parameters(rine("pyramid", depth=depth)) == 5 * (24 * 8 + 8) + n_projection + n_head


def test_without_the_contrastive_loss_only_the_score_counts():
    head = rine("mean", contrastive_weight=0)
    output, labels = head({"clip_block_cls": torch.randn(4, 5, 24)}), torch.tensor([0, 1, 0, 1])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        output.score, labels.float(), reduction="sum"
    )
    assert torch.equal(head.loss(output, labels), expected)
