"""The released RINE and UniversalFakeDetect weights give the numbers of their authors' code.

`CLARE_CACHE_CHECKPOINTS=FOLDER pytest -m weights` with FOLDER/rine/model_2class_trainable.pth and
FOLDER/ufd/fc_weights.pth.
"""

import json
import os
from pathlib import Path

import pytest
import torch

from clare_cache.fingerprint import file_digest
from clare_cache.heads.authors import export_head, import_head
from tests.golden.test_heads_golden import vector

pytestmark = pytest.mark.weights

RINE = "rine/model_2class_trainable.pth"
UFD = "ufd/fc_weights.pth"
DIGESTS = {
    RINE: "680d301b6d191da85b9dabcebf42cd3df20c5c669fa8320c498f835d02bf5ccb",
    UFD: "477100745713bcc957beb2b40859536859b6483fd6301b3b9293151b194c7847",
}


@pytest.fixture(scope="module")
def vectors(golden_dir):
    return json.loads((golden_dir / "golden_vectors.json").read_text())


def checkpoint(name: str) -> Path:
    folder = os.environ.get("CLARE_CACHE_CHECKPOINTS")
    if not folder:
        pytest.fail("CLARE_CACHE_CHECKPOINTS is not set: name the folder of the released weights")
    path = Path(folder) / name
    assert path.is_file(), f"{path} is not there"
    assert file_digest(path) == DIGESTS[name]
    return path


@pytest.mark.parametrize(
    ("aggregation", "key"),
    [
        ("importance", "logits"),
        ("mean", "logits_without_alpha"),
        ("last", "logits_without_intermediate"),
    ],
)
def test_rine_2class(aggregation, key, vectors):
    golden = vectors["rine_2class_on_synthetic_features"]
    found = import_head(checkpoint(RINE), family="rine", aggregation=aggregation)
    output = found.head({"clip_block_cls": vector(**golden["features"])})
    assert output.score.tolist() == pytest.approx(golden[key], abs=1e-5)
    assert found.ignored == (() if aggregation == "importance" else ("alpha",))
    if aggregation == "importance":
        assert sum(p.numel() for p in found.head.parameters()) == 283_009
        assert (found.head.options["depth"], found.head.options["width"]) == (4, 128)
        assert output.embedding.sum(1).tolist() == pytest.approx(golden["z_sum"], rel=1e-5)
        for row, first in zip(output.embedding, golden["z_first8"], strict=True):
            assert row[:8].tolist() == pytest.approx(first, abs=1e-5)


def test_ufd_linear(vectors):
    golden = vectors["ufd_linear"]
    found = import_head(checkpoint(UFD), family="ufd")
    output = found.head({"clip_embedding": vector(**golden["features"])})
    assert output.score.tolist() == pytest.approx(golden["logits"], abs=1e-5)
    assert output.score.sigmoid().tolist() == pytest.approx(golden["prob"], abs=1e-6)
    assert (found.ignored, found.remarks) == ((), ())


@pytest.mark.parametrize(("name", "family"), [(RINE, "rine"), (UFD, "ufd")])
def test_export_gives_the_released_file_s_tensors_in_its_order(name, family, tmp_path):
    path = checkpoint(name)
    assert export_head(import_head(path, family=family).head, tmp_path / "out.pth") == ()
    released = torch.load(path, map_location="cpu", weights_only=True)
    written = torch.load(tmp_path / "out.pth", weights_only=True)
    assert list(written) == list(released)
    assert all(torch.equal(written[key], value) for key, value in released.items())
