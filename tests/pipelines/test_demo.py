"""The whole pipeline, small: what each step leaves behind, and that the numbers are this run's."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

import clare_cache as cc
from clare_cache.errors import HeadError, ReportError
from clare_cache.store import verify
from clare_cache.workflow.features import extract
from clare_cache.workflow.results import evaluate, report
from clare_cache.workflow.training import train_head

LABELS = ["linear", "rine", "coop", "cocoop"]
N_IMAGES = 3 * 6 * (2 + 3)


def test_every_run_folder_is_complete(demo):
    for label in LABELS:
        names = {path.name for path in (demo.runs / label).iterdir()}
        assert names == {
            "README.md",
            "config.json",
            "head.safetensors",
            "history.jsonl",
            "metrics.csv",
            "metrics.json",
            "predictions.parquet",
            "recipe.yaml",
        }


def test_train_and_test_share_no_photograph_and_validation_no_region(demo):
    rows = cc.Manifest.read(demo.manifest).rows
    photographs = rows["group"].str.split("-").str[0]
    assert set(photographs[rows["split"] == "train"]) == {"china"}
    assert set(photographs[rows["split"] == "test"]) == {"flower"}
    assert set(rows.loc[rows["split"] == "train", "generator"]) == {"real", "transposed-conv"}
    assert "smooth-decoder" in set(rows.loc[rows["split"] == "test", "generator"])
    assert set(rows["format"]) == {"PNG"}
    assert rows["width"].nunique() == rows["height"].nunique() == 1
    predictions = pd.read_parquet(demo.runs / "linear" / "predictions.parquet")
    validated = set(predictions.loc[predictions["split"] == "val", "group"])
    history = [json.loads(x) for x in (demo.runs / "linear/history.jsonl").read_text().splitlines()]
    assert len(history) == 2
    config = json.loads((demo.runs / "linear/config.json").read_text())
    trained_on = set(rows.loc[rows["split"] == "train", "group"]) - validated
    assert len(validated) == 2
    assert len(trained_on) == 4
    assert config["train"]["n_images"] == 4 * 3 * 2


def test_the_page_shows_the_numbers_of_this_run(demo):
    page = (demo.out / "report.html").read_text()
    assert "small networks with random weights" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "src=" not in re.sub(r'src="data:', "", page)
    for label in LABELS:
        table = pd.read_csv(demo.runs / label / "metrics.csv")
        row = table[(table["split"] == "test") & (table["generator"] == "all")].iloc[0]
        assert f"{100 * row['average_precision']:.1f}" in page
        assert row["n_asked"] == row["n_scored"] == 3 * 6 * 3


def test_the_store_opens_with_plain_zarr_and_with_xarray(demo):
    group = zarr.open_group(str(demo.store / "features.zarr"), mode="r")
    dataset = xr.open_zarr(demo.store / "features.zarr", group="clean", consolidated=False)
    assert (
        set(dataset)
        == set(group["clean"])
        == {
            "clip_block_cls",
            "clip_embedding",
            "clip_patch_tokens",
            "error_map",
        }
    )
    assert group["clean/error_map"].shape == (N_IMAGES, 4, 32, 32)
    assert dataset["error_map"].dims == ("image", "latent_channel", "latent_row", "latent_column")
    store = cc.open_store(demo.store)
    np.testing.assert_array_equal(dataset["clip_embedding"], store["clean/clip_embedding"][:])
    assert np.isfinite(group["clean/error_map"][:]).all()
    assert verify(store) == []


def test_a_second_extract_decodes_no_image(demo, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in demo.store.rglob("*") if p.is_file()}
    manifest = cc.Manifest.read(demo.manifest)
    config = {"ensemble": 1}
    from clare_cache.backbones import ErrorMapConfig

    # The images are not even there: nothing may look for them.
    done = extract(
        manifest,
        demo.store,
        root=tmp_path / "nowhere",
        sd="tiny",
        clip="tiny",
        error_map=ErrorMapConfig(**config),
        device="cpu",
    )
    assert done.n_decoded == 0
    assert done.n_settled_before == done.n_images == N_IMAGES
    assert {p: p.stat().st_mtime_ns for p in demo.store.rglob("*") if p.is_file()} == before


def test_training_again_gives_the_same_weights(demo, small_recipe, tmp_path):
    from clare_cache.recipe import read_recipe

    again = train_head(
        read_recipe(small_recipe),
        store=demo.store,
        manifest=demo.manifest,
        out=tmp_path,
        device="cpu",
    )
    for run in again:
        first = (demo.runs / run.name / "head.safetensors").read_bytes()
        assert (run / "head.safetensors").read_bytes() == first


def test_predict_gives_the_scores_of_evaluate(demo):
    predictions = pd.read_parquet(demo.runs / "coop" / "predictions.parquet")
    chosen = predictions[predictions["split"] == "test"].iloc[::17]
    table = cc.predict(demo.runs / "coop", [demo.images / p for p in chosen["path"]], device="cpu")
    np.testing.assert_allclose(table["score"], chosen["score"], atol=2e-4)
    threshold = json.loads((demo.runs / "coop/config.json").read_text())["threshold"]
    assert list(table["verdict"]) == ["fake" if s > threshold else "real" for s in table["score"]]


def test_predict_says_why_it_cannot(demo, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    good = next(demo.images.rglob("*.png"))
    table = cc.predict(demo.runs / "linear", [broken, good, tmp_path / "absent.png"], device="cpu")
    assert list(table["verdict"][[0, 2]]) == ["unusable", "unusable"]
    assert table["score"].isna().tolist() == [True, False, True]
    assert table["reason"][0].startswith("decode: ")
    assert table["reason"][2] == "read: No such file or directory"


def test_evaluating_features_of_another_kind_is_refused(demo, tmp_path):
    from clare_cache.backbones import ClipConfig

    manifest = cc.Manifest.read(demo.manifest)
    extract(
        manifest,
        tmp_path / "store",
        root=demo.images,
        features=["clip_embedding"],
        clip="tiny",
        image_tower=ClipConfig(geometry="squash"),
        device="cpu",
    )
    with pytest.raises(HeadError, match='geometry: asked "center-crop", found "squash"'):
        evaluate([demo.runs / "linear"], store=tmp_path / "store", device="cpu")


def test_evaluating_after_relabelling_is_refused(demo, tmp_path):
    manifest = cc.Manifest.read(demo.manifest)
    rows = manifest.rows.copy()
    rows.loc[0, "label"] = 1 - rows.loc[0, "label"]
    run = tmp_path / "linear"
    run.mkdir()
    for path in (demo.runs / "linear").iterdir():
        (run / path.name).write_bytes(path.read_bytes())
    config = json.loads((run / "config.json").read_text())
    cc.Manifest.from_rows(rows).write(tmp_path / "relabelled.parquet")
    config["manifest"] = str(tmp_path / "relabelled.parquet")
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(ReportError, match="Labels, splits or groups changed since training"):
        evaluate([run], device="cpu")
    # Named on purpose, the same manifest is a new test set.
    tables = evaluate([run], manifest=config["manifest"], device="cpu")
    assert set(tables[run]["split"]) == {"test"}


def test_a_report_needs_evaluated_runs(demo, tmp_path):
    run = tmp_path / "linear"
    run.mkdir()
    (run / "config.json").write_bytes((demo.runs / "linear/config.json").read_bytes())
    with pytest.raises(ReportError, match=r"have no metrics\.json"):
        report([run], tmp_path / "report.html")


def test_a_head_that_diverges_costs_no_other(demo, small_recipe, tmp_path):
    from clare_cache.errors import TrainError
    from clare_cache.recipe import read_recipe

    recipe = read_recipe(small_recipe).select_heads(["linear", "rine"])
    bad = recipe.head[1].model_copy(
        update={"optimiser": recipe.head[1].optimiser.model_copy(update={"lr": 1e30})}
    )
    recipe = recipe.model_copy(update={"head": (bad, recipe.head[0])})
    with pytest.raises(TrainError) as caught:
        train_head(recipe, store=demo.store, manifest=demo.manifest, out=tmp_path, device="cpu")
    message = str(caught.value)
    assert message.startswith(
        f"train-head into {tmp_path}, where the other heads are: 1 fault\n  - rine: "
    )
    assert message.endswith("\nLower their learning rates.")
    assert (tmp_path / "linear/head.safetensors").is_file()
    assert not (tmp_path / "rine").exists()


def test_views_are_scored_beside_the_clean_picture(demo, tmp_path):
    import shutil

    manifest = cc.Manifest.read(demo.manifest)
    shutil.copytree(demo.store, tmp_path / "store")
    shutil.copytree(demo.runs / "linear", tmp_path / "linear")
    extract(
        manifest.where(split="test"),
        tmp_path / "store",
        root=demo.images,
        features=["clip_embedding"],
        views=["jpeg-q30", "flip"],
        clip="tiny",
        device="cpu",
    )
    table = evaluate([tmp_path / "linear"], store=tmp_path / "store", device="cpu")
    table = table[tmp_path / "linear"]
    test = table[(table["split"] == "test") & (table["generator"] == "all")]
    assert list(test["view"]) == ["clean", "flip", "jpeg-q30"]
    assert set(table.loc[table["split"] == "val", "view"]) == {"clean"}
    assert (test["n_scored"] == 54).all()
    page = report([tmp_path / "linear"], tmp_path / "report.html").read_text()
    assert "jpeg-q30" in page


def copy_run(demo, tmp_path, name="linear"):
    import shutil

    shutil.copytree(demo.runs / name, tmp_path / name)
    return tmp_path / name


def test_training_again_drops_the_scores_of_before(demo, small_recipe, tmp_path):
    from clare_cache.recipe import read_recipe

    run = copy_run(demo, tmp_path)
    recipe = read_recipe(small_recipe).select_heads(["linear"])
    train_head(
        recipe, store=demo.store, manifest=demo.manifest, out=tmp_path, device="cpu", again=True
    )
    assert {path.name for path in run.iterdir()} == {
        "config.json",
        "head.safetensors",
        "history.jsonl",
        "recipe.yaml",
    }


def test_a_recipe_that_the_store_does_not_fit_is_refused(demo, small_recipe, tmp_path):
    from clare_cache.errors import TrainError
    from clare_cache.recipe import parse_recipe

    recipe = parse_recipe(
        {
            "about": {"title": "other"},
            "backbones": {"error_map": {"timestep": 280}, "image_tower": {"tap": "block_output"}},
            "head": [{"family": "rine"}, {"family": "error_map_resnet"}],
        },
        where="test",
    )
    with pytest.raises(TrainError) as caught:
        train_head(recipe, store=demo.store, manifest=demo.manifest, out=tmp_path, device="cpu")
    assert str(caught.value) == (
        f"store {demo.store}: its features are not those of recipe other: 3 faults\n"
        "  - error_map.ensemble: asked 4, found 1\n"
        "  - error_map.timestep: asked 280, found 200\n"
        '  - image_tower.tap: asked "block_output", found "mlp_input"\n'
        "Extract as the recipe says, or change its `backbones`."
    )


def test_a_run_s_recipe_names_the_store_s_backbones(demo):
    from clare_cache.recipe import read_recipe

    found = read_recipe(demo.runs / "linear/recipe.yaml").backbones
    assert (found.sd, found.clip, found.error_map.ensemble) == ("tiny", "tiny", 1)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_any_split_can_be_scored_without_counting_an_image_twice(demo, tmp_path, split):
    run = copy_run(demo, tmp_path)
    table = evaluate([run], splits=[split], device="cpu")[run]
    n_images = {"val": 12, "test": 54, "train": 24}
    pooled = table[table["generator"] == "all"].set_index("split")["n_scored"]
    assert dict(pooled) == {"val": 12, split: n_images[split]}


def test_a_mistyped_split_is_refused_before_anything_is_written(demo, tmp_path):
    run = copy_run(demo, tmp_path)
    before = (run / "predictions.parquet").read_bytes()
    with pytest.raises(ReportError) as caught:
        evaluate([run], splits=["test", "tset"], device="cpu")
    assert str(caught.value) == (
        f"run {run}: evaluate: 1 fault\n  - split tset: absent, found test, train\nCorrect --split."
    )
    assert (run / "predictions.parquet").read_bytes() == before


def test_a_view_that_the_store_lacks_is_named_with_those_that_it_has(demo, tmp_path):
    run = copy_run(demo, tmp_path)
    with pytest.raises(ReportError) as caught:
        evaluate([run], views=["clean", "jpeg-q11"], device="cpu")
    assert str(caught.value) == (
        f"run {run}: evaluate: 1 fault\n"
        f"  - view jpeg-q11: {demo.store} has not all arrays that the head needs in it, "
        "found clean\n"
        "Extract the view (`clare-cache extract --views`), or correct --view."
    )


@pytest.mark.parametrize("name", ["val", "validation", "valid"])
def test_a_validation_split_is_used_and_must_not_leak(demo, small_recipe, tmp_path, name):
    from clare_cache.errors import TrainError
    from clare_cache.recipe import read_recipe
    from clare_cache.workflow.inputs import hold_out

    rows = cc.Manifest.read(demo.manifest).rows.copy()
    chosen = (rows["split"] == "train") & rows["group"].isin(["china-0", "china-5"])
    rows.loc[chosen, "split"] = name
    recipe = read_recipe(small_recipe)
    train, validation = hold_out(cc.Manifest.from_rows(rows), recipe)
    assert set(validation.rows["group"]) == {"china-0", "china-5"}
    assert set(validation.rows["split"]) == {"val"}
    assert len(train) + len(validation) == 36
    first = rows.index[chosen][0]
    rows.loc[first, "split"] = "train"
    twin = rows.loc[[rows.index[-1]]].assign(path="twin.png", label=lambda r: 1 - r["label"])
    leaky = cc.Manifest.from_rows(pd.concat([rows, twin]))
    with pytest.raises(TrainError) as caught:
        hold_out(leaky, recipe)
    assert str(caught.value) == (
        "train-head: the manifest's splits leak into each other: 2 faults\n"
        f"  - group with two splits: 1, for example {rows.loc[first, 'group']}\n"
        f"  - image_id with two labels: 1, for example {twin['image_id'].iloc[0]}\n"
        "`clare-cache manifest check` lists all; `clare-cache manifest split --replace` divides "
        "anew."
    )


def test_pictures_are_shown_where_there_are_no_error_maps(demo, tmp_path):
    manifest = cc.Manifest.read(demo.manifest)
    run = copy_run(demo, tmp_path)
    extract(
        manifest,
        tmp_path / "store",
        root=demo.images,
        features=["clip_embedding"],
        clip="tiny",
        device="cpu",
    )
    evaluate([run], store=tmp_path / "store", device="cpu")
    page = report([run], tmp_path / "report.html", root=demo.images).read_text()
    assert "test/real/flower" in page


def test_too_few_groups_to_hold_out_say_how_many_there_are(demo, small_recipe):
    from clare_cache.errors import TrainError
    from clare_cache.recipe import read_recipe
    from clare_cache.workflow.inputs import hold_out

    rows = cc.Manifest.read(demo.manifest).where(split="train").rows.copy()
    rows["group"] = [
        "real" if label == 0 else f"fake-{n % 2}" for n, label in enumerate(rows["label"])
    ]
    with pytest.raises(TrainError, match="has 1 groups with real and 2 with fake images"):
        hold_out(cc.Manifest.from_rows(rows), read_recipe(small_recipe))
