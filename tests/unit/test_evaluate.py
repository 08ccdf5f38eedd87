"""The tidy table: which images each row compares, what is counted, what is written."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from clare_cache import metrics
from clare_cache.errors import ReportError
from clare_cache.evaluate import (
    TABLE_COLUMNS,
    assess_run,
    compare_coverage,
    evaluate_run,
    read_predictions,
    summarise,
    tabulate,
)

KINDS = {("a", "real"): 0, ("a", "gan"): 1, ("b", "real"): 0, ("b", "diff"): 1, ("c", "diff"): 1}


def predictions(
    *, n: int = 12, splits: tuple[str, ...] = ("test",), views: tuple[str, ...] = ("clean",)
) -> pd.DataFrame:
    """`n` images of each kind, split and view; a fake scores higher by chance."""
    generator = np.random.default_rng(0)
    rows = [
        {
            "image_id": f"{split}-{source}-{kind}-{k}",
            "path": f"{split}/{source}/{kind}/{k}.png",
            "label": label,
            "split": split,
            "source": source,
            "generator": kind,
            "family": kind,
            "group": f"{split}-{source}-{k // 2}",
            "view": view,
            "log_odds": float(generator.normal() + label),
            "missing": "",
        }
        for split in splits
        for view in views
        for (source, kind), label in KINDS.items()
        for k in range(n)
    ]
    table = pd.DataFrame(rows)
    table["score"] = 1 / (1 + np.exp(-table["log_odds"]))
    return table


def without(table: pd.DataFrame, lost: pd.Series) -> pd.DataFrame:
    """The same predictions with the chosen images in the ledger."""
    table = table.copy()
    table.loc[lost, ["score", "log_odds"]] = np.nan
    table.loc[lost, "missing"] = "decode: truncated file"
    return table


def write_run(run: Path, table: pd.DataFrame, **config: object) -> Path:
    run.mkdir(parents=True)
    table.to_parquet(run / "predictions.parquet")
    basics = {
        "family": "rine",
        "label": "RINE",
        "options": {"depth": 2},
        "n_parameters": 1234,
        "threshold": 0.4,
        "threshold_from": "validation split, 60 images, 30 groups",
        "train": {"epochs": 3, "generators": ["gan"]},
        "features": {"clip_block_cls": {"fingerprint": "0123456789abcdef", "declared": {}}},
        "store": "faces-store",
        "manifest": "faces.parquet",
    }
    (run / "config.json").write_text(json.dumps(basics | config))
    return run


def row_of(table: pd.DataFrame, *, source: str, generator: str) -> pd.Series:
    found = table[(table["source"] == source) & (table["generator"] == generator)]
    assert len(found) == 1
    return found.iloc[0]


def test_rows_are_pools_then_generators_in_order() -> None:
    table = tabulate(
        predictions(splits=("test", "val", "train"), views=("jpeg-q50", "clean")), threshold=0.5
    )
    assert list(table.columns) == list(TABLE_COLUMNS)
    assert list(dict.fromkeys(zip(table["split"], table["view"], strict=True))) == [
        (split, view) for split in ("train", "val", "test") for view in ("clean", "jpeg-q50")
    ]
    first = table.iloc[:6]
    assert list(zip(first["source"], first["generator"], first["reals_from"], strict=True)) == [
        ("all", "all", "all"),
        ("a", "all", "a"),
        ("b", "all", "b"),
        ("a", "gan", "a"),
        ("b", "diff", "b"),
        ("c", "diff", "all"),
    ]


def test_a_generator_meets_all_reals_of_its_source_or_of_the_split() -> None:
    images = predictions()
    table = tabulate(images, threshold=0.5)
    real = images["label"] == 0
    cases = {
        ("a", "gan"): images[(images["source"] == "a")],
        ("c", "diff"): images[real | (images["source"] == "c")],
        ("all", "all"): images,
    }
    for (source, generator), kept in cases.items():
        row = row_of(table, source=source, generator=generator)
        assert row["n_real"] == (kept["label"] == 0).sum()
        assert row["n_fake"] == (kept["label"] == 1).sum()
        wanted = average_precision_score(kept["label"], kept["score"])
        assert row["average_precision"] == pytest.approx(wanted)
        assert row["auc"] == pytest.approx(roc_auc_score(kept["label"], kept["score"]))


def test_every_number_is_the_metric_of_that_name() -> None:
    images = predictions()
    row = row_of(tabulate(images, threshold=0.6, seed=5), source="all", generator="all")
    y, s = images["label"].to_numpy(), images["score"].to_numpy()
    assert row["accuracy_0.5"] == np.mean((s > 0.5) == y)
    assert row["accuracy_validation_threshold"] == np.mean((s > 0.6) == y)
    assert row["real_accuracy"] == np.mean(s[y == 0] <= 0.6)
    assert row["fake_accuracy"] == np.mean(s[y == 1] > 0.6)
    assert row["oracle_accuracy"] == metrics.oracle_accuracy(y, s)
    assert row["eer"] == metrics.equal_error_rate(y, s)
    assert row["tpr_at_fpr_5"] == metrics.tpr_at_fpr(y, s, 0.05)
    assert row["ece"] == metrics.expected_calibration_error(y, s)
    assert row["threshold"] == 0.6
    bounds = metrics.interval(metrics.roc_auc, y, s, images["group"], seed=5)
    assert (row["auc_low"], row["auc_high"]) == (bounds.low, bounds.high)
    assert row["n_groups"] == images["group"].nunique()
    assert row["accuracy_validation_threshold_low"] < row["accuracy_validation_threshold"]


def test_missing_images_are_asked_for_but_not_scored() -> None:
    images = predictions()
    lost = images["generator"].eq("gan") & images["path"].str.endswith(
        ("/0.png", "/1.png", "/2.png")
    )
    table = tabulate(without(images, lost), threshold=0.5)
    row = row_of(table, source="a", generator="gan")
    assert (row["n_asked"], row["n_scored"], row["n_fake"]) == (24, 21, 9)
    assert row["coverage"] == pytest.approx(21 / 24)
    kept = images[~lost & images["source"].eq("a")]
    assert row["average_precision"] == pytest.approx(
        average_precision_score(kept["label"], kept["score"])
    )


def test_numbers_that_one_class_leaves_undefined_are_nan_with_the_reason() -> None:
    images = predictions()
    table = tabulate(without(images, images["label"] == 0), threshold=0.5)
    row = row_of(table, source="all", generator="all")
    assert row["note"] == "no scored real image"
    undefined = ("average_precision", "auc", "auc_low", "auc_high", "eer", "real_accuracy")
    assert all(np.isnan(row[name]) for name in undefined)
    assert row["fake_accuracy"] == row["accuracy_0.5"]
    assert row["n_resamples_skipped"] == 200

    nothing = tabulate(without(images, images["label"] >= 0), threshold=0.5)
    row = row_of(nothing, source="all", generator="all")
    assert row["note"] == "no scored real and no scored fake image"
    assert (row["n_asked"], row["n_scored"], row["coverage"]) == (60, 0, 0.0)


def test_seen_generators_come_from_the_training_split_and_from_the_run() -> None:
    def seen(table: pd.DataFrame) -> dict[str, bool]:
        test = table[(table["split"] == "test") & (table["source"] != "all")]
        return dict(zip(test["generator"], test["seen_in_training"], strict=True))

    images = predictions(splits=("test",))
    assert seen(tabulate(images, threshold=0.5)) == {"all": False, "gan": False, "diff": False}
    told = tabulate(images, threshold=0.5, trained_on=["gan"])
    assert seen(told)["gan"]
    assert not seen(told)["diff"]
    assert not row_of(told, source="all", generator="all")["seen_in_training"]

    trained = images.assign(split="train", image_id="t" + images["image_id"])
    table = tabulate(pd.concat([trained, images]), threshold=0.5)
    assert seen(table) == {"all": True, "gan": True, "diff": True}


def test_what_was_trained_on_may_be_unknown() -> None:
    table = tabulate(predictions(splits=("train", "test")), threshold=0.5, trained_on=None)
    assert table["seen_in_training"].isna().all()


@pytest.mark.parametrize(("n_reals", "rates"), [(19, []), (20, [5]), (99, [5]), (100, [1, 5])])
def test_rates_that_few_reals_cannot_bear_are_withheld(n_reals: int, rates: list[int]) -> None:
    images = predictions(n=120, splits=("test",))
    reals = images.index[images["label"] == 0]
    images = pd.concat([images.loc[reals[:n_reals]], images[images["label"] == 1]])
    row = row_of(tabulate(images, threshold=0.5), source="all", generator="all")
    assert row["n_real"] == n_reals
    assert [k for k in (1, 5) if not np.isnan(row[f"tpr_at_fpr_{k}"])] == rates
    for k in rates:
        expected = metrics.tpr_at_fpr(images["label"], images["log_odds"], k / 100)
        assert row[f"tpr_at_fpr_{k}"] == expected


def test_headline_has_mean_and_worst_generator_of_the_clean_view() -> None:
    table = tabulate(predictions(splits=("val", "test"), views=("blur-s2", "clean")), threshold=0.5)
    headline = summarise(table)
    assert list(headline) == ["val", "test"]
    clean = table[(table["split"] == "test") & (table["view"] == "clean")]
    each = clean[clean["generator"] != "all"]
    assert headline["test"]["mean_over_generators"]["average_precision"] == pytest.approx(
        each["average_precision"].mean()
    )
    assert headline["test"]["worst_generator"]["average_precision"] == min(
        each["average_precision"]
    )
    assert headline["test"]["view"] == "clean"


@pytest.mark.parametrize(("n_lost", "warns"), [(1, False), (2, True)])
def test_unequal_coverage_of_the_classes_warns_above_one_point(n_lost: int, warns: bool) -> None:
    images = predictions(n=60)
    fakes = images.index[images["label"] == 1][:n_lost]
    assert bool(list(compare_coverage(without(images, images.index.isin(fakes))))) is warns


def test_run_files_hold_table_headline_warnings_and_card(tmp_path: Path) -> None:
    images = predictions(splits=("val", "test"))
    lost = images["generator"].eq("gan") & images["split"].eq("test")
    run = write_run(tmp_path / "rine-2", without(images, lost))
    table = evaluate_run(run, n_resamples=50)

    record = json.loads((run / "metrics.json").read_text())
    assert len(record["table"]) == len(table)
    assert record["threshold"] == 0.4
    assert record["headline"]["test"]["n_scored"] == 48
    assert record["warnings"] == [
        "Test split, clean view: 100.0% of the real and 66.7% of the fake images have a score: "
        "the numbers may be flattered or harmed by what is missing. See the list of missing "
        "images.",
        "The head was trained by an earlier release, which did not record the generators that "
        "chose its epoch and threshold: one that is called unseen may be among them. Train it "
        "again to know.",
    ]
    gone = [r for r in record["table"] if r["generator"] == "gan" and r["split"] == "test"]
    assert gone[0]["average_precision"] is None
    assert gone[0]["note"] == "no scored fake image"

    again = pd.read_csv(run / "metrics.csv", keep_default_na=False, na_values=[""])
    assert set(again.columns) == {"level", "family", *TABLE_COLUMNS}
    again = again[(again["level"] == "image") & (again["family"] == "all")]
    np.testing.assert_allclose(again["auc"], table["auc"])

    card = (run / "README.md").read_text()
    assert card.startswith("# RINE\n")
    assert "`clip_block_cls`: fingerprint `0123456789abcdef`" in card
    assert "above 0.4, chosen on: validation split, 60 images, 30 groups" in card
    assert "| test | a | gan | in training | 12 + 0 | – | – | " in card
    assert f'cc.load_head("{run}")' in card
    assert "Manifest: faces.parquet. Store: faces-store." in card
    assert record["evaluated_on"] == {
        "store": "faces-store",
        "manifest": "faces.parquet",
        "manifest_fingerprint": None,
    }
    assert "66.7% of the fake images" in card
    assert sorted(path.name for path in run.iterdir()) == [
        "README.md",
        "config.json",
        "metrics.csv",
        "metrics.json",
        "predictions.parquet",
    ]


def test_evaluation_is_the_same_bytes_again(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", predictions())
    evaluate_run(run)
    first = {path.name: path.read_bytes() for path in run.iterdir()}
    evaluate_run(run)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == first


def test_known_table_is_reused_only_for_the_same_predictions(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", without(predictions(), predictions()["label"] == 0))
    computed = evaluate_run(run, n_resamples=20)
    pd.testing.assert_frame_equal(assess_run(run).table, computed)

    predictions(n=6).to_parquet(run / "predictions.parquet")
    assert assess_run(run).table["n_asked"].iloc[0] == 30


def test_predictions_come_back_as_written(tmp_path: Path) -> None:
    table = without(predictions(), predictions()["generator"] == "gan")
    table.to_parquet(tmp_path / "predictions.parquet")
    found = read_predictions(tmp_path / "predictions.parquet")
    pd.testing.assert_frame_equal(found, table, check_dtype=False)


def test_ranking_sees_what_probabilities_round_away():
    table = predictions()
    table["log_odds"] += 100
    table["score"] = 1.0
    row = tabulate(table, threshold=0.5, n_resamples=0).iloc[0]
    assert row["auc"] == pytest.approx(roc_auc_score(table["label"], table["log_odds"]))
    assert row["auc"] != 0.5


def test_scores_of_other_weights_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", predictions(), weights_sha256="a" * 64)
    evaluate_run(run, n_resamples=5)
    assess_run(run)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"weights_sha256": "b" * 64}))
    with pytest.raises(ReportError, match="its scores are of other weights than its head"):
        assess_run(run)


def test_scores_on_other_images_say_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", predictions())
    on = {"store": "other-store", "manifest": "other.parquet"}
    evaluate_run(run, n_resamples=5, evaluated_on=on)
    card = (run / "README.md").read_text()
    assert "* trained on manifest: faces.parquet" in card
    assert "Manifest: other.parquet. Store: other-store." in card
    assert json.loads((run / "metrics.json").read_text())["evaluated_on"] == on
