"""The head of docs/own-heads.md, from its file to a report, by the commands that the page names."""

import json
import re
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "own-heads.md"
RECIPE = """
about: {title: A head of one's own}
backbones: {sd: tiny, clip: tiny}
head: {family: "my_heads:ErrorStatistics", options: {width: 16}}
train: {epochs: 1}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)
    (tmp_path / "my_heads.py").write_text(code)
    yield tmp_path
    sys.modules.pop("my_heads", None)


def test_a_head_in_a_users_file_goes_all_the_way(folder, command):
    from clare_cache.workflow.demo import make_images

    (folder / "my-recipe.yaml").write_text(RECIPE)
    make_images(folder / "faces", per_region=2)
    group = r"([^/]+)-\d+\.png$"
    command("manifest", "build", "folder", "faces", "-o", "faces.parquet", "--group", group,
            folder=folder)  # fmt: skip
    made = command("extract", "faces.parquet", "faces-store", "--root", "faces", "--sd", "tiny",
                   "--features", "error_map", folder=folder)  # fmt: skip
    assert made.status == 0, made.err
    tried = command("head", "check", "my_heads:ErrorStatistics", "--store", "faces-store",
                    folder=folder)  # fmt: skip
    assert (tried.status, tried.out.count("ok  ")) == (0, 10), tried
    train = ["train-head", "my-recipe.yaml", "--store", "faces-store", "--manifest",
             "faces.parquet", "--out", "runs", "--set", "ErrorStatistics.width=8,16"]  # fmt: skip
    assert command("recipe", "check", "my-recipe.yaml", folder=folder).status == 0
    done = command(*train, folder=folder)
    assert done.status == 0, done.err
    runs = sorted(folder.glob("runs/*/config.json"))
    assert [run.parent.name for run in runs] == [
        "ErrorStatistics-width16",
        "ErrorStatistics-width8",
    ]
    assert command("evaluate", "runs", folder=folder).status == 0
    assert command("report", "runs", "-o", "report.html", folder=folder).status == 0
    predicted = command("predict", "runs/ErrorStatistics-width8", "faces/test", "--json",
                        folder=folder)  # fmt: skip
    assert predicted.status == 0, predicted.err
    before = [json.loads(run.read_text())["code_sha256"] for run in runs]
    stamps = [run.stat().st_mtime_ns for run in runs]
    assert command(*train, folder=folder).status == 0
    assert [run.stat().st_mtime_ns for run in runs] == stamps
    with (folder / "my_heads.py").open("a") as file:
        file.write("# other code\n")
    again = command(*train, folder=folder)
    assert again.status == 0, again.err
    assert all(
        json.loads(r.read_text())["code_sha256"] != b for r, b in zip(runs, before, strict=True)
    )


def test_a_head_that_keeps_not_what_is_asked_ends_with_status_1(folder, command):
    file = folder / "my_heads.py"
    file.write_text(
        file.read_text().replace("error.mean(dim=2)", "error.mean(dim=2) - error.mean()")
    )
    tried = command(
        "head", "check", "my_heads:ErrorStatistics", "--option", "width=4", folder=folder
    )
    assert tried.status == 1
    assert "no  images do not see each other\n      logits of an image alone" in tried.out


def test_recipe_check_names_every_head_that_is_not_there(folder, command):
    (folder / "both.yaml").write_text("""
about: {title: Two that cannot be}
head:
  - {family: rhine}
  - {family: "my_heads:Eror"}
  - {family: linear, options: {width: 3}}
""")
    found = command("recipe", "check", "both.yaml", folder=folder)
    assert found.status == 1
    for what in (
        "head rhine: expected one of",
        "expected a class Eror in",
        "option width: expected",
    ):
        assert what in found.err
