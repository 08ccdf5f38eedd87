"""Heads against numbers computed by the authors' own code."""

import json

import numpy as np
import open_clip
import pytest
import torch

from clare_cache.backbones.text import ClipTextTower
from clare_cache.heads import build_head
from clare_cache.heads.attention import ChannelAlign, CrossAttention, MapBiasAttention
from clare_cache.heads.losses import supervised_contrastive
from clare_cache.heads.protocol import HeadOutput

CLARE = [
    "coop-cross_attention",
    "cocoop-cross_attention",
    "cocoop-cross_attention-init",
    "coop-map_bias",
    "cocoop-map_bias",
]


def relative(found, expected) -> float:
    found = found.cpu() if isinstance(found, torch.Tensor) else found
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


def assert_gradient_norms(parameters, golden, authors_name) -> None:
    """Norms within 1e-4; what cannot be trained has no gradient here and only dust in the file."""
    for name, parameter in parameters:
        expected = float(golden[f"grad_norm/{authors_name(name)}"])
        if parameter.requires_grad:
            assert float(parameter.grad.norm()) == pytest.approx(expected, rel=1e-4), name
        else:
            assert expected < 1e-7, name


# ---------------------------------------------------------------------------- CLaRE


def two_layer_clip(weight_of):
    """A CLIP of ViT-L/14's widths with two layers in either tower, from name, shape → weight."""
    model = open_clip.CLIP(
        embed_dim=768,
        vision_cfg={"layers": 2, "width": 1024, "patch_size": 14, "image_size": 224},
        text_cfg={"layers": 2, "width": 768, "heads": 12},
        quick_gelu=True,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.as_tensor(weight_of(name, tuple(parameter.shape))))
    return model.eval().requires_grad_(False)


def features_of(clip, image, error_map):
    with torch.no_grad():
        found = clip.visual.forward_intermediates(image, indices=[1], output_fmt="NLC")
    return {
        "error_map": error_map,
        "clip_patch_tokens": found["image_intermediates"][0],
        "clip_embedding": found["image_features"],
    }


@pytest.fixture(scope="module")
def clip(golden_draw):
    def weight_of(name, shape):
        # Not drawn in the files: ln(1/0.07).
        return np.log(1 / 0.07) if name == "logit_scale" else golden_draw.parameter(name, shape)

    return two_layer_clip(weight_of)


@pytest.fixture(scope="module")
def features(clip, golden_draw):
    """Of four images; a drawn array of fewer begins alike."""
    image = torch.from_numpy(golden_draw.array("input.image", (4, 3, 224, 224)))
    error_map = np.abs(golden_draw.array("input.loss_map", (4, 4, 32, 32), scale=0.5))
    return features_of(clip, image, torch.from_numpy(error_map))


def first_three(features):
    return {name: rows[:3] for name, rows in features.items()}


def authors_name(name: str) -> str:
    """Our name of a parameter → the name in the authors' state dict."""
    if name.startswith("map_proj."):
        return name.replace("map_proj", "conv")
    if name.startswith("attn_pool.map_proj."):
        _, _, number, kind = name.split(".")
        return f"attn_pool.projection_loss_map_{int(number) + 1}.{kind}"
    return name


def authors_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The five widening maps and the first one are 1x1 convolutions there."""
    return (*shape, 1, 1) if "map_proj" in name and len(shape) == 2 else shape


def fill(head, weight_of, *, kept=()):
    """Weights by the authors' names into the head, which is then in evaluation mode."""
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if name not in kept:
                weight = weight_of(authors_name(name), authors_shape(name, tuple(parameter.shape)))
                parameter.copy_(torch.as_tensor(weight).reshape(parameter.shape))
    return head.eval()


def moved(features, device):
    return {name: rows.to(device) for name, rows in features.items()}


def clare(case: str, clip, golden_draw, *, train: str = "all", device: str = "cpu"):
    prompts, attention, *init = case.split("-")
    head = build_head(
        "clare",
        text=ClipTextTower(clip, {"weights": "golden"}, device=device),
        prompts=prompts,
        attention=attention,
        context_init="a photo of a" if init else None,
        train=train,
    )
    # The context from words keeps its words.
    kept = ("prompt_learner.ctx",) if init else ()
    return fill(head, golden_draw.parameter, kept=kept).to(device)


def test_the_golden_clip_is_rebuilt(features, golden_dir):
    golden = np.load(golden_dir / "clare-coop-cross_attention.npz")
    tokens = features["clip_patch_tokens"]
    assert relative(features["clip_embedding"], golden["clip_image_embedding"]) < 2e-6
    assert relative(tokens.mean(dim=1), golden["patch_map_mean"]) < 2e-6
    assert relative(tokens[:, 3 * 16 + 5], golden["patch_map_r3c5"]) < 2e-6


@pytest.mark.parametrize("case", CLARE)
def test_clare_outputs_and_gradients_are_the_authors(
    case, clip, features, golden_dir, golden_draw, device
):
    golden = np.load(golden_dir / f"clare-{case}.npz")
    head = clare(case, clip, golden_draw, device=device)
    output = head(moved(features, device))
    loss = head.loss(output, torch.tensor([0, 1, 0, 1], device=device))
    loss.backward()
    assert relative(output.class_logits.detach(), golden["logits"]) < 1e-5
    assert loss.item() == pytest.approx(float(golden["loss"]), rel=1e-5)
    context = head.prompt_learner.ctx.grad
    assert relative(context, golden["grad/prompt_learner.ctx"]) < 1e-4
    assert_gradient_norms(head.named_parameters(), golden, authors_name)


def test_training_the_prompts_alone_gives_the_same_gradient(
    clip, features, golden_dir, golden_draw
):
    golden = np.load(golden_dir / "clare-cocoop-cross_attention.npz")
    head = clare("cocoop-cross_attention", clip, golden_draw, train="prompts")
    head.loss(head(features), torch.tensor([0, 1, 0, 1])).backward()
    assert relative(head.prompt_learner.ctx.grad, golden["grad/prompt_learner.ctx"]) < 1e-4
    assert {name for name, p in head.named_parameters() if p.grad is not None} == {
        name for name, _ in head.named_parameters() if name.startswith("prompt_learner.")
    }


# ---------------------------------------------------------------- prompt tuning, LaRE2


@pytest.mark.parametrize("prompts", ["coop", "cocoop"])
def test_prompt_tuning_outputs_and_gradients_are_the_authors(
    prompts, clip, features, golden_dir, golden_draw, device
):
    golden = np.load(golden_dir / f"prompt_tuning-{prompts}.npz")
    tower = ClipTextTower(clip, {"weights": "golden"}, device=device)
    head = fill(build_head("prompt_tuning", text=tower, prompts=prompts), golden_draw.parameter)
    output = head.to(device)(moved(first_three(features), device))
    loss = head.loss(output, torch.tensor([0, 1, 0], device=device))
    loss.backward()
    assert relative(output.class_logits.detach(), golden["logits"]) < 1e-5
    assert loss.item() == pytest.approx(float(golden["loss"]), rel=1e-5)
    context = head.prompt_learner.ctx.grad
    assert relative(context, golden["grad/prompt_learner.ctx"]) < 1e-4
    assert_gradient_norms(head.named_parameters(), golden, authors_name)


def test_lare2_outputs_and_gradients_are_the_authors(features, golden_dir, golden_draw, device):
    golden = np.load(golden_dir / "lare2.npz")
    head = fill(build_head("lare2"), golden_draw.parameter).to(device)
    output = head(moved(first_three(features), device))
    loss = head.loss(output, torch.tensor([0, 1, 0], device=device))
    loss.backward()
    assert relative(output.class_logits.detach(), golden["logits"]) < 1e-5
    assert loss.item() == pytest.approx(float(golden["loss"]), rel=1e-5)
    names = {authors_name(name) for name, _ in head.named_parameters()}
    assert {f"grad_norm/{name}" for name in names} == {
        key for key in golden if key.startswith("grad_norm/")
    }
    assert_gradient_norms(head.named_parameters(), golden, authors_name)


# ----------------------------------------------------------------------------- RINE


@pytest.mark.parametrize(("depth", "width"), [(1, 256), (2, 128), (4, 128)])
def test_rine_outputs_loss_and_gradients_are_the_authors(
    depth, width, golden_dir, golden_draw, device
):
    golden = np.load(golden_dir / f"rine-q{depth}-d{width}.npz")
    shapes = {"clip_block_cls": (4, 1024)}
    head = build_head("rine", shapes=shapes, depth=depth, width=width).eval()
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            shape = tuple(parameter.shape)
            scale = {1: 0.05, 2: (2 / shape[-1]) ** 0.5, 3: 1.0}[len(shape)]
            parameter.copy_(torch.from_numpy(golden_draw.array(name, shape, scale=scale)))
    labels = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1], device=device)
    rows = {"clip_block_cls": torch.from_numpy(golden["block_cls"]).to(device)}
    output = head.to(device)(rows)
    loss = head.loss(output, labels)
    loss.backward()
    assert relative(output.score.detach(), golden["logit"][:, 0]) < 1e-5
    assert relative(output.embedding.detach(), golden["z"]) < 1e-5
    contrastive = supervised_contrastive(output.embedding, labels)
    assert contrastive.item() == pytest.approx(float(golden["supcon"]), rel=1e-5)
    assert loss.item() == pytest.approx(float(golden["total"]), rel=1e-5)
    assert_gradient_norms(head.named_parameters(), golden, lambda name: name)


# --------------------------------------------------- golden_vectors.json: single blocks


def vector(*, shape, seed: int, scale: float = 1.0, offset: float = 0.0) -> torch.Tensor:
    """The integer rule of golden_vectors.json."""
    index = np.arange(int(np.prod(shape)), dtype=np.uint64)
    h = (index * np.uint64(2654435761) + np.uint64(seed * 40503 + 12345)) % np.uint64(2**32)
    h ^= h >> np.uint64(16)
    h = (h * np.uint64(2246822519)) % np.uint64(2**32)
    h ^= h >> np.uint64(13)
    values = ((h.astype(np.float64) / 2**32 - 0.5) * scale).astype(np.float32)
    return torch.from_numpy((values + np.float32(offset)).reshape(shape))


@pytest.fixture(scope="module")
def vectors(golden_dir):
    return json.loads((golden_dir / "golden_vectors.json").read_text())


def test_the_integer_rule_is_the_published_one(vectors):
    found = vector(shape=(6,), seed=1).tolist()
    assert found == pytest.approx(vectors["filler_first6_seed1_scale1"], abs=1e-9)


@pytest.mark.parametrize(
    ("block", "module"),
    [
        ("v1", MapBiasAttention(16, 1024, 0.1)),
        ("v2", CrossAttention(16, 1024, 0.1)),
        ("channel_align", ChannelAlign(4, 1024)),
    ],
)
def test_single_blocks(block, module, vectors):
    golden = vectors["attention_blocks"]
    weights = {name: vector(**rule) for name, rule in golden["blocks"][block]["tensors"].items()}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            theirs = authors_name(f"attn_pool.{name}").removeprefix("attn_pool.")
            parameter.copy_(weights.pop(theirs).reshape(parameter.shape))
        assert not weights
        inputs = {name: vector(**rule) for name, rule in golden["inputs"].items()}
        tokens = inputs["feature_map"].flatten(2).transpose(1, 2)
        error = inputs["map8"].flatten(2).transpose(1, 2)
        found = module.eval()(inputs["map4"] if block == "channel_align" else error, tokens)
    expected = golden["blocks"][block]
    assert relative(found[:, :8], expected["output_first8"]) < 1e-5
    assert relative(found.double().abs().sum(1), expected["output_abs_sum"]) < 1e-5
    assert found.double().sum(1).tolist() == pytest.approx(expected["output_sum"], abs=1e-3)


def test_supervised_contrastive_loss_with_and_without_singletons(vectors):
    golden = vectors["supcon"]
    z = vector(**golden["z"])
    for labels, loss in (
        ("labels", "loss"),
        ("labels_with_two_singletons", "loss_with_singletons"),
    ):
        found = supervised_contrastive(z, torch.tensor(golden[labels]))
        assert float(found) == pytest.approx(golden[loss], rel=1e-5)


def test_rine_adds_a_mean_to_a_sum(vectors):
    golden = vectors["rine_total_loss"]
    head = build_head("rine", contrastive_weight=golden["xi"], width=16, depth=1)
    score = vector(**golden["logits"])[:, 0]
    output = HeadOutput.from_score(score, vector(**vectors["supcon"]["z"]))
    labels = torch.tensor(vectors["supcon"]["labels"])
    assert float(head.loss(output, labels)) == pytest.approx(golden["total"], rel=1e-5)
    alone = build_head("rine", contrastive_weight=0.0, width=16, depth=1)
    assert float(alone.loss(output, labels)) == pytest.approx(golden["bce_sum"], rel=1e-5)


# ------------------------------------- golden_vectors.json: whole heads on a small CLIP


@pytest.fixture(scope="module")
def small(vectors):
    """The section, its CLIP and the features of its two pictures."""
    golden = vectors["clare_fusion_small_clip"]

    def weight_of(name, shape):
        rule = dict(golden["clip_tensors"][name])
        return rule["const"] if "const" in rule else vector(**rule)

    clip = two_layer_clip(weight_of)
    image, error_map = (vector(**golden["inputs"][name]) for name in ("image", "lare_map"))
    return golden, clip, features_of(clip, image, error_map)


def test_the_small_clip_is_rebuilt(small):
    golden, _, features = small
    assert relative(features["clip_embedding"][:, :5], golden["clip_image_embedding_first5"]) < 1e-5


@pytest.mark.parametrize(
    ("case", "family", "options"),
    [
        ("coop_v1", "clare", {"prompts": "coop", "attention": "map_bias"}),
        ("coop_v2", "clare", {"prompts": "coop", "attention": "cross_attention"}),
        ("cocoop_v1", "clare", {"prompts": "cocoop", "attention": "map_bias"}),
        ("cocoop_v2", "clare", {"prompts": "cocoop", "attention": "cross_attention"}),
        ("clipping_coop", "prompt_tuning", {"prompts": "coop"}),
        ("clipping_cocoop", "prompt_tuning", {"prompts": "cocoop"}),
    ],
)
def test_whole_heads_on_the_small_clip(case, family, options, small):
    golden, clip, features = small
    expected = golden["results"][case]
    head = build_head(family, text=ClipTextTower(clip, {"weights": "golden"}), **options)
    fill(head, lambda name, shape: vector(**expected["tensors"][name]))
    with torch.no_grad():
        found = head(features)
    assert torch.allclose(found.class_logits, torch.tensor(expected["logits"]), atol=1e-5)
    if "prob_fake" in expected:
        assert found.score.sigmoid().tolist() == pytest.approx(expected["prob_fake"], abs=1e-5)
