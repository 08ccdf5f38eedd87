"""What the command line prints: names as they are, strict JSON, true rates, right plurals."""

import json
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from clare_cache.cli import progress
from clare_cache.cli.board import show_scores
from clare_cache.cli.manifest import app
from clare_cache.cli.output import count, print_json, print_table
from clare_cache.images import encode_png
from clare_cache.types import Progress


class Clock:
    """A clock that stands still until it is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("name", ["photo [copy].png", "[/x]", "[bold]", ":smile:", "a\\[b]"])
def test_tables_show_names_as_they_are(name, capsys):
    print_table([f"col {name}", "n"], [[name, "1"], ["b", name]], title=f"run {name}")
    out = capsys.readouterr().out
    assert out.count(name) == 4
    assert f"run {name}" in out
    assert f"col {name}" in out


def test_long_names_are_folded_and_not_cut(capsys):
    print_table(["path"], [["x" * 300]])
    assert capsys.readouterr().out.count("x") == 300


def test_a_wide_table_is_printed_in_parts_with_whole_words(capsys):
    columns = ["set", *(f"UniversalFakeDetect, method{n:02}" for n in range(20))]
    rows = [["a name of several words", *(f"{n:02}.5" for n in range(20))], ["LDM_200_steps"] * 21]
    print_table(columns, rows, title="wide")
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 160
    assert out.count("wide") == out.count("wide (continued)") + 1 == 4
    for n in range(20):
        assert out.count(f"method{n:02}") == 1
        assert out.count(f"{n:02}.5") == 1
    assert out.count("UniversalFakeDetect") == 20
    assert out.count("LDM_200_steps") == 20 + 4


def test_json_is_strict_whatever_the_library_of_a_value(capsys):
    row = pd.DataFrame({"n": [3], "auc": [np.nan]}).to_dict("records")[0]
    print_json(
        {
            "row": row,
            "missing": [float("nan"), np.float32("nan"), pd.NA, pd.NaT, None],
            "infinite": (float("inf"), -np.inf),
            "numbers": [np.float32(0.5), np.int64(2), np.bool_(True), False, 1.25],
            "array": np.array([[1.0, np.nan]]),
            "text": Path("a/b"),
            7: "key",
        }
    )
    out = capsys.readouterr().out
    assert json.loads(out, parse_constant=pytest.fail) == {
        "row": {"n": 3, "auc": None},
        "missing": [None] * 5,
        "infinite": [None, None],
        "numbers": [0.5, 2, True, False, 1.25],
        "array": [[1.0, None]],
        "text": "a/b",
        "7": "key",
    }


def test_one_is_singular():
    assert [count(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]


def test_lines_leave_out_of_the_rate_what_came_before_the_clock(capsys, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    on_progress = progress._line_printer()
    for seconds, done in ((0, 32), (10, 52), (20, 72)):
        clock.now = 100.0 + seconds
        on_progress(Progress(what="extract", done=done, total=112, unit="image"))
    on_progress(Progress(what="verify", done=4, total=4, unit="block"))
    assert capsys.readouterr().err.splitlines() == [
        "extract: 32/112 images",
        "extract: 52/112 images, 2.0/s, ETA 30 s",
        "extract: 72/112 images, 2.0/s, ETA 20 s",
        "verify: 4/4 blocks",
    ]


def test_the_bar_leaves_out_of_the_rate_what_came_before_the_clock():
    clock, bar = Clock(), progress._bar()
    bar.get_time = clock
    on_progress = progress._bar_updater(bar)
    shown = []
    for seconds, done in ((0, 32), (10, 52), (20, 72)):
        clock.now = 100.0 + seconds
        on_progress(Progress(what="extract", done=done, total=112, unit="image"))
        shown.append(progress.RateColumn().render(bar.tasks[0]).plain)
    assert shown == ["", "2.0 images/s", "2.0 images/s"]
    assert bar.tasks[0].time_remaining == 20


def test_work_that_begins_again_under_its_name_has_a_rate_of_its_own(capsys, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    on_line = progress._line_printer()
    bar = progress._bar()
    bar.get_time = clock
    on_terminal = progress._bar_updater(bar)
    for done in (10, 110, 4, 24):
        step = Progress(what="read", done=done, total=124, unit="image")
        on_line(step)
        on_terminal(step)
        clock.now += 20
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "read: 110/124 images, 5.0/s, ETA 3 s"
    assert lines[-1] == "read: 24/124 images, 1.0/s, ETA 100 s"
    assert not any("-" in line for line in lines)
    assert bar.tasks[0].speed == 1.0


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """One good image, one that is none, and one broken link."""
    (tmp_path / "images" / "real").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (tmp_path / "images/real/good.png").write_bytes(encode_png(pixels))
    (tmp_path / "images/real/text.png").write_bytes(b"no image")
    (tmp_path / "images/real/link.png").symlink_to("nowhere.png")
    return tmp_path


def test_a_build_tells_files_without_a_row_from_refused_ones(faces):
    arguments = ["build", "folder", str(faces / "images"), "-o", str(faces / "m.csv")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 3
    assert done.stdout.startswith(f"{faces / 'm.csv'}: 2 images\n")
    lines = done.stderr.splitlines()
    start = lines.index("1 path could not be read: no row, not counted above:")
    assert lines[start + 1].startswith("  real/link.png: read: ")
    assert lines[start + 2] == (
        "1 file cannot be used as an image: in the manifest, listed again by extract:"
    )
    assert lines[start + 3].startswith("  real/text.png: decode: ")
    assert len(lines) == start + 4


def test_a_check_counts_one_image_and_one_fault_in_the_singular(faces):
    for name in ("good.png", "link.png"):
        (faces / "images/real" / name).unlink()
    table, root = str(faces / "m.csv"), str(faces / "images")
    built = CliRunner().invoke(app, ["build", "folder", root, "-o", table])
    assert built.stdout.startswith(f"{table}: 1 image\n")
    done = CliRunner().invoke(app, ["check", table, "--root", root])
    assert done.exit_code == 1
    assert done.stdout.endswith(f"{table}: 1 image, 1 fault\n")


def test_a_split_says_which_generators_it_lacks(tmp_path):
    table = {"image_id": [f"{n:064x}" for n in range(6)], "label": [0, 0, 0, 0, 0, 1]}
    table |= {"path": [f"{n}.png" for n in range(6)], "generator": [*["real"] * 5, "gan"]}
    pd.DataFrame(table).to_csv(tmp_path / "m.csv", index=False)
    done = CliRunner().invoke(
        app, ["split", str(tmp_path / "m.csv"), "-o", str(tmp_path / "s.csv")]
    )
    assert done.exit_code == 0, done.output
    found = pd.read_csv(tmp_path / "s.csv").set_index("generator")["split"]
    lacking = sorted({"train", "val", "test"} - {found["gan"]})
    assert all(f"{name} has no image of gan" in done.output for name in lacking)


def test_scores_of_several_sources_are_told_apart(capsys):
    def row(source, generator, seen):
        numbers = ("average_precision", "auc", "accuracy_validation_threshold")
        return {
            "split": "test", "view": "clean", "source": source, "generator": generator,
            "seen_in_training": seen, "seen_in_validation": False, "n_asked": 8, "n_scored": 8,
            "coverage": 1.0, **dict.fromkeys(numbers, 0.5),
        }  # fmt: skip

    def lines(rows):
        show_scores(pd.DataFrame(rows), title="a run with a name that is longer than its table")
        return [
            " ".join(line.replace("│", " ").split()) for line in capsys.readouterr().out.split("\n")
        ]

    mixed = lines(
        [row("all", "all", False), row("ffhq", "all", True), row("ffhq", "gan", True),
         row("celeba", "gan", False), row("celeba", "flux", math.nan)]
    )  # fmt: skip
    assert mixed[0] == "a run with a name that is longer than its table"
    assert "test clean all all 8/8 100.0% 0.500 0.500 0.500" in mixed
    assert "test clean ffhq all 8/8 100.0% 0.500 0.500 0.500" in mixed
    assert "test clean ffhq gan in training 8/8 100.0% 0.500 0.500 0.500" in mixed
    assert "test clean celeba gan unseen 8/8 100.0% 0.500 0.500 0.500" in mixed
    assert "test clean celeba flux 8/8 100.0% 0.500 0.500 0.500" in mixed
    one = lines([row("all", "all", False), row("ffhq", "gan", True)])
    assert "test clean gan in training 8/8 100.0% 0.500 0.500 0.500" in one
