"""Recipes as data: what is accepted, what is refused, and that nothing is lost on the way."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from clare_cache.errors import RecipeError
from clare_cache.heads import HEADS, head_needs
from clare_cache.recipe import Recipe, find_recipe, parse_recipe, read_recipe, shipped_recipes
from clare_cache.train.config import OptimiserConfig, TrainConfig

SMALLEST = {"about": {"title": "x"}, "head": {"family": "linear"}}


def parse(**sections):
    return parse_recipe(SMALLEST | sections, where="r.yaml")


def test_the_smallest_recipe_has_every_default():
    recipe = parse()
    assert recipe.train == TrainConfig()
    assert recipe.evaluate.splits == ("test",)
    assert recipe.backbones.sd is recipe.backbones.clip is None
    (head,) = recipe.head
    assert (head.family, head.label, head.options) == ("linear", "linear", {})
    assert head.optimiser == OptimiserConfig()


def test_one_head_or_a_list_of_them():
    one = {"family": "rine", "label": "narrow", "options": {"width": 128}}
    assert parse(head=one) == parse(head=[one])
    assert [head.label for head in parse(head=[one, {"family": "rine"}]).head] == ["narrow", "rine"]


def test_numbers_as_yaml_1_1_reads_them():
    recipe = parse(
        **yaml.safe_load("train: {epochs: 3}\nhead: {family: rine, optimiser: {lr: 1e-3}}")
    )
    assert recipe.head[0].optimiser.lr == 1e-3


# Written and read again

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
options = st.dictionaries(
    words, st.booleans() | st.integers() | words | st.none() | st.floats(-1e9, 1e9), max_size=3
)


@settings(max_examples=60, deadline=None)
@given(
    title=words,
    labels=st.lists(names, unique=True, min_size=1, max_size=3),
    options=options,
    lr=st.floats(1e-12, 10),
    clip_norm=st.none() | st.floats(1e-3, 10),
    seed=st.integers(0, 2**31),
    remarks=st.lists(words, max_size=2),
    sd=st.none() | words,
)  # fmt: skip
def test_a_recipe_written_out_reads_as_itself(
    title, labels, options, lr, clip_norm, seed, remarks, sd
):
    optimiser = {"lr": lr, "clip_norm": clip_norm}
    recipe = parse(
        about={"title": title, "remarks": remarks},
        head=[
            {"family": "rine", "label": label, "options": options, "optimiser": optimiser}
            for label in labels
        ],
        train={"seed": seed},
        backbones={"sd": sd, "error_map": {"seed": seed}},
        expect=[{"table": "a", "method": "b", "average": {"AP": lr}}],
        deviations=remarks,
    )
    again = parse_recipe(yaml.safe_load(recipe.to_yaml()), where="again")
    assert again == recipe
    assert again.to_yaml() == recipe.to_yaml()


def test_every_field_is_written_out():
    written = yaml.safe_load(parse().to_yaml())
    assert list(written) == list(Recipe.model_fields)
    assert written["backbones"]["error_map"]["timestep"] == 200
    assert written["backbones"]["image_tower"]["tap"] == "mlp_input"
    assert written["head"][0]["optimiser"].keys() == OptimiserConfig.model_fields.keys()
    assert written["train"].keys() == TrainConfig.model_fields.keys()


# Shipped recipes


def test_recipes_ship_under_their_path():
    assert {"demo/tiny", "starter/three-heads"} <= shipped_recipes().keys()
    assert find_recipe("demo/tiny") == shipped_recipes()["demo/tiny"]


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_a_shipped_recipe_is_sound(name):
    recipe = read_recipe(name)
    assert recipe.about.title
    assert parse_recipe(yaml.safe_load(recipe.to_yaml()), where=name) == recipe
    for head in recipe.head:
        assert head.family in HEADS
        assert head_needs(head.family, **head.options)


def test_a_file_goes_before_a_shipped_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()
    Path("demo/tiny").write_text(yaml.safe_dump(SMALLEST))
    assert read_recipe("demo/tiny").about.title == "x"


# A selection of heads


def three_heads():
    return parse(
        head=[
            {"family": "rine", "label": "a"},
            {"family": "linear"},
            {"family": "rine", "label": "b"},
        ]
    )


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([], ["a", "linear", "b"]),
        (["b"], ["b"]),
        (["rine"], ["a", "b"]),
        (["linear", "a"], ["a", "linear"]),
        (["a", "rine"], ["a", "b"]),
    ],
)
def test_heads_are_selected_by_label_or_family_in_the_recipe_s_order(wanted, expected):
    selected = three_heads().select_heads(wanted)
    assert [head.label for head in selected.head] == expected
    assert selected.about == three_heads().about


# What is refused


@pytest.mark.parametrize(
    ("sections", "place"),
    [
        ({"extra": 1}, "extra"),
        ({"about": {"title": "x", "author": "y"}}, "about.author"),
        ({"about": {}}, "about.title"),
        ({"head": []}, "head"),
        ({"head": "rine"}, "head"),
        ({"head": {"family": "rine", "option": {}}}, "head.0.option"),
        ({"head": {"family": "rine", "options": [1]}}, "head.0.options"),
        ({"head": [{"family": "rine"}, {"label": "a"}]}, "head.1.family"),
        ({"backbones": {"vae": "x"}}, "backbones.vae"),
        ({"backbones": {"error_map": {"timesteps": 1}}}, "backbones.error_map"),
        ({"backbones": {"error_map": {"timestep": -1}}}, "backbones.error_map"),
        ({"backbones": {"error_map": {"size_px": "256"}}}, "backbones.error_map"),
        ({"backbones": {"error_map": {"ensemble": 4.5}}}, "backbones.error_map"),
        ({"backbones": {"error_map": {"ensemble": True}}}, "backbones.error_map"),
        ({"backbones": {"image_tower": {"tap": "x"}}}, "backbones.image_tower"),
        ({"backbones": {"image_tower": None}}, "backbones.image_tower"),
        ({"train": {"epochs": 0}}, "train.epochs"),
        ({"train": {"epochs": 1.5}}, "train.epochs"),
        ({"evaluate": {"n_resamples": -1}}, "evaluate.n_resamples"),
    ],
)
def test_a_fault_names_its_place(sections, place):
    with pytest.raises(RecipeError) as caught:
        parse(**sections)
    first, fault = str(caught.value).splitlines()
    assert first == "recipe r.yaml: 1 fault"
    assert fault.startswith(f"  - {place}: ")


@pytest.mark.parametrize("label", ["../up", "/abs", "a/b", "..", ".hidden", "-flag", "a b", "ü"])
def test_a_label_must_be_fit_to_name_the_run_s_folder(label):
    with pytest.raises(RecipeError, match=r"head\.0\.label: expected letters, digits"):
        parse(head={"family": "rine", "label": label})


@pytest.mark.parametrize(
    "text",
    [
        "about: {title: x}\nhead: {family: rine}\ntrain:\n  epochs: 1\n  epochs: 2\n",
        "about: {title: x, title: x}\nhead: {family: rine}\n",
        "head: {family: rine}\nabout: {title: x}\nhead: {family: linear}\n",
    ],
)
def test_a_key_given_twice_is_refused(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"found key \w+ twice"):
        read_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    "content", [b"a: [1", b"\xff\xfe\x00", b"!!python/object:os.system {}", b"? [a]\n: 1"]
)
def test_what_is_no_yaml_is_refused(tmp_path, content):
    (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(RecipeError, match="expected YAML, found"):
        read_recipe(tmp_path / "r.yaml")


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        parse().train = TrainConfig()
