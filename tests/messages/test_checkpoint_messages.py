"""What is said about checkpoints that cannot be read, do not fit, or cannot be written."""

import pytest
import torch

from clare_cache.errors import HeadError
from clare_cache.heads import build_head, check_features
from clare_cache.heads.authors import export_head, import_head

CURE = "Name the system whose authors saved the file, and the CLIP it was trained with."


def message_of(action) -> str:
    with pytest.raises(HeadError) as caught:
        action()
    return str(caught.value)


def saved(tmp_path, content):
    torch.save(content, tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth"


def test_an_unknown_family(tmp_path):
    path = tmp_path / "theirs.pth"
    assert message_of(lambda: import_head(path, family="dire")) == (
        "import: expected one of rine, ufd, clare, prompt_tuning, found dire. "
        "Name the system whose authors saved the file with --family."
    )


def test_an_absent_file(tmp_path):
    path = tmp_path / "theirs.pth"
    assert message_of(lambda: import_head(path, family="ufd")) == (
        f"checkpoint {path}: expected a file, found none. Check the path."
    )


class Malice:
    """What a pickle could hold."""


def test_a_pickle(tmp_path):
    path = saved(tmp_path, {"weight": Malice()})
    assert message_of(lambda: import_head(path, family="ufd")) == (
        f"checkpoint {path}: expected named tensors, found a pickle of more than tensors. "
        "Copy the file again; what needs code to be unpacked is never loaded."
    )


def test_something_else_than_tensors(tmp_path):
    path = saved(tmp_path, {"weight": torch.zeros(1, 3), "bias": 0.5, "note": "x"})
    assert message_of(lambda: import_head(path, family="ufd")) == (
        f"checkpoint {path}: 2 faults\n"
        "  - bias: expected a tensor, found float\n"
        "  - note: expected a tensor, found str"
    )


def test_a_checkpoint_of_another_family(tmp_path):
    path = saved(tmp_path, {"weight": torch.zeros(1, 3), "bias": torch.zeros(1)})
    assert message_of(lambda: import_head(path, family="rine")) == (
        f"checkpoint {path} as rine: 2 faults\n"
        "  - alpha: expected a tensor with 3 axes, found none so named\n"
        "  - proj1.1.weight: expected a tensor with 2 axes, found none so named\n"
        f"{CURE}"
    )


def test_every_tensor_that_does_not_fit(tmp_path):
    head = build_head("rine", shapes={"clip_block_cls": (3, 16)}, depth=1, width=8)
    tensors = dict(head.state_dict())
    del tensors["head.0.bias"]
    tensors["head.3.weight"] = torch.zeros(8, 9)
    tensors["head.9.weight"] = torch.zeros(2)
    tensors["head.6.bias"] = torch.tensor([torch.nan])
    tensors["head.6.weight"] = torch.zeros(1, 8, dtype=torch.int32)
    path = saved(tmp_path, tensors)
    assert message_of(lambda: import_head(path, family="rine")) == (
        f"checkpoint {path} as rine: 5 faults\n"
        "  - head.0.bias: expected (8,), found no such tensor\n"
        "  - head.3.weight: expected (8, 8), found (8, 9)\n"
        "  - head.6.weight: expected floating point, found torch.int32\n"
        "  - head.6.bias: expected finite numbers, found others\n"
        "  - head.9.weight: expected no such tensor, found (2,)\n"
        f"{CURE}"
    )


def test_a_family_that_no_authors_code_reads(tmp_path):
    head = build_head("knn")
    assert message_of(lambda: export_head(head, tmp_path / "out.pth")) == (
        "export of head knn: expected one of clare, linear, prompt_tuning, rine, found knn. "
        "No authors' code reads others: use head.safetensors of the run itself."
    )
    assert not (tmp_path / "out.pth").exists()


def test_options_that_the_authors_code_has_not(tmp_path, build_text_tower):
    head = build_head(
        "clare", text=build_text_tower(), attention="cross_attention_tokens", channel="path"
    )
    assert message_of(lambda: export_head(head, tmp_path / "out.pth")) == (
        "export of head clare: 2 faults\n"
        "  - option attention: expected cross_attention or map_bias, found "
        "cross_attention_tokens\n"
        "  - option channel: expected gate, found path\n"
        "The authors' code has no such option: use head.safetensors of the run itself."
    )


def test_features_of_an_imported_head():
    config = {
        "family": "rine",
        "needs": ["clip_block_cls"],
        "features": {"clip_block_cls": {"declared": {"tap": "mlp_input", "size_px": 224}}},
    }
    found = {"fingerprint": "aa", "declared": {"tap": "block_output", "size_px": 224, "x": 1}}
    cure = "Extract the features as they were for training, or train a head on these."
    title = "head rine: the features are not those it was trained on: 1 fault\n"
    assert message_of(lambda: check_features(config, {"clip_block_cls": found})) == (
        f'{title}  - clip_block_cls: tap: asked "mlp_input", found "block_output"\n{cure}'
    )
    assert message_of(lambda: check_features(config, {})) == (
        f"{title}  - clip_block_cls: expected one of these features, found no such array\n{cure}"
    )
    found["declared"]["tap"] = "mlp_input"
    check_features(config, {"clip_block_cls": found})
