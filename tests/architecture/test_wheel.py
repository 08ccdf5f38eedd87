"""What the wheel holds: recipes, data sets and published tables go with the code."""

import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    out = tmp_path_factory.mktemp("wheel")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(out), versions=["standard"])
    with zipfile.ZipFile(path) as wheel:
        return set(wheel.namelist())


@pytest.mark.parametrize("folder", ["pipelines", "manifests"])
def test_recipes_and_data_sets_are_in_the_wheel(names, folder):
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.yaml")}
    assert files
    assert {f"clare_cache/{name}" for name in files} <= names


def test_published_tables_and_the_page_are_in_the_wheel(names):
    package = ROOT / "clare_cache"
    kinds = (".csv", ".parquet", ".yaml", ".j2", ".css")
    data = [path for path in package.rglob("*") if path.suffix in kinds]
    assert len(data) > 20
    assert {p.relative_to(ROOT).as_posix() for p in data} <= names


def test_nothing_of_the_tests_is_in_the_wheel(names):
    assert not [name for name in names if name.startswith("tests/")]
