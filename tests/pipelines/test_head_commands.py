"""`clare-cache head …`: checkpoints become runs that score images, and runs become checkpoints."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import clare_cache as cc
from clare_cache.heads import build_head
from clare_cache.heads.authors import export_head
from clare_cache.recipe import read_recipe
from clare_cache.store import open_store
from clare_cache.workflow.prediction import unproven_weights


@pytest.fixture
def rine_file(demo, tmp_path):
    """A RINE checkpoint as its authors save it, for the tiny CLIP's class tokens."""
    shape = open_store(demo.store)["clean/clip_block_cls"].entry.spec.shape
    head = build_head("rine", shapes={"clip_block_cls": shape}, depth=2, width=12, seed=5)
    export_head(head, tmp_path / "model_trainable.pth")
    return tmp_path / "model_trainable.pth"


@pytest.fixture
def ufd_file(demo, tmp_path):
    width = open_store(demo.store)["clean/clip_embedding"].entry.spec.shape[0]
    weights = torch.randn(1, width, generator=torch.Generator().manual_seed(5))
    torch.save({"weight": weights, "bias": torch.zeros(1)}, tmp_path / "fc_weights.pth")
    return tmp_path / "fc_weights.pth"


def test_import_says_what_it_found_and_left_open(command, rine_file, tmp_path):
    content = torch.load(rine_file, weights_only=True) | {"clip.proj": torch.zeros(1)}
    torch.save(content, rine_file)
    done = command(
        "head", "import", rine_file.name, "--family", "rine", "-o", "runs/rine",
        "--option", "contrastive_weight=0.4", folder=tmp_path,
    )  # fmt: skip
    assert done.status == 0, done.err
    assert done.out.startswith("runs/rine: rine, ")
    assert "depth=2, width=12, contrastive_weight=0.4" in done.out
    assert done.err == "  dropout is not in the file: taken as 0.5\n  ignored: clip.proj\n"
    # What `evaluate` needs first: no weights are known of a CLIP of this width.
    assert done.out.splitlines()[1:] == [
        "next: clare-cache extract MANIFEST STORE --root DIR --features clip_block_cls "
        "--clip CLIP --geometry center-crop --tap mlp_input",
        "      clare-cache evaluate runs/rine --store STORE --manifest MANIFEST",
    ]
    config = json.loads((tmp_path / "runs/rine/config.json").read_text())
    assert (config["label"], config["threshold"]) == ("rine", 0.5)
    assert config["threshold_from"] == "no images; 0.5 as released"
    assert config["imported"]["ignored"] == ["clip.proj"]
    assert len(config["imported"]["sha256"]) == 64
    declared = {"geometry": "center-crop", "tap": "mlp_input"}
    assert config["features"] == {"clip_block_cls": {"declared": declared}}
    recipe = read_recipe(tmp_path / "runs/rine/recipe.yaml")
    assert recipe.head[0].options["contrastive_weight"] == 0.4
    card = (tmp_path / "runs/rine/README.md").read_text()
    assert "* `clip_block_cls`: geometry center-crop, tap mlp_input" in card


def test_an_imported_head_scores_a_store_and_images(command, demo, ufd_file, tmp_path):
    command("head", "import", str(ufd_file), "--family", "ufd", "-o", "ufd", folder=tmp_path)
    done = command(
        "evaluate", "ufd", "--store", str(demo.store), "--manifest", str(demo.manifest),
        "--split", "test", folder=tmp_path,
    )  # fmt: skip
    assert done.status == 0, done.err
    found = pd.read_parquet(tmp_path / "ufd/predictions.parquet")
    weights = torch.load(ufd_file, weights_only=True)
    features = open_store(demo.store)["clean/clip_embedding"].by_image_id(found["image_id"])
    expected = features.astype(np.float64) @ weights["weight"].double().numpy()[0]
    np.testing.assert_allclose(found["log_odds"], expected, rtol=1e-4, atol=1e-5)
    image = demo.images / found["path"][0]
    assert done.err.endswith(
        "ufd: Which generators the head was trained on is not recorded (it was imported): for it "
        "none is called seen or unseen.\n"
    )
    done = command("predict", "ufd", str(image), "--clip", "tiny", "--json", folder=tmp_path)
    assert done.status == 0, done.err
    assert (
        "ufd: the imported file does not say on which weights its head stands; its authors' are "
        "not known, and nothing here shows that tiny has the same. With others the scores mean "
        "nothing.\n"
    ) in done.err
    (row,) = json.loads(done.out)
    assert row["score"] == pytest.approx(found["score"][0], abs=1e-3)
    assert row["verdict"] == ("fake" if found["score"][0] > 0.5 else "real")
    done = command("report", "ufd", "-o", "report.html", folder=tmp_path)
    assert done.status == 0, done.err


def test_without_store_and_manifest_it_has_no_images(command, ufd_file, tmp_path):
    command("head", "import", str(ufd_file), "--family", "ufd", "-o", "ufd", folder=tmp_path)
    done = command("evaluate", "ufd", folder=tmp_path)
    assert done.status == 1
    assert done.err == (
        "error: run ufd: its head was imported and has no images of its own, found no --store and "
        "no --manifest. Name the features and the images to score.\n"
    )


def test_features_against_what_the_authors_state_are_refused(command, demo, rine_file, tmp_path):
    command("head", "import", str(rine_file), "--family", "rine", "-o", "rine", folder=tmp_path)
    config = json.loads((tmp_path / "rine/config.json").read_text())
    config["features"]["clip_block_cls"]["declared"]["tap"] = "block_output"
    (tmp_path / "rine/config.json").write_text(json.dumps(config))
    done = command(
        "evaluate", "rine", "--store", str(demo.store), "--manifest", str(demo.manifest),
        folder=tmp_path,
    )  # fmt: skip
    assert done.status == 1
    assert 'clip_block_cls: tap: asked "block_output", found "mlp_input"' in done.err


@pytest.mark.parametrize(
    ("label", "family", "told"),
    [("rine", "rine", ["--option", "contrastive_weight=0.2"]), ("linear", "ufd", []),
     ("coop", "clare", ["--clip", "tiny"]), ("cocoop", "clare", ["--clip", "tiny"])],
)  # fmt: skip
def test_a_trained_run_goes_out_and_comes_back(command, demo, label, family, told, tmp_path):
    run = demo.runs / label
    done = command("head", "export", str(run), "-o", "theirs.pth", folder=tmp_path)
    assert done.status == 0, done.err
    assert ("strict=False" in done.err) == (family == "clare")
    done = command(
        "head", "import", "theirs.pth", "--family", family, "-o", "back", *told, folder=tmp_path
    )
    assert done.status == 0, done.err
    done = command(
        "evaluate", "back", "--store", str(demo.store), "--manifest", str(demo.manifest),
        folder=tmp_path,
    )  # fmt: skip
    assert done.status == 0, done.err
    before = pd.read_parquet(run / "predictions.parquet").query("split == 'test'")
    after = pd.read_parquet(tmp_path / "back/predictions.parquet")
    merged = before.merge(after, on=["path", "view"], suffixes=("_before", "_after"))
    assert len(merged) == len(after) > 0
    np.testing.assert_allclose(
        merged["log_odds_before"], merged["log_odds_after"], rtol=1e-5, atol=1e-5
    )


def test_a_prompt_head_is_tied_to_its_text_tower(command, demo, tmp_path):
    command("head", "export", str(demo.runs / "coop"), "-o", "theirs.pth", folder=tmp_path)
    done = command("head", "import", "theirs.pth", "--family", "clare", "-o", "x", folder=tmp_path)
    assert done.status == 1
    assert "expected a text tower" in done.err
    assert done.err.endswith("Name its CLIP with --clip.\n")
    command(
        "head", "import", "theirs.pth", "--family", "clare", "-o", "x", "--clip", "tiny",
        folder=tmp_path,
    )  # fmt: skip
    config = json.loads((tmp_path / "x/config.json").read_text())
    assert config["text_source"] == "tiny"
    assert config["features"]["clip_embedding"]["declared"].keys() == {"weights"}
    assert config["features"]["error_map"] == {"declared": {}}


def test_the_card_is_printed_and_has_the_scores(command, demo, tmp_path):
    run = demo.runs / "rine"
    done = command("head", "card", str(run), folder=tmp_path)
    assert done.status == 0
    assert done.out.strip() == (run / "README.md").read_text().strip()
    assert "| test |" in done.out


def test_a_released_head_expects_openai_s_vit(tmp_path):
    from clare_cache.workflow.checkpoints import import_run

    torch.save({"weight": torch.zeros(1, 768), "bias": torch.zeros(1)}, tmp_path / "fc.pth")
    import_run(tmp_path / "fc.pth", tmp_path / "ufd", family="ufd")
    config = json.loads((tmp_path / "ufd/config.json").read_text())
    assert config["sources"] == {"clip_embedding": "ViT-L-14-quickgelu:openai"}
    assert config["features"]["clip_embedding"]["declared"] == {
        "model": "ViT-L-14-quickgelu",
        "quick_gelu": True,
        "size_px": 224,
        "geometry": "center-crop",
    }


def test_a_released_head_can_predict_at_once(tmp_path):
    from clare_cache.workflow.checkpoints import import_run, next_steps

    torch.save({"weight": torch.zeros(1, 768), "bias": torch.zeros(1)}, tmp_path / "fc.pth")
    import_run(tmp_path / "fc.pth", tmp_path / "ufd", family="ufd")
    run = tmp_path / "ufd"
    assert next_steps(run) == [
        f"clare-cache predict {run} IMAGES, or",
        "clare-cache extract MANIFEST STORE --root DIR --features clip_embedding "
        "--clip ViT-L-14-quickgelu:openai --geometry center-crop",
        f"clare-cache evaluate {run} --store STORE --manifest MANIFEST",
    ]
    openai = "ViT-L-14-quickgelu:openai"
    assert unproven_weights(run, clip=None) == unproven_weights(run, clip=openai) == []
    assert (
        f"its authors' are {openai}, and nothing here shows that random:ViT-L-14-quickgelu"
        in (unproven_weights(run, clip="random:ViT-L-14-quickgelu")[0])
    )


def test_from_python(ufd_file):
    head = cc.import_head(ufd_file, family="ufd")
    assert head.family == "linear"
    assert not head.training


def test_nearest_neighbours_go_through_every_command(command, demo, tmp_path):
    (tmp_path / "knn.yaml").write_text(
        "about: {title: neighbours}\n"
        "head:\n"
        "  - {family: knn, label: knn-1}\n"
        "  - {family: knn, label: knn-3, options: {k: 3}}\n"
        "train: {epochs: 3, validation_fraction: 0.34}\n"
        "evaluate: {n_resamples: 20}\n"
    )
    done = command(
        "train-head", "knn.yaml", "--store", str(demo.store), "--manifest", str(demo.manifest),
        folder=tmp_path,
    )  # fmt: skip
    assert done.status == 0, done.err
    config = json.loads((tmp_path / "runs/knn-3/config.json").read_text())
    assert config["n_parameters"] == 0
    train = config["train"]["n_images"]
    assert config["options"]["n_real"] + config["options"]["n_fake"] == train
    assert len((tmp_path / "runs/knn-3/history.jsonl").read_text().splitlines()) == 1
    assert command("evaluate", "runs", folder=tmp_path).status == 0
    image = str(demo.images / "test")
    done = command("predict", "runs/knn-3", image, "--json", folder=tmp_path)
    assert done.status == 0, done.err
    predicted = {row["image_id"]: row["score"] for row in json.loads(done.out)}
    scored = pd.read_parquet(tmp_path / "runs/knn-3/predictions.parquet").query("split == 'test'")
    for row in scored.itertuples():
        assert predicted[row.image_id] == pytest.approx(row.score, abs=1e-3)
    assert command("report", "runs", "-o", "report.html", folder=tmp_path).status == 0
