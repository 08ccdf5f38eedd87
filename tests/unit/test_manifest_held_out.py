"""Validation on generators that training does not see, without a group in both."""

import pandas as pd
import pytest

from clare_cache.errors import ManifestError, RecipeError
from clare_cache.manifest import Manifest, hold_out_generators, split_by_group
from clare_cache.recipe import parse_recipe
from clare_cache.workflow.inputs import hold_out

RECIPE = {"about": {"title": "held out"}, "head": [{"family": "linear"}]}


def manifest(*, mixed: bool, split: str = "train") -> Manifest:
    """Twenty groups; `mixed`: a group has a real image and a fake of each generator, as the
    manipulations of one video do."""
    rows = []
    for group in range(20):
        for name in ("real", "gan", "ldm", "swap"):
            number = len(rows)
            rows.append(
                {
                    "image_id": f"{number:064x}",
                    "path": f"{number}.png",
                    "label": int(name != "real"),
                    "generator": name,
                    "group": f"video {group}" if mixed else f"image {number}",
                    "split": split,
                }
            )
    return Manifest.from_rows(pd.DataFrame(rows))


@pytest.mark.parametrize("mixed", [False, True])
def test_no_group_and_no_fake_generator_is_on_both_sides(mixed):
    divided = split_by_group(manifest(mixed=mixed), {"train": 0.8, "val": 0.2})
    found, held = hold_out_generators(divided, share=0.2)
    train, val = (found.where(split=name).rows for name in ("train", "val"))
    assert len(held) == 1
    assert set(val.loc[val["label"] == 1, "generator"]) == set(held)
    assert set(train["generator"]) == {"real", "gan", "ldm", "swap"} - set(held)
    assert not set(train["group"]) & set(val["group"])
    assert (val["label"] == 0).sum() == 4
    # Fakes that stand alone are all used; those in a video with reals follow its split.
    assert (val["label"] == 1).sum() == (4 if mixed else 20)
    assert (train["label"] == 1).sum() == (32 if mixed else 40)


def test_the_choice_is_the_seeds_and_its_share():
    divided = split_by_group(manifest(mixed=False), {"train": 0.5, "val": 0.5})
    names = {hold_out_generators(divided, share=0.2, seed=seed)[1] for seed in range(40)}
    assert names == {("gan",), ("ldm",), ("swap",)}
    assert len(hold_out_generators(divided, share=0.6)[1]) == 2
    assert len(hold_out_generators(divided, share=0.99)[1]) == 2


def test_one_generator_cannot_be_held_out():
    alone = manifest(mixed=False).where(generator=["real", "gan"])
    with pytest.raises(ManifestError) as caught:
        hold_out_generators(alone, share=0.2)
    assert str(caught.value) == (
        "hold out a generator: expected fakes of at least 2 generators, found gan. "
        "Validate on held-out groups instead."
    )


def test_a_recipe_validates_on_groups_or_on_a_generator():
    recipe = parse_recipe(RECIPE, where="here")
    everything = manifest(mixed=False)
    train, val = hold_out(everything, recipe)
    assert set(val.rows["generator"]) == set(train.rows["generator"])
    train, val = hold_out(everything, recipe.with_training(validate_on="held-out-generator"))
    assert len(set(val.rows["generator"]) - set(train.rows["generator"])) == 1
    assert (val.rows["split"] == "val").all()


def test_a_split_of_the_manifest_is_kept_and_thinned():
    rows = manifest(mixed=True).rows
    named = Manifest.from_rows(
        rows.assign(split=["val" if int(g.split()[1]) < 5 else "train" for g in rows["group"]])
    )
    recipe = parse_recipe(RECIPE, where="here").with_training(validate_on="held-out-generator")
    train, val = hold_out(named, recipe)
    assert val.rows["label"].value_counts().to_dict() == {0: 5, 1: 5}
    assert train.rows["label"].value_counts().to_dict() == {0: 15, 1: 30}


def test_what_validation_cannot_be_made_of():
    with pytest.raises(RecipeError) as caught:
        parse_recipe(RECIPE, where="here").with_training(validate_on="luck")
    assert str(caught.value) == (
        "recipe held out: 1 fault\n"
        "  - validate_on: Input should be 'group' or 'held-out-generator', found 'luck'"
    )
