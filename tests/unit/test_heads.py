"""Sizes, initial values, losses and what `build_head` promises."""

import pytest
import torch
from torch.nn import functional as F

from clare_cache.heads import (
    HEADS,
    RN50_SHAPES,
    HeadOutput,
    build_head,
    head_needs,
    needs_text,
)
from clare_cache.heads.losses import supervised_contrastive

RINE_SIZES = {
    1: (183_937, 466_177, 1_325_569, 4_224_001),
    2: (216_961, 597_761, 1_850_881, 6_323_201),
    4: (283_009, 860_929, 2_901_505, 10_521_601),
}


def n_parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("depth", RINE_SIZES)
@pytest.mark.parametrize("column", range(4))
def test_rine_has_the_published_number_of_parameters(depth, column):
    head = build_head("rine", depth=depth, width=128 << column)
    assert n_parameters(head) == RINE_SIZES[depth][column]


# A 1x1 convolution of both code bases that nothing ever uses.
CONV_ALIGN = 4 * 1024 + 1024


@pytest.mark.parametrize(
    ("attention", "n_attention"),
    [
        ("cross_attention", 2_935_008),
        ("cross_attention_tokens", 2_935_008),
        ("map_bias", 2_364_928),
    ],
)
def test_clare_has_the_published_number_of_parameters(attention, n_attention, build_text_tower):
    tower = build_text_tower(width=768, output_width=768)
    head = build_head("clare", text=tower, prompts="cocoop", attention=attention)
    assert {name: n_parameters(child) for name, child in head.named_children()} == {
        "prompt_learner": 750_528,
        "image_proj": 787_456,
        "text_proj": 2_362_368,
        "map_proj": 40,
        "attn_pool": n_attention,
        "channel_align": 131_584,
    }
    whole = {2_935_008: 6_972_104, 2_364_928: 6_402_024}[n_attention]
    assert n_parameters(head) + CONV_ALIGN == whole
    path = build_head("clare", text=tower, prompts="cocoop", attention=attention, channel="path")
    assert n_parameters(path) == n_parameters(head)
    coop = build_head("clare", text=tower, prompts="coop")
    assert n_parameters(coop.prompt_learner) == 12_288
    assert sum(p.numel() for p in coop.trainable_parameters()) == 12_288


@pytest.mark.parametrize(
    ("family", "options", "expected"),
    [
        ("prompt_tuning", {}, 12_288),
        ("prompt_tuning", {"n_context": 8}, 6_144),
        ("prompt_tuning", {"n_context": 4, "class_position": "front"}, 3_072),
        ("prompt_tuning", {"class_specific": True}, 24_576),
        ("prompt_tuning", {"prompts": "cocoop"}, 12_288 + 768 * 48 + 48 + 48 * 768 + 768),
        ("adapter", {}, 2 * 768 * 384),
        ("linear_probe", {}, 2 * 768 + 2),
        ("linear", {}, 769),
        ("lare2", {}, 787_456 + 2_364_928 + 131_584 + 40 + 2 * 3072 + 2),
        ("error_map_resnet", {}, 195_362),
    ],
)
def test_other_heads_have_the_number_of_parameters_of_their_authors(
    family, options, expected, build_text_tower
):
    tower = build_text_tower(width=768, output_width=768)
    head = build_head(family, text=tower, **options)
    assert n_parameters(head) == expected


def test_lare2_on_a_resnet_has_197_positions_and_no_projection():
    head = build_head("lare2", shapes=RN50_SHAPES, features="resnet")
    assert head.attn_pool.positional_embedding.shape == (197, 1024)
    assert n_parameters(head) == 2_099_712 + 2_048 + 197 * 1024 + 131_584 + 40 + 6_146


def test_initial_values_follow_the_papers(build_text_tower):
    probe = build_head("linear_probe")
    assert probe.fc.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not probe.fc.bias.any()
    linear = build_head("linear")
    assert linear.fc.weight.std().item() == pytest.approx(0.02, rel=0.1)
    rine = build_head("rine", width=128)
    assert rine.alpha.std().item() == pytest.approx(1, rel=0.1)
    assert rine.proj1[1].weight.abs().max().item() <= 1024**-0.5
    clare = build_head("clare", text=build_text_tower(width=96))
    assert clare.prompt_learner.ctx.std().item() == pytest.approx(0.02, rel=0.1)
    assert clare.attn_pool.pos_embed_q.std().item() == pytest.approx(1024**-0.5, rel=0.1)
    bound = (6 / (1024 + 512)) ** 0.5
    assert clare.attn_pool.attention.fc_q.weight.abs().max().item() == pytest.approx(
        bound, rel=0.01
    )
    assert not clare.attn_pool.attention.fc_o.bias.any()


def test_a_seed_decides_the_weights_and_global_randomness_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (build_head("rine", width=16, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one.alpha, same.alpha)
    assert not torch.equal(one.alpha, other.alpha)
    assert one.seed == 3


def test_what_heads_need_is_known_without_building():
    assert head_needs("clare", prompts="cocoop") == (
        "error_map", "clip_patch_tokens", "clip_embedding")  # fmt: skip
    assert head_needs("rine") == ("clip_block_cls",)
    assert head_needs("linear") == ("clip_embedding",)
    assert head_needs("error_map_resnet") == ("error_map",)
    assert head_needs("lare2") == ("error_map", "clip_patch_tokens", "clip_embedding")
    assert head_needs("lare2", features="resnet") == (
        "error_map", "clip_layer3_map", "clip_embedding")  # fmt: skip
    assert {family for family in HEADS if needs_text(family)} == {
        "adapter", "clare", "prompt_tuning"}  # fmt: skip


def test_options_are_complete_and_record_the_context_of_words(build_text_tower):
    head = build_head("clare", text=build_text_tower(), context_init="a photo of a")
    assert head.options == {
        "prompts": "coop",
        "n_context": 4,
        "context_init": "a photo of a",
        "class_position": "end",
        "class_specific": False,
        "attention": "cross_attention",
        "channel": "gate",
        "regions": False,
        "train": "prompts",
        "dropout": 0.1,
    }


def test_training_all_of_clare_leaves_out_only_what_no_gradient_reaches(build_text_tower):
    for attention, inert in (
        ("cross_attention", {"attn_pool.attention.fc_k.bias"}),
        ("map_bias", {"attn_pool.attention.fc_k.bias", "map_proj.bias"}),
    ):
        head = build_head("clare", text=build_text_tower(), attention=attention, train="all")
        assert {name for name, p in head.named_parameters() if not p.requires_grad} == inert


def test_a_single_logit_is_the_score_and_real_stands_at_zero():
    output = HeadOutput.from_score(torch.tensor([-1.5, 2.0]))
    assert output.class_logits.tolist() == [[0.0, -1.5], [0.0, 2.0]]
    assert output.score.tolist() == [-1.5, 2.0]
    assert torch.allclose(output.class_logits.softmax(1)[:, 1], output.score.sigmoid())


def test_the_linear_probe_is_one_dot_product_with_mean_cross_entropy():
    head, rows = build_head("linear"), torch.randn(3, 768)
    output, labels = head({"clip_embedding": rows}), torch.tensor([1, 0, 1])
    score = rows @ head.fc.weight[0] + head.fc.bias
    assert torch.allclose(output.score, score, rtol=1e-5)
    assert output.embedding is None
    expected = F.binary_cross_entropy_with_logits(score, labels.float())
    assert torch.allclose(head.loss(output, labels), expected)


def test_rine_sums_its_cross_entropy_and_clare_averages_it(build_text_tower):
    output = HeadOutput.from_score(torch.tensor([0.3, -0.2]), torch.eye(2))
    labels = torch.tensor([0, 1])
    each = F.binary_cross_entropy_with_logits(output.score, labels.float(), reduction="none")
    rine = build_head("rine", width=16, contrastive_weight=0)
    assert torch.allclose(rine.loss(output, labels), each.sum())
    clare = build_head("clare", text=build_text_tower())
    assert torch.allclose(clare.loss(output, labels), each.mean())


def test_contrastive_loss_ignores_scale_and_is_lowest_for_separated_labels():
    labels = torch.tensor([0, 0, 1, 1])
    apart = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    mixed = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    assert supervised_contrastive(apart, labels) < 1e-4
    assert supervised_contrastive(mixed, labels) > 10
    z = torch.randn(4, 8)
    once, scaled = supervised_contrastive(z, labels), supervised_contrastive(5 * z, labels)
    assert torch.allclose(once, scaled, rtol=1e-4)


@pytest.mark.parametrize("rows", [torch.ones(1, 4), torch.zeros(3, 4)])
def test_contrastive_loss_is_finite_without_partners_and_for_empty_embeddings(rows):
    z = rows.clone().requires_grad_()
    loss = supervised_contrastive(z, torch.arange(len(rows)))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(z.grad, torch.zeros_like(z))
    pairs = supervised_contrastive(rows, torch.zeros(len(rows)))
    assert torch.isfinite(pairs)


def test_heads_can_be_stacked_for_a_sweep():
    heads = [build_head("rine", width=16, seed=seed).eval() for seed in range(3)]
    weights, buffers = torch.func.stack_module_state(heads)
    rows, labels = {"clip_block_cls": torch.randn(4, 24, 1024)}, torch.tensor([0, 1, 1, 0])

    def loss_of(weights, buffers):
        return torch.func.functional_call(
            _Loss(heads[0]), ({f"head.{k}": v for k, v in weights.items()}, buffers), (rows, labels)
        )

    found = torch.func.vmap(loss_of)(weights, buffers)
    expected = torch.stack([head.loss(head(rows), labels) for head in heads])
    assert torch.allclose(found, expected, rtol=1e-5)


class _Loss(torch.nn.Module):
    def __init__(self, head) -> None:
        super().__init__()
        self.head = head

    def forward(self, rows, labels):
        return self.head.loss(self.head(rows), labels)
