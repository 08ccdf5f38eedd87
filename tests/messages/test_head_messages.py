"""The sentences that users of heads meet, word for word."""

import pytest
import torch

from clare_cache.errors import HeadError
from clare_cache.heads import (
    VIT_L14_SHAPES,
    build_head,
    check_features,
    head_needs,
    load_head,
    save_head,
)


def message_of(act) -> str:
    with pytest.raises(HeadError) as caught:
        act()
    return str(caught.value)


def test_unknown_family():
    assert message_of(lambda: build_head("resnet")) == (
        "head resnet: expected one of adapter, clare, error_map_resnet, knn, lare2, linear, "
        "linear_probe, prompt_tuning, rine, found resnet. "
        "Choose a family from this list, or name your own as MODULE:CLASS."
    )


def test_every_fault_of_a_head_at_once():
    shapes = {"clip_patch_tokens": (10, 32), "clip_embedding": (2, 768)}
    options = {"promts": "coop", "attention": "esa", "n_context": 0, "dropout": 1}
    assert message_of(lambda: build_head("clare", shapes=shapes, **options)) == (
        "head clare: 8 faults\n"
        "  - option promts: expected one of attention, channel, class_position, class_specific, "
        "context_init, dropout, n_context, prompts, regions, train, found promts\n"
        "  - option n_context: expected a whole number from 1, found 0\n"
        "  - option attention: expected one of cross_attention, cross_attention_tokens, map_bias, "
        "found 'esa'\n"
        "  - option dropout: expected a number from 0 to below 1, found 1\n"
        "  - shapes: expected error_map as (channel, row, column), found no such array\n"
        "  - shapes: expected clip_embedding as (channel), found (2, 768)\n"
        "  - shapes: expected clip_patch_tokens on a square grid, found 10 patches\n"
        "  - text: expected a text tower for its prompts, found none"
    )


def test_arrays_read_in_place_of_others():
    reads = {"error_maps": "error_map-t280", "error_map": "clip_embedding"}
    expected = (
        "head lare2: 2 faults\n"
        "  - reads: expected one of error_map, clip_patch_tokens, clip_embedding, "
        "found error_maps\n"
        "  - reads: expected another array for each, found clip_embedding for 2 of them"
    )
    assert message_of(lambda: build_head("lare2", reads=reads)) == expected
    assert message_of(lambda: head_needs("lare2", reads=reads)) == expected


def test_an_option_for_a_head_without_options():
    assert message_of(lambda: build_head("linear", depth=2)) == (
        "head linear: 1 fault\n  - option depth: expected no options, found depth"
    )


def test_unacceptable_values():
    options = {"depth": 1.5, "width": True, "contrastive_weight": -1, "dropout": "half"}
    assert message_of(lambda: build_head("rine", **options)) == (
        "head rine: 4 faults\n"
        "  - option depth: expected a whole number from 1, found 1.5\n"
        "  - option width: expected a whole number from 1, found True\n"
        "  - option contrastive_weight: expected a number from 0, found -1\n"
        "  - option dropout: expected a number from 0 to below 1, found 'half'"
    )


def test_unacceptable_values_of_prompts_and_fusion(build_text_tower):
    options = {"class_position": "start", "class_specific": "yes", "channel": None}
    assert message_of(lambda: build_head("clare", text=build_text_tower(), **options)) == (
        "head clare: 3 faults\n"
        "  - option class_position: expected one of end, middle, front, found 'start'\n"
        "  - option class_specific: expected true or false, found 'yes'\n"
        "  - option channel: expected one of gate, path, found None"
    )


def test_patch_tokens_for_a_head_on_a_resnet():
    assert message_of(lambda: build_head("lare2", features="resnet")) == (
        "head lare2: 1 fault\n"
        "  - shapes: expected clip_layer3_map as (channel, row, column), found no such array"
    )
    shapes = {"error_map": (4, 32, 32), "clip_patch_tokens": (50, 768), "clip_embedding": (512,)}
    assert message_of(lambda: build_head("lare2", shapes=shapes)) == (
        "head lare2: 1 fault\n"
        "  - shapes: expected clip_patch_tokens on a square grid, found 50 patches"
    )


def test_boxes_that_are_none(build_text_tower):
    def build(**more):
        shapes = {**VIT_L14_SHAPES, **more}
        return build_head("clare", shapes=shapes, text=build_text_tower(), regions=True)

    assert message_of(build) == (
        "head clare: 1 fault\n  - shapes: expected region_boxes as (box, side), found no such array"
    )
    assert message_of(lambda: build(region_boxes=(3, 5))) == (
        "head clare: 1 fault\n  - shapes: expected region_boxes with 4 sides, found 5"
    )


@pytest.mark.parametrize("family", ["prompt_tuning", "adapter"])
def test_embeddings_outside_the_joint_space(family, build_text_tower):
    assert message_of(lambda: build_head(family, text=build_text_tower(output_width=12))) == (
        f"head {family}: expected clip_embedding as wide as the text tower's output, 12, "
        "found 768. Use embeddings and text tower of one CLIP."
    )


def test_features_that_do_not_fit(build_text_tower):
    head = build_head("clare", text=build_text_tower())
    rows = {
        "error_map": torch.zeros(2, 4, 32, 32, dtype=torch.uint8),
        "clip_patch_tokens": torch.zeros(2, 49, 768),
    }
    assert message_of(lambda: head(rows)) == (
        "head clare: 3 faults\n"
        "  - error_map: expected floating point, found torch.uint8\n"
        "  - clip_patch_tokens: expected rows of shape (256, 1024), found (49, 768)\n"
        "  - clip_embedding: expected rows of shape (768,), found no such array"
    )


def test_arrays_of_unequal_length(build_text_tower):
    head = build_head("clare", text=build_text_tower())
    rows = {
        "error_map": torch.zeros(2, 4, 32, 32),
        "clip_patch_tokens": torch.zeros(2, 256, 1024),
        "clip_embedding": torch.zeros(3, 768),
    }
    assert message_of(lambda: head(rows)) == (
        "head clare: 1 fault\n"
        "  - expected the same number of images in each array, found 2 in error_map, "
        "2 in clip_patch_tokens, 3 in clip_embedding"
    )


def test_an_extra_key_that_is_the_heads_own(tmp_path):
    head = build_head("linear")
    assert message_of(lambda: save_head(head, tmp_path, {"seed": 1, "features": {}})) == (
        "saving head linear: 1 fault\n"
        "  - extra: expected other keys than the head's own, found seed"
    )


def test_a_folder_without_a_head(tmp_path):
    assert message_of(lambda: load_head(tmp_path)) == (
        f"head in {tmp_path}: expected config.json, found none. Name a folder that a training run "
        "or an import wrote."
    )


def test_a_folder_without_weights(tmp_path):
    save_head(build_head("linear"), tmp_path, {})
    (tmp_path / "head.safetensors").unlink()
    assert message_of(lambda: load_head(tmp_path)) == (
        f"head in {tmp_path}: expected head.safetensors, found none. Train again, or copy the "
        "whole folder."
    )


def test_another_text_tower(tmp_path, build_text_tower):
    head = build_head("clare", text=build_text_tower())
    save_head(head, tmp_path, {})
    other = build_text_tower(width=15)
    assert message_of(lambda: load_head(tmp_path, text=other)) == (
        f"head in {tmp_path}: text tower is not the one it was trained with: 1 fault\n"
        "  - width: asked 12, found 15\n"
        "Give the text tower of the same weights."
    )


def test_features_that_a_head_was_not_trained_on():
    config = {
        "family": "clare",
        "needs": ["error_map", "clip_patch_tokens", "clip_embedding", "clip_block_cls"],
        "features": {
            "error_map": {"fingerprint": "aa", "declared": {"timestep": 200, "size_px": 256}},
            "clip_patch_tokens": {"fingerprint": "bb", "declared": {"weights": "x"}},
            "clip_block_cls": {"fingerprint": "cc", "declared": {}},
        },
    }
    found = {
        "error_map": {"fingerprint": "ab", "declared": {"timestep": 280, "size_px": 512}},
        "clip_embedding": {"fingerprint": "dd", "declared": {}},
        "clip_block_cls": {"fingerprint": "ce", "declared": {}},
    }
    assert message_of(lambda: check_features(config, found)) == (
        "head clare: the features are not those it was trained on: 5 faults\n"
        "  - error_map: size_px: asked 256, found 512\n"
        "  - error_map: timestep: asked 200, found 280\n"
        "  - clip_patch_tokens: expected bb, found no such array\n"
        "  - clip_embedding: expected a fingerprint from training, found none in config.json\n"
        '  - clip_block_cls: fingerprint: asked "cc", found "ce"\n'
        "Extract the features as they were for training, or train a head on these."
    )


def test_features_that_a_head_was_trained_on_pass():
    same = {"clip_embedding": {"fingerprint": "aa", "declared": {"weights": "x"}}}
    config = {"family": "linear", "needs": ["clip_embedding"], "features": same}
    assert check_features(config, {**same, "other": {"fingerprint": "b"}}) is None
