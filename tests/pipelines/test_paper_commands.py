"""Recipes, published tables, protocols and runs on the command line."""

import json

import pandas as pd
import pytest


def test_recipes_are_listed_by_paper_with_their_published_averages(command, tmp_path):
    done = command("recipe", "list", folder=tmp_path)
    assert done.status == 0
    lines = done.out.splitlines()
    assert "rine: RINE (Koutlis and Papadopoulos, ECCV 2024)" in lines
    assert (
        "  rine/two-class\tRINE, best setting for two training classes [ACC 87.7, AP 98.7]" in lines
    )
    assert "demo" in lines


def test_a_recipe_is_checked_with_its_published_rows(command, tmp_path):
    done = command("recipe", "check", "ufd/nearest-neighbours", folder=tmp_path)
    assert done.status == 0
    assert "4 heads, 8 published rows, no faults" in done.out
    (tmp_path / "mine.yaml").write_text(
        "about: {title: x}\nhead: {family: linear}\n"
        "expect: [{table: rine/table-2, method: UFD, training: ProGAN 1-class}]\n"
    )
    done = command("recipe", "check", "mine.yaml", folder=tmp_path)
    assert done.status == 1
    assert "expected a row UFD, ProGAN 1-class, found" in done.err


def test_published_tables_are_shown_as_printed_with_what_is_odd(command, tmp_path):
    done = command("published", "list", folder=tmp_path)
    assert "rine/table-3\t" in done.out
    done = command("published", "show", "rine/table-3", "--row", "patch", folder=tmp_path)
    assert done.status == 0
    lines = [line.replace("│", " ").split() for line in done.out.splitlines()]
    assert ["ProGAN", "94.6"] in lines
    assert ["AVG", "74.1"] in lines
    assert "Glide_50_27 is printed 99.3" in done.err
    done = command("published", "show", "rine/grid", "--row", "ViT-L", folder=tmp_path)
    assert "RINE, ViT-L/14 xi=0.2 q=4 d'=128, ProGAN 2-class, ACC" in done.out
    assert "0.8774" in done.out
    done = command("published", "show", "ufd/slides-ap", "-o", "ap.csv", folder=tmp_path)
    assert done.status == 0
    written = pd.read_csv(tmp_path / "ap.csv", dtype=str)
    assert len(written) == 120
    assert "90.32" in set(written["printed"])


def test_runs_are_set_beside_what_a_recipe_expects(command, demo):
    recipe = demo.out / "compare.yaml"
    recipe.write_text(
        "about: {title: x}\nhead: {family: linear}\n"
        "expect: [{table: rine/table-2, method: UFD, training: ProGAN 20-class}]\n"
    )
    done = command("recipe", "compare", str(recipe), str(demo.runs), "--json", folder=demo.out)
    assert done.status == 0
    found = json.loads(done.out)
    assert len(found) == 4 * 21
    assert {item["verdict"] for item in found} == {"not comparable"}
    done = command("recipe", "compare", str(recipe), str(demo.runs), folder=demo.out)
    assert "measured seen from published: 84 not comparable" in done.out


def test_a_protocol_writes_a_manifest_a_fold_and_its_table(command, demo):
    done = command(
        "protocol", "apply", "cross-generator", str(demo.manifest), "-o", "folds", folder=demo.out
    )
    assert done.status == 0, done.err
    assert [p.name for p in (demo.out / "folds").iterdir()] == ["transposed-conv.parquet"]
    done = command(
        "protocol", "table", "cross-generator", str(demo.runs), "--json", folder=demo.out
    )
    assert done.status == 0
    cells = {(c["label"], c["tested_on"]): c for c in json.loads(done.out)}
    assert cells["linear", "transposed-conv"]["seen"]
    assert not cells["linear", "smooth-decoder"]["seen"]
    done = command("protocol", "apply", "df40-5", str(demo.manifest), "-o", "x", folder=demo.out)
    assert done.status == 1
    assert "there is none of that name" in done.err


def test_run_says_what_it_would_do_and_does_it_on_own_images(command, demo, small_recipe, tmp_path):
    arguments = (
        "run", str(small_recipe), "--manifest", str(demo.manifest), "--root", str(demo.images),
        "--store", str(demo.store), "--out", "out", "--head", "linear", "--device", "cpu",
    )  # fmt: skip
    done = command(*arguments, "--dry-run", folder=tmp_path)
    assert done.status == 0
    assert "train linear: would be trained" in done.out
    assert not (tmp_path / "out").exists()
    done = command(*arguments, "--batch-size", "auto", folder=tmp_path)
    assert done.status == 0, done.err
    assert "0 extracted now" in done.err
    assert done.out == "report: out/report.html\n"
    assert (tmp_path / "out" / "runs" / "linear" / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        (("--root", "a", "--root", "b"), 2, "each name once"),
        (("--batch-size", "some"), 2, "--batch-size some: expected auto or a number from 1"),
        ((), 1, "ufd/train: expected its folder, found none. Give --root ufd/train=DIR"),
        (("--data", "nothing", "--root", "."), 1, "nothing"),
    ],
)
def test_run_refuses_before_any_work(command, tmp_path, given, status, words):
    done = command("run", "ufd/linear", *given, folder=tmp_path)
    assert done.status == status
    assert words in done.err
    assert not (tmp_path / "run-out").exists()
