"""The command for a lent GPU keeps what it has measured, whatever happens to the rest."""

import json

import pytest

from benchmarks import gpu


def results(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_a_stage_writes_each_figure_before_it_goes_on(tmp_path, monkeypatch, capsys):
    def measure(told, folder):
        yield gpu.Figure("speed", 3.0, "images/s", "2 or more")
        assert [line["name"] for line in results(tmp_path)] == ["speed"]
        raise RuntimeError("the card fell out")

    monkeypatch.setitem(gpu.STAGES, "ceilings", (measure, 60))
    with pytest.raises(RuntimeError, match="fell out"):
        gpu.run_one("ceilings", gpu.Told("cpu", small=True), tmp_path / "results.jsonl")
    assert "speed" in capsys.readouterr().out
    assert results(tmp_path)[0]["found"] == 3.0


def test_stages_without_time_left_are_told(tmp_path, capsys):
    told = ["--small", "--minutes", "0", "--out", str(tmp_path)]
    assert gpu.main(["ceilings", "clare", *told]) == 2
    expected = [{"stage": stage, "error": "no time left"} for stage in ("ceilings", "clare")]
    assert results(tmp_path) == expected
    assert capsys.readouterr().out.count("no time left") == 4


def test_a_stage_that_takes_too_long_is_cut_off(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho begun\nsleep 60\n")
    python.chmod(0o755)
    monkeypatch.setattr(gpu.sys, "executable", str(python))
    told = gpu.Told("cpu", small=True)
    found = gpu.run_process("ceilings", told, tmp_path, tmp_path / "results.jsonl", limit=1)
    assert found == "cut off after 1 s"
    assert (tmp_path / "log.txt").read_text() == "--- ceilings\nbegun\n"
