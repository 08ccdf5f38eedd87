"""Stacked training equals training alone, for every family that says it can be stacked."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clare_cache.heads import HEADS, build_head
from clare_cache.heads.protocol import BankHead
from clare_cache.train import recording
from clare_cache.train.config import OptimiserConfig
from clare_cache.train.masks import Masks
from clare_cache.train.stack import Stack, stack_heads
from clare_cache.train.teacher import Teacher

SHAPES = {
    "error_map": (4, 8, 8),
    "clip_patch_tokens": (9, 32),
    "clip_layer3_map": (32, 3, 4),
    "clip_block_cls": (3, 24),
    "clip_embedding": (32,),
    "region_boxes": (2, 4),
}
STEPS, BATCH = 50, 12
# Options of each family; those of one line differ only in what a stack may hold.
CASES = [
    ("rine", [{"contrastive_weight": xi, "depth": 2, "width": 8} for xi in (0, 0.2, 0.8)]),
    ("rine", [{"aggregation": "pyramid", "width": 8}] * 2),
    ("linear", [{}] * 3),
    ("linear_probe", [{}] * 3),
    ("adapter", [{}] * 2),
    ("lare2", [{}] * 2),
    ("lare2", [{"features": "resnet", "channel": "path"}] * 2),
    ("error_map_resnet", [{}] * 2),
    ("lare2", [{"attention": "cross_attention_tokens"}] * 2),
    ("prompt_tuning", [{"prompts": "coop", "n_context": 3}] * 3),
    ("prompt_tuning", [{"prompts": "cocoop", "n_context": 3}] * 2),
    ("clare", [{"prompts": "cocoop", "n_context": 3, "train": "all"}] * 2),
    ("clare", [{"prompts": "coop", "n_context": 3, "train": "all", "regions": True}] * 2),
    ("clare", [{"prompts": "coop", "n_context": 3, "attention": "map_bias"}] * 3),
]
SETTINGS = [
    OptimiserConfig(lr=3e-3),
    OptimiserConfig(lr=1e-3, weight_decay=0.1, clip_norm=0.5),
    OptimiserConfig(optimiser="sgd", lr=1e-2, momentum=0.9, weight_decay=1e-3),
]


@pytest.fixture(scope="module")
def batches():
    generator = torch.Generator().manual_seed(5)
    found = []
    for _ in range(5):
        labels = torch.arange(BATCH) % 2
        rows = {
            name: torch.randn(BATCH, *shape, generator=generator).abs()
            + labels.view(-1, *[1] * len(shape))
            for name, shape in SHAPES.items()
        }
        rows["region_boxes"] = rows["region_boxes"].clamp(0, 1).sort(dim=-1).values
        found.append((rows, labels))
    return found


def build(family, options, text, *, seeds):
    return [
        build_head(family, shapes=SHAPES, text=text, seed=seed, **given).train()
        for given, seed in zip(options, seeds, strict=True)
    ]


def teach(heads, configs, seeds, batches):
    """The teacher after 50 steps, and the mean loss of each member."""
    teacher = Teacher(heads, configs, seeds)
    teacher.start_epoch(0, 1)
    for step in range(STEPS):
        teacher.step(*batches[step % len(batches)], masks=Masks(f"0/{step}"))
    return teacher, [lesson.train_loss for lesson in teacher.end_epoch()]


@pytest.mark.parametrize(("family", "options"), CASES)
def test_fifty_stacked_steps_are_fifty_steps_alone(family, options, build_text_tower, batches):
    text = build_text_tower(output_width=SHAPES["clip_embedding"][0])
    n = len(options)
    seeds, dropout = range(1, n + 1), [4, 4, 5][:n]
    heads, alone = (build(family, options, text, seeds=seeds) for _ in range(2))
    # Adam divides by the gradient's size: weight decay on what batch norm makes scale-free turns
    # rounding into steps. In double precision this family agrees to 1e-9 with it too.
    settings = SETTINGS[::2] if family == "error_map_resnet" else SETTINGS
    assert stack_heads(heads) == [list(range(n))]
    _, losses = teach(heads, settings[:n], dropout, batches)
    for k, head in enumerate(alone):
        before = copy.deepcopy(head.state_dict())
        _, (loss,) = teach([head], [settings[k]], [dropout[k]], batches)
        assert losses[k] == pytest.approx(loss, rel=1e-5)
        for name, value in head.state_dict().items():
            difference = (heads[k].state_dict()[name] - value).double().norm()
            assert difference <= 1e-5 * value.double().norm().clamp(min=1e-3), name
        assert any(not torch.equal(before[n], v) for n, v in head.state_dict().items())


@pytest.mark.parametrize(("family", "options"), CASES)
def test_replayed_operations_are_those_of_each_step_to_the_bit(
    monkeypatch, family, options, build_text_tower, batches
):
    """Weights, averages of batch norm, what optimisers remember; a last batch of another size."""
    text = build_text_tower(output_width=SHAPES["clip_embedding"][0])
    n = len(options)
    rows, labels = batches[0]
    shown = [*batches, ({name: value[:7] for name, value in rows.items()}, labels[:7])] * 3
    settings = [
        config.model_copy(update={"label_smoothing": 0.1 * k})
        for k, config in enumerate(SETTINGS[:n])
    ]
    found = []
    for record_at in (0, 2):
        monkeypatch.setattr(recording, "RECORD_AT", record_at)
        heads = build(family, options, text, seeds=range(n))
        teacher = Teacher(heads, settings, [4, 4, 5][:n])
        teacher.start_epoch(0, 1)
        for step, batch in enumerate(shown):
            teacher.step(*batch, masks=Masks(f"0/{step}"))
        recorders = teacher.stack._recorders.values()
        assert [r.is_recorded for r in recorders] == [record_at > 0] * 2
        found.append(([h.state_dict() for h in heads], teacher.end_epoch(),
                      [teacher.optimiser_state(k) for k in range(n)]))  # fmt: skip
    (weights, lessons, memory), (replayed, lessons_then, memory_then) = found
    assert lessons == lessons_then
    for one, other in zip([*weights, *memory], [*replayed, *memory_then], strict=True):
        for name, value in one.items():
            assert torch.equal(value, other[name]), name


def test_recorded_operations_have_their_casts_to_bfloat16_in_them(monkeypatch, batches):
    def trained(record_at):
        monkeypatch.setattr(recording, "RECORD_AT", record_at)
        heads = build("rine", [{"width": 8}] * 2, None, seeds=(1, 2))
        with torch.autocast("cpu", torch.bfloat16):
            teacher, losses = teach(heads, SETTINGS[:2], [4, 5], batches)
        assert all(r.is_recorded == (record_at > 0) for r in teacher.stack._recorders.values())
        return torch.cat([p.flatten() for head in heads for p in head.parameters()]), losses

    (weights, losses), (replayed, losses_then) = trained(0), trained(2)
    assert losses == losses_then
    assert torch.equal(weights, replayed)


def test_a_head_that_looks_at_its_features_is_not_recorded(monkeypatch, batches):
    class Scaled(HEADS["linear"]):
        def forward(self, features):
            (rows,) = self.read(features)
            return super().forward({"clip_embedding": rows / 8 if rows.max() > 8 else rows})

    def trained(record_at):
        monkeypatch.setattr(recording, "RECORD_AT", record_at)
        heads = [Scaled({"clip_embedding": (32,)}).train() for _ in range(2)]
        for k, head in enumerate(heads):
            head.fc.weight.data.fill_(0.01 * (k + 1))
            head.fc.bias.data.zero_()
        teacher = Teacher(heads, SETTINGS[:2], [0, 0])
        teacher.start_epoch(0, 1)
        for step, factor in enumerate([1, 1, 1, 10, 1, 10]):
            rows = {"clip_embedding": factor * batches[0][0]["clip_embedding"]}
            teacher.step(rows, batches[0][1], masks=Masks(f"0/{step}"))
        assert not any(r.is_recorded for r in teacher.stack._recorders.values())
        return torch.cat([head.fc.weight for head in heads])

    assert torch.equal(trained(2), trained(0))


def test_a_member_that_bursts_in_a_replayed_step_leaves_the_others_alone(monkeypatch, batches):
    monkeypatch.setattr(recording, "RECORD_AT", 2)
    settings = [OptimiserConfig(lr=1e-3), OptimiserConfig(optimiser="sgd", lr=1e-3)]
    heads, alone = (build("linear", [{}] * 2, None, seeds=(1, 2)) for _ in range(2))
    teacher = Teacher(heads, settings, [0, 0])
    by_itself = Teacher(alone[:1], settings[:1], [0])
    for each in (teacher, by_itself):
        each.start_epoch(0, 1)
        for step in range(8):
            if each is teacher and step == 5:
                heads[1].fc.weight.data.fill_(float("inf"))
            each.step(*batches[step % len(batches)], masks=Masks(f"0/{step}"))
    assert all(r.is_recorded for r in teacher.stack._recorders.values())
    first, second = teacher.end_epoch()
    (expected,) = by_itself.end_epoch()
    assert not first.burst
    assert first.train_loss == pytest.approx(expected.train_loss, rel=1e-5)
    assert second.burst == "loss became nan in epoch 1, step 6"
    assert torch.allclose(heads[0].fc.weight, alone[0].fc.weight, rtol=1e-5)


def test_what_is_the_same_for_all_members_is_kept_once(build_text_tower, batches):
    """Equal frozen weights are computed with once, whatever the number of members."""
    text = build_text_tower(output_width=SHAPES["clip_embedding"][0])
    options = [{"prompts": "coop", "n_context": 3}] * 3
    heads, alone = (build("clare", options, text, seeds=(1, 1, 1)) for _ in range(2))
    teacher, losses = teach(heads, SETTINGS, [4] * 3, batches)
    assert list(teacher.stack.trainable) == ["prompt_learner.ctx"]
    weights = {head.image_proj.weight.data_ptr() for head in heads}
    assert len(weights) == 1
    for k, head in enumerate(alone):
        _, (loss,) = teach([head], [SETTINGS[k]], [4], batches)
        assert losses[k] == pytest.approx(loss, rel=1e-5)


def test_every_family_but_banks_is_stacked_here():
    assert {family for family, _ in CASES} == {
        name for name, head in HEADS.items() if not issubclass(head, BankHead)
    }


def test_scores_of_a_stack_are_those_of_its_heads(batches):
    heads = build("rine", [{"width": 8}] * 3, None, seeds=(1, 2, 3))
    alone = copy.deepcopy(heads)
    stack = Stack(heads)
    for head in (*heads, *alone):
        head.eval()
    with torch.inference_mode():
        found = stack.scores(batches[0][0])
        for row, head in zip(found, alone, strict=True):
            assert torch.allclose(row, head(batches[0][0]).score, atol=1e-6)


def test_only_heads_that_differ_in_nothing_else_are_stacked():
    def rine(**options):
        return build_head("rine", shapes=SHAPES, **({"width": 8} | options))

    heads = [rine(), rine(depth=1), rine(contrastive_weight=0.5), rine(dropout=0.1), rine()]
    assert stack_heads(heads) == [[0, 2, 4], [1], [3]]
    assert stack_heads(heads, limit=2) == [[0, 2], [1], [3], [4]]
    assert stack_heads(heads, together="aaaab") == [[0, 2], [1], [3], [4]]
    frozen = rine()
    frozen.alpha.requires_grad_(False)
    assert stack_heads([rine(), frozen]) == [[0], [1]]


def test_a_mask_is_a_function_of_seed_place_and_call():
    def draw(seed=3, place="0/0", number=0, p=0.25, shape=(40, 50)):
        return Masks(place).draw(seed, number, torch.Size(shape), p, torch.zeros(1))

    assert torch.equal(draw(), draw())
    for other in (draw(seed=4), draw(place="0/1"), draw(number=1)):
        assert not torch.equal(draw(), other)
    assert sorted(draw().unique().tolist()) == pytest.approx([0, 1 / 0.75])
    assert (draw(shape=(400, 500)) == 0).float().mean().item() == pytest.approx(0.25, abs=0.005)


def test_dropout_alone_follows_the_masks(batches):
    class Plain(HEADS["linear"]):
        def forward(self, features):
            dropped = F.dropout(features["clip_embedding"], 0.5, self.training)
            return super().forward({"clip_embedding": dropped})

    head = Plain({"clip_embedding": (32,)})
    rows, labels = batches[0]
    (loss,) = Stack([head.train()]).losses(rows, labels, seeds=[7], masks=Masks("2/9"))
    mask = Masks("2/9").draw(7, 0, torch.Size((BATCH, 32)), 0.5, torch.zeros(1))
    scores = head.fc(rows["clip_embedding"] * mask).squeeze(1)
    assert loss.item() == pytest.approx(
        F.binary_cross_entropy_with_logits(scores, labels.float()).item(), rel=1e-6
    )


def test_optimiser_memory_survives_being_moved_to_a_smaller_stack(batches):
    whole, _ = teach(build("linear", [{}] * 3, None, seeds=(1, 2, 3)), SETTINGS, [0] * 3, batches)
    memory = [whole.optimiser_state(k) for k in (0, 2)]
    assert set(memory[0]) == {
        f"fc.{part}/{key}"
        for part in ("weight", "bias")
        for key in ("step", "exp_avg", "exp_avg_sq")
    }
    assert set(memory[1]) == {"fc.weight/momentum_buffer", "fc.bias/momentum_buffer"}
    smaller = Teacher([whole.stack.heads[k] for k in (0, 2)], [SETTINGS[0], SETTINGS[2]], [0, 0])
    smaller.restore_optimiser(memory)
    for k, state in enumerate(memory):
        for name, value in smaller.optimiser_state(k).items():
            assert np.array_equal(value.numpy(), state[name].numpy())
