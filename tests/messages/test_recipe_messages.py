"""The sentences that writers of recipes meet, word for word."""

import pytest

from clare_cache.errors import RecipeError, ReportError
from clare_cache.published.expectation import Expectation
from clare_cache.published.tables import check_expectations, published_tables
from clare_cache.recipe import parse_recipe, read_recipe, shipped_recipes

FAULTY = """
about: {title: x, tittle: 1}
head:
  - {family: rine, label: ../up, optimiser: {lr: -1, optimizer: adam}}
  - {label: b}
backbones:
  error_map: {timestep: -1, ensemble: 0, size_px: 256.5, dtpye: float16}
  image_tower: {tap: x}
  vae: 1
train: {epochs: 0, select: test_auc}
evaluate: {n_resamples: many}
extra: 1
"""


def message_of(act) -> str:
    with pytest.raises(RecipeError) as caught:
        act()
    return str(caught.value)


def test_every_fault_of_a_recipe_at_once(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(FAULTY)
    assert message_of(lambda: read_recipe(path)) == (
        f"recipe {path}: 12 faults\n"
        "  - about.tittle: unknown key; remove it or correct its spelling\n"
        "  - backbones.error_map: unknown key dtpye, known are size_px, timestep, ensemble, "
        "prompt, seed, dtype, vae_dtype, latent_dtype; size_px: expected int, found 256.5; "
        "error map settings: 2 faults; timestep: expected 0 or more, found -1; "
        "ensemble: expected 1 draw or more, found 0\n"
        "  - backbones.image_tower: CLIP settings: 1 fault; "
        "tap: expected one of mlp_input, block_output, found x\n"
        "  - backbones.vae: unknown key; remove it or correct its spelling\n"
        "  - head.0.label: expected letters, digits, '.', '_' and '-' to name a folder, "
        "found '../up'\n"
        "  - head.0.optimiser.lr: Input should be greater than 0, found -1\n"
        "  - head.0.optimiser.optimizer: unknown key; remove it or correct its spelling\n"
        "  - head.1.family: required, found nothing\n"
        "  - train.epochs: Input should be greater than or equal to 1, found 0\n"
        "  - train.select: Input should be 'val_auc', 'val_ap', 'val_accuracy', 'val_loss' "
        "or 'last', found 'test_auc'\n"
        "  - evaluate.n_resamples: Input should be a valid integer, unable to parse string as an "
        "integer, found 'many'\n"
        "  - extra: unknown key; remove it or correct its spelling"
    )


def test_an_empty_mapping():
    assert message_of(lambda: parse_recipe({}, where="r.yaml")) == (
        "recipe r.yaml: 2 faults\n"
        "  - about: required, found nothing\n"
        "  - head: required, found nothing"
    )


def test_no_heads_and_heads_of_one_name():
    about = {"title": "x"}
    twice = [{"family": "rine"}, {"family": "linear", "label": "rine"}]
    assert message_of(lambda: parse_recipe({"about": about, "head": []}, where="r")) == (
        "recipe r: 1 fault\n  - head: expected one head or more, found none"
    )
    assert message_of(lambda: parse_recipe({"about": about, "head": twice}, where="r")) == (
        "recipe r: 1 fault\n  - head: label rine is used more than once; name each head"
    )


def test_heads_and_folds_that_are_not_there():
    sections = {
        "about": {"title": "x"},
        "manifest": {"train": {"one": ["a"]}, "share": {"one": 1.5, "three": 0.5}},
        "head": [{"family": "rine", "fold": "two"}],
        "expect": [{"table": "rine/table-2", "method": "UFD", "heads": ["ufd"]}],
    }
    assert message_of(lambda: parse_recipe(sections, where="r")) == (
        "recipe r: 1 fault\n"
        "  - recipe: head rine: fold two is not in manifest.train; "
        "manifest.share: fold three is not in manifest.train; "
        "manifest.share.one: expected more than 0 and at most 1, found 1.5; "
        "expect rine/table-2: head ufd is not in the recipe"
    )


def test_published_rows_that_are_not_there():
    rows = [
        Expectation(table="rine/table-9", method="RINE"),
        Expectation(table="clare/table-1", method="RINE", training="all"),
        Expectation(table="ufd/slides-ap", method="UFD linear", training="ProGAN 20-class",
                    average={"AP": 93.4}),
    ]  # fmt: skip
    with pytest.raises(ReportError) as caught:
        check_expectations(rows, {})
    assert str(caught.value) == (
        "published numbers: 3 faults\n"
        "  - published table rine/table-9: there is none of that name. Tables: "
        f"{', '.join(published_tables())}.\n"
        "  - published table clare/table-1: expected a row RINE, all, found "
        "CLIP with Prompt Tuning, DF40 EFS 41k; CLIP with Prompt Tuning, DF40 EFS 82k; "
        "CLIP with Prompt Tuning, DF40 EFS 164k; CLaRE, ESA, DF40 EFS 41k; "
        "CLaRE, ESA, DF40 EFS 164k; CLaRE, Cross-attention, DF40 EFS 41k; "
        "CLaRE, Cross-attention, DF40 EFS 164k.\n"
        "  - ufd/slides-ap: AP of UFD linear, ProGAN 20-class: expected the printed average 93.38, "
        "found 93.4"
    )


def test_a_published_row_for_an_option_that_the_head_lacks():
    row = Expectation(table="rine/grid", method="RINE", variant="q={depht}")
    with pytest.raises(ReportError) as caught:
        row.of_head({"depth": 2, "width": 8})
    assert str(caught.value) == (
        "published row rine/grid: expected options depth, width in braces, found q={depht}. "
        "Correct its variant."
    )


def test_a_file_that_is_no_recipe(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("")
    assert message_of(lambda: read_recipe(path)) == (
        f"recipe {path}: expected sections, found NoneType. "
        "`clare-cache recipe show demo/tiny` prints a whole one."
    )
    path.write_text("- a\n")
    assert "expected sections, found list." in message_of(lambda: read_recipe(path))


def test_a_key_given_twice(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("about: {title: x}\nabout: {title: y}\n")
    assert message_of(lambda: read_recipe(path)) == (
        f"recipe {path}: expected YAML, found key about twice\n"
        '  in "<unicode string>", line 2, column 1:\n'
        "    about: {title: y}\n"
        "    ^. Correct it."
    )


def test_a_name_that_nobody_has():
    assert message_of(lambda: read_recipe("nowhere")) == (
        "recipe nowhere: expected a YAML file or the name of a shipped recipe, found neither. "
        f"Shipped: {', '.join(sorted(shipped_recipes()))}."
    )


def test_heads_that_the_recipe_lacks():
    heads = [{"family": "rine", "label": "wide"}, {"family": "linear"}]
    recipe = parse_recipe({"about": {"title": "Two heads"}, "head": heads}, where="r")
    assert message_of(lambda: recipe.select_heads(["rine", "clare", "narrow"])) == (
        "recipe Two heads: heads clare, narrow were asked for, found linear, rine, wide. "
        "Correct --head."
    )
