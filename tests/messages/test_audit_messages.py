"""What the audit says of a data set with a shortcut, word for word."""

import json

import numpy as np
import pytest

from clare_cache.audit import Audit, Carrier, Finding
from clare_cache.errors import ManifestError, ReportError
from clare_cache.manifest import Manifest
from clare_cache.workflow.audit import Files, advice_on, audit_manifest
from tests.shortcut_data import write_data_set, write_photographs, write_run


def test_a_shortcut_ends_with_status_1_and_says_what_to_do(command, tmp_path):
    write_data_set(tmp_path / "data", ridden=True).write(tmp_path / "m.csv")
    done = command("manifest", "audit", "m.csv", "--root", "data", folder=tmp_path)
    assert done.status == 1
    lines = done.out.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("Without"))
    assert lines[first].startswith(
        "Without seeing a picture, fakes of sdxl are told from reals with an AUC of 1.000 (1.000 "
        "to 1.000), by JPEG quantisation tables (real quality 75 100%, fake none 100%); "
    )
    assert "format (real JPEG 100%, fake PNG 100%)" in lines[first]
    assert lines[first + 1 :] == [
        "A detector can learn this instead of what the pictures show, and will seem to work "
        "wherever the files differ in the same way.",
        "Extract a view in which every picture has one size, format and quality, and train and "
        "test on it: `clare-cache extract m.csv STORE --root data --views clean,matched-jpeg-q90`. "
        "It removes what the file says, not what an earlier compression or size did to the "
        "picture; `clare-cache manifest audit m.csv --root data --through matched-jpeg-q90` tells "
        "what is left.",
        "After training, `clare-cache manifest audit m.csv --root data --runs RUN` scores heads on "
        "pairs of files that look alike from outside.",
        "m.csv: 48 images looked at, 1 shortcut in 1 comparison",
    ]
    accepted = command("manifest", "audit", "m.csv", "--root", "data", "--accept", folder=tmp_path)
    assert accepted.status == 0


def test_an_honest_data_set_ends_with_status_0(command, tmp_path):
    write_data_set(tmp_path / "data", ridden=False).write(tmp_path / "m.csv")
    done = command("manifest", "audit", "m.csv", "--root", "data", "--json", folder=tmp_path)
    assert done.status == 0
    report = json.loads(done.out)
    assert report["shortcut"] is False
    assert report["advice"] == []
    [finding] = report["findings"]
    assert (finding["n_real"], finding["n_fake"], finding["n_groups"]) == (24, 24, 12)


def test_runs_are_scored_on_pairs(command, tmp_path):
    manifest = write_data_set(tmp_path / "data", n=60, ridden=False)
    manifest.write(tmp_path / "m.csv")
    write_run(tmp_path / "run", manifest, manifest.rows["label"].to_numpy(np.float64))
    done = command("manifest", "audit", "m.csv", "--root", "data", "--runs", "run", folder=tmp_path)
    assert done.status == 0
    line = next(line for line in done.out.splitlines() if "│ test, " in line)
    assert [cell.strip() for cell in line.strip("│").split("│")][:3] == [
        "test, made: sdxl",
        "30 / 30",
        "1.000",
    ]


def test_what_cannot_be_audited(tmp_path):
    manifest = write_data_set(tmp_path / "data", n=4, ridden=False)
    with pytest.raises(ManifestError) as caught:
        audit_manifest(manifest.where(label=1), root=tmp_path / "data")
    assert str(caught.value) == (
        "manifest audit: expected real and fake images, found 0 real and 4 fake. Audit what is "
        "to be told apart."
    )
    with pytest.raises(ManifestError) as caught:
        audit_manifest(manifest, root=tmp_path)
    assert str(caught.value) == (
        f"manifest audit: 8 of 8 images cannot be looked at below {tmp_path}, the first is "
        "real/000.png: No such file or directory. Correct --root."
    )


def test_generators_of_one_group_are_named(command, tmp_path):
    write_data_set(tmp_path / "data", n=4, ridden=False).write(tmp_path / "m.csv")
    done = command("manifest", "audit", "m.csv", "--root", "data", folder=tmp_path)
    assert done.status == 0
    assert "Not judged, real or fake images of fewer than two groups: sdxl." in done.out


def test_what_a_view_leaves(command, tmp_path):
    # Crops of the same photographs as JPEG and as PNG: the view removes what differs.
    write_photographs(tmp_path / "data").write(tmp_path / "m.csv")
    through = ("--through", "matched-jpeg-q50")
    done = command("manifest", "audit", "m.csv", "--root", "data", folder=tmp_path)
    assert done.status == 1
    done = command("manifest", "audit", "m.csv", "--root", "data", *through, folder=tmp_path)
    assert done.status == 0, done.out
    # Noise of half the size: what is enlarged more is smoother, whatever its file says.
    write_data_set(tmp_path / "half", ridden=True).write(tmp_path / "h.csv")
    done = command("manifest", "audit", "h.csv", "--root", "half", *through, folder=tmp_path)
    assert done.status == 1
    assert (
        "The view matched-jpeg-q50 leaves this: the pictures themselves differ in size or "
        "sharpness. Match the data instead: choose images of one origin, size and format, or "
        "believe only scores on matched pairs, `clare-cache manifest audit h.csv --root half "
        "--runs RUN`." in done.out
    )
    done = command("manifest", "audit", "m.csv", "--through", "sharp", folder=tmp_path)
    assert done.status == 1
    assert "error: manifest audit: --through sharp: expected one of clean, jpeg-qQ" in done.err


def test_runs_of_another_manifest(tmp_path):
    manifest = write_data_set(tmp_path / "data", n=8, ridden=False)
    other = write_data_set(tmp_path / "other", n=8, ridden=True)
    run = write_run(tmp_path / "run", other, other.rows["label"].to_numpy(np.float64))
    fakes = other.where(label=1)
    assert not set(manifest.image_ids) & set(other.where(label=0).image_ids)
    with pytest.raises(ReportError) as caught:
        audit_manifest(manifest, root=tmp_path / "data", runs=[run], view="flip")
    assert str(caught.value) == (
        "manifest audit --runs: 1 fault\n"
        f"  - {run}: has no scores of view flip, found clean\n"
        "Give runs that scored this manifest."
    )
    strange = write_run(
        tmp_path / "strange",
        Manifest(other.where(label=0).rows),
        np.zeros(len(other) - len(fakes)),
    )
    with pytest.raises(ReportError) as caught:
        audit_manifest(manifest, root=tmp_path / "data", runs=[strange])
    assert str(caught.value).splitlines()[1] == (
        f"  - {strange}: none of its 8 images is among these"
    )


def test_shortcuts_of_many_generators_take_one_line_and_say_their_source():
    carrier = Carrier("format", 0.5, 1.0, "JPEG 100%", "PNG 100%")

    def finding(source, generator, verdict="shortcut"):
        return Finding(source, generator, 9, 9, 18, 1.0, 1.0, 1.0, verdict, (carrier,))

    files = Files("m.csv", "")
    several = Audit(
        (finding("all", "all"), finding("ffhq", "gan"), finding("celeba", "gan"),
         finding("celeba", "new", "too few groups")),
    )  # fmt: skip
    lines = advice_on(several, files=files)
    assert lines[:2] == [
        "Without seeing a picture, fakes are told from reals with an AUC of 1.000 (1.000 to "
        "1.000), by format (real JPEG 100%, fake PNG 100%).",
        "So are, each alone, those of ffhq: gan, celeba: gan: see the table.",
    ]
    assert lines[-1] == ("Not judged, real or fake images of fewer than two groups: celeba: new.")
    alone = Audit((finding("all", "all", "hint"), finding("ffhq", "gan")))
    assert advice_on(alone, files=files)[0].startswith(
        "Without seeing a picture, fakes of gan are told from reals"
    )
