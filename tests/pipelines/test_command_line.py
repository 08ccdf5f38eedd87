"""The commands as a shell sees them: output, exit status, the line that resumes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest


def start(arguments: list[str], folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "clare_cache", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )


def run(arguments: list[str], folder: Path) -> tuple[int, str, str]:
    process = start(arguments, folder)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def test_a_user_mistake_is_a_sentence_and_no_traceback(tmp_path):
    status, out, err = run(["store", "info", "nowhere"], tmp_path)
    assert status == 1
    assert out == ""
    assert err == (
        "error: store nowhere: expected a folder with store.json, found none. "
        "Make one with `clare-cache extract MANIFEST STORE`.\n"
    )


def test_debug_shows_the_traceback(tmp_path):
    status, _, err = run(["--debug", "store", "info", "nowhere"], tmp_path)
    assert status == 1
    assert "Traceback" in err


def test_a_usage_mistake_ends_with_status_2(tmp_path):
    status, _, err = run(["extract", "--no-such-flag"], tmp_path)
    assert status == 2
    assert "--no-such-flag" in err


def test_underscores_in_flags_are_understood(tmp_path):
    status, _, err = run(["extract", "absent.parquet", "s", "--batch_size", "0"], tmp_path)
    assert status == 2
    assert "--batch-size" in err


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    """A folder with a few images, one of them broken, and their manifest."""
    from clare_cache.workflow.demo import make_images

    folder = tmp_path_factory.mktemp("faces")
    make_images(folder / "images", per_region=1)
    (folder / "images/train/real/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    status, out, err = run(["manifest", "build", "folder", "images", "-o", "m.csv"], folder)
    assert status == 3
    assert "m.csv: 31 images" in out
    assert "train/real/broken.png: decode: " in err
    return folder


EXTRACT = ["extract", "m.csv", "store", "--root", "images", "--clip", "tiny", "--device", "cpu"]


def test_images_in_the_ledger_end_extract_with_status_3(faces):
    features = ["--features", "clip_embedding"]
    status, out, err = run([*EXTRACT, *features], faces)
    assert status == 3
    assert "31 images asked for, 0 were there, 30 extracted now, 1 in the ledger" in out
    assert "train/real/broken.png: decode: " in err
    status, out, _ = run([*EXTRACT, *features, "--json"], faces)
    assert status == 3
    report = json.loads(out)
    assert report["n_decoded"] == 0
    assert [line["stage"] for line in report["failures"]] == ["decode"]
    status, out, _ = run(["store", "info", "store", "--ledger"], faces)
    assert status == 0
    assert "30 of 31" in out
    assert "broken.png" in out


def test_a_check_that_finds_faults_ends_with_status_1(faces):
    status, out, _ = run(["manifest", "check", "m.csv", "--root", "images"], faces)
    assert status == 1
    assert "broken.png" in out
    assert "31 images, 1 faults" in out


def test_verify_finds_a_flipped_bit(faces):
    run([*EXTRACT[:2], "other", *EXTRACT[3:], "--features", "clip_embedding"], faces)
    assert run(["store", "verify", "other"], faces)[0] == 0
    chunk = next((faces / "other/features.zarr/clean/clip_embedding/c").rglob("0/0"))
    data = bytearray(chunk.read_bytes())
    data[100] ^= 1
    chunk.write_bytes(data)
    status, out, _ = run(["store", "verify", "other"], faces)
    assert status == 1
    assert "altered chunk: clean/clip_embedding/c/0/0" in out


def test_interrupted_extract_prints_the_line_to_resume(tmp_path):
    from clare_cache.workflow.demo import make_images

    make_images(tmp_path / "images", per_region=40)
    run(["manifest", "build", "folder", "images", "-o", "m.parquet"], tmp_path)
    arguments = ["extract", "m.parquet", "store", "--root", "images", "--sd", "tiny"]
    arguments += ["--features", "error_map", "--block-rows", "16", "--device", "cpu"]
    process = start(arguments, tmp_path)
    commits = tmp_path / "store/commits/clean/error_map"
    deadline = time.monotonic() + 200
    while not list(commits.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"Resume with:\n  clare-cache {' '.join(arguments)}" in err
    committed = {p.name: p.read_bytes() for p in commits.glob("*.json")}
    assert 0 < len(committed) < 1200 // 16
    status, out, _ = run(["store", "verify", "store"], tmp_path)
    orphans = [line for line in out.splitlines() if line.startswith("orphan file")]
    assert status == (1 if orphans else 0)
    manifest = pd.read_parquet(tmp_path / "m.parquet").iloc[:0]
    assert list(manifest.columns)
    status, out, _ = run(["store", "info", "store", "--json"], tmp_path)
    assert json.loads(out)["arrays"]["clean/error_map"]["rows"] == 16 * len(committed)
