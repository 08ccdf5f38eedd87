"""What a user reads when a run folder cannot be evaluated or reported, word for word."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clare_cache.errors import ReportError
from clare_cache.evaluate import read_config, read_predictions
from clare_cache.report import Picture, build_report


def good_row(**changes: object) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(
        ("image_id", "path", "split", "source", "generator", "family", "group", "view"), "x"
    )
    return row | {"label": 1, "score": 0.5, "log_odds": 0.0, "missing": ""} | changes


def refusal_of(path: Path, rows: list[dict[str, object]]) -> str:
    pd.DataFrame(rows).to_parquet(path)
    with pytest.raises(ReportError) as caught:
        read_predictions(path)
    return str(caught.value)


def test_config_absent(tmp_path: Path) -> None:
    run = tmp_path / "rine"
    run.mkdir()
    with pytest.raises(ReportError) as caught:
        read_config(run)
    assert str(caught.value) == (
        f"run rine: expected a config.json, found none in {run}. "
        "Give the folder that `clare-cache train-head` wrote."
    )


def test_the_folder_of_several_runs(tmp_path: Path) -> None:
    for name in ("ufd", "rine"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").write_text("{}")
    with pytest.raises(ReportError) as caught:
        read_config(tmp_path / "runs")
    assert str(caught.value) == (
        f"run runs: expected a config.json, found none in {tmp_path / 'runs'}. It holds the runs "
        "rine, ufd: give one of them."
    )


def test_config_faults_are_listed_together(tmp_path: Path) -> None:
    run = tmp_path / "rine"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"family": "rine", "threshold": None}))
    with pytest.raises(ReportError) as caught:
        read_config(run)
    assert str(caught.value) == (
        "run rine: config.json: 2 faults\n"
        "  - label: absent\n"
        "  - threshold: expected a probability, found null\n"
        "Train the head again, with a validation split that has both classes."
    )


def test_predictions_absent(tmp_path: Path) -> None:
    path = tmp_path / "rine" / "predictions.parquet"
    with pytest.raises(ReportError) as caught:
        read_predictions(path)
    assert str(caught.value) == (
        f"predictions of run rine: expected a Parquet file, found none in {path}. "
        "Score the head again with `clare-cache evaluate`."
    )


def test_predictions_of_another_format(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    path.write_text("image_id,score\n")
    with pytest.raises(ReportError, match="expected a Parquet file, found something else"):
        read_predictions(path)


def test_absent_columns_are_listed_together(tmp_path: Path) -> None:
    row = good_row()
    del row["view"], row["missing"]
    message = refusal_of(tmp_path / "predictions.parquet", [row])
    assert message == (
        f"predictions of run {tmp_path.name}: 2 faults\n"
        "  - column view: absent\n"
        "  - column missing: absent\n"
        "Score the head again with `clare-cache evaluate`."
    )


def test_value_faults_are_listed_together(tmp_path: Path) -> None:
    rows = [
        good_row(label=2),
        good_row(image_id="y", score=1.5, missing="decode: truncated file"),
        good_row(image_id="z", score=None),
        good_row(image_id="z", path=None),
    ]
    message = refusal_of(tmp_path / "predictions.parquet", rows)
    assert message == (
        f"predictions of run {tmp_path.name}: 7 faults\n"
        "  - column label: expected 0 (real) or 1 (fake), found 2\n"
        "  - column path: expected text, found 1 row without\n"
        "  - column score: expected probabilities in [0, 1], found 1 row outside\n"
        "  - column log_odds: expected numbers just where score has them, found 1 row off\n"
        "  - column missing: expected a reason where score is absent, found 1 row without\n"
        "  - column missing: expected no reason where there is a score, found 1 row with\n"
        "  - column path: expected one row per file and view, found 2 rows repeated\n"
        "Score the head again with `clare-cache evaluate`."
    )


def test_scores_of_another_type(tmp_path: Path) -> None:
    message = refusal_of(tmp_path / "predictions.parquet", [good_row(score=1)])
    assert "column score: expected float64, found int64" in message


def test_report_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ReportError) as caught:
        build_report([], tmp_path / "report.html", title="Empty")
    assert str(caught.value) == (
        "report: expected at least one run folder, found none. Give the folders that "
        "`clare-cache train-head` wrote."
    )


def test_report_of_numbers_that_belong_nowhere(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    pd.DataFrame([good_row()]).to_parquet(run / "predictions.parquet")
    config = {"family": "rine", "label": "RINE", "threshold": 0.5}
    (run / "config.json").write_text(json.dumps(config))
    stray = Picture("x.png", 1, np.zeros((2, 2, 3), dtype=np.uint8), scores={"UFD": 0.5})
    with pytest.raises(ReportError) as caught:
        build_report([run], tmp_path / "r.html", title="T", pictures=[stray])
    assert str(caught.value) == (
        "report: 1 fault\n"
        "  - picture x.png: expected scores of heads on this page (RINE), found one of UFD"
    )


def test_report_names_every_unusable_run(tmp_path: Path) -> None:
    runs = [tmp_path / "one", tmp_path / "two"]
    with pytest.raises(ReportError) as caught:
        build_report(runs, tmp_path / "report.html", title="Broken")
    assert str(caught.value) == (
        "report: 2 faults\n"
        f"  - run one: expected a config.json, found none in {runs[0]}. "
        "Give the folder that `clare-cache train-head` wrote.\n"
        f"  - run two: expected a config.json, found none in {runs[1]}. "
        "Give the folder that `clare-cache train-head` wrote."
    )
    assert not (tmp_path / "report.html").exists()
