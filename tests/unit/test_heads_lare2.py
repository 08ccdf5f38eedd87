"""LaRE² on either backbone, and its network on the error map alone."""

import pytest
import torch
from torch.nn import functional as F

from clare_cache.heads import RN50_SHAPES, build_head


def test_a_layer_3_map_is_read_row_by_row_like_patch_tokens():
    vit = build_head(
        "lare2", shapes={"error_map": (4, 8, 8), "clip_patch_tokens": (16, 32),
                         "clip_embedding": (32,)}
    ).eval()  # fmt: skip
    resnet = build_head(
        "lare2", features="resnet",
        shapes={"error_map": (4, 8, 8), "clip_layer3_map": (32, 4, 4), "clip_embedding": (32,)},
    ).eval()  # fmt: skip
    with torch.no_grad():
        vit.image_proj.weight.copy_(torch.eye(32))
        vit.image_proj.bias.zero_()
    resnet.load_state_dict({k: v for k, v in vit.state_dict().items() if "image_proj" not in k})
    rows = {name: torch.randn(3, *shape) for name, shape in resnet.shapes.items()}
    tokens = torch.stack(
        [rows["clip_layer3_map"][:, :, r, c] for r in range(4) for c in range(4)], dim=1
    )
    found = resnet(rows).class_logits
    expected = vit({**rows, "clip_patch_tokens": tokens}).class_logits
    assert torch.allclose(found, expected, atol=1e-5)


def test_lare2_works_on_the_published_shapes_one_image_at_a_time():
    head = build_head("lare2", shapes=RN50_SHAPES, features="resnet")
    rows = {name: torch.randn(1, *shape) for name, shape in RN50_SHAPES.items()}
    output = head(rows)
    assert output.embedding.shape == (1, 3072)
    assert torch.isfinite(head.loss(output, torch.tensor([1])))


def test_lare2_trains_all_but_what_no_gradient_reaches():
    head = build_head("lare2")
    assert {name for name, p in head.named_parameters() if not p.requires_grad} == {
        "attn_pool.attention.fc_k.bias", "map_proj.bias"}  # fmt: skip


@pytest.mark.parametrize("family", ["lare2", "error_map_resnet", "linear_probe"])
def test_two_logits_have_mean_cross_entropy(family):
    head = build_head(family).eval()
    rows = {name: torch.randn(3, *shape) for name, shape in head.shapes.items()}
    output, labels = head(rows), torch.tensor([0, 1, 1])
    picked = -output.class_logits.log_softmax(dim=1)[torch.arange(3), labels]
    assert torch.allclose(head.loss(output, labels), picked.mean())


def plain_residual(x, weights, stride, prefix):
    """One block of He et al. 2016 in evaluation mode, from its tensors."""

    def convolve(x, name, stride=1):
        return F.conv2d(x, weights[f"{prefix}.{name}.weight"], stride=stride, padding=1)

    def normalise(x, name):
        mean, var, weight, bias = (
            weights[f"{prefix}.{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    found = normalise(convolve(x, "conv1", stride), "bn1").clamp(min=0)
    found = normalise(convolve(found, "conv2"), "bn2")
    if f"{prefix}.downsample.0.weight" in weights:
        x = normalise(convolve(x, "downsample.0", stride), "downsample.1")
    return (found + x).clamp(min=0)


def test_the_residual_network_has_three_stages_of_two_blocks():
    head = build_head("error_map_resnet")
    rows = torch.randn(2, 4, 32, 32)
    head.train()({"error_map": rows})  # so that the running statistics are not 0 and 1
    weights = head.eval().state_dict()
    x = F.conv2d(rows, weights["conv.weight"], padding=1)
    x = F.batch_norm(
        x, weights["bn.running_mean"], weights["bn.running_var"], weights["bn.weight"],
        weights["bn.bias"],
    ).relu()  # fmt: skip
    for stage, stride in (("layer1", 1), ("layer2", 2), ("layer3", 2)):
        x = plain_residual(x, weights, stride, f"{stage}.0")
        x = plain_residual(x, weights, 1, f"{stage}.1")
    assert x.shape == (2, 64, 8, 8)
    assert {name for name in weights if "downsample.0" in name} == {
        "layer2.0.downsample.0.weight", "layer3.0.downsample.0.weight"}  # fmt: skip
    logits = F.avg_pool2d(x, 8).flatten(1) @ weights["fc.weight"].T + weights["fc.bias"]
    assert torch.allclose(head({"error_map": rows}).class_logits, logits, atol=1e-5)
