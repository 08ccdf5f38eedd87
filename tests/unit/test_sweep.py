"""Lists, changes, samples and seeds → heads."""

import pytest

from clare_cache.errors import RecipeError
from clare_cache.recipe import parse_recipe
from clare_cache.sweep import Change, Range, parse_change, read_value

HEADS = [
    {"family": "rine", "options": {"width": 8}, "optimiser": {"lr": 0.1}},
    {"family": "linear"},
]


def parse(changes=(), *, head=HEADS, sample=None, seeds=1, **sections):
    value = {"about": {"title": "t"}, "head": head, **sections}
    return parse_recipe(value, where="r", changes=changes, sample=sample, seeds=seeds)


def labels(recipe):
    return [head.label for head in recipe.head]


def test_without_lists_nothing_changes():
    recipe = parse()
    assert labels(recipe) == ["rine", "linear"]
    assert all(not head.settings and not head.sweep for head in recipe.head)


def test_lists_in_the_file_are_a_grid():
    head = {"family": "rine", "options": {"depth": [1, 2, 4], "width": [8, 16]}}
    recipe = parse(head=head)
    assert labels(recipe) == [f"rine-depth{d}-width{w}" for d in (1, 2, 4) for w in (8, 16)]
    assert recipe.head[3].options == {"depth": 2, "width": 16}
    assert recipe.head[3].settings == {"depth": 2, "width": 16}
    assert {head.sweep for head in recipe.head} == {"rine"}


def test_numbers_that_yaml_leaves_as_text_are_read():
    recipe = parse(head={"family": "linear", "optimiser": {"lr": ["1e-3", "1e-4"]}})
    assert [head.optimiser.lr for head in recipe.head] == [1e-3, 1e-4]
    assert labels(recipe) == ["linear-lr0.001", "linear-lr0.0001"]


def test_a_change_reaches_the_heads_that_have_such_a_thing():
    recipe = parse(["head.width=4,16", "train.lr=0.5"])
    assert labels(recipe) == ["rine-width4", "rine-width16", "linear"]
    assert [head.optimiser.lr for head in recipe.head] == [0.5] * 3
    assert recipe.head[0].settings == {"width": 4}


def test_full_paths_and_labels_name_one_place():
    recipe = parse(["head.optimiser.lr=1,2", "head.options.width=3", "linear.seed=7"])
    assert labels(recipe) == ["rine-lr1", "rine-lr2", "linear-lr1", "linear-lr2"]
    assert [head.options.get("width") for head in recipe.head] == [3, 3, None, None]
    assert [head.seed for head in recipe.head] == [None, None, 7, 7]


def test_settings_of_training_that_vary_belong_to_the_head_alone():
    recipe = parse(["train.epochs=1,3", "train.batch_size=64"], train={"seed": 4})
    assert recipe.train.batch_size == 64
    assert [recipe.train_of(head).epochs for head in recipe.head] == [1, 3, 1, 3]
    assert {recipe.train_of(head).seed for head in recipe.head} == {4}
    alone = recipe.alone(recipe.head[1])
    assert alone.train.epochs == 3
    assert alone.head[0].train is None


def test_seeds_count_from_the_recipe_s():
    recipe = parse(["head.width=4,8"], seeds=3, train={"seed": 10})
    assert labels(recipe)[:4] == [
        "rine-width4-seed10", "rine-width4-seed11", "rine-width4-seed12", "rine-width8-seed10",
    ]  # fmt: skip
    assert [head.seed for head in recipe.head] == [10, 11, 12] * 3


def test_a_sample_is_the_same_every_time_and_has_no_repeats():
    changes = ["train.lr=1e-5..1e-1:log", "head.width=4,8,16,32"]
    first, second = (labels(parse(changes, sample=5, head=HEADS[0])) for _ in range(2))
    assert first == second
    assert len(set(first)) == 5
    rates = [h.optimiser.lr for h in parse(changes, sample=40, head=HEADS[0]).head]
    assert min(rates) < 1e-4 < 1e-2 < max(rates)
    assert all(1e-5 <= rate <= 1e-1 for rate in rates)
    grid = parse(["head.width=4,8"], sample=9, head=HEADS[0])
    assert labels(grid) == ["rine-width4", "rine-width8"]


def test_ranges_in_the_file():
    head = {"family": "rine", "options": {"width": {"from": 4, "to": 8}}}
    widths = {h.options["width"] for h in parse(head=head, sample=5).head}
    assert widths == {4, 5, 6, 7, 8}


def test_a_sample_of_ranges_ends_where_they_hold_nothing_else():
    whole = {"family": "rine", "options": {"width": {"from": 4, "to": 8}}}
    assert len(parse(head=whole, sample=9).head) == 5
    # Four digits are kept, and these two numbers share them.
    assert len(parse(["train.lr=0.1..0.100001"], head=HEADS[0], sample=3).head) == 1


def test_the_command_line_counts_over_the_file():
    recipe = parse(["head.width=2"], head={"family": "rine", "options": {"width": [4, 8]}})
    assert labels(recipe) == ["rine"]
    assert recipe.head[0].options == {"width": 2}


def test_settings_of_the_evaluation_can_be_set():
    recipe = parse(["evaluate.n_resamples=7", "evaluate.splits=a,b"])
    assert recipe.evaluate.n_resamples == 7
    assert recipe.evaluate.splits == ("a", "b")


def test_what_is_expected_of_a_head_is_expected_of_each_of_its_combinations():
    expect = [{"table": "rine/table-2", "method": "RINE (Ours)", "heads": ["rine"],
               "average": {"ACC": 87.7}}]  # fmt: skip
    recipe = parse(["head.width=2,4"], head=HEADS[0], expect=expect)
    assert recipe.expect[0].heads == ("rine-width2", "rine-width4")


def test_nearest_neighbours_have_no_optimiser_to_vary():
    recipe = parse(["train.lr=1,2"], head=[{"family": "linear"}, {"family": "knn"}])
    assert labels(recipe) == ["linear-lr1", "linear-lr2", "knn"]


def test_long_labels_end_in_a_hash():
    words = [" ".join([word] * 30) for word in ("photo", "picture")]
    head = {"family": "prompt_tuning", "options": {"context_init": words}}
    found = labels(parse(head=head))
    assert len(set(found)) == 2
    assert all(len(label) <= 80 for label in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=1", Change("a.b", (1,))),
        ("a.b=1e-3, x,true", Change("a.b", (1e-3, "x", True))),
        ("a.b=[1,2]", Change("a.b", (1, 2))),
        ("a.b=1..4", Change("a.b", Range(1, 4))),
        ("a.b=1e-5..0.1:log", Change("a.b", Range(1e-5, 0.1, log=True))),
        ("a.b=0.5", Change("a.b", (0.5,))),
    ],
)
def test_spellings_of_changes(text, expected):
    assert parse_change(text) == expected


def test_values_are_what_they_look_like():
    texts = {"1": 1, "1.5": 1.5, "1e-3": 1e-3, "null": None, "end": "end", "nan": "nan"}
    assert [read_value(text) for text in texts] == list(texts.values())


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_no_setting_is_infinite_or_no_number(value):
    for options in ({}, {"sample": 1}):
        with pytest.raises(RecipeError, match=r"lr: Input should be a finite number"):
            parse([f"train.lr={value},{value}"], head=HEADS[0], **options)
    with pytest.raises(RecipeError, match=r"lr: Input should be a finite number"):
        parse(head={"family": "linear", "optimiser": {"lr": float(value)}})


def test_all_faults_are_told_at_once():
    with pytest.raises(RecipeError) as error:
        parse(["head.nothing=1", "train.lr=1e-5..1e-3"])
    assert str(error.value) == (
        "recipe r: 3 faults\n"
        "  - head.nothing: expected train.FIELD, head.OPTION or a full path such as "
        "head.optimiser.lr, found nothing of that name in rine, linear\n"
        "  - head rine: lr has a range; say --sample N\n"
        "  - head linear: lr has a range; say --sample N\n"
        "Correct --set, or the recipe's lists."
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "--set lr: expected KEY=VALUE or KEY=V1,V2 (train.lr=1e-3,1e-4), found no value. "
               "Correct it."),
        ("=3", "--set =3: expected KEY=VALUE or KEY=V1,V2 (train.lr=1e-3,1e-4), found no key. "
               "Correct it."),
        ("a=3..1", "--set a=3..1: expected a range of numbers that rises, found 3..1. Correct it."),
        ("a=0..1:log", "--set a=0..1:log: expected a range of numbers that rises from above 0, "
                       "found 0..1. Correct it."),
    ],
)  # fmt: skip
def test_changes_that_are_none(text, message):
    with pytest.raises(RecipeError) as error:
        parse_change(text)
    assert str(error.value) == message


def test_the_arrays_that_a_head_reads_can_vary():
    heads = [{"family": "error_map_resnet", "label": "maps"}, {"family": "linear"}]
    change = "head.reads.error_map=error_map,error_map-t280-n8"
    recipe = parse([change], head=heads)
    assert labels(recipe) == [
        "maps-error_maperror_map",
        "maps-error_maperror_map-t280-n8",
        "linear",
    ]
    assert [head.reads for head in recipe.head] == [
        {"error_map": "error_map"},
        {"error_map": "error_map-t280-n8"},
        {},
    ]
    alone = parse(head={**heads[0], "reads": {"error_map": ["error_map-t9", "error_map-t8"]}})
    assert [head.reads["error_map"] for head in alone.head] == ["error_map-t9", "error_map-t8"]
