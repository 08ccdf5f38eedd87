"""What a command says when the disk, the keyboard or a path gets in its way."""

import builtins
import os
import subprocess
import sys

import pytest

from clare_cache.cli import app
from clare_cache.errors import BlockFailed, StoreError


def fail_in_command(monkeypatch, error):
    """Let every command end with this exception."""
    from clare_cache.cli import commands

    def fail(args):
        raise error

    monkeypatch.setattr(commands, "app", fail)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            PermissionError(13, "Permission denied", "faces-store/store.json"),
            "faces-store/store.json: expected to be able to read or write it, found: Permission "
            "denied. Check the path, its permissions and the free disk space.",
        ),
        (
            IsADirectoryError(21, "Is a directory", ".out.partial.html", None, "out"),
            "out: expected to be able to read or write it, found: Is a directory. "
            "Check the path, its permissions and the free disk space.",
        ),
        (OSError("torn"), "torn. Check paths, permissions and free disk space."),
        (OSError(), "OSError. Check paths, permissions and free disk space."),
    ],
)
def test_what_the_system_refuses_is_a_sentence(command, tmp_path, monkeypatch, error, sentence):
    fail_in_command(monkeypatch, error)
    done = command("evaluate", "runs", folder=tmp_path)
    assert (done.status, done.out, done.err) == (1, "", f"error: {sentence}\n")


def test_extract_says_how_to_go_on_when_the_disk_is_full(command, tmp_path, monkeypatch):
    fail_in_command(monkeypatch, OSError(28, "No space left on device", "s/commits"))
    done = command("extract", "m.csv", "a store", folder=tmp_path)
    assert done.status == 1
    assert done.err == (
        "error: s/commits: expected to be able to read or write it, found: No space left on "
        "device. Check the path, its permissions and the free disk space.\n"
        "Nothing that was committed is lost. Resume with:\n  clare-cache extract m.csv 'a store'\n"
    )


def test_extract_says_how_to_go_on_when_a_block_failed(command, tmp_path, monkeypatch):
    fail_in_command(monkeypatch, BlockFailed("extract: block 3 failed 3 times."))
    done = command("extract", "m.csv", "s", folder=tmp_path)
    assert (done.status, done.err) == (
        1,
        "error: extract: block 3 failed 3 times.\nNothing that was committed is lost. Resume "
        "with:\n  clare-cache extract m.csv s\n",
    )


def test_a_target_that_is_a_folder_is_a_sentence(command, tmp_path):
    from clare_cache.workflow.demo import make_images

    make_images(tmp_path / "images", per_region=1)
    (tmp_path / "out.csv").mkdir()
    done = command("manifest", "build", "folder", "images", "-o", "out.csv", folder=tmp_path)
    assert done.status == 1
    assert done.err.splitlines()[-1].startswith("error: out.csv: expected to be able to")


def test_a_place_for_results_is_tried_before_the_work(command, tmp_path):
    from clare_cache.workflow.demo import make_images

    make_images(tmp_path / "images", per_region=1)
    (tmp_path / "taken").write_text("mine")
    refused = "expected to be able to read or write it, found: "
    done = command("manifest", "build", "folder", "images", "-o", "taken/m.csv", folder=tmp_path)
    assert done.err.startswith(f"error: taken: {refused}")
    assert "hash" not in done.err
    command("manifest", "build", "folder", "images", "-o", "m.csv", folder=tmp_path)
    given = ("--store", "nowhere", "--manifest", "m.csv", "--out", "taken")
    done = command("train-head", "demo/tiny", *given, folder=tmp_path)
    assert done.err.startswith(f"error: taken: {refused}"), "before the store is looked for"
    done = command("predict", "run", "images", "-o", "taken/p.csv", folder=tmp_path)
    assert done.err.startswith(f"error: taken: {refused}")
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--debug", "store", "info", "nowhere"),
        ("store", "--debug", "info", "nowhere"),
        ("store", "info", "nowhere", "--debug"),
    ],
)
def test_debug_stands_anywhere_and_shows_the_traceback(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["clare-cache", *arguments])
    with pytest.raises(StoreError):
        app.main()


def test_debug_shows_what_the_system_refused(tmp_path, monkeypatch):
    fail_in_command(monkeypatch, OSError("torn"))
    monkeypatch.setattr("sys.argv", ["clare-cache", "evaluate", "runs", "--debug"])
    with pytest.raises(OSError, match="torn"):
        app.main()


def test_an_interrupt_during_the_imports_ends_like_any_other(command, tmp_path, monkeypatch):
    import_module = builtins.__import__

    def interrupted(name, *args, **kwargs):
        if name == "clare_cache.cli.commands":
            raise KeyboardInterrupt
        return import_module(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    done = command("extract", "m.csv", "s", folder=tmp_path)
    assert (done.status, done.out) == (130, "")
    assert done.err == (
        "interrupted; nothing that was committed is lost. Resume with:\n"
        "  clare-cache extract m.csv s\n"
    )


def test_the_entry_point_imports_nothing_before_it_can_be_interrupted():
    code = (
        "import sys; from clare_cache.cli.app import main\n"
        "print([name for name in ('typer', 'rich', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"
