"""Verdicts: where two numbers can be compared, which way; where not, why."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clare_cache.evaluate import assess_run, compare_run
from clare_cache.published.expectation import Expectation
from clare_cache.published.tables import test_sets as sets_of
from clare_cache.workflow.results import find_runs

SIZES = {each.name: each.n_images or 100 for each in sets_of("forensynths")}
TWO_CLASS = {"method": "RINE (Ours)", "training": "ProGAN 2-class"}
AP = Expectation(table="rine/table-3", **TWO_CLASS)
ACC = Expectation(table="rine/table-2", **TWO_CLASS)


def images(
    name: str, *, wrong: float, n: int, seed: int = 0, view: str = "clean", split: str = "test"
) -> pd.DataFrame:
    """n images of a generator and as many reals of its own; a share of them scored wrongly."""
    rng = np.random.default_rng(seed)
    label = np.repeat([0, 1], n // 2)
    sign = np.where(rng.random(len(label)) < wrong, -1, 1) * (2 * label - 1)
    odds = sign * (1 + rng.random(len(label)))
    return pd.DataFrame(
        {
            "image_id": [f"{name}{k}" for k in range(len(label))],
            "path": [f"{name}/{k}" for k in range(len(label))],
            "label": label,
            "split": split,
            "source": name,
            "generator": np.where(label == 1, name, "real"),
            "family": "gan",
            "group": [f"{name}{k}" for k in range(len(label))],
            "view": view,
            "score": 1 / (1 + np.exp(-odds)),
            "log_odds": odds,
            "missing": "",
        }
    )


def assessed(folder: Path, *parts: pd.DataFrame, **config: object):
    folder.mkdir(exist_ok=True)
    pd.concat(parts, ignore_index=True).to_parquet(folder / "predictions.parquet")
    basics = {"label": "mine", "family": "rine", "threshold": 0.9}
    (folder / "config.json").write_text(json.dumps(basics | config))
    return assess_run(folder, n_resamples=0)


def only(comparisons, name):
    (found,) = [item for item in comparisons if item.test_set == name]
    return found


@pytest.mark.parametrize(("wrong", "verdict"), [(0.5, "below"), (0.004, "within"), (0.0, "above")])
def test_accuracy_at_one_half_beside_the_printed_one(tmp_path, wrong, verdict):
    run = assessed(tmp_path / "r", images("stargan", wrong=wrong, n=SIZES["StarGAN"]))
    item = only(compare_run(run, [ACC]), "StarGAN")
    assert item.metric == "accuracy_0.5"
    assert item.measured == pytest.approx(1 - wrong, abs=0.03)
    assert item.low <= item.measured <= item.high
    assert item.n_images == SIZES["StarGAN"]
    assert (item.verdict, item.reason) == (verdict, "")
    assert item.difference == pytest.approx(item.measured - item.published)


def test_half_a_unit_of_the_last_printed_digit_is_no_difference(tmp_path):
    run = assessed(tmp_path / "r", images("progan", wrong=0.0, n=8000))
    item = only(compare_run(run, [AP]), "ProGAN")
    assert (item.printed, item.measured, item.low, item.high) == ("100.0", 1, 1, 1)
    assert item.verdict == "within"
    stylegan = assessed(tmp_path / "s", images("stylegan", wrong=0.0, n=SIZES["StyleGAN"]))
    assert only(compare_run(stylegan, [AP]), "StyleGAN").verdict == "above"


def test_an_average_needs_all_of_its_test_sets(tmp_path):
    wanted = [x for x in sets_of("forensynths") if "rine-20" in x.collections]
    parts = [
        images((x.aliases or (x.name,))[0], wrong=0.1 * (k % 2), n=x.n_images, seed=k)
        for k, x in enumerate(wanted)
    ]
    run = assessed(tmp_path / "all", *parts)
    item = only(compare_run(run, [ACC], n_resamples=20), "AVG")
    singles = [i for i in compare_run(run, [ACC], n_resamples=5) if i.test_set != "AVG"]
    assert item.measured == pytest.approx(np.mean([i.measured for i in singles]))
    assert item.low < item.measured < item.high
    assert item.verdict == "above"
    assert item.n_images == sum(2 * (x.n_images // 2) for x in wanted)
    fewer = assessed(tmp_path / "fewer", *parts[:-2])
    lacking = only(compare_run(fewer, [ACC], n_resamples=5), "AVG")
    assert lacking.measured is None
    assert (lacking.verdict, lacking.reason) == (
        "not comparable",
        "2 of 20 test sets not tested",
    )


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"sources": {"clip_block_cls": "tiny"}}, "features of random weights (tiny)"),
        (
            {"sources": {"clip_block_cls": "random:ViT-L-14-quickgelu"}},
            "features of random weights (random:ViT-L-14-quickgelu)",
        ),
        (
            {"features": {"clip_block_cls": {"declared": {"model": "ViT-B-32-quickgelu"}}}},
            "features of ViT-B-32-quickgelu, published with ViT-L-14",
        ),
        ({"features": {"clip_block_cls": {"declared": {"model": "ViT-L-14-quickgelu"}}}}, ""),
    ],
)
def test_other_features_are_not_comparable(tmp_path, config, reason):
    run = assessed(tmp_path / "r", images("progan", wrong=0.1, n=8000), **config)
    item = only(compare_run(run, [AP]), "ProGAN")
    assert item.reason == reason
    assert (item.verdict == "not comparable") == bool(reason)
    assert item.measured is not None


def test_other_test_sets_are_not_comparable(tmp_path):
    small = assessed(tmp_path / "small", images("progan", wrong=0.1, n=40))
    assert only(compare_run(small, [AP]), "ProGAN").reason == "40 images, published on 8,000"
    assert only(compare_run(small, [AP]), "SITD").reason == "not tested"
    one_class = images("progan", wrong=0.1, n=40)
    fakes = assessed(tmp_path / "fakes", one_class[one_class["label"] == 1])
    assert only(compare_run(fakes, [AP]), "ProGAN").reason == "ProGAN: no scored real image"
    grouped = assessed(
        tmp_path / "grouped", images("progan", wrong=0.1, n=8000).assign(group="one")
    )
    item = only(compare_run(grouped, [AP]), "ProGAN")
    assert (item.low, item.reason) == (None, "too few groups for an interval")
    twice = [images("progan", wrong=0.1, n=40, split=split) for split in ("a", "b")]
    twice[1]["path"] += "x"
    doubtful = assessed(tmp_path / "twice", *twice)
    assert only(compare_run(doubtful, [AP]), "ProGAN").reason == (
        "several rows of the run are called ProGAN"
    )


def test_views_and_gaps_of_the_tables(tmp_path):
    run = assessed(
        tmp_path / "r",
        images("progan", wrong=0.1, n=8000),
        images("progan", wrong=0.4, n=8000, view="rine-code-blur"),
    )
    robust = Expectation(table="rine/table-5", method="RINE", training="ProGAN 2-class")
    found = {i.view: i for i in compare_run(run, [robust]) if i.test_set == "ProGAN"
             and i.metric == "accuracy_0.5"}  # fmt: skip
    assert found["clean"].measured > found["rine-code-blur"].measured + 0.2
    assert found["rine-code-noise"].reason == "not tested in view rine-code-noise"
    gaps = Expectation(table="rine/table-2", method="FrePGAN", training="ProGAN 2-class")
    item = only(compare_run(run, [gaps]), "AVG")
    assert (item.published, item.verdict) == (None, "not comparable")
    assert item.reason == "the table has no number"


def test_training_and_validation_scores_are_never_compared(tmp_path):
    run = assessed(tmp_path / "r", images("progan", wrong=0.1, n=8000, split="val"))
    assert only(compare_run(run, [AP]), "ProGAN").reason == "not tested"


def test_a_source_with_several_generators_is_a_test_set_too(tmp_path):
    faces = images("whichfaceisreal", wrong=0.1, n=400)
    faces["generator"] = faces["generator"].replace("whichfaceisreal", "stylegan-ffhq")
    run = assessed(tmp_path / "r", faces, images("crn", wrong=0.1, n=100))
    expected = Expectation(
        table="clare/ufd-on-forensynths",
        method="UFD linear",
        variant="clip_vitl14",
        training="ProGAN 20-class",
    )
    items = [i for i in compare_run(run, [expected]) if i.test_set == "WhichFaceIsReal"]
    assert {i.metric for i in items} == {"average_precision", "accuracy_0.5", "oracle_accuracy"}
    assert all(i.n_images == 400 for i in items)


def test_heads_see_only_what_is_expected_of_them(tmp_path):
    run = assessed(tmp_path / "r", images("progan", wrong=0.1, n=40))
    assert compare_run(run, [AP.model_copy(update={"heads": ("other",)})]) == []
    assert len(compare_run(run, [AP.model_copy(update={"heads": ("mine", "other")})])) == 21


def test_a_run_given_twice_is_one_run(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").touch()
    monkeypatch.chdir(tmp_path)
    spelled = ["runs/b", tmp_path / "runs", "runs/a/../b"]
    assert find_runs(spelled) == [Path("runs/b"), tmp_path / "runs/a"]
