"""The commands as a shell sees them: output, exit status, the line that resumes."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clare_cache.errors import StoreError


def test_a_user_mistake_is_a_sentence_and_no_traceback(command, tmp_path):
    done = command("store", "info", "nowhere", folder=tmp_path)
    assert done.status == 1
    assert done.out == ""
    assert done.err == (
        "error: store nowhere: expected a folder with store.json, found none. "
        "Make one with `clare-cache extract MANIFEST STORE`.\n"
    )


def test_debug_gives_the_exception_itself(tmp_path, monkeypatch):
    from clare_cache.cli.app import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["clare-cache", "--debug", "store", "info", "nowhere"])
    with pytest.raises(StoreError):
        main()


def test_a_usage_mistake_ends_with_status_2(command, tmp_path):
    done = command("extract", "--no-such-flag", folder=tmp_path)
    assert done.status == 2
    assert "--no-such-flag" in done.err


def test_underscores_in_flags_are_understood(command, tmp_path):
    done = command("extract", "absent.parquet", "s", "--batch_size", "0", folder=tmp_path)
    assert done.status == 2
    assert "--batch-size" in done.err


@pytest.fixture
def faces(tmp_path, command) -> Path:
    """A folder with a few images, one of them broken, and their manifest."""
    from clare_cache.workflow.demo import make_images

    make_images(tmp_path / "images", per_region=1)
    (tmp_path / "images/train/real/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    done = command("manifest", "build", "folder", "images", "-o", "m.csv", folder=tmp_path)
    assert done.status == 3
    assert "m.csv: 31 images" in done.out
    assert "train/real/broken.png: decode: " in done.err
    return tmp_path


EXTRACT = ("--root", "images", "--clip", "tiny", "--device", "cpu", "--features", "clip_embedding")


def test_images_in_the_ledger_end_extract_with_status_3(command, faces):
    done = command("extract", "m.csv", "store", *EXTRACT, folder=faces)
    assert done.status == 3
    assert "31 images asked for, 0 were there, 30 extracted now, 1 in the ledger" in done.out
    assert "train/real/broken.png: decode: " in done.err
    done = command("extract", "m.csv", "store", *EXTRACT, "--json", folder=faces)
    assert done.status == 3
    report = json.loads(done.out)
    assert report["n_decoded"] == 0
    assert [line["stage"] for line in report["failures"]] == ["decode"]
    done = command("store", "info", "store", "--ledger", folder=faces)
    assert done.status == 0
    assert "30 of 31" in done.out
    assert "broken.png" in done.out


def test_a_check_that_finds_faults_ends_with_status_1(command, faces):
    done = command("manifest", "check", "m.csv", "--root", "images", folder=faces)
    assert done.status == 1
    assert "broken.png" in done.out
    assert "31 images, 1 fault\n" in done.out


def test_verify_finds_a_flipped_bit(command, faces):
    command("extract", "m.csv", "store", *EXTRACT, folder=faces)
    assert command("store", "verify", "store", folder=faces).status == 0
    chunk = faces / "store/features.zarr/clean/clip_embedding/c/0/0"
    data = bytearray(chunk.read_bytes())
    data[100] ^= 1
    chunk.write_bytes(data)
    done = command("store", "verify", "store", folder=faces)
    assert done.status == 1
    assert "altered chunk: features.zarr/clean/clip_embedding/c/0/0" in done.out


def test_a_task_of_a_job_array_without_a_block_says_why(command, faces):
    done = command(
        "extract", "m.csv", "store", *EXTRACT, "--shard-index", "3", "--num-shards", "9",
        folder=faces,
    )  # fmt: skip
    assert done.status == 0
    assert done.out == (
        "store: 0 images asked for, 0 were there, 0 extracted now, 0 in the ledger\n"
    )
    assert done.err.endswith(
        "shard 3 of 9 has nothing to do: shards take turns at blocks, and 31 rows in blocks of 256 "
        "are 1 block. A new store made with a smaller --block-rows has more.\n"
    )


def test_interrupted_extract_prints_the_line_to_resume(command, tmp_path):
    from clare_cache.workflow.demo import make_images

    n_images = make_images(tmp_path / "images", per_region=24)
    command("manifest", "build", "folder", "images", "-o", "m.parquet", folder=tmp_path)
    arguments = ["extract", "m.parquet", "store", "--root", "images", "--sd", "tiny"]
    arguments += ["--features", "error_map", "--block-rows", "16", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "clare_cache", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    commits = tmp_path / "store/commits/clean/error_map"
    deadline = time.monotonic() + 200
    while not list(commits.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"Resume with:\n  clare-cache {' '.join(arguments)}" in err
    committed = len(list(commits.glob("*.json")))
    assert 0 < committed < n_images // 16
    done = command("store", "info", "store", "--json", folder=tmp_path)
    assert json.loads(done.out)["arrays"]["clean/error_map"]["rows"] == 16 * committed
    faults = command("store", "verify", "store", folder=tmp_path).out.splitlines()[:-1]
    assert all(line.startswith("orphan file") for line in faults)
