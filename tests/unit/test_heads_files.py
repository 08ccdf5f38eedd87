"""Heads on disk: atomic, pickle-free, and refused when they do not fit."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from clare_cache.errors import HeadError
from clare_cache.fingerprint import file_digest
from clare_cache.heads import build_head, load_head, save_head


@pytest.fixture
def head():
    return build_head("rine", shapes={"clip_block_cls": (3, 24)}, depth=1, width=8, seed=9)


def test_the_folder_holds_two_files_and_the_configuration_says_it_all(head, tmp_path):
    save_head(head, tmp_path / "new" / "run", {"features": {}})
    folder = tmp_path / "new" / "run"
    assert {path.name for path in folder.iterdir()} == {"config.json", "head.safetensors"}
    assert json.loads((folder / "config.json").read_text()) == {
        "format": 1,
        "family": "rine",
        "options": {
            "depth": 1,
            "width": 8,
            "contrastive_weight": 0.2,
            "aggregation": "importance",
            "dropout": 0.5,
        },
        "shapes": {"clip_block_cls": [3, 24]},
        "needs": ["clip_block_cls"],
        "reads": {},
        "n_parameters": 449,
        "seed": 9,
        "text": None,
        "features": {},
        "weights_sha256": file_digest(folder / "head.safetensors"),
    }
    assert set(load_file(folder / "head.safetensors")) == set(head.state_dict())


def test_an_interrupted_write_leaves_the_older_weights(head, tmp_path, monkeypatch):
    save_head(head, tmp_path, {})
    before = (tmp_path / "head.safetensors").read_bytes()
    with torch.no_grad():
        head.alpha.zero_()

    def cut(tensors, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("clare_cache.heads.files.save_file", cut)
    with pytest.raises(OSError, match="disk full"):
        save_head(head, tmp_path, {})
    assert (tmp_path / "head.safetensors").read_bytes() == before
    load_head(tmp_path)


def test_a_loaded_head_is_in_evaluation_mode_and_knows_its_seed(head, tmp_path):
    save_head(head.train(), tmp_path, {})
    loaded, _ = load_head(tmp_path)
    assert not loaded.training
    assert loaded.seed == 9


def test_the_tower_travels_as_its_declaration_alone(build_text_tower, tmp_path):
    shapes = {"error_map": (4, 8, 8), "clip_patch_tokens": (9, 16), "clip_embedding": (20,)}
    tower = build_text_tower()
    save_head(build_head("clare", shapes=shapes, text=tower), tmp_path, {})
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["text"] == tower.declared()
    names = set(load_file(tmp_path / "head.safetensors"))
    assert {name for name in names if name.startswith("prompt")} == {"prompt_learner.ctx"}
    with pytest.raises(HeadError, match="output_width: asked 10, found 9"):
        load_head(tmp_path, text=build_text_tower(output_width=9))
    with pytest.raises(HeadError, match="expected a text tower"):
        load_head(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"\x00" * 40])
def test_damaged_weights_are_refused(head, tmp_path, damage):
    save_head(head, tmp_path, {})
    (tmp_path / "head.safetensors").write_bytes(damage)
    with pytest.raises(HeadError, match=r"found a damaged one in head\.safetensors"):
        load_head(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON, found something else in config.json"),
        ("[]", 'expected format 1, found "list" in config.json'),
        ('{"format": 2}', "expected format 1, found 2 in config.json"),
        ("{}", "expected format 1, found null in config.json"),
        ('{"format": 1}', "family: expected a value, found none"),
    ],
)
def test_a_wrong_configuration_is_refused(head, tmp_path, text, message):
    save_head(head, tmp_path, {})
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(HeadError) as caught:
        load_head(tmp_path)
    assert message in str(caught.value)


def test_weights_of_another_size_leave_no_half_loaded_head(head, tmp_path):
    save_head(head, tmp_path, {})
    weights = load_file(tmp_path / "head.safetensors")
    del weights["alpha"]
    weights["extra"] = torch.zeros(2)
    weights["head.6.bias"] = torch.zeros(3)
    save_file(weights, tmp_path / "head.safetensors")
    with pytest.raises(HeadError) as caught:
        load_head(tmp_path)
    assert str(caught.value).endswith(
        "3 faults\n"
        "  - alpha: expected (1, 3, 8), found no such tensor\n"
        "  - extra: expected no such tensor, found (2,)\n"
        "  - head.6.bias: expected (1,), found (3,)"
    )


def test_weights_of_another_training_are_refused(head, tmp_path):
    save_head(head, tmp_path / "a", {})
    with torch.no_grad():
        next(head.parameters()).add_(1)
    save_head(head, tmp_path / "b", {})
    (tmp_path / "b/head.safetensors").replace(tmp_path / "a/head.safetensors")
    with pytest.raises(HeadError, match="is not the file that"):
        load_head(tmp_path / "a")
