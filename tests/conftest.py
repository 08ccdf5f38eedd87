"""What several test folders share: the golden generator and small pictures."""

import importlib.util
import sys
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"


def draw(
    name: str, shape: tuple[int, ...], *, scale: float = 1.0, offset: float = 0.0
) -> np.ndarray:
    """The golden files' rule: every tensor is a function of its name (seed 11), in float32."""
    generator = np.random.default_rng([11, zlib.crc32(name.encode())])
    values = generator.standard_normal(shape, dtype=np.float32)
    return values * np.float32(scale) + np.float32(offset)


def draw_parameter(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A seeded weight: its scale and offset follow from its name and shape."""
    if len(shape) < 2:
        norm_weight = ("ln" in name or "norm" in name) and name.endswith("weight")
        return draw(name, shape, scale=0.05, offset=1.0 if norm_weight else 0.0)
    embedding = "embedding" in name or "pos_embed" in name or name.endswith("ctx")
    scale = 0.02 if embedding else float(np.prod(shape[1:])) ** -0.5
    return draw(name, shape, scale=scale)


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    return GOLDEN


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """The CPU and, with `-m gpu`, a card."""
    return str(request.param)


class Draw(NamedTuple):
    """The golden files' two rules, for tests, which cannot import this file."""

    array: Callable[..., np.ndarray]
    parameter: Callable[[str, tuple[int, ...]], np.ndarray]


@pytest.fixture(scope="session")
def golden_draw() -> Draw:
    return Draw(draw, draw_parameter)


@pytest.fixture(scope="session")
def build_text_tower() -> Any:
    """The class of a small frozen text tower; imported only where asked for, as torch is slow."""
    path = Path(__file__).with_name("reference_tower.py")
    spec = importlib.util.spec_from_file_location("reference_tower", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ReferenceTower


@pytest.fixture(scope="session")
def odd_images() -> Callable[[Path], dict[str, Any]]:
    """`write_odd_images` of tests/odd_images.py: folder → file name → OddImage."""
    path = Path(__file__).with_name("odd_images.py")
    spec = importlib.util.spec_from_file_location("odd_images", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_odd_images


@pytest.fixture(scope="session")
def s3_server() -> Iterator[dict[str, str]]:
    """Environment variables that lead to an S3 server of this test run."""
    from tests.s3_server import serve_s3

    with serve_s3() as environment:
        yield environment


@pytest.fixture
def bucket(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty folder on an S3 server; processes started by the test reach it too."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    return f"s3://features/{uuid.uuid4().hex}"


class Finished(NamedTuple):
    """What a command left: exit status, standard output, standard error."""

    status: int
    out: str
    err: str


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Finished]:
    """`command("store", "info", …, folder=…)`: the console script, in this process for speed."""

    def run(*arguments: str, folder: Path) -> Finished:
        from clare_cache.cli.app import main

        monkeypatch.chdir(folder)
        monkeypatch.setattr("sys.path", [*sys.path])
        monkeypatch.setattr("sys.argv", ["clare-cache", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capfd.readouterr()
        code = end.value.code
        return Finished(code if isinstance(code, int) else int(code is not None), out, err)

    return run
