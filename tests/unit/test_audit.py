"""The audit finds shortcuts that are there, none where none is, and does not depend on order."""

import numpy as np
import pandas as pd
import pytest

from clare_cache.audit import audit_shortcuts, gather_traits, score_matched
from clare_cache.audit.matched import outside_of
from clare_cache.evaluate import read_predictions
from clare_cache.manifest import Manifest
from tests.shortcut_data import write_data_set, write_run


@pytest.fixture(scope="module")
def ridden(tmp_path_factory):
    """A manifest with a shortcut, and the table of its traits."""
    root = tmp_path_factory.mktemp("ridden")
    manifest = write_data_set(root, ridden=True, generators=("sdxl", "biggan"))
    return manifest, gather_traits(manifest, root)[0]


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    root = tmp_path_factory.mktemp("honest")
    manifest = write_data_set(root, n=80, ridden=False)
    return manifest, gather_traits(manifest, root)[0]


def test_a_shortcut_is_found_for_every_generator(ridden):
    audit = audit_shortcuts(ridden[1])
    assert audit.has_shortcut
    named = {(f.source, f.generator): f for f in audit.findings}
    assert list(named) == [("all", "all"), ("made", "biggan"), ("made", "sdxl")]
    for finding in audit.findings:
        assert finding.verdict == "shortcut"
        assert finding.auc == 1.0
        assert finding.auc_low == 1.0
        alone = {c.trait: c.auc_alone for c in finding.carriers}
        assert alone["format"] == alone["JPEG quantisation tables"] == alone["resolution"] == 1.0
        assert alone["colour profile"] == alone["metadata"] == 0.5
        seen = {c.trait: (c.real, c.fake) for c in finding.carriers}
        assert seen["format"] == ("JPEG 100%", "PNG 100%")
        assert seen["resolution"] == ("40x32 100%", "64x64 100%")
        assert seen["JPEG quantisation tables"] == ("quality 75 100%", "none 100%")


def test_none_is_found_where_there_is_none(honest):
    [finding] = audit_shortcuts(honest[1]).findings
    assert finding.verdict == "none found"
    assert finding.auc_low < 0.55
    assert {c.trait: c.auc_alone for c in finding.carriers}["format"] == 0.5


def test_the_one_trait_that_differs_carries_it(honest):
    table = honest[1].copy()
    fake = table["label"] == 1
    table.loc[fake, "profile"] = "abcd1234"
    [finding] = audit_shortcuts(table).findings
    first = finding.carriers[0]
    assert first.trait == "colour profile"
    assert first.auc_alone == 1.0
    assert first.auc_lost > 0.2
    assert (first.real, first.fake) == ("none 100%", "abcd1234 100%")


def test_a_trait_that_tells_groups_and_not_labels_is_no_shortcut(honest):
    # Every video has a size of its own; a split by image would call that a shortcut.
    table = honest[1].copy()
    names = sorted(table["group"].unique())
    sizes = dict(zip(names, np.random.default_rng(0).permutation(len(names)), strict=True))
    table["width"] = 100 + table["group"].map(sizes)
    table["bytes_per_pixel"] = 1.0
    [finding] = audit_shortcuts(table).findings
    assert finding.verdict == "none found"


def test_order_does_not_matter(honest):
    table = honest[1]
    once = audit_shortcuts(table).findings[0]
    assert audit_shortcuts(table.iloc[::-1]).findings[0].auc == once.auc


def test_too_few_groups_are_said_to_be(ridden):
    table = ridden[1].assign(group="one")
    finding = audit_shortcuts(table).findings[0]
    assert finding.verdict == "too few groups"
    assert np.isnan(finding.auc)


def test_a_sample_is_drawn_by_image_and_files_are_read_once(tmp_path):
    manifest = write_data_set(tmp_path, ridden=True)
    table, _ = gather_traits(manifest, tmp_path, per=5)
    assert table["generator"].value_counts().to_dict() == {"real": 5, "sdxl": 5}
    turned = Manifest(manifest.rows.iloc[::-1].reset_index(drop=True))
    again, _ = gather_traits(turned, tmp_path, per=5)
    assert set(again["image_id"]) == set(table["image_id"])
    twice = Manifest(pd.concat([manifest.rows, manifest.rows], ignore_index=True))
    assert len(gather_traits(twice, tmp_path)[0]) == len(manifest)


def test_files_that_cannot_be_looked_at_are_failures(tmp_path):
    manifest = write_data_set(tmp_path, n=8, ridden=False)
    (tmp_path / manifest.rows["path"][0]).unlink()
    (tmp_path / manifest.rows["path"][1]).write_bytes(b"x")
    table, failures = gather_traits(manifest, tmp_path)
    assert len(table) == len(manifest) - 2
    assert [f.stage for f in failures] == ["read", "decode"]


@pytest.fixture
def mixed(tmp_path):
    """Half of each class JPEG, half PNG; a head that goes by the format, and one that does not."""
    manifest = write_data_set(tmp_path / "a", n=160, ridden=False)
    rows, generator = manifest.rows, np.random.default_rng(0)
    table, _ = gather_traits(manifest, tmp_path / "a")
    label = rows["label"].to_numpy()
    # Four fifths of the fakes, one fifth of the reals are JPEG.
    jpeg = generator.random(len(rows)) < np.where(label == 1, 0.8, 0.2)
    table["format"] = np.where(jpeg, "JPEG", "PNG")
    table["bytes_per_pixel"] = 1.0
    noise = generator.random(len(rows)) * 0.02
    lazy = write_run(tmp_path / "lazy", manifest, 0.3 + 0.4 * jpeg + noise)
    able = write_run(tmp_path / "able", manifest, 0.3 + 0.4 * label + noise)
    return table, lazy, able


def test_matched_pairs_tell_a_lazy_head_from_an_able_one(mixed):
    table, lazy, able = mixed
    of_lazy, of_able = (
        score_matched(table, read_predictions(run / "predictions.parquet"), view="clean")
        for run in (lazy, able)
    )
    assert [s.split for s in of_lazy] == ["test", "train"]
    for score in of_lazy:
        assert score.average_precision > 0.7
        assert score.matched_low < 0.5 + 0.1 < score.average_precision
        assert score.n_pairs < min(score.n_real, score.n_fake)
    for score in of_able:
        assert score.average_precision == score.matched == 1.0


def test_few_pairs_give_no_number(mixed):
    table, lazy, _ = mixed
    table["format"] = np.where(table["label"] == 1, "JPEG", "PNG")
    predictions = read_predictions(lazy / "predictions.parquet")
    for score in score_matched(table, predictions, view="clean"):
        assert score.n_pairs == 0
        assert np.isnan(score.matched)


def test_files_look_alike_within_steps(honest):
    table = (
        honest[1]
        .head(2)
        .assign(jpeg_quality=[81, 84], nbytes=1000, bytes_per_pixel=[1.0, 1.1], width=64, height=64)
    )
    first, second = outside_of(table)
    assert first == second
    first, second = outside_of(table.assign(jpeg_quality=[81, 91]))
    assert first != second
