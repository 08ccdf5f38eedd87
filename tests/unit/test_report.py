"""The page: self-contained, the same bytes again, true to the runs, and honest about gaps."""

import base64
import json
import re
import struct
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from clare_cache import images
from clare_cache.evaluate import evaluate_run
from clare_cache.published.expectation import Expectation
from clare_cache.report import Picture, beside, build_report, figures, label_runs
from clare_cache.report import page as page_module
from clare_cache.report.pictures import as_url, draw_strip
from clare_cache.report.runs import generators_of, tag_of
from clare_cache.report.sweeps import describe_sweeps
from clare_cache.report.tables import operating_points

GENERATORS = {"real": 0, "StyleGAN2": 1, "Midjourney": 1}


TWO_CLASS = Expectation(
    table="rine/table-3", method="RINE (Ours)", training="ProGAN 2-class", heads=("RINE",)
)


def write_run(
    folder: Path,
    *,
    label: str,
    strength: float = 1.5,
    views: tuple[str, ...] = ("clean",),
    splits: tuple[str, ...] = ("train", "val", "test"),
    n: int = 16,
    **config: object,
) -> Path:
    """A run folder whose head was trained on StyleGAN2 only; image 3 of each kind is missing."""
    generator = np.random.default_rng(1)
    rows = []
    for split in splits:
        for view in views:
            for name, fake in GENERATORS.items():
                if split != "test" and name == "Midjourney":
                    continue
                for k in range(n):
                    lost = k == 3 and split == "test"
                    odds = np.nan if lost else float(generator.normal() + strength * (2 * fake - 1))
                    rows.append(
                        {
                            "image_id": f"{split}{name}{k}",
                            "path": f"{split}/{name}/{k:02d}.png",
                            "label": fake,
                            "split": split,
                            "source": "demo",
                            "generator": name,
                            "family": "gan",
                            "group": f"{split}{name}{k // 2}",
                            "view": view,
                            "log_odds": odds,
                            "missing": "decode: truncated file" if lost else "",
                        }
                    )
    table = pd.DataFrame(rows)
    table["score"] = 1 / (1 + np.exp(-table["log_odds"]))
    folder.mkdir(parents=True)
    table.to_parquet(folder / "predictions.parquet")
    basics = {
        "family": "rine",
        "label": label,
        "options": {"depth": 2},
        "n_parameters": 1_234_567,
        "threshold": 0.45,
        "threshold_from": "validation split, 32 images, 16 groups",
        "train": {
            "epochs": 3,
            "best_epoch": 2,
            "seconds": 1.25,
            "generators": ["StyleGAN2"],
            "validation_generators": ["StyleGAN2"],
        },
        "features": {
            "error_map": {"fingerprint": "00aa11bb22cc33dd", "declared": {"timestep": 200}}
        },
        "store": "demo-store",
        "manifest": "demo.parquet",
        "versions": {"torch": "2.8"},
    }
    (folder / "config.json").write_text(json.dumps(basics | config))
    history = [{"epoch": e, "train_loss": 1 / e, "val_auc": 0.5 + e / 10} for e in (1, 2, 3)]
    (folder / "history.jsonl").write_text("\n".join(map(json.dumps, history)) + "\n")
    return folder


def picture(**changes: object) -> Picture:
    values = {
        "caption": "test/real/00.png",
        "label": 0,
        "pixels": np.full((40, 60, 3), 90, dtype=np.uint8),
        "error_map": np.linspace(0, 2, 4 * 8 * 8).reshape(4, 8, 8),
        "scores": {"RINE": 0.25, "CLaRE": 0.75},
    }
    return Picture(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("runs")
    runs = [
        write_run(root / "weak", label="CLaRE", strength=0.3, views=("clean", "jpeg-q50")),
        write_run(root / "strong", label="RINE", views=("clean", "jpeg-q50")),
    ]
    out = build_report(
        runs,
        root / "deep" / "report.html",
        title="Faces & friends",
        notes=["Tiny random backbones: the numbers mean nothing."],
        pictures=[picture(), picture(caption="no map", error_map=None, label=1)],
        expected={root / "strong": [TWO_CLASS]},
    )
    return out.read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Every start tag with its attributes, and all text; void elements need no end."""

    VOID = frozenset(("meta", "link", "img", "br"))

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.mismatched: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.mismatched.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def section(page: str, name: str) -> str:
    return re.search(rf'<section id="{name}">.*?</section>', page, re.DOTALL)[0]


def words(html: str) -> str:
    return " ".join(" ".join(Elements(html).words).split())


def test_page_is_well_formed_and_needs_nothing_else(page: str) -> None:
    found = Elements(page)
    assert not found.open
    assert not found.mismatched
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in found.tags}
    for tag, attributes in found.tags:
        for name in ("src", "href", "data", "xlink:href"):
            target = attributes.get(name) or ""
            assert not target or target.startswith(("#", "data:image/png;base64,")), (tag, target)
    assert "http" not in page
    assert "@import" not in page


def test_ids_are_unique_and_every_reference_has_its_target(page: str) -> None:
    found = Elements(page)
    ids = Counter(a["id"] for _, a in found.tags if "id" in a)
    assert max(ids.values()) == 1
    targets = {a["href"][1:] for _, a in found.tags if (a.get("href") or "").startswith("#")}
    targets |= set(re.findall(r"url\(#([^)]+)\)", page))
    assert targets <= ids.keys()


def test_colours_follow_the_page(page: str) -> None:
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", page)) - {"c", "shade"}
    light, dark = page.split("prefers-color-scheme: dark")[:2]
    for name in used:
        assert f"--{name}:" in light
        assert f"--{name}:" in dark
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawings)) == set()


def test_text_is_escaped(page: str) -> None:
    assert "<title>Faces &amp; friends</title>" in page


def test_notes_and_summary_come_first(page: str) -> None:
    header = words(page[page.index("<header>") : page.index("</header>")])
    assert "Tiny random backbones: the numbers mean nothing." in header
    assert (
        "2 heads were scored on 48 images of the test split: real ones and fakes from 2 "
        "generators, 1 of them unseen. On validation RINE ranks first" in header
    )


def test_heads_are_ranked_on_validation(page: str) -> None:
    board = section(page, "leaderboard")
    assert board.index("RINE") < board.index("CLaRE")
    assert "Validation: ranking" in board
    assert "1,234,567" in board
    assert words(board).count("45 of 48") == 2


def test_generators_have_intervals_coverage_and_their_place_in_training(page: str) -> None:
    text = words(section(page, "split-1"))
    assert "Midjourney unseen 15 + 15 93.8 30 of 32" in text
    assert "StyleGAN2 seen in training 15 + 15 93.8 30 of 32" in text
    assert re.search(r"All generators 15 \+ 30 93\.8 45 of 48 \d+\.\d \d+\.\d–\d+\.\d", text)
    assert "Some intervals come from only 16 groups of images and are rough." in text
    assert "Oracle: its threshold looked at the test labels" in text
    assert "too few reals" in text
    assert "jpeg-q50" in text


@pytest.mark.parametrize(
    ("n_real", "marked"), [(19, [1, 5]), (20, [1]), (99, [1]), (100, []), (None, [])]
)
def test_it_is_said_why_a_rate_is_withheld(n_real, marked) -> None:
    row = {"tpr_at_fpr_1": 0.5, "tpr_at_fpr_5": 0.75, "n_real": n_real, "note": ""}
    numbers = ("accuracy_validation_threshold", "real_accuracy", "fake_accuracy", "accuracy_0.5",
               "eer", "ece", "oracle_accuracy")  # fmt: skip
    run = SimpleNamespace(
        label="RINE", slot=0, config={"threshold": 0.5},
        rows={("test", "clean", "all", "all"): row | dict.fromkeys(numbers, 0.25)},
    )  # fmt: skip
    found = operating_points([run], split="test")
    titles = [column.title for column in found.columns]
    cells = dict(zip(titles, found.rows[0], strict=True))
    details = {k: cells[f"Fakes caught at {k}%"].detail for k in (1, 5)}
    assert details == {k: "too few reals" if k in marked else "" for k in (1, 5)}
    assert (
        "A rate at 1% and 5% needs at least 100 and 20 real images: of fewer that share is not one "
        "image, and the one real with the highest score would decide it." in found.note
    ) == bool(marked)


def test_a_generator_that_chose_the_threshold_is_not_unseen() -> None:
    """`validate_on: held-out-generator` trains on no fake of it, and chooses by its fakes."""
    rows = {
        ("test", "clean", "faces", name): {
            "seen_in_training": name == "GAN",
            "seen_in_validation": name in ("GAN", "Flux"),
        }
        for name in ("Flux", "GAN", "SDXL")
    }
    runs = [SimpleNamespace(rows=rows)]
    tags = {place[3]: tag_of(runs, place) for place in rows}
    assert tags == {"Flux": "seen in validation", "GAN": "seen in training", "SDXL": "unseen"}
    assert generators_of(runs, "test", "clean")[0] == ("faces", "SDXL")


def test_what_a_head_was_trained_on_may_be_unknown(tmp_path: Path) -> None:
    own = write_run(tmp_path / "own", label="RINE")
    imported = write_run(tmp_path / "imported", label="UFD", train={}, imported={"file": "x.pth"})
    alone = build_report([imported], tmp_path / "r.html", title="T").read_text()
    assert "unseen" not in words(section(alone, "split-1"))
    assert "seen in training" not in words(section(alone, "split-1"))
    sentence = (
        "Which generators the head was trained on is not recorded (it was imported): for it none "
        "is called seen or unseen."
    )
    assert sentence in words(alone)
    both = build_report([own, imported], tmp_path / "r.html", title="T").read_text()
    assert f"UFD: {sentence}" in words(both)
    assert "Midjourney unseen" in words(section(both, "split-1"))
    assert "| Midjourney | not known |" in evaluate_card(imported)


def evaluate_card(run: Path) -> str:
    evaluate_run(run)
    return (run / "README.md").read_text()


def test_published_numbers_stand_beside_the_measured(page: str) -> None:
    text = words(section(page, "published"))
    assert "RINE (Ours), ProGAN 2-class. Koutlis and Papadopoulos (ECCV 2024), Table 3" in text
    assert "StyleGAN2 99.6" in text
    assert "30 images, published on 15,976" in text
    assert "19 of 20 test sets not tested" in text
    assert re.search(r"99\.6 100\.0 1 of 20 test sets \+0\.4", text)
    assert "Not tested here: ProGAN, StyleGAN, BigGAN, CycleGAN" in text
    assert "CycleGAN 100.0" not in text
    assert "Wang, prob. 0.5, ProGAN 20-class" in text
    assert "RINE 4-class on Glide_50_27 is printed 99.3" in text
    assert "CLaRE" not in text


def test_training_images_missing_and_provenance_are_there(page: str) -> None:
    assert "Validation AUC" in words(section(page, "training"))
    cards = words(section(page, "images"))
    assert "RINE 0.25 right" in cards
    assert "CLaRE 0.75 wrong" in cards
    assert "no error map" in cards
    missing = words(section(page, "missing"))
    assert "test/Midjourney/03.png fake test clean decode: truncated file all" in missing
    assert "3 images have no score in at least one view." in missing
    provenance = words(section(page, "provenance"))
    assert "error_map 00aa11bb22cc33dd timestep: 200 RINE, CLaRE" in provenance
    assert "0.4500 validation split, 32 images, 16 groups" in provenance
    assert "demo-store" in provenance


def test_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", label="RINE")
    shown = picture(scores={"RINE": 0.25})
    pages = [
        build_report([run], tmp_path / name, title="T", pictures=[shown]).read_bytes()
        for name in ("one.html", "two.html")
    ]
    assert pages[0] == pages[1]
    evaluate_run(run)
    again = build_report([run], tmp_path / "three.html", title="T", pictures=[shown])
    assert again.read_bytes() == pages[0]


def test_validation_of_the_kept_epoch_ranks_heads_without_validation_predictions(
    tmp_path: Path,
) -> None:
    runs = [
        write_run(tmp_path / name, label=name, splits=("test",), validation={"val_auc": auc})
        for name, auc in (("low", 0.6), ("high", 0.8))
    ]
    board = words(
        section(build_report(runs, tmp_path / "r.html", title="T").read_text(), "leaderboard")
    )
    assert re.search(r"high 1,234,567\sparameters · trained in\s1\.2\ss 80\.0 – ", board)
    assert board.index("high") < board.index("low")


def test_one_run_with_little_recorded_still_makes_a_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", label="RINE", splits=("test",))
    (run / "history.jsonl").unlink()
    config = {"family": "rine", "label": "RINE", "threshold": 0.5}
    (run / "config.json").write_text(json.dumps(config))
    page = build_report([run], tmp_path / "r.html", title="T").read_text()
    assert "1 head was scored on 48 images of the test split" in page
    assert 'id="training"' not in page
    assert 'id="images"' not in page
    assert "origin not recorded" in page


def test_heads_with_one_label_are_told_apart_by_their_folder(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, label="RINE") for name in ("seed-0", "seed-1")]
    board = words(
        section(build_report(runs, tmp_path / "r.html", title="T").read_text(), "leaderboard")
    )
    assert list(label_runs(runs).values()) == ["RINE (seed-0)", "RINE (seed-1)"]
    assert "RINE (seed-0)" in board
    assert "RINE (seed-1)" in board


def test_more_heads_than_colours_keep_their_own_lines(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"r{k}", label=f"Head {k}") for k in range(9)]
    page = build_report(runs, tmp_path / "r.html", title="T").read_text()
    roc = re.search(r"<h3>ROC curves.*?</figure>", page, re.DOTALL)[0]
    assert roc.count("stroke-dasharray") == 1
    assert "swatch again" in roc


def test_a_class_without_scores_shows_dashes_with_the_reason(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", label="RINE", splits=("test",))
    table = pd.read_parquet(run / "predictions.parquet")
    real = table["label"] == 0
    table.loc[real, ["score", "log_odds"]] = np.nan
    table.loc[real, "missing"] = "read: permission denied"
    table.to_parquet(run / "predictions.parquet")
    page = build_report([run], tmp_path / "r.html", title="T").read_text()
    assert 'title="no scored real image"' in page
    assert "ROC curves" not in page
    assert "Test split, clean view: 0.0% of the real and 93.8% of the fake images" in page


def test_long_ledgers_are_cut_and_counted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", label="RINE", splits=("test",), n=60)
    table = pd.read_parquet(run / "predictions.parquet")
    lost = table["path"].str.contains("StyleGAN2")
    table.loc[lost, ["score", "log_odds"]] = np.nan
    table.loc[lost, "missing"] = "read: permission denied"
    table.to_parquet(run / "predictions.parquet")
    page = build_report([run], tmp_path / "r.html", title="T").read_text()
    missing = section(page, "missing")
    assert missing.count("<tr>") == 1 + 50
    assert "The first 50 of 62 lines." in missing


def test_pictures_share_one_colour_scale() -> None:
    dark, bright = np.zeros((4, 2, 2)), np.full((4, 2, 2), 3.0)
    strip = draw_strip(
        [picture(error_map=dark), picture(error_map=bright), picture(error_map=None)]
    )
    assert (strip.low, strip.high) == (0.0, 3.0)
    assert strip.error_maps[0] != strip.error_maps[1]
    assert strip.error_maps[2] is None
    assert strip.gradient.startswith("rgb(0 0 3), ")


def size_px(url: str) -> tuple[int, int]:
    data = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    return struct.unpack(">II", data[16:24])


def test_pictures_are_shown_small_and_never_enlarged() -> None:
    large, tiny = np.zeros((400, 960, 3), dtype=np.uint8), np.zeros((5, 7, 3), dtype=np.uint8)
    strip = draw_strip([picture(pixels=large), picture(pixels=tiny)])
    assert [size_px(url) for url in strip.images] == [(192, 80), (7, 5)]
    assert [size_px(url) for url in strip.error_maps] == [(8, 8), (8, 8)]
    pixels = np.arange(8 * 9 * 3, dtype=np.uint8).reshape(8, 9, 3)
    data = base64.b64decode(as_url(pixels).removeprefix("data:image/png;base64,"))
    assert images.decode(data).tolist() == pixels.tolist()


def test_pictures_without_error_maps_promise_none(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", label="RINE", splits=("test",))
    shown = [picture(error_map=None, scores={"RINE": 0.25})]
    page = build_report([run], tmp_path / "r.html", title="T", pictures=shown).read_text()
    found = Elements(page)
    assert not found.open
    assert not found.mismatched
    cards = section(page, "images")
    assert words(cards).startswith("Images Bars are each head's probability of fake;")
    assert 'class="scale"' not in cards
    assert 'class="map"' not in cards
    assert "no error map real test/real/00.png RINE 0.25 right" in words(cards)


def test_runs_with_one_label_and_folder_name_are_told_apart_by_their_parents(
    tmp_path: Path,
) -> None:
    runs = [
        write_run(tmp_path / name, label="linear", splits=("test",))
        for name in ("runsA/linear", "runsB/linear", "runsB/again")
    ]
    names = ["linear (runsA/linear)", "linear (runsB/linear)", "linear (again)"]
    assert list(label_runs(runs).values()) == names
    page = build_report(runs, tmp_path / "r.html", title="T").read_text()
    assert all(name in words(section(page, "leaderboard")) for name in names)


def test_runs_of_different_manifests_are_not_compared_in_silence(tmp_path: Path) -> None:
    def notes_of(**folders: str) -> str:
        runs = [
            write_run(
                tmp_path / "-".join(folders.values()) / name,
                label=name,
                manifest=f"{digest}.parquet",
                manifest_fingerprint=digest,
            )
            for name, digest in folders.items()
        ]
        page = build_report(runs, tmp_path / "r.html", title="T").read_text()
        return words(page[page.index("<header>") : page.index("</header>")])

    assert (
        "The validation and test numbers come from manifests with different images, labels or "
        "splits, so a higher one need not mean a better head: one, three on aa.parquet "
        "(fingerprint aa); two on bb.parquet (fingerprint bb). Compare heads within one manifest."
    ) in notes_of(one="aa", two="bb", three="aa")
    assert "Compare heads" not in notes_of(one="aa", two="aa")


def score_elsewhere(run: Path, **evaluated_on: str) -> None:
    """metrics.json as an evaluation on another manifest leaves it."""
    evaluate_run(run)
    record = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(record | {"evaluated_on": evaluated_on}))


def test_scores_of_another_manifest_are_not_put_down_to_the_training_one(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", label="RINE", manifest_fingerprint="aa")
    other = write_run(tmp_path / "other", label="CLaRE", manifest_fingerprint="aa")
    plain = build_report([run, other], tmp_path / "r.html", title="T").read_text()
    assert "Evaluated on" not in plain
    score_elsewhere(run, store="wild-store", manifest="wild.parquet", manifest_fingerprint="bb")
    page = build_report([run, other], tmp_path / "r.html", title="T").read_text()
    text = words(section(page, "provenance"))
    assert (
        "Head Threshold Evaluated on manifest Evaluated on store "
        "RINE run 0.4500 validation split, 32 images, 16 groups "
        "wild.parquet (fingerprint bb) wild-store "
        "CLaRE other 0.4500 validation split, 32 images, 16 groups "
        "demo.parquet (fingerprint aa) demo-store The same for all runs"
    ) in text
    assert "Trained on manifest demo.parquet (fingerprint aa) Trained on store demo-store" in text
    assert (
        "RINE on wild.parquet (fingerprint bb); CLaRE on demo.parquet (fingerprint aa)"
    ) in words(page)


def test_ranking_by_training_epochs_of_other_manifests_is_pointed_out(tmp_path: Path) -> None:
    runs = []
    for name, digest in (("one", "aa"), ("two", "bb")):
        run = write_run(
            tmp_path / name,
            label=name,
            splits=("test",),
            manifest=f"{name}.parquet",
            manifest_fingerprint=digest,
            validation={"val_auc": 0.9},
        )
        score_elsewhere(run, store="s", manifest="wild.parquet", manifest_fingerprint="cc")
        runs.append(run)
    page = build_report(runs, tmp_path / "r.html", title="T").read_text()
    assert "The validation numbers come from manifests with different images" in page
    assert "one on one.parquet (fingerprint aa); two on two.parquet (fingerprint bb)" in page


def test_an_origin_of_older_predictions_is_not_believed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", label="RINE", splits=("test",))
    score_elsewhere(run, store="wild-store", manifest="wild.parquet")
    table = pd.read_parquet(run / "predictions.parquet")
    table.iloc[::-1].to_parquet(run / "predictions.parquet")
    page = build_report([run], tmp_path / "r.html", title="T").read_text()
    assert "wild" not in page


def test_the_page_says_which_reals_a_generator_is_compared_with(page: str) -> None:
    assert (
        "Each generator is compared with the real images of its own source or, where its source "
        "has none, with all real images of the split."
    ) in words(section(page, "reading"))
    assert "all reals" not in page


def test_long_curves_are_thinned_to_both_ends() -> None:
    x, y = figures._thinned(np.arange(5000.0), np.arange(5000.0))
    assert len(x) == len(y) <= figures.MAX_POINTS
    assert (x[0], x[-1]) == (0.0, 4999.0)


def test_a_histogram_leaves_no_score_out() -> None:
    from clare_cache.report.figures import draw_scores

    labels = np.array([0, 1, 1])
    draw_scores(labels, np.array([0.0, 0.4, 1.0]), threshold=0.5, name="fine")
    with pytest.raises(ValueError, match=r"scores from -2 to 0\.9 are no probabilities"):
        draw_scores(labels, np.array([-2.0, 0.4, 0.9]), threshold=0.5, name="log-odds")


def test_families_groups_and_calibration_have_their_place(page: str) -> None:
    text = words(page)
    for title in ("Average precision by family", "Average precision, by group"):
        assert title in text
    assert "A group (video, identity or scene) counts once" in text
    assert "once log-odds are divided by a temperature fitted on validation" in text


def test_a_page_of_images_that_stand_alone_has_no_groups(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", label="RINE")
    table = pd.read_parquet(run / "predictions.parquet")
    table["group"] = table["image_id"]
    table.to_parquet(run / "predictions.parquet")
    page = build_report([run], tmp_path / "page.html", title="T").read_text()
    assert "by group" not in words(page)


def test_of_many_heads_the_first_have_columns_and_all_are_ranked(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(page_module, "MAX_HEADS", 2)
    monkeypatch.setattr(beside, "MAX_BLOCKS", 1)
    runs = [write_run(tmp_path / f"r{k}", label=f"head-{k}", strength=k, n=8) for k in range(3)]
    expected = {run: [TWO_CLASS.model_copy(update={"heads": ()})] for run in runs[:2]}
    expected[runs[2]] = [TWO_CLASS.model_copy(update={"heads": (), "training": "ProGAN 1-class"})]
    html = build_report(runs, tmp_path / "r.html", title="T", expected=expected).read_text()
    assert "show the first 2 of 3 heads, by validation" in words(html)
    assert all(f"head-{k}" in words(section(html, "leaderboard")) for k in range(3))
    assert "head-0" not in words(section(html, "split-1"))
    published = section(html, "published")
    assert published.count("<details") == 1
    assert words(published).count("Table 3: average precision") == 3 + 1


@pytest.mark.parametrize(("n", "is_calibrated"), [(60, True), (40, False)])
def test_tables_say_where_probabilities_are_uncalibrated(tmp_path: Path, n, is_calibrated) -> None:
    run = write_run(tmp_path / "run", label="RINE", n=n)
    html = build_report([run], tmp_path / "r.html", title="T").read_text()
    text = words(section(html, "split-1"))
    note = (
        "Uncalibrated: no temperature was fitted. It needs 50 real and 50 fake validation images, "
        "some but not most of them on the wrong side of 0.5."
    )
    assert (note in text) == (not is_calibrated)
    table = evaluate_run(run)
    assert table["ece_calibrated"].isna().any() == (not is_calibrated)
    record = json.loads((run / "metrics.json").read_text())
    assert (record["temperature"] is None) == (not is_calibrated)


def test_sweeps_of_two_folders_stand_apart(tmp_path: Path) -> None:
    """As the folds of a recipe lie: equal labels, other images."""
    runs = [
        write_run(tmp_path / fold / f"rine-lr{lr}", label=f"rine-lr{lr}", sweep="rine",
                  settings={"lr": lr},
                  validation={"val_auc": auc + lr / 10, "val_ap": 0.5, "val_loss": 0.5})
        for fold, auc in (("adm", 0.7), ("glide", 0.9))
        for lr in (0.1, 0.2)
    ]  # fmt: skip
    adm, glide = describe_sweeps(runs)
    assert (adm.name, glide.name) == ("rine in adm", "rine in glide")
    first = "2 members in 2 configurations. The first rank, lr 0.2, has a validation AUC of"
    assert adm.summary == f"{first} 72.0%."
    assert glide.summary == f"{first} 92.0%."
    (alone,) = describe_sweeps(runs[:2])
    assert (alone.name, alone.summary) == ("rine", adm.summary)
    # With one seed of each there is nothing to average.
    titles = ["Rank", "lr", "AUC", "AP", "Loss"]
    assert [column.title for column in alone.ranks.columns] == titles
    assert {len(row) for row in alone.ranks.rows} == {len(titles)}
    assert alone.ranks.columns[0].hint == "on validation"


def test_seeds_of_one_configuration_are_one_result_not_the_best_of_them(tmp_path: Path) -> None:
    """Two weak seeds and a strong one against a middling head that beats their mean."""
    seeds = [
        write_run(tmp_path / f"rine-{k}", label=f"rine-{k}", strength=strength, sweep="rine",
                  settings={"lr": 0.1, "seed": k})
        for k, strength in enumerate((0.1, 0.3, 2.0))
    ]  # fmt: skip
    plain = write_run(tmp_path / "plain", label="plain", strength=1.4)
    html = build_report([*seeds, plain], tmp_path / "r.html", title="T").read_text()
    assert "On validation plain ranks first with" in words(html)
    alone = build_report(seeds, tmp_path / "alone.html", title="T").read_text()
    found = pd.concat([evaluate_run(run) for run in seeds])
    own = found[(found["split"] == "test") & (found["generator"] == "all")]["average_precision"]
    expected = f"{100 * own.mean():.1f} ± {100 * own.std():.1f}"
    text = words(alone)
    assert f"rine, lr 0.1 has an average precision of {expected}%" in text
    assert "mean ± standard deviation over 3 seeds" in text
    board = words(section(alone, "split-1"))
    assert "rine, lr 0.1: mean over 3 seeds" in board
    assert f"All generators {100 * own.mean():.1f} ± {100 * own.std():.1f}" in board
    assert "mean over 3 seeds" in words(html)
    assert "mean over 1 seeds" not in words(html)
