"""The published tables: complete, named, and checked against themselves and each other."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from clare_cache.published.expectation import Expectation
from clare_cache.published.tables import (
    FOLDER,
    ROW,
    SCALE,
    published_tables,
    read_table,
    rows_of,
)
from clare_cache.published.tables import test_sets as sets_of

PRINTED = [name for name in published_tables() if (FOLDER / f"{name}.csv").is_file()]
SCORES = [name for name, table in published_tables().items() if table.benchmark]
N_ROWS = {
    "clare/table-1": 63,
    "clare/table-2": 63,
    "rine/table-2": 14 * 21,
    "rine/table-3": 14 * 21,
    "rine/table-4": 4 * 4 * 4,
    "rine/table-5": 36 * 21,
    "rine/table-7": 14 * 21,
    "ufd/slides-ap": 8 * 15,
    "ufd/slides-accuracy": 8 * 15,
    "rine/grid": 288 * 44,
}


def test_every_file_has_an_entry_and_every_entry_a_file():
    files = {p.relative_to(FOLDER).with_suffix("").as_posix() for p in FOLDER.glob("*/*.*")}
    assert files == set(published_tables())


@pytest.mark.parametrize("name", published_tables())
def test_a_table_is_tidy(name):
    rows = read_table(name)
    assert list(rows.columns) == [*ROW, "printed", "value"]
    assert not rows.duplicated(list(ROW)).any()
    assert not rows[list(ROW)].isna().any(axis=None)
    assert set(published_tables()[name].metrics) <= set(rows["metric"])
    assert len(rows) == N_ROWS.get(name, len(rows))


@pytest.mark.parametrize("name", SCORES)
def test_values_are_shares_of_known_test_sets(name):
    table, rows = published_tables()[name], read_table(name)
    known = {each.name for each in sets_of(table.benchmark)} | {*table.averages, "validation"}
    assert set(rows["test_set"]) <= known
    values = rows.loc[~rows["metric"].isin(["VAL_LOSS"]), "value"].dropna()
    assert values.between(0, 1).all()
    missing = rows[rows["value"].isna()]
    assert set(missing["printed"]) <= {""}
    for word, collection in table.averages.items():
        assert word in set(rows["test_set"])
        assert [x for x in sets_of(table.benchmark) if collection in x.collections]


def averages(name):
    """(row, word, printed text, mean of the row's own test sets) of every complete row."""
    table, rows = published_tables()[name], read_table(name)
    for word, collection in table.averages.items():
        behind = [x.name for x in sets_of(table.benchmark) if collection in x.collections]
        for key, row in rows.groupby([*ROW[:4], "metric"], sort=False):
            mean = row[(row["test_set"] == word) & row["value"].notna()]
            parts = row[row["test_set"].isin(behind) & row["value"].notna()]
            if len(mean) and len(parts) == len(behind):
                own = parts["value"].mean() / SCALE[table.unit]
                yield (*key[:4], word, key[4]), mean["printed"].iloc[0], own


@pytest.mark.parametrize(
    ("name", "n_rows"),
    [("rine/table-2", 11), ("rine/table-3", 11), ("rine/table-5", 36), ("rine/table-7", 14)],
)
def test_printed_averages_are_those_of_their_rows_but_for_the_listed_ones(name, n_rows):
    off, n_checked = set(), 0
    for row, printed, own in averages(name):
        n_checked += 1
        last_digit = 10.0 ** -len(printed.partition(".")[2])
        assert abs(float(printed) - own) < last_digit + 1e-9
        if f"{own + 1e-9:.1f}" != printed:
            off.add(row)
    assert n_checked == n_rows
    assert off == set(published_tables()[name].off_by_rounding)


def test_table_4_averages_its_own_settings_but_for_the_listed_ones():
    rows, off = read_table("rine/table-4"), set()
    for key, part in rows.groupby(["method", "variant", "view", "test_set", "metric"], sort=False):
        mean = part["training"].str.startswith("AVG")
        printed = part.loc[mean, "printed"].iloc[0]
        own = 100 * part.loc[~mean, "value"].mean()
        assert abs(float(printed) - own) < 0.1
        if f"{own + 1e-9:.1f}" != printed:
            off.add((key[0], key[1], part.loc[mean, "training"].iloc[0], *key[2:]))
    assert off == set(published_tables()["rine/table-4"].off_by_rounding)


@pytest.mark.parametrize("name", ["rine/grid", "rine/epochs", "rine/training-size",
                                  "rine/perturbations", "rine/synthbuster"])  # fmt: skip
def test_averages_of_result_files_are_exact(name):
    found = list(averages(name))
    assert len(found) == (read_table(name)["test_set"] == "AVG").sum()
    np.testing.assert_allclose([v for _, v, _ in found], [own for *_, own in found], atol=1e-12)


@pytest.mark.parametrize("name", ["ufd/slides-ap", "ufd/slides-accuracy"])
def test_totals_of_the_slides_run_over_more_sets_than_are_shown(name):
    table, rows = published_tables()[name], read_table(name)
    shown = set(rows["test_set"]) - {"Total"}
    behind = {x.name for x in sets_of("forensynths") if table.averages["Total"] in x.collections}
    assert shown < behind
    assert (len(shown), len(behind)) == (14, 19)
    for _, row in rows.groupby(["method", "variant"]):
        total = row.loc[row["test_set"] == "Total", "value"].iloc[0]
        unseen = (19 * total - row.loc[row["test_set"] != "Total", "value"].sum()) / 5
        assert 0.6 < unseen < 0.85


def test_the_discovery_slide_is_the_mean_of_reals_and_fakes():
    rows = read_table("ufd/slides-discovery").pivot(
        index="test_set", columns="metric", values="printed"
    )
    rows = rows.astype(float)
    mean = (rows["REAL_ACC"] + rows["FAKE_ACC"]) / 2
    assert (mean - rows["ACC"]).abs().max() <= 0.005 + 1e-9


def test_rine_s_tables_are_its_result_files_rounded_but_for_one_number():
    best = {
        "ProGAN 1-class": "ViT-L/14 xi=0.1 q=4 d'=1024",
        "ProGAN 2-class": "ViT-L/14 xi=0.2 q=4 d'=128",
        "ProGAN 4-class": "ViT-L/14 xi=0.2 q=2 d'=1024",
    }
    grid, off = read_table("rine/grid").set_index(["variant", "training", "test_set", "metric"]), []
    for name in ("rine/table-2", "rine/table-3"):
        rows = read_table(name)
        for row in rows[rows["method"] == "RINE (Ours)"].to_dict("records"):
            key = (best[row["training"]], row["training"], row["test_set"], row["metric"])
            if abs(grid.loc[key, "value"] - row["value"]) > 0.0005 + 1e-9:
                off.append((row["training"], row["test_set"], row["metric"]))
    assert off == [("ProGAN 4-class", "Glide_50_27", "AP")]


def test_rine_s_settings_are_the_best_of_its_grid_on_the_test_sets():
    grid = read_table("rine/grid")
    means = grid[grid["test_set"] == "AVG"].pivot_table(
        index=["training", "variant"], columns="metric", values="value"
    )
    chosen = (means["ACC"] + means["AP"]).groupby("training").idxmax()
    assert dict(chosen.tolist()) == {
        "ProGAN 1-class": "ViT-L/14 xi=0.1 q=4 d'=1024",
        "ProGAN 2-class": "ViT-L/14 xi=0.2 q=4 d'=128",
        "ProGAN 4-class": "ViT-L/14 xi=0.2 q=2 d'=1024",
    }


def test_the_baselines_of_the_papers_are_rows():
    methods = pd.concat(read_table(name)["method"] for name in PRINTED).unique()
    wanted = {"Wang", "Patch-Forensics", "FrePGAN", "LGrad", "DMID", "UFD", "RN50 w/ FPN"}
    assert wanted <= set(methods)


def test_training_sizes_of_the_poster_name_the_sets_that_were_not_tested():
    rows = read_table("clare/table-1")
    empty = rows[rows["value"].isna()]
    assert set(empty["test_set"]) == {"SD2.1", "RDDM"}
    assert empty.groupby(["method", "variant", "training"]).ngroups == 4


def test_test_sets_answer_to_their_names_on_disk():
    (sitd,) = [x for x in sets_of("forensynths") if x.name == "SITD"]
    assert sitd.is_called("seeingdark")
    assert sitd.is_called("SITD")
    assert not sitd.is_called("san")
    for benchmark in ("forensynths", "df40", "synthbuster", "clipping"):
        sets = sets_of(benchmark)
        for first, second in pairwise(sets):
            assert not first.is_called(second.name)


def test_the_rows_of_an_expectation():
    rows = rows_of(Expectation(table="rine/table-5", method="RINE", training="ProGAN 1-class"))
    assert len(rows) == 6 * 2 * 21
    one = Expectation(
        table="rine/table-5", method="RINE", training="ProGAN 1-class", view="rine-code-jpeg"
    )
    assert set(rows_of(one)["view"]) == {"rine-code-jpeg"}
