"""Heads that users write: found by `MODULE:CLASS`, trained, kept, and tried by `check_head`."""

import sys
from pathlib import Path

import pytest
import torch

from clare_cache.errors import HeadError, VersionWarning
from clare_cache.heads import HEADS, build_head, head_needs, load_head, save_head
from clare_cache.heads.own import code_of
from clare_cache.recipe import HeadSection
from clare_cache.train.contract import check_head

SHAPES = {
    "error_map": (4, 8, 8),
    "clip_patch_tokens": (9, 64),
    "clip_block_cls": (3, 24),
    "clip_embedding": (64,),
}
GOOD = """
import torch
from torch import nn
from torch.nn import functional as F

from clare_cache import Head, HeadOutput
from clare_cache.heads.options import count


class Spread(Head):
    axes = {"error_map": ("channel", "row", "column")}
    option_rules = {"width": count(3)}
    stackable = True

    def __init__(self, shapes, width):
        super().__init__(shapes, {"width": width})
        self.hidden = nn.Linear(self.shapes["error_map"][0], width)
        self.last = nn.Linear(width, 1)

    def forward(self, features):
        (error,) = self.read(features)
        return HeadOutput.from_score(self.last(self.hidden(error.flatten(2).std(2))).squeeze(1))

    def loss(self, output, labels):
        return F.binary_cross_entropy_with_logits(output.score, labels.float())
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch):
    """A module in a folder that Python looks through, forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text: str, name: str = "spread_heads") -> Path:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return tmp_path / f"{name}.py"

    yield write
    for name in ("spread_heads", "broken_heads"):
        sys.modules.pop(name, None)


def test_a_head_is_built_by_its_module_and_class(write):
    write(GOOD)
    head = build_head("spread_heads:Spread", shapes=SHAPES, width=5)
    assert (head.family, head.options, head.needs) == (
        "spread_heads:Spread", {"width": 5}, ("error_map",),
    )  # fmt: skip
    assert head_needs("spread_heads:Spread") == ("error_map",)
    with pytest.raises(HeadError, match="option depth: expected one of width, found depth"):
        build_head("spread_heads:Spread", shapes=SHAPES, depth=5)


def test_its_label_is_the_class():
    assert HeadSection(family="spread_heads:Spread").label == "Spread"


def test_it_is_saved_and_loaded_and_other_code_is_told(write, tmp_path):
    path = write(GOOD)
    head = build_head("spread_heads:Spread", shapes=SHAPES).eval()
    save_head(head, tmp_path / "run", {})
    rows = {"error_map": torch.rand(3, 4, 8, 8)}
    loaded, config = load_head(tmp_path / "run")
    assert torch.equal(loaded(rows).score, head(rows).score)
    assert config["code_sha256"] == code_of("spread_heads:Spread")["code_sha256"]
    path.write_text(GOOD + "# better now\n")
    with pytest.warns(VersionWarning, match="file of spread_heads:Spread has changed since"):
        load_head(tmp_path / "run")


def test_shipped_heads_have_no_code_of_their_own():
    assert code_of("rine") == {}


@pytest.mark.parametrize("family", ["nowhere_heads:A", "nowhere.heads:A", "spread_heads.deeper:A"])
def test_a_module_that_is_not_there(write, family):
    write(GOOD)
    module = family.partition(":")[0]
    with pytest.raises(HeadError) as caught:
        build_head(family, shapes=SHAPES)
    assert str(caught.value) == (
        f"head {family}: expected a Python module {module}, found none of that name. Start where "
        f"{module.partition('.')[0]} lies, add its folder to PYTHONPATH, or install it."
    )


def test_a_class_that_is_not_there(write):
    path = write(GOOD)
    with pytest.raises(HeadError) as caught:
        build_head("spread_heads:Spraed", shapes=SHAPES)
    assert str(caught.value) == (
        f"head spread_heads:Spraed: expected a class Spraed in {path}, found Spread. "
        "Write MODULE:CLASS."
    )


def test_a_class_that_is_no_head(write):
    write("class Plain:\n    pass\n")
    with pytest.raises(
        HeadError, match=r"expected a subclass of clare_cache\.Head, found one of object"
    ):
        build_head("spread_heads:Plain", shapes=SHAPES)


def test_a_head_that_is_not_finished_is_told_all_that_it_lacks(write):
    write("from clare_cache import Head\n\nclass Half(Head):\n    pass\n")
    with pytest.raises(HeadError) as caught:
        build_head("spread_heads:Half", shapes=SHAPES)
    for what in (
        "3 faults",
        "forward: expected",
        "loss: expected",
        "axes: expected the axes of each array",
    ):
        assert what in str(caught.value)


def test_an_error_of_the_module_itself_passes_through(write):
    write("import no_such_library_at_all\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_library_at_all"):
        build_head("spread_heads:Spread", shapes=SHAPES)


def test_a_good_head_keeps_all_that_is_asked(write):
    write(GOOD)
    found = check_head("spread_heads:Spread", shapes=SHAPES)
    assert len(found) == 10
    assert not any(found.values())


@pytest.mark.parametrize("family", sorted(HEADS))
def test_so_does_every_shipped_head(family, build_text_tower):
    tower = build_text_tower(output_width=64)
    found = check_head(family, shapes=SHAPES, text=tower)
    assert not any(found.values()), found


UNSAVED = [
    ("stackable = True", "stackable = True; made = 0"),
    ("self.last =", "type(self).made += 1; self.scale = self.made; self.last ="),
    ("self.hidden(error", "self.hidden(self.scale * error"),
]
WRONG = {
    "two logits an image and one loss": (
        [("HeadOutput.from_score(", "HeadOutput(")],
        "class_logits: expected (1, 2), found (1,)",
    ),
    "images do not see each other": (
        [("error.flatten(2).std(2)", "error.flatten(2).std(2) - error.std((2, 3)).mean(0)")],
        "logits of an image alone: expected the same to",
    ),
    "evaluation is deterministic": (
        [("self.hidden(error", "self.hidden(torch.rand_like(error)")],
        "expected the same logits again, found",
    ),
    "it reads what it names": (
        [
            ('"row", "column")', '"row", "column"), "clip_embedding": ("channel",)'),
            ("(error,) = self.read(features)", 'error = features["error_map"].float()'),
        ],
        "expected to read error_map, clip_embedding, found clip_embedding unread",
    ),
    "half precision is computed in float32": (
        [("(error,) = self.read(features)", 'error = features["error_map"]')],
        "FILE, line 22: raised RuntimeError: mat1 and mat2 must have the same dtype",
    ),
    "its options are told": (
        [('{"width": width}', "{}")],
        "expected options ['width'] as in option_rules, found []",
    ),
    "every parameter gets a gradient": (
        [("self.last =", "self.spare = nn.Linear(2, 2); self.last =")],
        "spare.weight: expected a gradient, found none; unused, or cut off on the way",
    ),
    "the seed decides the weights": (
        [("self.last =", "torch.seed(); self.last =")],
        "expected equal weights for equal seeds, found others in last.weight, last.bias",
    ),
    "a saved head loads as it was": (UNSAVED, "logits of the loaded head: expected the same to"),
    "in a stack it is what it is alone": (UNSAVED, "logits in a stack: expected the same to"),
}  # fmt: skip


def test_a_stackable_head_that_counts_steps_outside_of_tensors_is_told(write):
    text = GOOD.replace("    stackable = True", "    stackable, n_losses = True, 0")
    text = text.replace(
        "        return F.bin",
        "        self.n_losses += 1\n        return min(1, 30 / self.n_losses) * F.bin",
    )
    write(text)
    (fault,) = check_head("spread_heads:Spread", shapes=SHAPES)["in a stack it is what it is alone"]
    assert fault.startswith("losses by the operations of an earlier step: expected the same to")


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_head_is_told_what_it_does_not_keep(write, what):
    changes, expected = WRONG[what]
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = write(text)
    found = check_head("spread_heads:Spread", shapes=SHAPES)[what]
    assert found
    assert found[0].replace(str(path), "FILE").startswith(expected)
