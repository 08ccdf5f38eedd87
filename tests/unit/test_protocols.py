"""Protocols: which fakes a fold trains on and is tested on, and that nothing is on both sides."""

from hashlib import sha256

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clare_cache.errors import ManifestError
from clare_cache.manifest import Manifest
from clare_cache.manifest.protocols import PROTOCOLS, apply_protocol, df40_type, find_protocol

FF, CDF = "FaceForensics++", "Celeb-DF-v2"


def manifest(rows: list[tuple[str, str, str, str]], copies: int = 4) -> Manifest:
    """`copies` images in groups of their own for each (source, generator, family, split)."""
    records = []
    for source, generator, family, split in rows:
        for k in range(copies):
            name = f"{source}/{generator}/{split}/{k}"
            records.append(
                {
                    "image_id": sha256(name.encode()).hexdigest(),
                    "path": f"{name}.png",
                    "label": int(generator != "real"),
                    "split": split,
                    "source": source,
                    "generator": generator,
                    "family": family,
                    "group": name,
                }
            )
    return Manifest.from_rows(pd.DataFrame(records))


def generic(split_names: tuple[str, ...] = ("train", "test")) -> Manifest:
    rows = []
    for split in split_names:
        for source, generator, family in (
            ("a", "progan", "gan"),
            ("b", "biggan", "gan"),
            ("c", "sd", "diffusion"),
        ):
            rows += [(source, "real", "real", split), (source, generator, family, split)]
    return manifest(rows, copies=10)


def fakes(rows: pd.DataFrame, split: str) -> set[str]:
    return set(rows.loc[(rows["split"] == split) & (rows["label"] == 1), "generator"])


def reals(rows: pd.DataFrame, split: str) -> set[str]:
    return set(rows.loc[(rows["split"] == split) & (rows["label"] == 0), "source"])


def folds_of(name: str, of: Manifest) -> dict[str, pd.DataFrame]:
    return {fold.name: fold.manifest.rows for fold in apply_protocol(name, of)}


@pytest.mark.parametrize("splits", [("train", "test"), ("",)])
def test_leave_one_generator_out(splits):
    folds = folds_of("leave-one-generator-out", generic(splits))
    assert list(folds) == ["biggan", "progan", "sd"]
    assert fakes(folds["sd"], "train") == {"biggan", "progan"}
    assert fakes(folds["sd"], "test") == {"sd"}
    assert reals(folds["sd"], "test") == {"c"}
    assert reals(folds["sd"], "train") == {"a", "b", "c"}


@pytest.mark.parametrize("splits", [("train", "test"), ("",)])
def test_cross_generator_trains_on_one_with_its_own_reals(splits):
    folds = folds_of("cross-generator", generic(splits))
    assert list(folds) == ["biggan", "progan", "sd"]
    assert fakes(folds["progan"], "train") == {"progan"}
    assert reals(folds["progan"], "train") == {"a"}
    assert fakes(folds["progan"], "test") == {"progan", "biggan", "sd"}


def test_cross_family():
    folds = folds_of("cross-family", generic())
    assert list(folds) == ["diffusion", "gan"]
    assert fakes(folds["gan"], "train") == {"progan", "biggan"}
    assert fakes(folds["gan"], "test") == {"progan", "biggan", "sd"}
    assert find_protocol("cross-family").group("sd", "diffusion") == "diffusion"


def test_genimage_is_eight_by_eight():
    names = ("midjourney", "sdv4", "sdv5", "adm", "glide", "wukong", "vqdm", "biggan")
    rows = [(n, g, "x", s) for n in names for g in ("real", n) for s in ("train", "test")]
    folds = folds_of("genimage", manifest(rows, copies=2))
    assert sorted(folds) == sorted(names)
    assert all(fakes(rows, "test") == set(names) for rows in folds.values())


def df40() -> Manifest:
    """Two methods of each type on both domains, and two that bring their reals."""
    rows = []
    for split in ("train", "test"):
        rows.append((FF, "real", "real", split))
        known = ("simswap", "e4s", "wav2lip", "sadtalker", "SiT", "VQGAN")
        rows += [(FF, generator, "", split) for generator in known]
    rows.append((CDF, "real", "real", "test"))
    rows += [(CDF, g, "", "test") for g in ("simswap", "wav2lip", "SiT", "rddm")]
    for own in ("heygen", "StyleCLIP"):
        rows += [(own, "real", "real", "test"), (own, own, "", "test")]
    return manifest(rows)


def test_df40_trains_on_a_type_and_tests_on_other_types_domains_and_methods():
    one, two, three = (folds_of(f"df40-{k}", df40()) for k in (1, 2, 3))
    for folds in (one, two, three):
        assert list(folds) == ["FS", "FR", "EFS"]
        assert fakes(folds["FS"], "train") == {"simswap", "e4s"}
        assert reals(folds["FS"], "train") == {FF}
    everything = {"simswap", "e4s", "wav2lip", "sadtalker", "SiT", "VQGAN"}
    assert fakes(one["EFS"], "test") == everything
    assert reals(one["EFS"], "test") == {FF}
    assert fakes(two["EFS"], "test") == {"simswap", "wav2lip", "SiT", "rddm"}
    assert reals(two["EFS"], "test") == {CDF}
    assert fakes(three["EFS"], "test") == {"heygen", "StyleCLIP"}
    assert reals(three["EFS"], "test") == {"heygen", "StyleCLIP"}


def test_df40_one_versus_all():
    folds = folds_of("df40-4", df40())
    assert set(folds) == {"simswap", "e4s", "wav2lip", "sadtalker", "SiT", "VQGAN"}
    assert fakes(folds["SiT"], "train") == {"SiT"}
    assert {"heygen", "simswap", "rddm"} <= fakes(folds["SiT"], "test")


def test_clare_trains_on_four_syntheses_and_groups_its_tests():
    rows = [(FF, g, "", s) for g in ("real", "pixart", "SiT", "VQGAN", "StyleGANXL", "DiT")
            for s in ("train", "val")]  # fmt: skip
    rows += [(o, g, "", "test") for o in ("CollabDiff", "heygen", "whichisreal", "deepfacelab")
             for g in ("real", o)]  # fmt: skip
    (fold,) = apply_protocol("clare", manifest(rows))
    found = fold.manifest.rows
    assert fakes(found, "train") == {"pixart", "SiT", "VQGAN", "StyleGANXL"}
    assert fakes(found, "val") == fakes(found, "train")
    assert fakes(found, "test") == {"CollabDiff", "heygen", "whichisreal"}
    kinds = [find_protocol("clare").group(g, "") for g in ("CollabDiff", "heygen", "sd2.1")]
    assert kinds == ["FE", "FR", "EFS"]
    assert df40_type("unheard of", "gan") == "gan"


GENERATORS = ("real", "progan", "biggan", "sd", "midjourney")
FAMILIES = {"progan": "gan", "biggan": "gan", "sd": "diffusion", "midjourney": "diffusion"}


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.sampled_from(GENERATORS),
            st.sampled_from(["train", "val", "test", ""]),
        ),
        min_size=4,
        max_size=12,
    ),
    name=st.sampled_from(["leave-one-generator-out", "cross-generator", "cross-family"]),
)
def test_no_group_is_on_both_sides_and_no_label_changes(kinds, name):
    whole = manifest([(s, g, FAMILIES.get(g, "real"), p) for s, g, p in dict.fromkeys(kinds)])
    try:
        folds = apply_protocol(name, whole)
    except ManifestError:
        return
    labels = whole.rows.set_index("path")["label"]
    for fold in folds:
        rows = fold.manifest.rows
        assert rows.groupby("group")["split"].nunique().max() == 1
        assert (rows.set_index("path")["label"] == labels[rows["path"]]).all()
        assert not rows["path"].duplicated().any()
        for split in ("train", "test"):
            assert fakes(rows, split)
            assert reals(rows, split)


def test_every_protocol_says_what_it_is():
    assert all(protocol.about and name == protocol.name for name, protocol in PROTOCOLS.items())
