"""The sentences about protocols and runs of recipes, word for word."""

from pathlib import Path

import pandas as pd
import pytest

from clare_cache.errors import ManifestError, RecipeError
from clare_cache.manifest import Manifest
from clare_cache.manifest.protocols import PROTOCOLS, apply_protocol
from clare_cache.recipe import parse_recipe
from clare_cache.workflow.run import Settings, preview_run, run_recipe


def reals(n: int = 2) -> Manifest:
    rows = [{"image_id": f"{k:064x}", "path": f"{k}.png", "label": 0, "split": s}
            for k, s in enumerate(["train", "test"] * n)]  # fmt: skip
    return Manifest.from_rows(pd.DataFrame(rows))


def message_of(act) -> str:
    with pytest.raises((ManifestError, RecipeError)) as caught:
        act()
    return str(caught.value)


def test_a_protocol_that_is_not_there():
    assert message_of(lambda: apply_protocol("loo", reals())) == (
        f"protocol loo: there is none of that name. Protocols: {', '.join(PROTOCOLS)}."
    )


def test_a_protocol_that_does_not_fit_the_images():
    advice = (
        "Every fold needs reals and fakes on both sides. `clare-cache protocol list` says what "
        "each protocol is made for."
    )
    assert message_of(lambda: apply_protocol("cross-generator", reals())) == (
        "protocol cross-generator: 1 fault\n"
        "  - no fold: the generators and families in the manifest are not the protocol's\n" + advice
    )
    fake = reals().rows.assign(label=[0, 1, 0, 1], generator=["real", "sd", "real", "sd"])
    assert message_of(
        lambda: apply_protocol("leave-one-generator-out", Manifest.from_rows(fake))
    ) == (
        "protocol leave-one-generator-out: 2 faults\n"
        "  - fold sd, train: 2 real and 0 fake images\n"
        "  - fold sd, test: 0 real and 2 fake images\n" + advice
    )
    assert message_of(lambda: apply_protocol("genimage", reals())).splitlines()[:2] == [
        "protocol genimage: 8 faults",
        "  - midjourney: no image to train on",
    ]


def test_a_recipe_without_images_or_weights():
    recipe = parse_recipe({"about": {"title": "Bare"}, "head": {"family": "clare"}}, where="r")
    assert message_of(lambda: preview_run(recipe, Settings(Path("out")))) == (
        "run Bare: 3 faults\n"
        "  - manifest: the recipe names no images. Give --manifest FILE, or --data NAME\n"
        "  - backbones.sd: the recipe names none, and error maps need it. Give --sd\n"
        "  - backbones.clip: the recipe names none, and CLIP needs it. Give --clip"
    )


def test_own_images_without_a_test_split(tmp_path):
    rows = reals().rows.assign(split=["train", "val", "train", "val"])
    path = Manifest.from_rows(rows).write(tmp_path / "m.csv")
    recipe = parse_recipe({"about": {"title": "x"}, "head": {"family": "linear"}}, where="r")
    settings = Settings(tmp_path / "out", manifest=path, clip="tiny")
    assert message_of(lambda: run_recipe(recipe, settings)) == (
        "run x: 1 fault\n"
        f"  - {path}: expected images of split test, found train, val\n"
        "`clare-cache manifest split --replace` divides by group; --manifest takes the result."
    )


def test_data_sets_without_a_folder(tmp_path):
    recipe = parse_recipe(
        {
            "about": {"title": "x"},
            "head": {"family": "linear"},
            "manifest": {"train": ["ufd/train"], "test": ["ufd/tests"]},
        },
        where="r",
    )
    settings = Settings(tmp_path, roots={"ufd/tests": tmp_path / "gone"}, clip="tiny")
    assert message_of(lambda: preview_run(recipe, settings)) == (
        "data sets: 2 faults\n"
        "  - ufd/train: expected its folder, found none. Give --root ufd/train=DIR\n"
        f"  - ufd/tests: expected its images in {tmp_path}/gone, found no such folder\n"
        "--root DIR serves all of them."
    )
