"""Tables for papers hold the numbers of the page, of every seed, and survive odd names."""

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clare_cache.errors import ReportError
from clare_cache.evaluate import evaluate_run
from clare_cache.report.paper import paper_table
from clare_cache.workflow.results import report
from tests.unit.test_report import write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    seeds = [
        write_run(root / f"s{seed}", label=f"s{seed}", strength=1 - seed / 2,
                  settings={"width": 16, "seed": seed}, sweep="RI_NE & co")
        for seed in (0, 1)
    ]  # fmt: skip
    other = write_run(root / "other", label="C|LaRE")
    for run in (*seeds, other):
        evaluate_run(run, n_resamples=10)
    return [*seeds, other]


def percents(runs: list[Path], generator: str, metric: str = "average_precision") -> list[float]:
    tables = [pd.read_csv(run / "metrics.csv") for run in runs]
    wanted = "level == 'image' and family == 'all' and split == 'test' and view == 'clean'"
    rows = [table.query(wanted).set_index("generator").loc[[generator]] for table in tables]
    return [100 * float(row[metric].iloc[0]) for row in rows]


def test_a_row_is_a_configuration_with_its_deviation(runs: list[Path]) -> None:
    lines = paper_table(runs, suffix=".md").splitlines()
    assert lines[0] == (
        "Average precision in percent, test split; †: not seen in training or validation"
    )
    assert lines[2:4] == [
        "| Head | Midjourney† | StyleGAN2 | Mean | All |", "|---|--:|--:|--:|--:|"
    ]  # fmt: skip
    [row] = [line for line in lines[4:8] if "RI_NE & co, width 16" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")][1:]
    each = [np.array(percents(runs[:2], name)) for name in ("Midjourney", "StyleGAN2", "all")]
    columns = [each[0], each[1], (each[0] + each[1]) / 2, each[2]]
    assert cells == [f"{c.mean():.1f} ± {c.std(ddof=1):.1f}" for c in columns]
    assert any(line.startswith("| C\\|LaRE | ") for line in lines[4:8])
    assert "Accuracy at the validation threshold in percent, test split" in "\n".join(lines)


def test_latex_is_escaped(runs: list[Path]) -> None:
    text = paper_table(runs, suffix=".tex")
    assert "\\begin{tabular}{lrrrr}\n\\toprule\nHead & Midjourney$^\\dagger$ & StyleGAN2 & " in text
    assert re.search(r"^RI\\_NE \\& co, width 16 & \d+\.\d \$\\pm\$ \d+\.\d & ", text, re.M)
    assert text.count("\\bottomrule") == 2


def test_csv_is_for_programs(runs: list[Path], tmp_path: Path) -> None:
    out = report(runs, tmp_path / "new" / "scores.csv")
    rows = list(csv.DictReader(out.read_text().splitlines()))
    [cell] = [
        row for row in rows
        if (row["head"], row["generator"], row["metric"])
        == ("C|LaRE", "Midjourney", "Average precision")
    ]  # fmt: skip
    assert float(cell["percent"]) == pytest.approx(percents(runs[2:], "Midjourney")[0], abs=0.051)
    assert cell["deviation"] == ""


def test_what_is_not_scored_is_a_dash_and_has_no_mean(runs: list[Path], tmp_path: Path) -> None:
    table = pd.read_parquet(runs[2] / "predictions.parquet")
    lost = (table["split"] == "test") & (table["generator"] == "Midjourney")
    run = write_run(tmp_path / "part", label="part")
    table.assign(score=table["score"].mask(lost), log_odds=table["log_odds"].mask(lost),
                 missing=table["missing"].mask(lost, "decode: gone")
                 ).to_parquet(run / "predictions.parquet")  # fmt: skip
    row = paper_table([run], suffix=".md").splitlines()[4]
    assert re.fullmatch(r"\| part \| – \| \d+\.\d \| – \| \d+\.\d \|", row)


def test_other_names_of_files_are_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ReportError) as caught:
        report(runs, tmp_path / "t.pdf")
    assert str(caught.value) == (
        f"report {tmp_path}/t.pdf: expected a name ending in .html for the page, or in .tex, .md, "
        ".csv for a table of the scores, found t.pdf."
    )
