"""What every head owes its callers. A new head inherits `HeadContract` in one line."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch

from clare_cache.errors import HeadError
from clare_cache.heads import (
    HEADS,
    build_head,
    check_features,
    head_needs,
    load_head,
    save_head,
)
from clare_cache.heads.protocol import BankHead
from clare_cache.train.config import OptimiserConfig
from clare_cache.train.optimiser import build_optimiser

SHAPES = {
    "error_map": (4, 8, 8),
    "clip_patch_tokens": (9, 64),
    "clip_layer3_map": (64, 3, 4),
    "clip_block_cls": (3, 24),
    "clip_embedding": (64,),
    "region_boxes": (2, 4),
    "unrelated": (5,),
}


class Recording(Mapping):
    """Features that remember which arrays were looked at."""

    def __init__(self, features) -> None:
        self.features, self.read = features, set()

    def __getitem__(self, name):
        self.read.add(name)
        return self.features[name]

    def __iter__(self):
        return iter(self.features)

    def __len__(self) -> int:
        return len(self.features)


def make_features(n_rows: int, dtype=torch.float32, *, seed: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(n_rows, *shape, generator=generator).abs().to(dtype)
        for name, shape in SHAPES.items()
    }


class AnyHeadContract:
    """Not collected itself: subclasses are, by their name."""

    family: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    def tower(self, build_text_tower):
        return build_text_tower(output_width=SHAPES["clip_embedding"][0])

    # Of such narrow heads seed 0 leaves one with a layer of dead ReLUs.
    def build(self, tower, seed: int = 1, **arguments):
        arguments = {"shapes": SHAPES, **arguments, **self.options}
        return build_head(self.family, text=tower, seed=seed, **arguments)

    @pytest.fixture
    def head(self, tower):
        return self.build(tower)

    @pytest.mark.parametrize("n_rows", [1, 6])
    @pytest.mark.parametrize("training", [False, True])
    def test_gives_two_logits_an_image_and_one_loss(self, head, n_rows, training):
        head.train(training)
        output = head(make_features(n_rows))
        assert output.class_logits.shape == (n_rows, 2)
        assert output.class_logits.dtype == torch.float32
        assert output.score.shape == (n_rows,)
        if output.embedding is not None:
            assert output.embedding.shape[0] == n_rows
            assert output.embedding.ndim == 2
        loss = head.loss(output, torch.arange(n_rows) % 2)
        assert loss.shape == ()
        assert torch.isfinite(loss)

    def test_half_precision_rows_are_computed_in_float32(self, head):
        head.eval()
        rows = make_features(3, torch.float16)
        found = head(rows).class_logits
        assert found.dtype == torch.float32
        assert torch.equal(found, head({k: v.float() for k, v in rows.items()}).class_logits)

    def test_a_double_head_computes_in_double(self, head):
        found = head.eval().double()(make_features(3))
        assert found.class_logits.dtype == torch.float64

    def test_images_do_not_see_each_other(self, head):
        head.eval()
        rows, order = make_features(6), torch.tensor([3, 0, 5, 1, 4, 2])
        together = head(rows).class_logits
        shuffled = head({name: tensor[order] for name, tensor in rows.items()}).class_logits
        alone = torch.cat(
            [head({k: v[i : i + 1] for k, v in rows.items()}).class_logits for i in range(6)]
        )
        scale = together.detach().abs().max().item()
        assert torch.allclose(shuffled, together[order], rtol=0, atol=1e-5 * scale)
        assert torch.allclose(alone, together, rtol=0, atol=1e-5 * scale)

    def test_evaluation_is_deterministic_and_differs_between_images(self, head):
        head.eval()
        first, second = head(make_features(4)).score, head(make_features(4)).score
        assert torch.equal(first, second)
        assert len(set(first.tolist())) == 4

    def test_needs_names_exactly_what_is_read(self, head):
        rows = Recording(make_features(2))
        head(rows)
        assert rows.read == set(head.needs)
        assert head.needs == head_needs(self.family, **self.options)
        assert set(head.shapes) == set(head.needs)

    def test_another_array_can_be_read_in_its_place(self, head, tower, tmp_path):
        name = head.needs[0]
        reads, shapes = {name: f"{name}-other"}, {**SHAPES, f"{name}-other": SHAPES[name]}
        del shapes[name]
        other = self.build(tower, shapes=shapes, reads=reads).eval()
        assert other.needs == (f"{name}-other", *head.needs[1:])
        assert other.needs == head_needs(self.family, reads=reads, **self.options)
        rows = make_features(3)
        elsewhere = {**rows, f"{name}-other": rows.pop(name)}
        save_head(other, tmp_path, {})
        loaded, config = load_head(tmp_path, text=tower)
        assert (loaded.reads, config["needs"]) == (reads, list(other.needs))
        expected = self.build(tower).eval()({**rows, name: elsewhere[f"{name}-other"]})
        assert torch.equal(loaded(elsewhere).class_logits, expected.class_logits)

    def test_saving_and_loading_gives_the_same_head(self, head, tower, tmp_path):
        head.eval()
        save_head(head, tmp_path, {"note": 1})
        loaded, config = load_head(tmp_path, text=tower)
        assert type(loaded) is type(head)
        assert loaded.options == head.options
        assert loaded.shapes == head.shapes
        assert config["note"] == 1
        assert config["n_parameters"] == sum(p.numel() for p in loaded.parameters())
        assert loaded.state_dict().keys() == head.state_dict().keys()
        assert {n: p.requires_grad for n, p in loaded.named_parameters()} == {
            n: p.requires_grad for n, p in head.named_parameters()
        }
        rows = make_features(3)
        assert torch.equal(loaded(rows).class_logits, head(rows).class_logits)

    def test_features_of_another_fingerprint_are_refused(self, head, tmp_path):
        made = {name: {"fingerprint": name, "declared": {"size_px": 224}} for name in head.needs}
        save_head(head, tmp_path, {"features": made})
        config = json.loads((tmp_path / "config.json").read_text())
        check_features(config, {**made, "unrelated": {"fingerprint": "x", "declared": {}}})
        for name in head.needs:
            other = {**made, name: {"fingerprint": "other", "declared": {"size_px": 336}}}
            with pytest.raises(HeadError, match=f"{name}: size_px: asked 224, found 336"):
                check_features(config, other)

    def test_options_can_be_written_as_json(self, head):
        assert json.loads(json.dumps(head.options)) == head.options

    def test_the_seed_decides_the_weights(self, tower):
        rows = make_features(3)
        one, same, other = (self.build(tower, seed).eval()(rows).score for seed in (1, 1, 2))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)

    def test_the_text_tower_is_never_saved_or_trained(self, head, tower):
        shared = {tensor.data_ptr() for tensor in tower.state_dict().values()}
        held = [*head.parameters(), *head.state_dict().values()]
        assert shared.isdisjoint(tensor.data_ptr() for tensor in held)

    def test_rows_of_another_width_are_refused_by_name(self, head):
        for name in head.needs:
            rows = make_features(2)
            rows[name] = rows[name][..., :-1]
            with pytest.raises(HeadError) as caught:
                head(rows)
            expected, found = SHAPES[name], tuple(rows[name].shape[1:])
            assert f"{name}: expected rows of shape {expected}, found {found}" in str(caught.value)

    def test_all_absent_arrays_are_named_at_once(self, head):
        with pytest.raises(HeadError) as caught:
            head({})
        for name in head.needs:
            assert f"{name}: expected rows of shape {SHAPES[name]}" in str(caught.value)

    def test_an_unknown_option_is_refused(self, tower):
        with pytest.raises(HeadError, match="option unheard_of"):
            build_head(self.family, shapes=SHAPES, text=tower, unheard_of=1)


class HeadContract(AnyHeadContract):
    """Of heads that are trained by gradients."""

    def test_every_trainable_parameter_gets_a_gradient_and_no_other_does(self, head):
        head.eval()
        head.loss(head(make_features(6)), torch.arange(6) % 2).backward()
        trainable = {id(p) for p in head.trainable_parameters()}
        assert trainable
        for name, parameter in head.named_parameters():
            if id(parameter) in trainable:
                assert parameter.grad is not None, name
                assert parameter.grad.abs().max() > 0, name
            else:
                assert parameter.grad is None, name

    def test_the_optimiser_receives_what_requires_a_gradient(self, head):
        groups = build_optimiser(head, OptimiserConfig()).param_groups
        received = {id(p) for group in groups for p in group["params"]}
        assert received == {id(p) for p in head.parameters() if p.requires_grad}

    def test_a_step_of_training_lowers_the_loss(self, head):
        rows, labels = make_features(6), torch.arange(6) % 2
        optimiser = torch.optim.SGD(head.eval().trainable_parameters(), lr=1e-4)
        before = head.loss(head(rows), labels)
        before.backward()
        optimiser.step()
        assert head.loss(head(rows), labels) < before


class TestLinear(HeadContract):
    family = "linear"


class TestLinearProbe(HeadContract):
    family = "linear_probe"


class TestAdapter(HeadContract):
    family = "adapter"


class TestPromptTuningCoOp(HeadContract):
    family = "prompt_tuning"
    options: ClassVar = {"class_position": "front", "n_context": 3}


class TestPromptTuningClassSpecific(HeadContract):
    family = "prompt_tuning"
    options: ClassVar = {"class_position": "middle", "n_context": 3, "class_specific": True}


class TestPromptTuningCoCoOp(HeadContract):
    family = "prompt_tuning"
    options: ClassVar = {"prompts": "cocoop", "n_context": 3}


class TestLare2(HeadContract):
    family = "lare2"


class TestLare2OnAResNet(HeadContract):
    family = "lare2"
    options: ClassVar = {"features": "resnet"}


class TestErrorMapResNet(HeadContract):
    family = "error_map_resnet"


class TestRine(HeadContract):
    family = "rine"
    options: ClassVar = {"depth": 2, "width": 8}


class TestRineWithoutContrast(HeadContract):
    family = "rine"
    options: ClassVar = {"depth": 1, "width": 8, "contrastive_weight": 0}


class TestRineMean(HeadContract):
    family = "rine"
    options: ClassVar = {"width": 8, "aggregation": "mean"}


class TestRineLastBlock(HeadContract):
    family = "rine"
    options: ClassVar = {"width": 8, "aggregation": "last"}


class TestRinePyramid(HeadContract):
    family = "rine"
    options: ClassVar = {"width": 8, "aggregation": "pyramid"}


class TestClareCoOp(HeadContract):
    family = "clare"
    options: ClassVar = {"prompts": "coop", "n_context": 3, "train": "all"}


class TestClareCoCoOp(HeadContract):
    family = "clare"
    options: ClassVar = {"prompts": "cocoop", "n_context": 3, "train": "all"}


class TestClarePromptsAlone(HeadContract):
    family = "clare"
    options: ClassVar = {"prompts": "cocoop", "context_init": "a photo of a"}


class TestClareMapBias(HeadContract):
    family = "clare"
    options: ClassVar = {"attention": "map_bias", "n_context": 3, "train": "all"}


class TestClareTokens(HeadContract):
    family = "clare"
    options: ClassVar = {
        "attention": "cross_attention_tokens", "channel": "path", "n_context": 3, "train": "all",
    }  # fmt: skip


class TestClareRegions(HeadContract):
    family = "clare"
    options: ClassVar = {"prompts": "cocoop", "n_context": 3, "train": "all", "regions": True}


class TestKnn(AnyHeadContract):
    family = "knn"
    options: ClassVar = {"k": 3}

    def build(self, tower, seed: int = 1, **arguments):
        head = super().build(tower, seed, **arguments)
        rows = make_features(12, seed=100 + seed)
        rows |= {array: rows[name] for name, array in head.reads.items()}
        head.remember([(rows, torch.arange(12) % 2)])
        return head

    def test_nothing_is_trained(self, head):
        assert isinstance(head, BankHead)
        assert not list(head.parameters())
        assert not head(make_features(2)).score.requires_grad


def test_every_family_is_under_contract():
    kinds = [*AnyHeadContract.__subclasses__(), *HeadContract.__subclasses__()]
    assert {kind.family for kind in kinds if kind is not HeadContract} == set(HEADS)
