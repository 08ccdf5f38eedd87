"""Direction, doors, sizes and lightness, held by tests and not by a drawing."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "clare_cache"
CEILING = 400
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc", "core", "base"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_imports_keep_the_contracts() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_no_module_is_longer_than_the_ceiling() -> None:
    too_long = {
        path.name: n for path in modules() if (n := len(path.read_text().splitlines())) > CEILING
    }
    assert not too_long


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert not [path for path in modules() if path.stem in NAMELESS]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["extract", "--help"],
        ["train-head", "--help"],
        ["doctor", "--help"],
        ["weights", "check", "--help"],
        ["recipe", "list"],
    ],
)
def test_help_imports_no_torch(arguments: list[str]) -> None:
    heavy = ("torch", "diffusers", "transformers", "open_clip", "zarr", "dask", "pandas")
    code = (
        "import sys\n"
        f"sys.argv = ['clare-cache', *{arguments!r}]\n"
        "from clare_cache.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"loaded = sorted(set({heavy!r}) & set(sys.modules))\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_is_light_and_its_names_exist() -> None:
    code = (
        "import sys, clare_cache\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "for name in clare_cache.__all__:\n    getattr(clare_cache, name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_door_has_an_owner_that_uses_it() -> None:
    for library, owner in {"zarr": "store", "PIL": "images", "typer": "cli"}.items():
        assert find_spec(library) is not None
        text = "".join(path.read_text() for path in (PACKAGE / owner).rglob("*.py"))
        assert f"import {library}" in text or f"from {library}" in text
