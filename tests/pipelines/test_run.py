"""`run`: every shipped recipe of a paper, on a small tree of its data sets, ends in a report."""

from pathlib import Path

import pytest
import yaml

from clare_cache.files import read_json
from clare_cache.manifest import LAYOUTS, Manifest
from clare_cache.manifest.catalogue import read_data_set, shipped_data_sets
from clare_cache.recipe import ManifestSection, Recipe, read_recipe, shipped_recipes
from clare_cache.workflow.data_sets import Roots, build_data_set, compose_folds, data_sets_of
from clare_cache.workflow.manifests import build_manifest
from clare_cache.workflow.run import Settings, preview_run, run_recipe
from clare_cache.yaml_files import read_yaml
from tests.pipelines import paper_trees
from tests.pipelines.layout_trees import LAYOUT_TREES

TREES = {
    "forensynths": "forensynths",
    "rine": "forensynths",
    "ufd": "forensynths",
    "synthbuster": "synthbuster",
    "ldm": "synthbuster",
    "lare2": "genimage",
    "genimage": "genimage",
    "clare": "df40",
    "df40": "df40",
}
DEFAULT = ("rine/latent-diffusion",)
OF_PAPERS = [name for name in shipped_recipes() if read_recipe(name).manifest.train]
RESNET = "random:RN50-quickgelu"
NEEDS_RESNET = ("lare2/genimage-sd15", "lare2/genimage-matrix")
"""Recipes that read a CLIP ResNet's layer; no tiny one ships, so it has its full size."""


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trees")
    for name in ("forensynths", "synthbuster", "genimage", "df40"):
        getattr(paper_trees, f"write_{name}")(root / name)
    return root


def roots_of(recipe: Recipe, trees: Path) -> dict[str, Path]:
    of = {name: TREES[name.partition("/")[0]] for name in data_sets_of(recipe.manifest)}
    of |= {name: "synthbuster" for name in of if name == "rine/ldm"}
    return {name: trees / tree for name, tree in of.items()}


def tiny(out: Path, roots: dict[str, Path], clip: str = "tiny", **others: object) -> Settings:
    return Settings(out=out, roots=roots, sd="tiny", clip=clip, device="cpu", **others)


def small(recipe: Recipe) -> Recipe:
    """Fewer epochs, resamples and members of a sweep: that it runs matters, not how well."""
    swept = [h.label for h in recipe.head if h.sweep]
    left_out = set(swept) - {*swept[:2], *swept[-2:]}
    recipe = recipe.with_heads([h for h in recipe.head if h.label not in left_out])
    return recipe.model_copy(
        update={
            "train": recipe.train.model_copy(update={"epochs": 1}),
            "evaluate": recipe.evaluate.model_copy(update={"n_resamples": 20}),
        }
    )


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in DEFAULT else pytest.mark.slow) for n in OF_PAPERS],
)  # fmt: skip
def test_a_recipe_runs_on_a_small_tree_of_its_data_sets(name, trees, tmp_path):
    recipe = small(read_recipe(name))
    clip = RESNET if name in NEEDS_RESNET else "tiny"
    result = run_recipe(recipe, tiny(tmp_path, roots_of(recipe, trees), clip))
    n_trainings = 8 if recipe.manifest.protocol == "genimage" else 1
    assert [run.name for run in result.runs] == n_trainings * [head.label for head in recipe.head]
    page = result.report.read_text()
    weights = ", ".join(sorted({clip, "tiny"}))
    assert f"The features come from random weights ({weights})" in page
    for run in result.runs:
        table = read_json(run / "metrics.json")["table"]
        assert {row["split"] for row in table} >= {"test"}
        assert {row["view"] for row in table} == {"clean", *recipe.evaluate.views}
    if recipe.expect:
        published = page[page.index('id="published"') :]
        assert all(item.method.replace("'", "&#39;") in published for item in recipe.expect)
        assert "features of random weights (tiny)" in published


def test_what_is_there_is_not_done_again_and_what_changed_is(trees, tmp_path):
    recipe = small(read_recipe("rine/two-class"))
    settings = tiny(tmp_path, {"": trees / "forensynths"})
    first = run_recipe(recipe, settings)
    (run,) = first.runs
    weights = (run / "head.safetensors").stat().st_mtime_ns
    page = first.report.read_bytes()

    lines: list[str] = []
    second = run_recipe(recipe, settings, on_step=lines.append)
    assert second.new_runs == ()
    assert second.extracted.n_decoded == 0
    assert (run / "head.safetensors").stat().st_mtime_ns == weights
    assert second.report.read_bytes() == page
    assert [line.partition(":")[0] for line in lines] == [
        "manifest rine/two-class",
        "manifest rine/tests",
        "extract clean",
        "train",
        "evaluate",
    ]
    assert sum("was there" in line for line in lines) == 4
    assert "96 were there, 0 extracted now" in lines[2]

    # As an interruption between training and scoring leaves it.
    (run / "metrics.json").unlink()
    third = run_recipe(recipe, settings)
    assert third.new_runs == ()
    assert (run / "metrics.json").is_file()

    deeper = recipe.model_copy(
        update={"head": (recipe.head[0].model_copy(update={"options": {"depth": 1, "width": 16}}),)}
    )
    assert run_recipe(deeper, settings).new_runs == (run,)
    assert not any("would be built" in line for line in preview_run(deeper, settings))

    section = recipe.manifest.model_copy(update={"train": {"": ("rine/one-class",)}})
    fewer = run_recipe(deeper.model_copy(update={"manifest": section}), settings)
    assert fewer.new_runs == (run,)
    assert fewer.extracted.n_decoded == 0


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUT_TREES)
def test_any_layout_goes_from_its_tree_to_a_report(layout, tmp_path):
    root = tmp_path / "images"
    tables = LAYOUT_TREES[layout](root)
    recipe = small(read_recipe("ufd/linear")).model_copy(update={"expect": ()})
    if tables or layout == "clipping":
        options = {"table": [root / name for name in tables]} if tables else {}
        rows = build_manifest(layout, root, **options).manifest.rows
        # LaRE's and CLIPping's authors test on what they call validation.
        rows = rows.assign(split=rows["split"].replace("val", "test"))
        Manifest.from_rows(rows).write(tmp_path / "m.parquet")
        settings = tiny(tmp_path / "out", {"": root}, manifest=tmp_path / "m.parquet")
    else:
        section = ManifestSection(train={"": (layout,)}, test=(layout,))
        recipe = recipe.model_copy(update={"manifest": section})
        settings = tiny(tmp_path / "out", {"": root})
    (run,) = run_recipe(recipe, settings).runs
    table = read_json(run / "metrics.json")["table"]
    assert "test" in {row["split"] for row in table}


def test_every_layout_is_run():
    sets = {data for name in OF_PAPERS for data in data_sets_of(read_recipe(name).manifest)}
    of_papers = {part.layout for data in sets for part in read_data_set(data).parts}
    # UniversalFakeDetect's diffusion sets lie among the test sets of ForenSynths there.
    assert set(LAYOUTS) == {*LAYOUT_TREES, *of_papers, "ufd-diffusion"}


def folds_of(section: ManifestSection, root: Path, out: Path) -> tuple[dict, list[str]]:
    roots, lines = Roots({}, root, out / "images"), []
    built = {name: build_data_set(name, out, roots) for name in data_sets_of(section)}
    return compose_folds(section, built, roots, seed=0, on_step=lines.append), lines


def test_a_test_set_is_whole_where_another_data_set_validates_on_it(trees, tmp_path):
    """As UniversalFakeDetect's training set does on ProGAN's test images."""
    both = ManifestSection(train={"": ("ufd/train",)}, test=("ufd/tests",))
    folds, lines = folds_of(both, trees / "forensynths", tmp_path)
    rows = folds[""].rows
    tests = build_manifest("ufd/tests", trees / "forensynths").manifest
    tested = rows[rows["split"] == "test"]
    assert sorted(tested["path"]) == sorted(tests.rows["path"])
    assert "progan" in set(tested["generator"])
    assert set(rows["split"]) == {"train", "test"}
    n_both = int((tests.rows["source"] == "progan").sum())
    assert lines == [
        f"{n_both} images are named to validate and test: they are not validated on; groups of "
        "the training images are held out to validate on"
    ]


def test_what_is_trained_on_is_not_tested_on(trees, tmp_path):
    described = read_yaml(shipped_data_sets()["ufd/train"]) | {
        "parts": [
            {"layout": "forensynths", "keep": {"split": "test", "source": "progan"}, "split": part}
            for part in ("train", "val")
        ],
        "expected": [],
    }
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(described))
    section = ManifestSection(train={"two": (str(own),)}, test=("ufd/tests",))
    folds, lines = folds_of(section, trees / "forensynths", tmp_path)
    rows = folds["two"].rows
    sources = {split: set(part["source"]) for split, part in rows.groupby("split")}
    assert sources["train"] == {"progan"}
    assert "progan" not in sources["test"]
    n = int((rows["split"] == "train").sum())
    assert lines == [
        f"fold two: {n} images are named to train and test: they are not tested on",
        f"fold two: {n} images are named to train and validate: they are not validated on; groups "
        "of the training images are held out to validate on",
    ]


@pytest.mark.slow
def test_data_sets_may_lie_in_folders_of_their_own(trees, tmp_path):
    recipe = small(read_recipe("ufd/linear"))
    moved = tmp_path / "elsewhere"
    moved.symlink_to(trees / "forensynths")
    roots = {"": trees / "forensynths", "ufd/tests": moved / "test"}
    result = run_recipe(recipe, tiny(tmp_path / "out", roots))
    assert result.report.is_file()
    assert {p.name for p in (tmp_path / "out" / "images").iterdir()} == {
        "ufd-train",
        "forensynths-train",
        "ufd-tests",
    }


@pytest.mark.slow
def test_a_protocol_is_a_matrix_of_folds(trees, tmp_path):
    recipe = small(read_recipe("ufd/linear")).model_copy(
        update={
            "manifest": ManifestSection(
                train={"": ("genimage/all",)}, test=("genimage/all",), protocol="genimage"
            ),
            "expect": (),
        }
    )
    result = run_recipe(recipe, tiny(tmp_path, {"": trees / "genimage"}))
    assert len(result.runs) == 8
    page = result.report.read_text()
    matrix = page[page.index('id="training-sets"') :]
    matrix = matrix[: matrix.index("</section>")]
    assert matrix.count("outlined") == 8
    assert matrix.count("--shade:") == 64


def test_folds_of_heads_that_were_not_asked_for_are_left_alone(trees, tmp_path):
    recipe = read_recipe("rine/ablations").select_heads(["full-2class"])
    lines = preview_run(recipe, tiny(tmp_path, {"": trees / "forensynths"}))
    assert [line.partition(":")[0] for line in lines[:2]] == [
        "manifest rine/two-class",
        "manifest rine/tests",
    ]


def test_a_preview_writes_nothing(trees, tmp_path):
    recipe = read_recipe("rine/ablations")
    out = tmp_path / "out"
    lines = preview_run(recipe, tiny(out, {"": trees / "forensynths"}))
    assert not out.exists()
    assert lines[0] == f"manifest rine/one-class: would be built from {trees / 'forensynths'}"
    assert "train full-2class on two-class: would be trained" in lines


def test_every_data_set_of_a_recipe_is_described():
    described = set(shipped_data_sets())
    for name in OF_PAPERS:
        assert set(data_sets_of(read_recipe(name).manifest)) <= described
